"""The client of the record service for ordinary code, which waits where it stands."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import ssl
import threading
import time
from typing import Any, Callable, Dict, Optional, TypeVar, cast

from ._errors import OnceError
from ._flow import Do, Flow, Pause, Run, Send, Step
from ._http import Transport, default_transport
from ._record import Claim, Desk, Options, asked, once

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Attempt:
    """What an operation may know and say of the attempt that it is."""

    def __init__(self, claim: Claim, drive: Callable[[Flow[Any]], Any]):
        self._claim, self._drive = claim, drive

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
        """Whether the claim is over although the operation runs. Begin nothing more then; what has
        happened is still to be returned."""
        return self._claim.lost

    def commit(self) -> None:
        """Says that the operation may happen from now on (for ``prepared=True``). Raises
        ``OnceError`` where nothing may be sent."""
        self._drive(self._claim.commit())

    def note(self, evidence: str) -> None:
        """Keeps what was learnt, such as the id of a charge: at most 128 characters, for whoever
        has to settle an unknown outcome."""
        self._drive(self._claim.note(evidence))


class Client:
    """Runs operations once, with the record service at ``url`` (such as
    ``http://127.0.0.1:8081``) keeping the records.

    ``token`` is the caller's. ``context`` has certificates for https. Further options are the
    fields of ``Options``, as defaults for all operations; each call may name others.
    """

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
        self._transport = transport or default_transport(context)
        self._options = Options(**options)

    def once(
        self, key: str, operation: Callable[[Attempt], T], *, inputs: Any = None, **options: Any
    ) -> T:
        """Runs ``operation`` if it has not been run under ``key``, and gives its result; or gives
        the result that it had before. Results are what JSON makes of them, for the first caller
        too: a tuple is a list.

        ``inputs`` is what must not change under the key (text, ints, lists, dicts): with others
        the key is refused. While the operation runs its claim is renewed.

        Raises ``InProgress``, ``Mismatch``, ``OutcomeUnknown``, ``Gone``, ``Expired``, ``Sealed``,
        ``StoreAway``, ``Fenced`` or ``Refused`` if it did not run here; ``NotRecorded``,
        ``ResultNotJson`` or ``SecondReply`` if it did. What the operation raises is passed on, and
        its outcome is unknown from then on, unless that is ``DidNotHappen``.
        """
        chosen = dataclasses.replace(self._options, **options)
        flow = once(self._desk, key, inputs, chosen)
        return cast(T, self._drive(flow, cast(Callable[[Attempt], Any], operation)))

    def once_per(
        self,
        key: Callable[..., str],
        *,
        inputs: Optional[Callable[..., Any]] = None,
        **options: Any,
    ) -> Callable[[F], F]:
        """A decorator: calls of the function run once for each key that ``key`` makes of their
        arguments. ``inputs`` makes of them what must not change; by default all arguments."""

        def decorate(function: F) -> F:
            names = inspect.signature(function)

            @functools.wraps(function)
            def called(*args: Any, **kwargs: Any) -> Any:
                given = inputs(*args, **kwargs) if inputs else arguments(names, args, kwargs)
                run = lambda _attempt: function(*args, **kwargs)  # noqa: E731
                return self.once(key(*args, **kwargs), run, inputs=given, **options)

            return cast(F, called)

        return decorate

    def ask(self, name: str, body: Dict[str, Any], *, patience: float = 30.0) -> Dict[str, Any]:
        """Asks an endpoint by its name, such as ``get`` or ``resolve``, and gives the answer's
        document (docs/openapi.json). Raises the error that a problem is."""
        key = str(body.get("key", ""))
        return cast(Dict[str, Any], self._drive(asked(self._desk, name, body, key, patience)))

    def _drive(
        self, flow: Flow[Any], operation: Optional[Callable[[Attempt], Any]] = None
    ) -> Any:
        def run(claim: Claim) -> Any:
            assert operation is not None
            over = threading.Event()
            renewals = threading.Thread(
                target=_renew, args=(claim, self._transport, over), name="onlyonce", daemon=True
            )
            renewals.start()
            try:
                return operation(Attempt(claim, self._drive))
            finally:
                over.set()

        return drive(flow, self._transport, run)


def drive(
    flow: Flow[Any],
    transport: Transport,
    run: Optional[Callable[[Claim], Any]] = None,
    pause: Callable[[float], Any] = time.sleep,
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
                done = transport(step.request)
            elif isinstance(step, Pause):
                pause(step.seconds)
            elif isinstance(step, Do):
                done = step.work()
            else:
                assert isinstance(step, Run) and run is not None
                done = run(step.claim)
        except BaseException as raised:  # it is the flow that decides what to do about it
            failed = raised


class _Over(BaseException):
    """Ends a thread of renewals."""


def _renew(claim: Claim, transport: Transport, over: threading.Event) -> None:
    def pause(seconds: float) -> None:
        if over.wait(seconds):
            raise _Over

    try:
        drive(claim.renewals(), transport, pause=pause)
    except (_Over, OnceError):
        pass
    except BaseException:
        # The thread is gone, so the lease is going to end.
        claim.lost = True
        raise


def bearer(token: Optional[str]) -> Dict[str, str]:
    """The field that says who asks."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def arguments(names: inspect.Signature, args: Any, kwargs: Any) -> Any:
    """The arguments by their names, however they were passed."""
    bound = names.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
