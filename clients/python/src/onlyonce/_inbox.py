"""What is to be done with a delivery, as the record of its key says. It knows no broker.

The same as the consumer in Rust (docs/consume.md), with the records in the record service.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from ._canonical import key_from
from ._client import Attempt, Client
from ._errors import (
    DidNotHappen,
    Expired,
    Gone,
    InProgress,
    Mismatch,
    OnceError,
    OutcomeUnknown,
    Refused,
    ResultNotJson,
    Sealed,
)

#: The longest key, in characters of printable ASCII.
KEY_MAX = 255


class Later(DidNotHappen):
    """Raised by a handler: it did not happen for now, and is to be tried again after a pause."""


class Never(DidNotHappen):
    """Raised by a handler: it did not happen and cannot, such as a body that is none. The message
    is put aside at once."""


@dataclass(frozen=True)
class Message:
    """What a broker has delivered."""

    body: bytes
    #: What its sender calls it (AMQP: the property ``message-id``).
    id: Optional[str] = None
    #: Its headers that are text or whole numbers.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether it was delivered before, and was not done with then.
    redelivered: bool = False


#: Makes an effect of a message; what it returns is recorded, and the message is done with.
Handler = Callable[[Message, Attempt], Any]


@dataclass(frozen=True)
class Done:
    """It was answered, or sealed, and that is durable: acknowledge it."""

    status: int
    #: What it was answered, as it is sent to whoever asked; ``None`` if that is not kept.
    content: Optional[bytes]
    #: Whether that was earlier.
    replayed: bool


@dataclass(frozen=True)
class NotNow:
    """Deliver it again after a pause; ``pauses`` is how many there were before."""

    why: str
    pauses: int = 0


@dataclass(frozen=True)
class Away:
    """Nothing can be learnt from the records now; whatever is delivered meanwhile meets that too."""

    why: str


@dataclass(frozen=True)
class Aside:
    """It is not to be tried again by itself."""

    why: str
    text: str
    record: Optional[Mapping[str, Any]] = None

    def headers(self) -> List[Tuple[str, str]]:
        """What the message carries from now on."""
        told = [
            ("onlyonce-why", self.why),
            ("onlyonce-text", self.text),
            ("onlyonce-happened", self._happened()),
        ]
        record = self.record
        if record is None:
            return told
        told.append(("onlyonce-key-id", str(record["id"])))
        told.append(("onlyonce-state", str(record["state"])))
        told.append(("onlyonce-fence", str(record["fence"])))
        told.append(("onlyonce-attempts", str(record["attempt"])))
        doubt = record.get("doubt")
        if doubt:
            told.append(("onlyonce-cause", str(doubt["cause"])))
            told.append(("onlyonce-since", str(_millis(doubt["since"]))))
        names = ("event", "fence", "by", "why")
        history = [
            {"at": _millis(it["at"]), **{name: it[name] for name in names}}
            for it in record.get("history", ())
        ]
        text = json.dumps(history, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        return [*told, ("onlyonce-history", text)]

    def _happened(self) -> str:
        if self.why in ("no-key", "mismatch"):
            # It speaks of this message; under the key of a mismatch another one may have happened.
            return "no"
        if self.why in ("expired", "damaged") or self.record is None:
            return "unknown"
        return str(self.record.get("happened", "unknown"))


Settled = Union[Done, NotNow, Away, Aside]


class Inbox:
    """Takes the messages of one consumer: two consumers that are given the same message both run
    it.

    ``key`` finds the key of a message: by default its id. ``sent`` names the header in which the
    sender says when it first sent the message, in milliseconds since 1970, the same in each copy.
    ``wait`` is how long a delivery waits, in seconds, for another one of the same message that is
    being carried out. After ``attempts_max`` attempts that did not happen a message is put aside.
    """

    def __init__(
        self,
        client: Client,
        consumer: str,
        *,
        key: Callable[[Message], Optional[str]] = lambda message: message.id,
        sent: Optional[str] = None,
        wait: float = 2.0,
        attempts_max: int = 8,
        **options: Any,
    ):
        if not consumer:
            raise ValueError("a consumer has a name")
        self._client, self._consumer, self._key, self._sent = client, consumer, key, sent
        self._attempts_max = attempts_max
        self._options: Dict[str, Any] = {**options, "wait": wait}

    def key_of(self, key: str) -> str:
        """The key that the record service has for a message with this one."""
        return key_from("consumer", self._consumer, key)

    def take(self, message: Message, handler: Handler) -> Settled:
        """Runs a message unless that was done before, and says what is to be done with it."""
        try:
            key, first_ms = self._told(message)
        except ValueError as wrong:
            return Aside("no-key", str(wrong))
        try:
            return self._run(key, first_ms, message, handler)
        except OnceError as error:
            if error.problem_name == "record-damaged":
                return Aside("damaged", str(error))
            return Away(str(error))

    def _told(self, message: Message) -> Tuple[str, Optional[int]]:
        try:
            found = self._key(message)
        except Exception as raised:
            raise ValueError(f"what finds its key has raised {raised!r}") from raised
        if found is None:
            raise ValueError("it has no key")
        if not found.strip() or KEY_MAX < len(found) or not all(" " <= c <= "~" for c in found):
            raise ValueError(f"its key is not 1 to {KEY_MAX} characters of printable ASCII")
        first = _time_of(found)
        if first is None and self._sent is not None:
            said = message.headers.get(self._sent, "")
            if not (said.isascii() and said.isdigit() and len(said) <= 15):
                raise ValueError(
                    f"its header {self._sent} is no time (milliseconds since 1970, in digits)"
                )
            first = int(said)
        return self.key_of(found), first

    def _run(
        self, key: str, first_ms: Optional[int], message: Message, handler: Handler
    ) -> Settled:
        # One that ends the process is never counted afterwards: it is looked at before.
        if message.redelivered:
            record = self._record(key)
            if self._is_exhausted(record):
                return self._exhausted(record)
        ran: List[bool] = []
        failed: List[BaseException] = []

        def operation(attempt: Attempt) -> Any:
            ran.append(True)
            try:
                return handler(message, attempt)
            except BaseException as raised:
                failed.append(raised)
                raise

        options = dict(self._options)
        if first_ms is not None:
            options["first_sent"] = first_ms / 1000
        try:
            value = self._client.once(key, operation, inputs=[first_ms, message.body], **options)
        except BaseException as raised:
            if failed and raised is failed[0]:
                return self._failed(key, raised)
            if not isinstance(raised, OnceError):
                raise
            return self._met(key, raised, bool(ran))
        return Done(200, _content(value), not ran)

    def _failed(self, key: str, raised: BaseException) -> Settled:
        """The handler has raised this."""
        if not isinstance(raised, Exception):
            raise raised
        record = self._record(key)
        if isinstance(raised, Never):
            return Aside("never", str(raised), record)
        if not isinstance(raised, DidNotHappen):
            return self._unknown(f"nobody knows whether it happened: {raised!r}", record)
        if self._is_exhausted(record):
            return self._exhausted(record)
        return NotNow(str(raised), _pauses(record))

    def _unknown(self, text: str, record: Optional[Mapping[str, Any]]) -> Settled:
        """Nobody knows. It comes later where another attempt is under way, or will be let in."""
        state = None if record is None else record["state"]
        if state != "in-flight" and not (record or {}).get("runs_again"):
            return Aside("unknown", text, record)
        if self._is_exhausted(record):
            return self._exhausted(record)
        return NotNow(text, _pauses(record))

    def _met(self, key: str, error: OnceError, ran: bool) -> Settled:
        """What stands in the way."""
        if isinstance(error, ResultNotJson):
            return Done(200, None, False)
        if isinstance(error, (Gone, Sealed)):
            record = self._record(key) or {}
            content = (record.get("reply") or {}).get("json")
            kept = None if content is None else _content(content)
            return Done(int(record.get("status", 200)), kept, True)
        if isinstance(error, OutcomeUnknown):
            return self._unknown("nobody knows whether it happened", self._record(key))
        if isinstance(error, Expired):
            text = "it is older than what the store remembers: it may have happened"
            return Aside("expired", text, self._record(key))
        if isinstance(error, Mismatch):
            text = "its key was used for another message; this one was not run"
            return Aside("mismatch", text, self._record(key))
        if error.problem_name == "key-time-invalid":
            return Aside("no-key", str(error))
        if ran:
            # It is not durable, so it is not acknowledged. The record will say what is known.
            return NotNow(f"it happened, but that is not recorded: {error}")
        if isinstance(error, InProgress):
            return NotNow("it is being carried out")
        raise error

    def _record(self, key: str) -> Optional[Mapping[str, Any]]:
        scope = self._options.get("scope")
        body = {"key": key} if scope is None else {"key": key, "scope": scope}
        try:
            patience = float(self._options.get("patience", 30.0))
            return self._client.ask("get", body, patience=patience)
        except Refused as error:
            if error.problem_name == "no-record":
                return None
            raise

    def _is_exhausted(self, record: Optional[Mapping[str, Any]]) -> bool:
        if record is None or record["state"] not in ("released", "unknown"):
            return False
        return self._attempts_max <= int(record["attempt"])

    def _exhausted(self, record: Optional[Mapping[str, Any]]) -> Aside:
        assert record is not None
        why = "unknown" if record["state"] == "unknown" else "exhausted"
        return Aside(why, f"tried {record['attempt']} times", record)


def _pauses(record: Optional[Mapping[str, Any]]) -> int:
    return max(0, int((record or {}).get("attempt", 1)) - 1)


def _content(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _millis(said: str) -> int:
    at = datetime.datetime.fromisoformat(said.replace("Z", "+00:00"))
    return round(at.timestamp() * 1000)


def _time_of(key: str) -> Optional[int]:
    """The time that a UUIDv7 carries, in milliseconds."""
    digits = key.replace("-", "").lower()
    if len(key) != 36 or len(digits) != 32 or digits[12] != "7" or digits[16] not in "89ab":
        return None
    return int(digits[:12], 16) if all(c in "0123456789abcdef" for c in digits) else None
