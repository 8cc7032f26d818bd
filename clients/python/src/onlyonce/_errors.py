"""What can stand in the way, as one class each. Every error answers three questions: who failed
(``who``), did it happen (``happened``), may the same be sent again (``retryable``).

The answers are those of the problem documents, which docs/problems.md describes.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Type


class DidNotHappen(Exception):
    """Raised by an operation that certainly did not happen and no longer can: its key is free
    again. Whoever cannot be sure raises something else."""


class OnceError(Exception):
    """The base of all errors of this package."""

    #: Whether anything has happened under the key: ``yes``, ``no``, or ``unknown``.
    happened: str = "unknown"
    #: Whether the same may succeed later without being changed.
    retryable: bool = False
    #: Who failed: ``caller``, ``attempt``, ``upstream``, ``store``, ``onlyonce`` or ``nobody``.
    who: str = "nobody"
    #: ``must`` where another key could run the operation twice; ``must_not`` where this key can
    #: never be right; ``None`` where there is none.
    reuse_key: Optional[str] = "must"
    #: The name of the problem, if the service told one.
    problem_name: Optional[str] = None
    #: In how many seconds it is worth asking again, if that was told.
    retry_after: Optional[float] = None

    def __init__(self, text: str, key: str = "", problem: Optional[Mapping[str, Any]] = None):
        super().__init__(text)
        self.key = key
        #: The whole problem document; empty if there was none.
        self.problem: Mapping[str, Any] = problem or {}
        #: What the operation returned, where it ran here: see the classes that say so.
        self.result: Any = None


class InProgress(OnceError):
    """The first attempt is still running, also after the time that one was ready to wait. Ask
    again later, with the same key."""

    retryable = True


class Mismatch(OnceError):
    """The key was used for another request. ``happened`` speaks of that one: look at what it did
    before asking for anything with a new key."""

    who = "caller"
    reuse_key = "must_not"


class OutcomeUnknown(OnceError):
    """Nobody knows whether it happened, and it is not run again until somebody has found out.
    Never ask for it with another key."""

    who = "attempt"


class Gone(OnceError):
    """It happened, and its reply is not kept (any more). Look the result up in another way."""

    happened = "yes"


class Expired(OnceError):
    """The key is too old to tell whether it was used. It is never run."""

    who = "caller"


class Sealed(OnceError):
    """Somebody decided that this key must never run."""

    happened = "no"


class Fenced(OnceError):
    """The claim is over: a newer one, or a final state, stands in its place. Send nothing more
    for it."""

    who = "caller"


class StoreAway(OnceError):
    """The records could not be reached in time, so nothing was begun. The same may be asked again
    later; an earlier attempt may have happened."""

    retryable = True
    who = "store"


class NotRecorded(OnceError):
    """The operation happened just now (``result`` is what it returned) and that could not be
    recorded. Keep the result; do not ask again: a retry finds an unknown outcome."""

    happened = "yes"
    who = "store"


class ResultNotJson(OnceError):
    """The operation happened just now (``result`` is what it returned), but JSON has no form for
    that. It is recorded that it happened: later callers are told ``Gone``, and it never runs
    again."""

    happened = "yes"
    who = "caller"


class SecondReply(OnceError):
    """The operation happened here (``result`` is what it returned) although it was answered
    before, differently: it may have happened twice. Operators are alarmed too."""

    happened = "yes"
    who = "caller"


class NotExecuted(OnceError):
    """No attempt with this key has happened, and the time for more is over. Send the same again
    later."""

    happened = "no"
    retryable = True


class NoAnswer(OnceError):
    """No answer came, however often it was asked. Whether it happened is unknown: send the same
    again later, with the same key. ``result`` is the last answer of a gateway, if there was one."""

    retryable = True
    who = "upstream"


class Refused(OnceError):
    """Every other problem; ``problem_name`` says which."""

    who = "caller"


_CLASSES: Dict[str, Type[OnceError]] = {
    "request-in-progress": InProgress,
    "key-reused": Mismatch,
    "outcome-unknown": OutcomeUnknown,
    "reply-not-kept": Gone,
    "key-expired": Expired,
    "key-sealed": Sealed,
    "fenced": Fenced,
    "store-unavailable": StoreAway,
    "no-room": StoreAway,
    "second-reply": SecondReply,
    "attempt-released": NotExecuted,
    "upstream-unreachable": NotExecuted,
}


def name_of(problem: Mapping[str, Any]) -> str:
    """The end of a problem's type, whatever base the service has."""
    kind = problem.get("type")
    text = kind if isinstance(kind, str) else ""
    for mark in (":", "/", "#"):
        text = text.rpartition(mark)[2]
    return text


def from_problem(
    problem: Mapping[str, Any], key: str, retry_after: Optional[float] = None
) -> OnceError:
    """The error that a problem document is. What it does not say is as its class has it."""
    name = name_of(problem)
    text = problem.get("detail") or problem.get("title") or name
    error = _CLASSES.get(name, Refused)(f"{name}: {text}", key, problem)
    error.problem_name = name
    error.retry_after = retry_after
    for member in ("happened", "retryable", "who", "reuse_key"):
        said = problem.get(member)
        if isinstance(said, (str, bool)):
            setattr(error, member, said)
    if "reuse_key" not in problem:
        error.reuse_key = None
    return error
