"""The world that the tests of every client run in: a real record service, and a real proxy before
a shop, each behind a relay that loses what it is told to lose.

    python3 world.py BINARY [FOLDER OF PAGES]

says where it is controlled (one line of JSON), and ends, with all that it started, when its
standard input does. A control is a POST of a JSON document with a member `do`; its answer is one.
"""

import json
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from programs import HARMLESS, OPERATOR, TOKEN, Program
from relay import LIMIT, Handler, Relay, Server
from shop import Shop

#: Waits are short, and what is held is let go by tests, not by time. Nobody waits for as long as
#: this says to wait.
PROXY = """
[policy]
wait = "100ms"
retry_after = "20s"
"""


#: A scope as it is without a configuration; and one in which a second run is said to do no harm.
SERVICE = """
[[scope]]
name = "default"

[[scope]]
name = "harmless"
on_unknown = "retry"
receiver = { always = "unique-name" }

[[caller]]
name = "test"
token_file = "TOKEN"
scopes = ["default"]

[[caller]]
name = "harmless"
token_file = "HARMLESS"
scopes = ["harmless"]

[[caller]]
name = "operator"
token_file = "OPERATOR"
operator = true
"""


class World:
    """All there is. Each control is a method."""

    def __init__(self, binary, folder, pages):
        self.folder = Path(folder)
        service = SERVICE
        for word, token in (("TOKEN", TOKEN), ("HARMLESS", HARMLESS), ("OPERATOR", OPERATOR)):
            file = self.folder / word.lower()
            file.touch(0o600)
            file.write_text(token)
            service = service.replace(word, str(file))
        configs = {"service": service, "proxy": PROXY}
        for name, text in configs.items():
            (self.folder / (name + ".toml")).write_text(text)
        self.shop = Shop(folder, pages, lambda: self.kill("proxy", True))
        self.relays = {
            "service": Relay(lambda: self.kill("service", True)),
            "proxy": Relay(lambda: self.kill("proxy", True)),
        }
        listen = ["--listen", "127.0.0.1:0"]
        arguments = {
            "service": ("serve", listen),
            "proxy": ("proxy", [*listen, "--upstream", self.shop.server.url]),
        }
        self.programs = {
            name: Program(binary, folder, command, [*more, "--config", config], self._listens(name))
            for name, (command, more) in arguments.items()
            for config in [str(self.folder / (name + ".toml"))]
        }
        for program in self.programs.values():
            program.start()
        self.lock = threading.Lock()
        self.reset()

    def _listens(self, name):
        def told(address):
            self.relays[name].target = address

        return told

    def where(self):
        """The addresses that clients use."""
        return {
            "service": self.relays["service"].server.url,
            "proxy": self.relays["proxy"].server.url,
            "token": TOKEN,
            "harmless": HARMLESS,
            "operator": OPERATOR,
            "folder": str(self.folder),
        }

    def reset(self):
        """As it was, but for what the stores remember."""
        for relay in self.relays.values():
            relay.reset()
        self.shop.let_go.set()
        self.shop.reset()
        (self.folder / "effects").write_text("")
        self.signals = {}
        return {}

    def rule(self, at, path, then, times=1):
        """What becomes of the next requests for a path."""
        self.relays[at].rule(path, times, then)
        return {}

    def clear_rules(self):
        """Nothing is lost any more."""
        for relay in self.relays.values():
            relay.rules = []
        return {}

    def count(self, at, path):
        """How many requests for a path have come."""
        return {"count": self.relays[at].counts.get(path, 0)}

    def wait_for(self, at, path, count):
        """Waits until so many have come."""
        self.relays[at].wait_for(path, count)
        return {}

    def keys(self, at="proxy"):
        """How many different keys have come, in how many requests."""
        keys = self.relays[at].keys
        return {"different": len(set(keys)), "requests": len(keys)}

    def kill(self, at, again=False):
        """Kills a program, and starts it again on the same store."""
        if again:
            self.programs[at].again()
        else:
            self.programs[at].kill()
        return {}

    def start(self, at):
        """Starts it again."""
        self.programs[at].start()
        return {}

    def effect(self, key):
        """An operation has taken effect: a line in a file."""
        with self.lock, (self.folder / "effects").open("a") as file:
            file.write(json.dumps(key) + "\n")
        return {}

    def effects(self, key):
        """How often the operation of a key has taken effect."""
        lines = (self.folder / "effects").read_text().splitlines()
        return {"count": lines.count(json.dumps(key))}

    def next(self, words):
        """What becomes of the next orders."""
        self.shop.next = list(words)
        return {}

    def held(self):
        """Waits until an order is held."""
        if not self.shop.held.acquire(timeout=LIMIT):
            raise TimeoutError("no order is held")
        return {}

    def let_go(self):
        """Answers what is held."""
        self.shop.let_go.set()
        return {}

    def orders(self):
        """How many orders took effect."""
        return {"count": self.shop.orders()}

    def ask(self, post, body):
        """Asks the service as an operator does, past the relay."""
        host, port = self.relays["service"].target
        if "key" in body:
            body = {"scope": "default", **body}
        request = urllib.request.Request(
            "http://%s:%d/v1/%s" % (host, port, post),
            json.dumps(body).encode(),
            {"Authorization": "Bearer " + OPERATOR, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                return {"status": answer.status, **json.load(answer)}
        except urllib.error.HTTPError as problem:
            return {**json.load(problem), "status": problem.code}

    def settle(self, key, verdict, reply=None):
        """Waits until the outcome of a key is unknown, and settles it as an operator does."""
        ends = time.monotonic() + LIMIT
        while time.monotonic() < ends:
            record = self.ask("get", {"key": key})
            if record.get("state") == "unknown":
                body = {"key": key, "fence": record["fence"], "verdict": verdict, "why": "seen"}
                if reply is not None:
                    body["reply"] = reply
                told = self.ask("resolve", body)
                if told["status"] != 200:
                    raise RuntimeError(repr(told))
                return {}
            time.sleep(0.02)
        raise TimeoutError("the outcome of %r is not unknown" % key)

    def signal(self, name):
        """Something that a test waits for has come."""
        self._signal(name).set()
        return {}

    def wait_signal(self, name):
        """Waits until it has come."""
        if not self._signal(name).wait(LIMIT):
            raise TimeoutError("no signal %r" % name)
        return {}

    def _signal(self, name):
        with self.lock:
            return self.signals.setdefault(name, threading.Event())

    def end(self):
        """Ends what was started."""
        for program in self.programs.values():
            program.kill()


CONTROLS = {
    "where", "reset", "rule", "clear_rules", "count", "wait_for", "keys", "kill", "start", "effect",
    "effects", "next", "held", "let_go", "orders", "ask", "settle", "signal", "wait_signal",
}  # fmt: skip


def main():
    binary, pages = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="onlyonce-clients-") as folder:
        world = World(binary, folder, pages)

        class Control(Handler):
            def do_POST(self):
                asked = json.loads(self.body())
                try:
                    name = asked.pop("do")
                    if name not in CONTROLS:
                        raise ValueError("no control %r" % name)
                    status, told = 200, getattr(world, name)(**asked)
                except Exception as failure:
                    status, told = 500, {"failure": repr(failure)}
                self.answer(status, [], json.dumps(told).encode())

        print(json.dumps({"control": Server(Control).url}), flush=True)
        try:
            sys.stdin.read()
        finally:
            world.end()


if __name__ == "__main__":
    main()
