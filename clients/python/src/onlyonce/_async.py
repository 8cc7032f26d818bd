"""The clients for asyncio. Each request takes a thread of a pool that belongs to the client, so
that a hundred that wait for another attempt do not keep a claim from being renewed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Awaitable, Callable, Dict, Mapping, Optional, TypeVar, Union, cast

from ._client import arguments, bearer
from ._errors import OnceError
from ._flow import Do, Flow, Pause, Run, Send, Step
from ._http import Answer, Request, Transport, default_transport
from ._intents import IntentStore, MemoryIntents
from ._record import Claim, Desk, Options, asked, once
from ._retrying import NOTHING, Content, Retrying, sent

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: The most requests at once of one client: those that wait for an attempt, and all others.
WAITS_MAX = 32
CALLS_MAX = 32


class _Threads:
    """Carries requests out on threads: long polls on some, everything else on others."""

    def __init__(self, transport: Transport):
        self._transport = transport
        self._waits = ThreadPoolExecutor(WAITS_MAX, "onlyonce-wait")
        self._calls = ThreadPoolExecutor(CALLS_MAX, "onlyonce")

    async def send(self, request: Request) -> Answer:
        pool = self._waits if request.url.endswith("/v1/wait") else self._calls
        return await asyncio.get_running_loop().run_in_executor(pool, self._transport, request)

    async def do(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._calls, work)

    def close(self) -> None:
        self._waits.shutdown(wait=False)
        self._calls.shutdown(wait=False)

    async def drive(
        self, flow: Flow[Any], run: Optional[Callable[[Claim], Awaitable[Any]]] = None
    ) -> Any:
        """Does what a flow yields, until it returns."""
        done: Any = None
        failed: Optional[BaseException] = None
        while True:
            try:
                step: Step = flow.send(done) if failed is None else flow.throw(failed)
            except StopIteration as ended:
                return ended.value
            done, failed = None, None
            try:
                if isinstance(step, Send):
                    done = await self.send(step.request)
                elif isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Do):
                    done = await self.do(step.work)
                else:
                    assert isinstance(step, Run) and run is not None
                    done = await run(step.claim)
            except BaseException as raised:  # it is the flow that decides what to do about it
                failed = raised


class AsyncAttempt:
    """What an operation may know and say of the attempt that it is: see ``Attempt``."""

    def __init__(self, claim: Claim, threads: _Threads):
        self._claim, self._threads = claim, threads

    @property
    def key(self) -> str:
        """The key. Send it to a receiver that drops duplicates."""
        return self._claim.key

    @property
    def fence(self) -> int:
        """The number of the claim. Send it to a receiver that refuses older ones."""
        return self._claim.fence

    @property
    def number(self) -> int:
        """1 for the first attempt of the key."""
        return self._claim.attempt

    @property
    def lost(self) -> bool:
        """Whether the claim is over although the operation runs: begin nothing more then."""
        return self._claim.lost

    async def commit(self) -> None:
        """Says that the operation may happen from now on (for ``prepared=True``)."""
        await self._threads.drive(self._claim.commit())

    async def note(self, evidence: str) -> None:
        """Keeps what was learnt: at most 128 characters."""
        await self._threads.drive(self._claim.note(evidence))


class AsyncClient:
    """``Client`` for asyncio: the same options, the same errors. Close it, or use it in
    ``async with``."""

    def __init__(
        self,
        url: str,
        *,
        token: Optional[str] = None,
        context: Optional[ssl.SSLContext] = None,
        transport: Optional[Transport] = None,
        **options: Any,
    ):
        self._desk = Desk(url, bearer(token))
        self._threads = _Threads(transport or default_transport(context))
        self._options = Options(**options)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets its threads end."""
        self._threads.close()

    async def once(
        self,
        key: str,
        operation: Callable[[AsyncAttempt], Awaitable[T]],
        *,
        inputs: Any = None,
        **options: Any,
    ) -> T:
        """As ``Client.once``. If it is cancelled while the operation runs, the outcome is
        unknown."""
        chosen = dataclasses.replace(self._options, **options)

        async def run(claim: Claim) -> Any:
            renewals = asyncio.ensure_future(_renew(claim, self._threads))
            try:
                return await operation(AsyncAttempt(claim, self._threads))
            finally:
                renewals.cancel()

        return cast(T, await self._threads.drive(once(self._desk, key, inputs, chosen), run))

    def once_per(
        self,
        key: Callable[..., str],
        *,
        inputs: Optional[Callable[..., Any]] = None,
        **options: Any,
    ) -> Callable[[F], F]:
        """As ``Client.once_per``, for functions that are ``async``."""

        def decorate(function: F) -> F:
            names = inspect.signature(function)

            @functools.wraps(function)
            async def called(*args: Any, **kwargs: Any) -> Any:
                given = inputs(*args, **kwargs) if inputs else arguments(names, args, kwargs)

                async def run(_attempt: AsyncAttempt) -> Any:
                    return await function(*args, **kwargs)

                return await self.once(key(*args, **kwargs), run, inputs=given, **options)

            return cast(F, called)

        return decorate

    async def ask(
        self, name: str, body: Dict[str, Any], *, patience: float = 30.0
    ) -> Dict[str, Any]:
        """As ``Client.ask``."""
        flow = asked(self._desk, name, body, str(body.get("key", "")), patience)
        return cast(Dict[str, Any], await self._threads.drive(flow))


async def _renew(claim: Claim, threads: _Threads) -> None:
    try:
        await threads.drive(claim.renewals())
    except (asyncio.CancelledError, OnceError):
        pass
    except BaseException:
        # Nobody renews any more, so the lease is going to end.
        claim.lost = True
        raise


class AsyncRetryingClient:
    """``RetryingClient`` for asyncio: the same options, the same errors."""

    def __init__(
        self,
        store: Optional[IntentStore] = None,
        *,
        context: Optional[ssl.SSLContext] = None,
        transport: Optional[Transport] = None,
        **options: Any,
    ):
        self._store = store if store is not None else MemoryIntents()
        self._threads = _Threads(transport or default_transport(context))
        self._options = Retrying(**options)

    async def __aenter__(self) -> "AsyncRetryingClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets its threads end."""
        self._threads.close()

    async def send(
        self,
        intent: str,
        method: str,
        url: str,
        *,
        headers: Optional[Mapping[str, str]] = None,
        body: Union[bytes, str, None] = None,
        json: Any = NOTHING,
        **options: Any,
    ) -> Answer:
        """As ``RetryingClient.send``."""
        chosen = dataclasses.replace(self._options, **options)
        given = Content.of(headers, body, json)
        flow = sent(self._store, intent, method, url, given, chosen)
        return cast(Answer, await self._threads.drive(flow))

    async def forget(self, intent: str) -> None:
        """As ``RetryingClient.forget``."""
        await self._threads.do(lambda: self._store.forget(intent))
