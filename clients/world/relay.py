"""What stands between a client and a server, and loses what it is told to lose.

It takes whole requests and whole answers, so that a test can say what exactly is lost: a request
that never arrives, or an answer to something that has happened.
"""

import http.client
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: How long anything here may wait for something else, in seconds, before the test fails.
LIMIT = float(os.environ.get("ONLYONCE_LIMIT", 60))


class Server(ThreadingHTTPServer):
    """On a free port of loopback, with a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.url = "http://127.0.0.1:%d" % self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A caller that hangs up is what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Reads whole requests and answers whole, or not at all."""

    protocol_version = "HTTP/1.1"
    timeout = LIMIT

    def log_message(self, *_):
        """Says nothing: standard output belongs to the control."""

    def body(self):
        """What came with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, headers, body, most=None):
        """A whole answer, with nothing of our own but its length; or at most so many bytes of it."""
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" and status >= 200 and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:most])

    def hang_up(self):
        """Ends the connection without an answer."""
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Relay:
    """Hands requests on to `target`, which may change, and counts them by their paths.

    A rule is a path, how many requests it is for, and what becomes of them: `lose_request`,
    `lose_answer`, `late_answer` after a second, `cut_answer` in the middle of its body, or `kill`: the
    server has done it, and is killed before anybody hears so.
    """

    def __init__(self, kill):
        self.kill = kill
        self.target = None
        self.changed = threading.Condition()
        self.reset()
        relay = self

        class Through(Handler):
            def do(self):
                relay.hand_on(self)

            do_GET = do_POST = do_HEAD = do_OPTIONS = do

        self.server = Server(Through)

    def reset(self):
        """No rules, nothing counted."""
        with self.changed:
            self.rules, self.counts, self.keys = [], {}, []
            self.changed.notify_all()

    def rule(self, path, times, then):
        """What becomes of the next requests for a path."""
        with self.changed:
            self.rules.append([path, times, then])

    def wait_for(self, path, count):
        """Waits until so many requests for a path have come."""
        with self.changed:
            if not self.changed.wait_for(lambda: count <= self.counts.get(path, 0), LIMIT):
                raise TimeoutError("%d requests for %s" % (self.counts.get(path, 0), path))

    def _came(self, handler):
        path, key = handler.path, handler.headers.get("Idempotency-Key")
        with self.changed:
            self.counts[path] = self.counts.get(path, 0) + 1
            if key is not None:
                self.keys.append(key)
            then = next((rule for rule in self.rules if rule[0] == path and rule[1]), None)
            if then is not None:
                then[1] -= 1
            self.changed.notify_all()
        return then and then[2]

    def hand_on(self, handler):
        body = handler.body()
        then = self._came(handler)
        if then == "lose_request":
            return handler.hang_up()
        try:
            status, headers, answer = self._ask(handler, body)
        except (OSError, http.client.HTTPException):
            return handler.hang_up()
        if then == "kill":
            handler.hang_up()
            return self.kill()
        if then == "lose_answer":
            return handler.hang_up()
        if then == "late_answer":
            time.sleep(1)
        if then == "cut_answer":
            handler.answer(status, headers, answer, len(answer) // 2)
            return handler.hang_up()
        handler.answer(status, headers, answer)

    def _ask(self, handler, body):
        host, port = self.target
        connection = http.client.HTTPConnection(host, port, timeout=LIMIT)
        dropped = ("connection", "content-length", "transfer-encoding", "keep-alive")
        fields = [(n, v) for n, v in handler.headers.items() if n.lower() not in dropped]
        try:
            connection.putrequest(
                handler.command, handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in fields:
                connection.putheader(name, value)
            if handler.command == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
            told = [(n, v) for n, v in answer.getheaders() if n.lower() not in dropped]
            return answer.status, told, content
        finally:
            connection.close()
