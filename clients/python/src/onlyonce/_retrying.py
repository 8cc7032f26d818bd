"""A client for APIs that know idempotency keys, such as those behind ``onlyonce proxy``: one key
for each intent, whatever is retried, reloaded or restarted.
"""

from __future__ import annotations

import dataclasses
import json as json_module
import ssl
import time
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Union, cast

from ._client import drive
from ._errors import NoAnswer, NotExecuted, OnceError, OutcomeUnknown, from_problem
from ._flow import Do, Flow, Pause, Send, pause_after
from ._http import Answer, Lost, Request, Transport, default_transport, problem_of, retry_after
from ._intents import IntentStore, MemoryIntents
from ._uuid7 import uuid7

#: Stands for no content, since ``None`` is content in JSON.
NOTHING: Any = object()

#: What whoever stands in front answers when the same may do better later.
_PASSING = frozenset((408, 425, 429, 502, 503, 504))
#: Answers of the service itself, however they look.
_ANSWERED = frozenset(("executed", "replayed", "unrecorded", "unprotected"))


@dataclass(frozen=True)
class Retrying:
    """How requests are sent. Times are in seconds."""

    #: For how long to send again before giving up: after that no attempt begins.
    patience: float = 60.0
    #: For how long one attempt may go without an answer. A shorter one than the operation takes
    #: does no harm: the next attempt joins the first.
    attempt_time: float = 30.0
    #: The longest ``Retry-After`` that is waited for; a longer one is cut to it.
    retry_after_max: float = 30.0
    #: The field that carries the key.
    key_name: str = "Idempotency-Key"


@dataclass(frozen=True)
class Content:
    """Fields and body of a request, ready to be sent any number of times."""

    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(
        cls, headers: Optional[Mapping[str, str]], body: Union[bytes, str, None], json: Any
    ) -> "Content":
        fields: Dict[str, str] = dict(headers or {})
        if json is not NOTHING:
            if body is not None:
                raise ValueError("give body or json, one of them")
            body = json_module.dumps(json, allow_nan=False)
            if not any(name.lower() == "content-type" for name in fields):
                fields["Content-Type"] = "application/json"
        if body is None:
            body = b""
        return cls(fields, body.encode("utf-8") if isinstance(body, str) else bytes(body))


class RetryingClient:
    """Sends requests that happen once.

    ``store`` keeps the keys of intents: ``FileIntents(folder)`` if they are to outlive the process,
    else they are kept in memory. Further options are the fields of ``Retrying``; each call may
    name others.
    """

    def __init__(
        self,
        store: Optional[IntentStore] = None,
        *,
        context: Optional[ssl.SSLContext] = None,
        transport: Optional[Transport] = None,
        **options: Any,
    ):
        self._store = store if store is not None else MemoryIntents()
        self._transport = transport or default_transport(context)
        self._options = Retrying(**options)

    def send(
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
        """Sends the request of an intent until it is answered, always with the intent's key, and
        gives the answer, whatever its status: an error that the API answered is an answer.

        ``intent`` is your name for the one thing that is wanted, such as ``"pay cart 17"``: the
        same for everything that is to happen once together, in every process. Its key is kept
        until ``forget``, also when it was answered.

        Raises ``OutcomeUnknown`` at once if nobody knows whether it happened, ``InProgress``,
        ``NoAnswer``, ``StoreAway`` or ``NotExecuted`` when patience is over (the same ``send`` may
        follow later), ``Mismatch``, ``Gone``, ``Expired``, ``Sealed`` or ``Refused`` if that is
        what the key meets.
        """
        chosen = dataclasses.replace(self._options, **options)
        flow = sent(self._store, intent, method, url, Content.of(headers, body, json), chosen)
        return cast(Answer, drive(flow, self._transport))

    def forget(self, intent: str) -> None:
        """The intent is over. The next ``send`` of its name is a new operation with a new key: call
        it only when the outcome is known and noted, or when something new is wanted."""
        self._store.forget(intent)


def sent(
    store: IntentStore, intent: str, method: str, url: str, content: Content, options: Retrying
) -> Flow[Answer]:
    """The order of events: the key is kept, then sent, then sent again."""
    if any(name.lower() == options.key_name.lower() for name in content.headers):
        raise ValueError(f"{options.key_name} is the intent's and is not given by hand")
    until = time.monotonic() + options.patience
    key: str = yield Do(lambda: store.take(intent, uuid7))
    replaced = False
    tries = 0
    while True:
        headers = {**content.headers, options.key_name: f'"{key}"'}
        request = Request(method, url, headers, content.body, options.attempt_time)
        try:
            answer: Answer = yield Send(request)
        except Lost as lost:
            verdict = Verdict(again=True, error=_no_answer(f"{url}: {lost}", key, None))
        else:
            verdict = judged(answer, key)
            if verdict.final:
                return answer
        if verdict.new_key and not replaced:
            # The service says that this key can never be right, so nothing ran under it.
            replaced, refused = True, key
            key = yield Do(lambda: store.replace(intent, refused, uuid7))
            continue
        error = verdict.error
        if not verdict.again:
            raise error
        pause = pause_after(tries)
        if error.retry_after is not None:
            pause = max(pause, min(error.retry_after, options.retry_after_max))
        if until <= time.monotonic() + pause:
            raise error
        yield Pause(pause)
        tries += 1


@dataclass(frozen=True)
class Verdict:
    """What an answer means for whoever sent the request."""

    #: It is the answer.
    final: bool = False
    #: The same, with the same key, may do better.
    again: bool = False
    #: The key can never be right, and nothing ran under it.
    new_key: bool = False
    #: What is raised when nothing more is sent.
    error: OnceError = OnceError("")


def judged(answer: Answer, key: str) -> Verdict:
    """Reads ``Idempotency-Status`` and the problem, never the status alone: the API behind onlyonce
    answers 409 and 422 too."""
    mark = answer.idempotency_status
    if mark in _ANSWERED:
        return Verdict(final=True)
    problem = problem_of(answer)
    if problem is not None:
        error = from_problem(problem, key, retry_after(answer))
        # With 422 the key has run, with another request: that is for the caller to look at.
        new_key = error.reuse_key == "must_not" and answer.status == 400
        return Verdict(again=error.retryable, new_key=new_key, error=error)
    if mark == "unknown":
        text = f"whoever answered with status {answer.status} does not know whether it happened"
        return Verdict(error=_with(OutcomeUnknown(text, key), answer))
    if answer.status not in _PASSING:
        return Verdict(final=True)
    text = f"status {answer.status}, and nothing says that it is final"
    if mark == "not-executed":
        return Verdict(again=True, error=_with(NotExecuted(text, key), answer))
    return Verdict(again=True, error=_no_answer(text, key, answer))


def _no_answer(text: str, key: str, answer: Optional[Answer]) -> NoAnswer:
    error = NoAnswer(text, key)
    return error if answer is None else cast(NoAnswer, _with(error, answer))


def _with(error: OnceError, answer: Answer) -> OnceError:
    error.result, error.retry_after = answer, retry_after(answer)
    return error
