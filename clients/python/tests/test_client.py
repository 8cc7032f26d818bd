"""What the vectors do not say, because it is Python's: decorators, cancelling, many at once."""

import asyncio
import unittest
from typing import Any, Dict, List

import onlyonce
from world import World


class Client(unittest.TestCase):
    world: World

    @classmethod
    def setUpClass(cls) -> None:
        cls.world = World()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.world.end()

    def setUp(self) -> None:
        self.world.ask({"do": "reset"})
        self.options = {"token": self.world.where["token"]}
        self.url: str = self.world.where["service"]

    def count(self, key: str) -> int:
        count: int = self.world.ask({"do": "effects", "key": key})["count"]
        return count

    def test_a_decorated_function_runs_once_for_each_key(self) -> None:
        client = onlyonce.Client(self.url, **self.options)

        @client.once_per(lambda order, cents=0: onlyonce.key_from("charge", order))
        def charge(order: str, cents: int = 0) -> Dict[str, Any]:
            """Charges."""
            self.world.ask({"do": "effect", "key": order})
            return {"order": order, "cents": cents}

        self.assertEqual((charge.__name__, charge.__doc__), ("charge", "Charges."))
        first = charge("7829", 1000)
        self.assertEqual(first, {"order": "7829", "cents": 1000})
        # However arguments are passed, they are the same.
        self.assertEqual(charge("7829", cents=1000), first)
        with self.assertRaises(onlyonce.Mismatch):
            charge("7829", 1001)
        self.assertEqual(charge("7830")["order"], "7830")
        self.assertEqual((self.count("7829"), self.count("7830")), (1, 1))

    def test_a_decorated_coroutine_runs_once_for_each_key(self) -> None:
        async def main() -> List[Any]:
            async with onlyonce.AsyncClient(self.url, **self.options) as client:

                @client.once_per(lambda order: "async " + order, inputs=lambda order: [order])
                async def charge(order: str) -> str:
                    await asyncio.to_thread(self.world.ask, {"do": "effect", "key": order})
                    return order

                return await asyncio.gather(*(charge("7831") for _ in range(10)))

        self.assertEqual(asyncio.run(main()), ["7831"] * 10)
        self.assertEqual(self.count("7831"), 1)

    def test_arguments_without_one_spelling_are_refused_before_anything_runs(self) -> None:
        client = onlyonce.Client(self.url, **self.options)

        @client.once_per(lambda amount: "float")
        def charge(amount: float) -> None:
            self.world.ask({"do": "effect", "key": "float"})

        with self.assertRaises(TypeError):
            charge(0.1)
        self.assertEqual(self.count("float"), 0)

    def test_a_cancelled_operation_is_unknown_at_once(self) -> None:
        async def main() -> None:
            begun = asyncio.Event()

            async def operation(attempt: onlyonce.AsyncAttempt) -> None:
                begun.set()
                await asyncio.sleep(3600)

            async with onlyonce.AsyncClient(self.url, **self.options) as client:
                running = asyncio.ensure_future(client.once("cancelled", operation))
                await begun.wait()
                running.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await running
                with self.assertRaises(onlyonce.OutcomeUnknown):
                    await client.once("cancelled", operation, wait=0)

        asyncio.run(main())

    def test_a_hundred_that_wait_do_not_keep_a_claim_from_being_renewed(self) -> None:
        waiting = {"do": "wait_for", "at": "service", "path": "/v1/wait", "count": 32}
        renewed = {"do": "wait_for", "at": "service", "path": "/v1/renew", "count": 6}

        async def main() -> List[Any]:
            async def operation(attempt: onlyonce.AsyncAttempt) -> int:
                for control in (waiting, renewed):
                    await asyncio.to_thread(self.world.ask, control)
                assert not attempt.lost
                return attempt.number

            async with onlyonce.AsyncClient(self.url, **self.options) as client:
                calls = (client.once("many", operation, lease=1.0, wait=60.0) for _ in range(100))
                return await asyncio.gather(*calls)

        self.assertEqual(asyncio.run(main()), [1] * 100)

    def test_an_endpoint_can_be_asked_by_name(self) -> None:
        operator = onlyonce.Client(self.url, token=self.world.where["operator"])
        operator.ask("seal", {"key": "by name", "scope": "default", "why": "cancelled"})
        client = onlyonce.Client(self.url, **self.options)
        self.assertEqual(client.ask("get", {"key": "by name"})["sealed"], True)
        with self.assertRaises(onlyonce.Refused) as refused:
            client.ask("get", {"key": "never seen"})
        self.assertEqual(refused.exception.problem_name, "no-record")


if __name__ == "__main__":
    unittest.main()
