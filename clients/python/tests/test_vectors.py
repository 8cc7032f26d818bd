"""The vectors of clients/vectors.json, with both kinds of clients: a test for each scenario."""

import datetime
import tempfile
import time
import unittest
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, Optional

import onlyonce
from fronts import Async, Sync
from onlyonce._canonical import canonical
from onlyonce._errors import from_problem
from world import LIMIT, VECTORS, World


class Boom(Exception):
    """What an operation raises that has nothing to do with onlyonce."""


def value(written: Any) -> Any:
    """What a value of the vectors stands for."""
    if isinstance(written, list):
        return [value(item) for item in written]
    if not isinstance(written, dict):
        return written
    special: Dict[str, Callable[[Any], Any]] = {
        "$int": int,
        "$bytes": bytes.fromhex,
        "$float": float,
        "$half": lambda _: "\ud800",
        "$date": lambda it: datetime.datetime.fromisoformat(it.replace("Z", "+00:00")),
        "$pairs": lambda pairs: {name: value(item) for name, item in pairs},
        "$deep": deep,
    }
    for name, make in special.items():
        if name in written:
            return make(written[name])
    return {name: value(item) for name, item in written.items()}


def deep(levels: int) -> Any:
    nested: Any = []
    for _ in range(levels):
        nested = [nested]
    return nested


class Keys(unittest.TestCase):
    """What is made of fields."""

    def test_fields_make_the_keys_that_every_client_makes(self) -> None:
        seen = set()
        for vector in VECTORS["keys"]["made"]:
            fields = [value(field) for field in vector["fields"]]
            with self.subTest(fields=fields):
                if "spelled" in vector:
                    self.assertEqual(canonical(fields), vector["spelled"].encode())
                self.assertEqual(onlyonce.key_from(*fields), vector["key"])
                # A fingerprint spells its inputs as a key spells its fields.
                self.assertEqual(onlyonce.fingerprint(fields)[3:], vector["key"][3:])
                seen.add(vector["key"])
        self.assertEqual(len(seen), len(VECTORS["keys"]["made"]))

    def test_equal_values_are_spelled_alike(self) -> None:
        for one, other in VECTORS["keys"]["same"]:
            self.assertEqual(onlyonce.fingerprint(one), onlyonce.fingerprint(other))

    def test_what_has_no_one_spelling_is_refused(self) -> None:
        for fields in VECTORS["keys"]["refused"]:
            with self.subTest(fields=fields), self.assertRaises((TypeError, ValueError)):
                onlyonce.key_from(*[value(field) for field in fields])

    def test_problems_are_the_errors_that_every_client_raises(self) -> None:
        for name, error in VECTORS["problems"].items():
            for base in ("urn:onlyonce:problem:", "https://api.example/problems#"):
                raised = from_problem({"type": base + name, "happened": "no"}, "k")
                told = (type(raised).__name__, raised.problem_name, raised.happened)
                self.assertEqual(told, (error, name, "no"))


