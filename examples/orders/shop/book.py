"""What the shop has taken, on its disk before anybody is told."""

import enum
import sqlite3
import threading
import time

TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    number TEXT PRIMARY KEY,
    body BLOB,
    sent REAL NOT NULL DEFAULT 0,
    status INTEGER,
    answer BLOB,
    cancel TEXT,
    label TEXT
);
CREATE TABLE IF NOT EXISTS heard (
    number TEXT NOT NULL,
    status INTEGER NOT NULL,
    answer BLOB NOT NULL,
    times INTEGER NOT NULL DEFAULT 1,
    UNIQUE (number, status, answer)
);
"""


class Taken(enum.Enum):
    THIS = 1
    OTHER = 2


class Book:
    """Orders, and all answers that were heard. Every change is durable when its call returns."""

    def __init__(self, file):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.executescript(TABLES)

    def _do(self, *statements):
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                for text, values in statements:
                    found = self.db.execute(text, values).fetchall()
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")
            return found

    def take(self, number, body):
        """Takes an order; a second one of the same number is the same, or none."""
        insert = "INSERT INTO orders (number, body) VALUES (?, ?) ON CONFLICT (number) DO UPDATE \
                  SET body = excluded.body WHERE body IS NULL"
        [(kept,)] = self._do(
            (insert, (number, body)), ("SELECT body FROM orders WHERE number = ?", (number,))
        )
        return Taken.THIS if kept == body else Taken.OTHER

    def call_off(self, number):
        insert = "INSERT INTO orders (number, cancel) VALUES (?, 'wanted') ON CONFLICT (number) \
                  DO UPDATE SET cancel = 'wanted' WHERE cancel IS NULL"
        self._do((insert, (number,)))

    def unanswered(self, older):
        """Orders without an answer that were not sent for so many seconds; they are sent now."""
        now = time.time()
        due = "status IS NULL AND body IS NOT NULL AND sent < ? ORDER BY sent LIMIT 50"
        return self._do((f"SELECT number, body FROM orders WHERE {due}", (now - older,)))

    def sent(self, numbers):
        now = time.time()
        if numbers:
            self._do(*(("UPDATE orders SET sent = ? WHERE number = ?", (now, it)) for it in numbers))

    def hear(self, number, status, answer):
        """Keeps an answer. The first one counts; all of them are kept, to be compared."""
        self._do(
            (
                "INSERT INTO heard (number, status, answer) VALUES (?, ?, ?) \
                 ON CONFLICT DO UPDATE SET times = times + 1",
                (number, status, answer),
            ),
            (
                "UPDATE orders SET status = ?, answer = ? WHERE number = ? AND status IS NULL",
                (status, answer, number),
            ),
        )

    def wanted(self, column, value, condition="1"):
        query = f"SELECT number FROM orders WHERE {column} IS ? AND {condition} LIMIT 100"
        return [number for (number,) in self._do((query, (value,)))]

    def mark(self, number, column, value):
        self._do((f"UPDATE orders SET {column} = ? WHERE number = ?", (value, number)))

    def all(self, number=None):
        """All that is known, or all of one order."""
        which, values = ("WHERE number = ?", (number,)) if number else ("", ())
        columns = "number, body IS NOT NULL, status, answer, cancel, label"
        orders = self._do((f"SELECT {columns} FROM orders {which}", values))
        heard = self._do((f"SELECT number, status, answer, times FROM heard {which}", values))
        text = lambda it: None if it is None else bytes(it).decode()  # noqa: E731
        return {
            "orders": [
                {
                    "number": number,
                    "placed": bool(placed),
                    "status": status,
                    "answer": text(answer),
                    "cancel": cancel,
                    "label": label,
                }
                for number, placed, status, answer, cancel, label in orders
            ],
            "heard": [
                {"number": number, "status": status, "answer": text(answer), "times": times}
                for number, status, answer, times in heard
            ],
        }
