"""The order of events around an operation: claim, commit, run, complete. No threads, no I/O.

- The claim is ``prepared`` until just before the operation runs. A claim whose answer is lost for
  good, or whose process dies before the operation began, frees its key by itself.
- Whatever is asked is asked again, the same, until it is answered or patience is over.
- Nothing that is sent after the operation has run can make it run again.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from ._canonical import fingerprint
from ._errors import (
    DidNotHappen,
    Fenced,
    Gone,
    InProgress,
    NotRecorded,
    OnceError,
    Refused,
    ResultNotJson,
    SecondReply,
    StoreAway,
    from_problem,
)
from ._flow import Flow, Pause, Run, Send, pause_after
from ._http import Answer, Lost, Request, problem_of, retry_after

#: How long one question may take, in seconds, beside the time that it is asked to wait.
ASK_TIME = 10.0
#: How long a key's freeing, or that one cannot tell, is said again; its lease ends anyway.
LAST_WORD_TIME = 5.0
#: The longest that one question waits for another attempt.
POLL_TIME = 20.0


@dataclass(frozen=True)
class Options:
    """How operations are claimed. Times are in seconds."""

    #: Whose keys they are; needed where the caller's token has several scopes.
    scope: Optional[str] = None
    #: For how long a claim is exclusive without being renewed; the scope's if ``None``.
    lease: Optional[float] = None
    #: For how long a reply is kept; the scope's if ``None``.
    retention: Optional[float] = None
    #: For how long to wait for another attempt's result before ``InProgress``.
    wait: float = 30.0
    #: For how long to ask again when the service or its store do not answer.
    patience: float = 30.0
    #: Who claims, for the log of the service.
    holder: Optional[str] = None
    #: When the operation was first wanted, in seconds since 1970, for keys that carry no time.
    first_sent: Optional[float] = None
    #: Whether the operation says ``commit`` by itself, before the first byte that can take effect.
    prepared: bool = False


class Desk:
    """Where questions go: an address and who asks."""

    def __init__(self, url: str, headers: Mapping[str, str]):
        self.base = url.rstrip("/") + "/v1/"
        self.headers = {**headers, "Content-Type": "application/json"}

    def request(self, name: str, body: Mapping[str, Any], time: float) -> Request:
        text = json.dumps(body, ensure_ascii=True, allow_nan=False).encode("ascii")
        return Request("POST", self.base + name, self.headers, text, time)


class Claim:
    """A granted claim: what its holder says, each as a flow."""

    def __init__(self, desk: Desk, key: str, options: Options, granted: Mapping[str, Any]):
        self.desk, self.key, self.options = desk, key, options
        self.fence = int(granted["fence"])
        self.attempt = int(granted["attempt"])
        self.lease = float(granted["lease_left_ms"]) / 1000
        #: When the claim is over, unless it is renewed.
        self.ends = time.monotonic() + self.lease
        #: Whether another may hold the key by now, or a final state stands.
        self.lost = False
        self.committed = False

    def say(
        self, name: str, patience: float, reply: Optional[Mapping[str, Any]] = None, **more: Any
    ) -> Flow[Dict[str, Any]]:
        body = {**_scoped(self.options), "key": self.key, "fence": self.fence, **more}
        if reply is not None:
            body["reply"] = reply
        return asked(self.desk, name, body, self.key, patience)

    def commit(self) -> Flow[None]:
        # Counted from before the question, which may have been asked more than once.
        begun = time.monotonic()
        done = yield from self.say("commit", self.options.patience, **_lease(self.options))
        self.committed = True
        self.ends = begun + float(done.get("lease_left_ms", 0)) / 1000
        if self.ends - time.monotonic() < self.lease / 3:
            # The answer was long on its way: somebody else may soon be let in.
            raise Fenced("too little of the claim's time is left to begin", self.key)

    def note(self, evidence: str) -> Flow[None]:
        yield from self.say("note", self.options.patience, evidence=evidence)

    def renewals(self) -> Flow[None]:
        """Renews at a third of the lease, for ever; whoever drives it ends it."""
        ends = self.ends
        pause = self.lease / 3
        while not self.lost:
            yield Pause(pause)
            begun = time.monotonic()
            body = {**_scoped(self.options), "key": self.key, "fence": self.fence}
            body.update(_lease(self.options))
            try:
                document = yield from _once(self.desk, "renew", body, self.key, self.lease / 3)
                # Counted from before the question: the service counts from when it came.
                ends = begun + float(document.get("lease_left_ms", 0)) / 1000
                pause = self.lease / 3
            except OnceError as error:
                if not error.retryable:
                    self.lost = True
                pause = self.lease / 10
            if ends <= time.monotonic():
                self.lost = True


def once(desk: Desk, key: str, inputs: Any, options: Options) -> Flow[Any]:
    """Runs the operation if nobody has, and gives its result, or that of the attempt that did."""
    question: Dict[str, Any] = {**_scoped(options), "key": key, "fingerprint": fingerprint(inputs)}
    if options.first_sent is not None:
        question["first_sent_ms"] = round(options.first_sent * 1000)
    wait_until = time.monotonic() + options.wait
    retries = 0
    while True:
        granted = yield from _claimed(desk, question, options)
        if isinstance(granted, InProgress):
            found = yield from _waited(desk, question, granted, wait_until)
            if found is not None:
                return _result(found, key)
            # It is free, and whoever asks first may have it.
            continue
        if granted["outcome"] == "replay":
            return _result(granted, key)
        claim = Claim(desk, key, options, granted)
        if not options.prepared:
            try:
                yield from claim.commit()
            except Fenced:
                # The claim was over, or nearly, before it began anything: another may be made.
                yield from _last_word(claim, "release")
                retries += 1
                if retries < 3:
                    continue
                raise
            except GeneratorExit:
                raise
            except BaseException:
                # Nothing was begun, and nobody else can know that.
                yield from _last_word(claim, "release")
                raise
        return (yield from _ran(claim))


def _claimed(desk: Desk, question: Mapping[str, Any], options: Options) -> Flow[Any]:
    # Made once, so that the claim can be repeated after a lost answer.
    body = {**question, "claim_id": secrets.token_hex(16), "phase": "prepared", **_lease(options)}
    if options.holder is not None:
        body["holder"] = options.holder
    try:
        document = yield from asked(desk, "claim", body, question["key"], options.patience)
    except InProgress as busy:
        return busy
    if document.get("outcome") not in ("granted", "replay"):
        raise Refused("the answer to a claim is not understood", question["key"], document)
    return document


def _waited(
    desk: Desk, question: Mapping[str, Any], busy: InProgress, until: float
) -> Flow[Optional[Mapping[str, Any]]]:
    """The reply of the attempt that runs, or ``None`` once the key is free."""
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise busy
        wait = min(left, POLL_TIME)
        body = {**question, "wait_ms": max(1, round(wait * 1000))}
        begun = time.monotonic()
        try:
            document = yield from asked(desk, "wait", body, question["key"], left, wait + ASK_TIME)
            return document
        except InProgress as again:
            busy = again
        except OnceError as error:
            if error.problem_name != "no-record":
                raise
            return None
        if time.monotonic() - begun < wait / 2:
            # The service waits for less time than it was asked to.
            yield Pause(min(busy.retry_after or 1.0, max(0.0, until - time.monotonic())))


def _ran(claim: Claim) -> Flow[Any]:
    try:
        value = yield Run(claim)
    except DidNotHappen:
        yield from _last_word(claim, "release")
        raise
    except GeneratorExit:
        raise
    except BaseException:
        # Whatever was raised, and by whatever: it may have happened.
        yield from _last_word(claim, "abandon")
        raise
    try:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False)
        # What later callers get, so that the first one gets the same.
        told = json.loads(text)
    except Exception as failure:
        raise (yield from _completed_without(claim, value, failure)) from failure
    try:
        yield from claim.say("complete", claim.options.patience, _reply(told), **_kept(claim))
    except SecondReply as error:
        error.result = told
        raise
    except OnceError as error:
        if error.problem_name == "body-too-large":
            yield from _complete_bare(claim, told)
            return told
        if error.problem_name == "request-invalid":
            raise (yield from _completed_without(claim, value, error)) from error
        raise _not_recorded(claim, told, error) from error
    return told


def _completed_without(claim: Claim, value: Any, why: Exception) -> Flow[OnceError]:
    """It happened, and there is no reply that can be kept."""
    yield from _complete_bare(claim, value)
    error = ResultNotJson(f"it happened, and its result has no form in JSON: {why}", claim.key)
    error.result = value
    return error


def _complete_bare(claim: Claim, value: Any) -> Flow[None]:
    try:
        yield from claim.say("complete", claim.options.patience, {"status": 200}, **_kept(claim))
    except SecondReply as error:
        error.result = value
        raise
    except OnceError as error:
        raise _not_recorded(claim, value, error) from error


def _not_recorded(claim: Claim, value: Any, error: OnceError) -> NotRecorded:
    text = f"it happened, and that could not be recorded: {error}"
    not_recorded = NotRecorded(text, claim.key, error.problem)
    not_recorded.result, not_recorded.problem_name = value, error.problem_name
    return not_recorded


def _last_word(claim: Claim, name: str) -> Flow[None]:
    """Says how an attempt ended that has no result. If nobody hears it, the lease ends it."""
    try:
        yield from claim.say(name, LAST_WORD_TIME)
    except OnceError:
        pass


def _result(document: Mapping[str, Any], key: str) -> Any:
    reply = document.get("reply")
    reply = reply if isinstance(reply, dict) else {}
    if "json" in reply:
        return reply["json"]
    if "text" in reply:
        return reply["text"]
    if "base64" in reply:
        return base64.b64decode(reply["base64"])
    raise Gone("it happened, and it is not kept what it returned", key, document)


def asked(
    desk: Desk,
    name: str,
    body: Mapping[str, Any],
    key: str,
    patience: float,
    ask_time: float = ASK_TIME,
) -> Flow[Dict[str, Any]]:
    """The document of the answer. The same is asked again while no answer came, or one that says
    that asking again helps; a running attempt is not among those."""
    until = time.monotonic() + patience
    tries = 0
    while True:
        try:
            return (yield from _once(desk, name, body, key, ask_time))
        except InProgress:
            raise
        except OnceError as error:
            if not error.retryable:
                raise
            pause = error.retry_after if error.retry_after is not None else pause_after(tries)
            if until < time.monotonic() + pause:
                raise
            tries += 1
        yield Pause(max(pause, 0.05))


def _once(
    desk: Desk, name: str, body: Mapping[str, Any], key: str, ask_time: float
) -> Flow[Dict[str, Any]]:
    """Asks one time."""
    try:
        answer: Answer = yield Send(desk.request(name, body, ask_time))
    except Lost as lost:
        raise StoreAway(f"{desk.base}{name}: {lost}", key) from lost
    problem = problem_of(answer)
    if problem is not None:
        raise from_problem(problem, key, retry_after(answer))
    document: Any = None
    if answer.status == 200:
        try:
            document = answer.json()
        except ValueError:
            pass
    if isinstance(document, dict):
        return document
    # Something in between has answered in the service's place.
    text = f"{desk.base}{name}: status {answer.status} and no answer of a record service"
    error = StoreAway(text, key) if 500 <= answer.status else Refused(text, key)
    error.retry_after = retry_after(answer)
    raise error


def _reply(value: Any) -> Dict[str, Any]:
    return {"status": 200, "json": value}


def _scoped(options: Options) -> Dict[str, Any]:
    return {} if options.scope is None else {"scope": options.scope}


def _lease(options: Options) -> Dict[str, Any]:
    return {} if options.lease is None else {"lease_ms": round(options.lease * 1000)}


def _kept(claim: Claim) -> Dict[str, Any]:
    retention = claim.options.retention
    return {} if retention is None else {"retention_ms": round(retention * 1000)}
