"""The two kinds of clients, asked alike, so that both run the same vectors: those for ordinary
code, and those for asyncio in an event loop of their own."""

import asyncio
import threading
from typing import Any, Callable, Coroutine, Dict

import onlyonce

#: What an operation of a vector does: given an attempt, it gives a result or raises.
Acts = Callable[[Any], Any]


class Sync:
    """The clients for ordinary code."""

    def __init__(self, where: Dict[str, Any]) -> None:
        self.where = where

    def client(self, token: str) -> Any:
        return onlyonce.Client(self.where["service"], token=token)

    def once(self, client: Any, key: str, acts: Acts, inputs: Any, **options: Any) -> Any:
        return client.once(key, acts, inputs=inputs, **options)

    def retrying(self, folder: str) -> Any:
        return onlyonce.RetryingClient(onlyonce.FileIntents(folder))

    def send(self, client: Any, *args: Any, **options: Any) -> onlyonce.Answer:
        answer: onlyonce.Answer = client.send(*args, **options)
        return answer

    def forget(self, client: Any, intent: str) -> None:
        client.forget(intent)

    def end(self) -> None:
        """Nothing of its own was started."""


class Async:
    """The clients for asyncio."""

    def __init__(self, where: Dict[str, Any]) -> None:
        self.where = where
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def client(self, token: str) -> Any:
        return onlyonce.AsyncClient(self.where["service"], token=token)

    def once(self, client: Any, key: str, acts: Acts, inputs: Any, **options: Any) -> Any:
        async def operation(attempt: onlyonce.AsyncAttempt) -> Any:
            return await asyncio.get_running_loop().run_in_executor(
                None, acts, _Waits(attempt, self._wait)
            )

        return self._wait(client.once(key, operation, inputs=inputs, **options))

    def retrying(self, folder: str) -> Any:
        return onlyonce.AsyncRetryingClient(onlyonce.FileIntents(folder))

    def send(self, client: Any, *args: Any, **options: Any) -> onlyonce.Answer:
        answer: onlyonce.Answer = self._wait(client.send(*args, **options))
        return answer

    def forget(self, client: Any, intent: str) -> None:
        self._wait(client.forget(intent))

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class _Waits:
    """An attempt of asyncio for acts on a thread."""

    def __init__(self, attempt: onlyonce.AsyncAttempt, wait: Callable[[Any], Any]) -> None:
        self._attempt, self._wait = attempt, wait

    @property
    def lost(self) -> bool:
        return self._attempt.lost

    def commit(self) -> None:
        self._wait(self._attempt.commit())

    def note(self, evidence: str) -> None:
        self._wait(self._attempt.note(evidence))