class Scenarios(unittest.TestCase):
    """Runs steps; subclasses say with which kind of clients. They share one world each."""

    front_kind: Optional[Callable[[Dict[str, Any]], Any]] = None
    world: World
    front: Any

    @classmethod
    def setUpClass(cls) -> None:
        if cls.front_kind is None:
            raise unittest.SkipTest("the subclasses run")
        cls.world = World()
        cls.front = cls.front_kind(cls.world.where)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.front.end()
        cls.world.end()

    def setUp(self) -> None:
        self.world.ask({"do": "reset"})
        self.begun: Dict[str, "Future[Any]"] = {}
        self.threads = ThreadPoolExecutor(32)
        self.client = self.front.client(self.world.where["token"])
        folder = tempfile.TemporaryDirectory(prefix="onlyonce-intents-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.retrying = self.front.retrying(self.folder)

    def tearDown(self) -> None:
        self.threads.shutdown()

    def run_steps(self, scenario: Dict[str, Any]) -> None:
        for step in scenario["steps"]:
            with self.subTest(step=step):
                self.step(step)

    def step(self, step: Dict[str, Any]) -> None:
        if "once" in step or "send" in step:
            work, asked = self.once_step, step.get("once")
            if asked is None:
                work, asked = self.send_step, step["send"]
            begun = self.threads.submit(work, asked)
            if "begin" in step:
                self.begun[step["begin"]] = begun
            else:
                self.came(begun, step["want"])
        elif "join" in step:
            self.came(self.begun.pop(step["join"]), step["want"])
        elif "world" in step:
            told = self.world.ask(step["world"])
            wanted = step.get("want", {})
            self.assertEqual({name: told.get(name) for name in wanted}, wanted)
        elif "restart_client" in step:
            # All that a new process has of the old one is the folder.
            self.retrying = self.front.retrying(self.folder)
        elif "forget" in step:
            self.front.forget(self.retrying, step["forget"])
        elif "seed" in step:
            seed = step["seed"]
            onlyonce.FileIntents(self.folder).take(seed["intent"], lambda: str(seed["key"]))
        else:
            self.fail("a step that is not known")

    def came(self, begun: "Future[Any]", want: Dict[str, Any]) -> None:
        try:
            result = begun.result(LIMIT)
        except Boom as boom:
            self.assertEqual(want, {"raises": str(boom)})
        except (onlyonce.OnceError, onlyonce.DidNotHappen) as error:
            self.assertIn("error", want, repr(error))
            members = {"error": type(error).__name__}
            members.update({name: getattr(error, name) for name in want if name != "error"})
            self.assertEqual(members, want, repr(error))
        else:
            self.returned(result, want)

    def returned(self, result: Any, want: Dict[str, Any]) -> None:
        if "status" in want:
            self.assertEqual(result.status, want["status"], result.body)
            if "mark" in want:
                self.assertEqual(result.idempotency_status, want["mark"])
                self.assertEqual(result.replayed, want["mark"] == "replayed")
            if "json" in want:
                self.assertEqual(result.json(), want["json"])
        elif "letters" in want:
            self.assertEqual(result, "x" * want["letters"])
        elif "bytes" in want:
            self.assertEqual(result, bytes.fromhex(want["bytes"]))
        else:
            self.assertIn("returns", want, f"it returned {result!r}")
            self.assertEqual(result, want["returns"])
            self.assertIs(type(result), type(want["returns"]))

    def once_step(self, asked: Dict[str, Any]) -> Any:
        options = dict(asked.get("options", {}))
        chosen = {name[:-3]: options[name] / 1000 for name in options if name.endswith("_ms")}
        if "prepared" in options:
            chosen["prepared"] = options["prepared"]
        client = self.front.client(asked["token"]) if "token" in asked else self.client
        acts = asked["acts"]

        def operation(attempt: Any) -> Any:
            return self.acted(attempt, asked["key"], acts)

        return self.front.once(client, asked["key"], operation, asked.get("inputs"), **chosen)

    def acted(self, attempt: Any, key: str, acts: Any) -> Any:
        for act in acts:
            if act == "effect":
                self.world.ask({"do": "effect", "key": key})
            elif "world" in act:
                self.world.ask(act["world"])
            elif "commit" in act:
                attempt.commit()
            elif "note" in act:
                attempt.note(act["note"])
            elif "until_lost" in act:
                ends = time.monotonic() + LIMIT
                while not attempt.lost:
                    assert time.monotonic() < ends, "the claim is never over"
                    time.sleep(0.01)
            elif "raise" in act:
                raise Boom(act["raise"])
            elif "did_not_happen" in act:
                raise onlyonce.DidNotHappen("the card was refused before anything was sent")
            elif "return_no_json" in act:
                return object()
            elif "return_letters" in act:
                return "x" * act["return_letters"]
            else:
                return act["return"]
        raise AssertionError("the acts have no end")

    def send_step(self, asked: Dict[str, Any]) -> Any:
        options = {
            name.replace("attempt_ms", "attempt_time_ms")[:-3]: milliseconds / 1000
            for name, milliseconds in asked.get("options", {}).items()
        }
        url = self.world.where["proxy"] + "/orders"
        return self.front.send(
            self.retrying, asked["intent"], "POST", url, json=asked["body"], **options
        )


class SyncVectors(Scenarios):
    front_kind = Sync


class AsyncVectors(Scenarios):
    front_kind = Async


def scenario_test(scenario: Dict[str, Any]) -> Callable[[Scenarios], None]:
    def test(self: Scenarios) -> None:
        self.run_steps(scenario)

    return test


for kind in ("once", "send"):
    for found in VECTORS[kind]:
        title = "test_" + "".join(c if c.isalnum() else "_" for c in f"{kind} {found['name']}")
        for suite in (SyncVectors, AsyncVectors):
            assert not hasattr(suite, title), title
            setattr(suite, title, scenario_test(found))

del suite
# The base has no clients.
del Scenarios


if __name__ == "__main__":
    unittest.main()
