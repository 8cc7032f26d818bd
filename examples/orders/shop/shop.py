"""The shop: takes orders over HTTP, sends them to the warehouse until they are answered, calls them
off, and prints a label for each that was confirmed.

    PUT  /orders/NUMBER         {"item": ..., "quantity": ...}    202; the same again: 202
    POST /orders/NUMBER/cancel                                    202; also before the order
    GET  /orders, /orders/NUMBER                                  all that is known

The shop may be killed at any moment: what it has taken is in its book, and is done again. That is
safe, since the number of an order is its key, here and in the warehouse.
"""

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import couriers
import labels
from book import Book, Taken

#: Longest order that is read, in bytes.
LIMIT = 10_000


def handler(book):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            number = self._number("")
            try:
                asked = json.loads(self._body())
                order = {"order": number, "item": asked["item"], "quantity": asked["quantity"]}
            except (ValueError, KeyError, TypeError):
                return self._answer(400, "an order is an item and a quantity")
            # These bytes are the order from now on.
            body = json.dumps(order, sort_keys=True).encode()
            if number is None:
                return self._answer(404, "orders have the path /orders/NUMBER")
            if book.take(number, body) is Taken.OTHER:
                return self._answer(422, "this number was used for another order")
            self._answer(202, "taken")

        def do_POST(self):
            self._body()
            number = self._number("/cancel")
            if number is None:
                return self._answer(404, "orders are called off at /orders/NUMBER/cancel")
            book.call_off(number)
            self._answer(202, "the warehouse is told")

        def do_GET(self):
            number = self._number("")
            if number is None and self.path != "/orders":
                return self._answer(404, "all orders are at /orders")
            self._answer(200, json.dumps(book.all(number)))

        def _number(self, end):
            path = self.path
            if not path.startswith("/orders/") or not path.endswith(end):
                return None
            number = path[len("/orders/") : len(path) - len(end)]
            return number if number and "/" not in number else None

        def _body(self):
            return self.rfile.read(min(int(self.headers.get("content-length", 0)), LIMIT))

        def _answer(self, status, text):
            body = text.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main():
    parser = argparse.ArgumentParser(description="Takes orders, once each.")
    parser.add_argument("--book", required=True, help="a file for what was taken")
    parser.add_argument("--listen", required=True, type=int, help="a port of this machine")
    parser.add_argument("--amqp", required=True, help="the broker")
    parser.add_argument("--warehouse", action="append", required=True, help="where to call off")
    parser.add_argument("--records", required=True, help="the record service, for labels")
    parser.add_argument("--token", required=True, help="a file with its token")
    parser.add_argument("--printer", required=True, help="where labels are printed")
    parser.add_argument("--copies", type=int, default=1, help="how often each order is sent")
    chosen = parser.parse_args()
    with open(chosen.token) as file:
        token = file.read().strip()
    book = Book(chosen.book)
    for work in (
        couriers.Sender(book, chosen.amqp, chosen.copies),
        couriers.Receiver(book, chosen.amqp),
        couriers.Canceller(book, chosen.warehouse),
        labels.Labels(book, chosen.records, token, chosen.printer),
    ):
        threading.Thread(target=work.run, name=type(work).__name__, daemon=True).start()
    Server(("127.0.0.1", chosen.listen), handler(book)).serve_forever()


if __name__ == "__main__":
    main()
