"""Consumers of a real RabbitMQ, as processes that are killed: what every client's does. The command
is that of Python unless `ONLYONCE_CONSUMER` names another one (as a JSON list)."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Dict, List, Optional

import pika

from onlyonce import key_from
from world import CLIENTS, LIMIT, World

OWN = [sys.executable, str(Path(__file__).resolve().parent / "consumer.py")]
CONSUMER: List[str] = json.loads(os.environ.get("ONLYONCE_CONSUMER", "null")) or OWN
BROKER = os.environ.get(
    "ONLYONCE_BROKER", str(CLIENTS.parent / "target/debug/examples/rabbitmq")
)


def until(what: str, holds: Any) -> None:
    ends = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < ends, f"never: {what}"
        time.sleep(0.02)


class Consumer:
    """A consumer as a process."""

    def __init__(self, given: Dict[str, Any], what: str = "run") -> None:
        self.child = subprocess.Popen(
            [*CONSUMER, what, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.lines: "queue.Queue[Optional[Dict[str, str]]]" = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def told(self, *wanted: str) -> List[str]:
        """Waits until each of these was told, in any order, and gives all reasons."""
        left, why = list(wanted), []
        ends = time.monotonic() + LIMIT
        while left:
            line = self.lines.get(timeout=max(0.0, ends - time.monotonic()))
            assert line is not None, f"it ended before {left}"
            if line["told"] in left:
                left.remove(line["told"])
                why.append(line["why"])
        return why

    def kill(self) -> None:
        """Ends it at once, as a power cut does."""
        self.child.kill()
        self._ended()

    def end(self) -> None:
        """Ends it if a test has left it."""
        if self.child.poll() is None:
            self.kill()

    def refused(self) -> str:
        """Why it did not even begin."""
        why = self.told("refused")[0]
        self._ended()
        return why

    def ask_to_stop(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()

    def stop(self) -> None:
        self.ask_to_stop()
        self._ended()

    def _ended(self) -> None:
        self.child.wait(LIMIT)
        self.reader.join(LIMIT)
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.close()
        self.child.stdout.close()


class Broker:
    """A RabbitMQ that says how it is reached, in so many lines."""

    def __init__(self, lines: int, *asked: str) -> None:
        self.child = subprocess.Popen(
            [BROKER, *asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.child.stdout is not None
        self.url, self.tls, *self.more = (
            self.child.stdout.readline().decode().strip() for _ in range(lines)
        )

    def end(self) -> None:
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.close()
        self.child.wait(LIMIT)
        self.child.stdout.close()


class Consumers(unittest.TestCase):
    world: World
    broker: Broker

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = Broker(2)
        cls.world = World()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.broker.end()
        cls.world.end()

    def setUp(self) -> None:
        self.world.ask({"do": "reset"})
        self.name = self.id().rpartition(".")[2]
        self.given: Dict[str, Any] = {
            "service": self.world.where["service"],
            "token": self.world.where["token"],
            "control": self.world._control,
            "queue": self.name,
            "pauses_ms": [100, 200],
            "lease_ms": 600,
            "wait_ms": 100,
            "patience_ms": 10000,
            "attempts_max": 3,
        }
        self.use(self.broker)

    def use(self, broker: Broker) -> None:
        """All that follows is about this one."""
        self.given["broker"] = broker.url
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        self.addCleanup(connection.close)
        self.channel = connection.channel()
        self.channel.confirm_delivery()
        self.channel.queue_declare(self.name, durable=True)

    def lost(self, broker: str) -> str:
        """Why the consumer does not get to the broker of this address."""
        consumer = Consumer({**self.given, "broker": broker})
        self.addCleanup(consumer.end)
        why = consumer.told("lost")[0]
        consumer.stop()
        return why.lower()

    def start(self) -> Consumer:
        consumer = Consumer(self.given)
        self.addCleanup(consumer.end)
        consumer.told("connected")
        return consumer

    def replay(self) -> str:
        """Hands in what was put aside, and says how many."""
        replaying = Consumer(self.given, "replay")
        moved = replaying.told("moved")[0]
        replaying.stop()
        return moved

    def publish(self, acts: List[Any], **properties: Any) -> None:
        body = json.dumps({"effect": self.name, "acts": acts}).encode()
        told = {"message_id": self.name, **properties}
        of = pika.BasicProperties(delivery_mode=2, **told)
        self.channel.basic_publish("", self.name, body, of, mandatory=True)

    def effects(self) -> int:
        return int(self.world.ask({"do": "effects", "key": self.name})["count"])

    def ready(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def consumers(self) -> int:
        return int(self.channel.queue_declare(self.name, passive=True).method.consumer_count)

    def take(self, queue: str) -> List[Any]:
        """All that lies in a queue: properties and bodies."""
        found: List[Any] = []
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return found
            found.append((properties, body))

    def key(self) -> str:
        return key_from("consumer", self.name, self.name)

    def rule(self, path: str, then: str, times: int = 1_000_000) -> None:
        self.world.ask(
            {"do": "rule", "at": "service", "path": path, "then": then, "times": times}
        )

    def came(self, path: str, count: int = 1) -> None:
        self.world.ask({"do": "wait_for", "at": "service", "path": path, "count": count})

    def test_copies_run_once_and_all_are_answered_alike(self) -> None:
        self.channel.queue_declare("answers", durable=True)
        consumer = self.start()
        acts = ["effect", {"return": {"order": 1, "text": "ä"}}]
        for _ in range(3):
            self.publish(acts, reply_to="answers")
        consumer.told("done", "duplicate", "duplicate")
        consumer.stop()
        self.assertEqual(self.effects(), 1)
        answers = self.take("answers")
        self.assertEqual([body for _, body in answers], ['{"order":1,"text":"ä"}'.encode()] * 3)
        for properties, _ in answers:
            self.assertEqual(properties.correlation_id, self.name)
            self.assertEqual(
                properties.headers, {"onlyonce-status": "200", "onlyonce-kept": "yes"}
            )
        self.assertEqual(self.ready(self.name), 0)

    def test_messages_come_over_tls_from_the_broker_that_is_meant_and_from_no_other(self) -> None:
        self.publish(["effect", {"return": 1}])
        address, _, options = self.broker.tls.partition("?")
        # The system vouches for nobody here; and it has another name.
        for broker in (address, f"{address.replace('localhost', '127.0.0.1')}?{options}"):
            why = self.lost(broker)
            self.assertTrue("certificate" in why or "altname" in why, why)
        self.assertEqual((self.effects(), self.ready(self.name)), (0, 1))
        self.given["broker"] = self.broker.tls
        consumer = self.start()
        consumer.told("done")
        consumer.stop()
        self.assertEqual((self.effects(), self.ready(self.name)), (1, 0))

    def test_a_broker_that_asks_who_we_are_is_told_and_lets_nobody_else_in(self) -> None:
        broker = Broker(4, "certified")
        self.addCleanup(broker.end)
        self.use(broker)
        ours, others = broker.more
        nameless = broker.tls.replace("guest:guest@", "")
        self.publish(["effect", {"return": 1}])
        # Nobody, and somebody whom another authority calls so.
        for address in (broker.tls, f"{broker.tls}&{others}"):
            why = self.lost(address)
            # Its reason may be lost with the connection.
            self.assertRegex(why, "certificate|unknown ca|who we are")
        self.assertEqual((self.effects(), self.ready(self.name)), (0, 1))
        for count, address in enumerate(
            (f"{broker.tls}&{ours}", f"{nameless}&{ours}&auth_mechanism=external"), 1
        ):
            self.given["broker"] = address
            consumer = self.start()
            consumer.told("done")
            consumer.stop()
            self.assertEqual((self.effects(), self.ready(self.name)), (count, 0))
            self.publish(["effect", {"return": 1}], message_id="another")

    def test_an_address_that_cannot_be_right_is_refused_before_anything_is_asked(self) -> None:
        pem = self.broker.tls.partition("?ca=")[2]
        for address, why in (
            ("http://guest:secret@localhost/", "begins with amqp:// or amqps://"),
            ("amqp://guest:secret@localhost:port/", "port"),
            ("amqp://guest:secret@localhost/?heartbeet=5", "heartbeet"),
            (f"amqp://guest:secret@localhost/?ca={pem}", "`ca` is for amqps://"),
            ("amqps://guest:secret@localhost/?ca=", "`ca` names no file"),
            ("amqps://guest:secret@localhost/?ca=/not/there.pem", "/not/there.pem"),
            (f"amqps://guest:secret@localhost/?cert={pem}", "`cert` and `key` go together"),
            ("amqps://localhost/?auth_mechanism=external", "needs `cert` and `key`"),
            ("amqp://localhost/?auth_mechanism=external", "needs `cert` and `key`"),
            ("amqps://localhost/?auth_mechanism=gssapi", "is `plain` or `external`"),
        ):
            with self.subTest(address):
                told = Consumer({**self.given, "broker": address}).refused()
                self.assertIn(why, told)
                self.assertNotIn("secret", told)

    def test_a_copy_that_comes_while_it_runs_waits_and_is_not_run(self) -> None:
        consumer = self.start()
        waits = {"world": {"do": "wait_signal", "name": self.name}}
        for _ in range(2):
            self.publish(["effect", waits, {"return": 1}])
        consumer.told("later")
        self.world.ask({"do": "signal", "name": self.name})
        consumer.told("done", "duplicate")
        consumer.stop()
        self.assertEqual((self.effects(), self.ready(self.name)), (1, 0))

    def test_a_stop_finishes_what_runs_and_takes_no_more(self) -> None:
        consumer = self.start()
        waits = {"world": {"do": "wait_signal", "name": self.name}}
        self.publish(["effect", waits, {"return": 1}])
        until("it runs", lambda: self.effects() == 1)
        consumer.ask_to_stop()
        until("it takes no more", lambda: self.consumers() == 0)
        self.publish(["effect", {"return": 1}], message_id="next")
        self.world.ask({"do": "signal", "name": self.name})
        consumer.told("done")
        consumer.stop()
        self.assertEqual((self.effects(), self.ready(self.name)), (1, 1))

    def test_a_consumer_killed_before_it_acknowledges_does_not_run_it_again(self) -> None:
        # The record is durable, and the consumer never hears so.
        self.rule("/v1/complete", "lose_answer")
        consumer = self.start()
        self.publish(["effect", {"return": 1}])
        self.came("/v1/complete")
        consumer.kill()
        self.world.ask({"do": "clear_rules"})
        consumer = self.start()
        consumer.told("duplicate")
        consumer.stop()
        self.assertEqual((self.effects(), self.ready(self.name)), (1, 0))

    def test_nothing_is_acknowledged_before_its_record_and_a_replay_runs_nothing_twice(
        self,
    ) -> None:
        self.rule("/v1/complete", "lose_request")
        consumer = self.start()
        self.publish(["effect", {"return": 1}], headers={"own": "kept"})
        self.came("/v1/complete")
        consumer.kill()
        until("it lies in the queue again", lambda: self.ready(self.name) == 1)
        self.world.ask({"do": "clear_rules"})
        consumer = self.start()
        consumer.told("aside")
        self.assertEqual(self.replay(), "1")
        consumer.told("aside")
        (properties, _), = self.look()
        told = properties.headers
        self.assertEqual(told["own"], "kept")
        self.assertEqual(properties.message_id, self.name)
        wanted = {
            "onlyonce-why": "unknown",
            "onlyonce-happened": "unknown",
            "onlyonce-state": "unknown",
            "onlyonce-attempts": "1",
            "onlyonce-cause": "lapsed",
            "onlyonce-queue": self.name,
        }
        self.assertEqual({name: told.get(name) for name in wanted}, wanted)
        record = self.world.ask({"do": "ask", "post": "get", "body": {"key": self.key()}})
        self.assertEqual(told["onlyonce-key-id"], record["id"])
        self.assertEqual(told["onlyonce-fence"], str(record["fence"]))
        self.assertTrue(told["onlyonce-since"].isdigit())
        history = json.loads(told["onlyonce-history"])
        self.assertEqual([it["event"] for it in history], [it["event"] for it in record["history"]])
        self.assertEqual(self.effects(), 1)
        reply = {"json": 1}
        self.world.ask({"do": "settle", "key": self.key(), "verdict": "happened", "reply": reply})
        self.assertEqual(self.replay(), "1")
        consumer.told("duplicate")
        consumer.stop()
        self.assertEqual((self.effects(), self.ready(self.name + ".aside")), (1, 0))

    def look(self) -> List[Any]:
        """What lies aside, which stays there."""
        found = self.take(self.name + ".aside")
        for properties, body in found:
            self.channel.basic_publish("", self.name + ".aside", body, properties)
        return found

    def test_what_its_handler_cannot_tell_is_put_aside_and_runs_again_if_somebody_says_so(
        self,
    ) -> None:
        consumer = self.start()
        self.publish(["effect", {"raise": "boom"}])
        consumer.told("aside")
        self.world.ask({"do": "settle", "key": self.key(), "verdict": "not-executed"})
        self.assertEqual(self.replay(), "1")
        consumer.told("aside")
        consumer.stop()
        self.assertEqual(self.effects(), 2)

    def test_what_its_handler_cannot_tell_runs_again_where_the_scope_says_that_it_is_harmless(
        self,
    ) -> None:
        self.given["token"] = self.world.where["harmless"]
        consumer = self.start()
        self.publish(["effect", {"raise_up_to": 2}, {"return": 1}])
        consumer.told("later", "later", "done")
        self.assertEqual(self.effects(), 3)
        # Not for ever; and once more if somebody hands it in.
        self.publish(["effect", {"raise": "boom"}], message_id="poison")
        consumer.told("later", "later", "aside")
        self.assertEqual((self.effects(), self.replay()), (6, "1"))
        consumer.told("aside")
        consumer.stop()
        (properties, _), = self.look()
        told = properties.headers
        self.assertEqual((told["onlyonce-why"], told["onlyonce-happened"]), ("unknown", "unknown"))
        self.assertEqual((told["onlyonce-attempts"], self.effects()), ("4", 7))

    def test_a_service_killed_between_claim_and_answer_runs_it_once(self) -> None:
        for path in ("/v1/claim", "/v1/complete"):
            self.rule(path, "kill", 1)
        consumer = self.start()
        self.publish(["effect", {"return": 1}])
        consumer.told("done")
        self.publish(["effect", {"return": 1}])
        consumer.told("duplicate")
        consumer.stop()
        self.assertEqual((self.effects(), self.ready(self.name)), (1, 0))

    def test_without_its_records_nothing_runs_and_nothing_is_lost(self) -> None:
        self.given["patience_ms"] = 100
        self.world.ask({"do": "kill", "at": "service"})
        consumer = self.start()
        self.publish(["effect", {"return": 1}])
        consumer.told("later", "later")
        self.assertEqual(self.effects(), 0)
        self.world.ask({"do": "start", "at": "service"})
        consumer.told("done")
        consumer.stop()
        self.assertEqual((self.effects(), self.ready(self.name)), (1, 0))

    def test_what_did_not_happen_comes_later_up_to_its_bound(self) -> None:
        consumer = self.start()
        self.publish([{"later_up_to": 2}, "effect", {"return": 1}])
        consumer.told("later", "later", "done")
        self.assertEqual(self.effects(), 1)
        self.publish([{"later_up_to": 9}], message_id="poison")
        consumer.told("later", "later", "aside")
        consumer.stop()
        (properties, _), = self.look()
        told = properties.headers
        self.assertEqual((told["onlyonce-why"], told["onlyonce-happened"]), ("exhausted", "no"))
        self.assertEqual((told["onlyonce-state"], told["onlyonce-attempts"]), ("released", "3"))

    def test_what_cannot_be_right_is_put_aside_at_once_and_not_run(self) -> None:
        consumer = self.start()
        acts = ["effect", {"return": 1}]
        self.publish([{"never": "no such order"}], message_id="never")
        self.publish(acts, message_id=None)
        self.publish(acts, message_id=" ")
        self.publish(acts)
        consumer.told("aside", "aside", "aside", "done")
        self.publish([*acts, "more"])
        consumer.told("aside")
        consumer.stop()
        self.assertEqual(self.effects(), 1)
        found = [properties.headers for properties, _ in self.look()]
        self.assertEqual(
            sorted((it["onlyonce-why"], it["onlyonce-happened"]) for it in found),
            [("mismatch", "no"), ("never", "no"), ("no-key", "no"), ("no-key", "no")],
        )
        never = next(it for it in found if it["onlyonce-why"] == "never")
        self.assertEqual(never["onlyonce-text"], "no such order")


if __name__ == "__main__":
    unittest.main()
