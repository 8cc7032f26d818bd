"""A consumer as a program of its own, which the tests start and kill: `consumer.py run JSON` or
`consumer.py replay JSON`. It says what happens in lines of JSON, and stops when its input ends.

A message says what its handler does: `{"effect": name, "acts": [...]}`.
"""

import json
import sys
import threading
import urllib.request
from typing import Any, Dict

from onlyonce import Attempt, Client
from onlyonce.rabbitmq import Inbox, Later, Message, Never, Queues, Rabbit


class Boom(Exception):
    """What a handler raises that has nothing to do with onlyonce."""


def handler(control: str) -> Any:
    def ask(asked: Dict[str, Any]) -> None:
        request = urllib.request.Request(control, json.dumps(asked).encode())
        with urllib.request.urlopen(request) as answer:
            answer.read()

    def handle(message: Message, attempt: Attempt) -> Any:
        said = json.loads(message.body)
        for act in said["acts"]:
            if act == "effect":
                ask({"do": "effect", "key": said["effect"]})
            elif "world" in act:
                ask(act["world"])
            elif "later_up_to" in act:
                if attempt.number <= act["later_up_to"]:
                    raise Later("not yet")
            elif "never" in act:
                raise Never(act["never"])
            elif "raise" in act:
                raise Boom(act["raise"])
            elif "raise_up_to" in act:
                if attempt.number <= act["raise_up_to"]:
                    raise Boom("not this time")
            else:
                return act["return"]
        raise AssertionError("the acts have no end")

    return handle


def main() -> None:
    what, given = sys.argv[1], json.loads(sys.argv[2])
    pauses = [it / 1000 for it in given["pauses_ms"]]

    def tell(told: str, why: str) -> None:
        print(json.dumps({"told": told, "why": why}), flush=True)

    try:
        queues = Queues(given["queue"], pauses=pauses)
        rabbit = Rabbit(given["broker"], queues, prefetch=4, pause=0.1)
    except (ValueError, OSError) as failure:
        return tell("refused", repr(failure))
    if what == "replay":
        return tell("moved", str(rabbit.replay(100)))
    client = Client(given["service"], token=given["token"], lease=given["lease_ms"] / 1000)
    attempts, wait = given["attempts_max"], given["wait_ms"] / 1000
    patience = given["patience_ms"] / 1000
    inbox = Inbox(
        client, given["queue"], attempts_max=attempts, wait=wait, patience=patience
    )

    def over() -> None:
        sys.stdin.read()
        rabbit.stop()

    threading.Thread(target=over, daemon=True).start()
    rabbit.run(inbox, handler(given["control"]), tell)


if __name__ == "__main__":
    main()
