"""The API behind the proxy: a shop that takes orders and is told how to fail.

Each order that takes effect is a line in a file. What becomes of the next requests is a list of
words: `ok`, `lose` (it takes effect, and the connection ends), `refuse` (503 and Retry-After, no
effect), `gateway` (502, no effect), `decline` (402, an answer like any other), `taken` (409, the
shop's own), `lookalike` (409, and a problem that looks like one of onlyonce's), `hold` (it takes
effect, and is answered when it is let go), `kill` (it takes effect, and the proxy is killed before
it hears so).
"""

import json
import threading
from pathlib import Path

from relay import LIMIT, Handler, Server

JSON = ("Content-Type", "application/json")
PROBLEM = ("Content-Type", "application/problem+json")
LOOKALIKE = {
    "type": "urn:onlyonce:problem:request-in-progress",
    "retryable": True,
    "happened": "unknown",
}


class Shop:
    """Takes orders at /orders, and gives the files of a folder at every other path."""

    def __init__(self, folder, pages, kill_proxy):
        self.book = Path(folder) / "orders"
        self.pages = Path(pages) if pages else None
        self.kill_proxy = kill_proxy
        self.lock = threading.Lock()
        self.reset()
        shop = self

        class Counter(Handler):
            def do_POST(self):
                shop.order(self)

            def do_GET(self):
                shop.page(self)

        self.server = Server(Counter)

    def reset(self):
        """An empty book."""
        self.book.write_text("")
        self.next, self.let_go, self.held = [], threading.Event(), threading.Semaphore(0)

    def orders(self):
        """How many orders took effect."""
        return len(self.book.read_text().splitlines())

    def _take(self, body):
        with self.lock:
            with self.book.open("a") as book:
                book.write(json.dumps(body.decode()) + "\n")
            return self.orders()

    def order(self, handler):
        body, let_go, held = handler.body(), self.let_go, self.held
        with self.lock:
            then = self.next.pop(0) if self.next else "ok"
        if then == "refuse":
            return handler.answer(503, [("Retry-After", "0")], b"busy")
        if then == "gateway":
            return handler.answer(502, [], b"bad gateway")
        number = self._take(body)
        if then == "decline":
            return handler.answer(402, [JSON], b'{"declined": true}')
        if then == "taken":
            return handler.answer(409, [JSON], b'{"taken": true}')
        if then == "lookalike":
            return handler.answer(409, [PROBLEM], json.dumps(LOOKALIKE).encode())
        if then == "lose":
            return handler.hang_up()
        if then == "kill":
            self.kill_proxy()
            return handler.hang_up()
        if then == "hold":
            held.release()
            let_go.wait(LIMIT)
        handler.answer(201, [JSON], json.dumps({"order": number}).encode())

    def page(self, handler):
        path = handler.path.split("?")[0].lstrip("/") or "index.html"
        file = self.pages and (self.pages / path).resolve()
        if not file or self.pages.resolve() not in file.parents or not file.is_file():
            return handler.answer(404, [], b"no such page")
        kinds = {".html": "text/html; charset=utf-8", ".js": "text/javascript"}
        kind = kinds.get(file.suffix, "application/octet-stream")
        handler.answer(200, [("Content-Type", kind)], file.read_bytes())
