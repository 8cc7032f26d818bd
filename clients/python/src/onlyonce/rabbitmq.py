"""Takes messages from a queue of RabbitMQ, one acknowledgement for one durable record. It needs
``pip install './clients/python[rabbitmq]'`` from the repository.

As the consumer in Rust (docs/consume.md): the same queues, headers and promises. Handlers run on
threads of their own; the connection is used by the thread that called ``run`` alone. Whatever is
moved is published first, and acknowledged once the broker has confirmed that: a crash in between
makes two of it, which are one to the inbox.
"""

from __future__ import annotations

import functools
import ssl
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple
from urllib.parse import unquote, urlsplit, urlunsplit

import pika
import pika.credentials
import pika.exceptions

from ._inbox import Aside, Away, Done, Handler, Inbox, Later, Message, Never, NotNow, Settled

__all__ = ["Handler", "Inbox", "Later", "Message", "Never", "Queues", "Rabbit"]

_PERSISTENT = 2
#: What the broker, or we, said of a message before, which does not come back with it.
_SAID = ("onlyonce-", "x-death", "x-first-death-", "x-last-death-", "x-delivery-count")
_KEPT = (
    "content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id",
    "timestamp", "type", "app_id",
)  # fmt: skip


@dataclass(frozen=True)
class Queues:
    """The queues of a consumer. ``source`` must exist, durable; the others are made, as quorum
    queues, unless ``make`` is false."""

    source: str
    #: How long a message waits that is to come later, in seconds: the first time, the second, and
    #: so on; the last one counts for all further times.
    pauses: Sequence[float] = field(default=(1.0, 5.0, 30.0, 180.0))
    make: bool = True

    @property
    def aside(self) -> str:
        """Where messages are put aside."""
        return self.source + ".aside"

    def later(self, pauses: int) -> Tuple[str, int]:
        """Where a message waits that has paused so often, and for how many milliseconds."""
        pause = self.pauses[min(pauses, len(self.pauses) - 1)] if self.pauses else 1.0
        milliseconds = round(pause * 1000)
        return f"{self.source}.later.{milliseconds}", milliseconds


class Rabbit:
    """A consumer of one queue, whose broker is there:
    ``amqp://user:password@host:port/vhost?heartbeat=10``.

    ``amqps://`` is TLS. Its options are files in PEM, which are read anew for each connection:
    ``ca``, the certificates to trust instead of the system's; ``cert`` and ``key``, our own
    certificate and its key. ``auth_mechanism=external`` lets the broker take the user from that
    certificate. Raises ``ValueError`` or ``OSError`` if that cannot be right.

    ``prefetch`` messages are carried out at once. ``pause`` is how long it waits, in seconds,
    after a connection was lost (longer each time), and while the records are away.
    """

    def __init__(self, url: str, queues: Queues, *, prefetch: int = 16, pause: float = 1.0):
        _parameters(url)
        self._url, self._queues = url, queues
        self._prefetch, self._pause = max(1, prefetch), pause
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ends ``run``, from any thread: what runs is waited for, the rest goes back."""
        self._stop.set()

    def run(
        self,
        inbox: Inbox,
        handler: Handler,
        tell: Callable[[str, str], None] = lambda _what, _why: None,
    ) -> None:
        """Takes messages until ``stop``, and connects again whenever the broker is lost. ``tell``
        is told what happens: ``connected``, ``lost``, ``done``, ``duplicate``, ``later``,
        ``aside`` and ``unanswered``, with the reason."""
        take = functools.partial(inbox.take, handler=handler)
        lost = 0
        with ThreadPoolExecutor(self._prefetch, "onlyonce-message") as threads:
            while not self._stop.is_set():
                try:
                    session = _Session(self, take, tell, threads)
                    lost = 0
                    tell("connected", "")
                    session.work(self._stop)
                except (pika.exceptions.AMQPError, OSError) as failure:
                    tell("lost", _why(failure))
                    self._stop.wait(self._pause * min(2**lost, 30))
                    lost += 1

    def replay(self, limit: int) -> int:
        """Hands in again what was put aside, at most so many and only what lies there now, and
        says how many. What was answered is not run again, however long ago that was."""
        connection = pika.BlockingConnection(_parameters(self._url))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            aside = self._queues.aside
            there = channel.queue_declare(aside, passive=True).method.message_count
            moved = 0
            while moved < min(limit, there):
                method, properties, body = channel.basic_get(aside)
                if method is None:
                    break
                carried = _carried(properties, [])
                channel.basic_publish("", self._queues.source, body, carried, mandatory=True)
                channel.basic_ack(method.delivery_tag)
                moved += 1
            return moved
        finally:
            connection.close()


class _Session:
    """One connection: deliveries are settled on the connection that they came by."""

    def __init__(
        self,
        rabbit: Rabbit,
        take: Callable[[Message], Settled],
        tell: Callable[[str, str], None],
        threads: ThreadPoolExecutor,
    ):
        self._queues, self._pause, self._tell = rabbit._queues, rabbit._pause, tell
        self._take, self._threads = take, threads
        self._running = 0
        self._failure: Optional[BaseException] = None
        self._connection = pika.BlockingConnection(_parameters(rabbit._url))
        try:
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
            if self._queues.make:
                self._make()
            self._channel.basic_qos(prefetch_count=rabbit._prefetch)
            self._tag = self._channel.basic_consume(self._queues.source, self._came)
        except BaseException:
            if self._connection.is_open:
                self._connection.close()
            raise

    def _make(self) -> None:
        quorum = {"x-queue-type": "quorum"}
        self._channel.queue_declare(self._queues.aside, durable=True, arguments=quorum)
        for pauses in range(max(1, len(self._queues.pauses))):
            name, milliseconds = self._queues.later(pauses)
            arguments = {
                **quorum,
                "x-message-ttl": milliseconds,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self._queues.source,
                # Else the broker may lose a message on its way back when it is killed.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            self._channel.queue_declare(name, durable=True, arguments=arguments)

    def work(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self._events()
            self._channel.basic_cancel(self._tag)
            while self._running:
                self._events()
        finally:
            # What still runs goes on without its delivery: the next one finds its record.
            if self._connection.is_open:
                self._connection.close()

    def _events(self) -> None:
        self._connection.process_data_events(time_limit=0.1)
        if self._failure is not None:
            raise self._failure

    def _came(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        headers = {
            name: str(value)
            for name, value in (properties.headers or {}).items()
            if isinstance(value, (str, int)) and not isinstance(value, bool)
        }
        again = bool(method.redelivered) or "onlyonce-later" in headers
        message = Message(body, properties.message_id, headers, again)
        self._running += 1

        def settled(taken: "Future[Settled]") -> None:
            work = functools.partial(self._settle, method.delivery_tag, properties, body, taken)
            try:
                self._connection.add_callback_threadsafe(work)
            except pika.exceptions.AMQPError:
                pass  # It is closed: the delivery comes again on the next one.

        self._threads.submit(self._take, message).add_done_callback(settled)

    def _settle(self, tag: int, properties: Any, body: bytes, taken: "Future[Settled]") -> None:
        try:
            self._settled(tag, properties, body, taken.result())
        except BaseException as failure:
            # The delivery is not acknowledged, so it comes again.
            self._failure = failure
        finally:
            self._running -= 1

    def _settled(self, tag: int, properties: Any, body: bytes, settled: Settled) -> None:
        if isinstance(settled, Done):
            self._answer(properties, settled)
            self._channel.basic_ack(tag)
            self._tell("duplicate" if settled.replayed else "done", "")
        elif isinstance(settled, NotNow):
            queue, _ = self._queues.later(settled.pauses)
            self._move(tag, queue, properties, body, [("onlyonce-later", settled.why)])
            self._tell("later", settled.why)
        elif isinstance(settled, Away):
            back = functools.partial(self._channel.basic_nack, tag, requeue=True)
            self._connection.call_later(self._pause, back)
            self._tell("later", settled.why)
        else:
            assert isinstance(settled, Aside)
            headers = [*settled.headers(), ("onlyonce-queue", self._queues.source)]
            self._move(tag, self._queues.aside, properties, body, headers)
            self._tell("aside", f"{settled.why}: {settled.text}")

    def _move(
        self, tag: int, queue: str, properties: Any, body: bytes, said: List[Tuple[str, str]]
    ) -> None:
        # Raises unless the broker has taken it.
        self._channel.basic_publish("", queue, body, _carried(properties, said), mandatory=True)
        self._channel.basic_ack(tag)

    def _answer(self, asked: Any, done: Done) -> None:
        """Sends what a message was answered to whoever asked, before it is acknowledged."""
        if not asked.reply_to:
            return
        kept = "no" if done.content is None else "yes"
        properties = pika.BasicProperties(
            delivery_mode=_PERSISTENT,
            headers={"onlyonce-status": str(done.status), "onlyonce-kept": kept},
            correlation_id=asked.correlation_id or asked.message_id,
        )
        body = done.content or b""
        try:
            self._channel.basic_publish("", asked.reply_to, body, properties, mandatory=True)
        except pika.exceptions.UnroutableError:
            self._tell("unanswered", asked.reply_to)


def _why(failure: BaseException) -> str:
    """Why the broker was lost, for a person."""
    if isinstance(failure, pika.exceptions.IncompatibleProtocolError):
        return (
            "the broker hung up at the first word: is AMQP spoken there, with TLS or without as "
            f"the address says, and if it asks who we are, does it know our `cert`? {failure!r}"
        )
    return repr(failure)


def _carried(properties: Any, said: List[Tuple[str, str]]) -> Any:
    """What a message carries on: what its sender gave it, and ``said``."""
    own = (properties.headers or {}).items()
    headers: Dict[str, Any] = {name: it for name, it in own if not name.startswith(_SAID)}
    headers.update(said)
    kept = {name: getattr(properties, name) for name in _KEPT}
    return pika.BasicProperties(delivery_mode=_PERSISTENT, headers=headers, **kept)


def _parameters(url: str) -> Any:
    """How a connection to this address is made."""
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError("the address of a broker begins with amqp:// or amqps://")
    files: Dict[str, str] = {}
    rest: List[str] = []
    mechanism = "plain"
    for option in filter(None, parts.query.split("&")):
        name, _, value = option.partition("=")
        if name in ("ca", "cert", "key"):
            if not value:
                # Else it would mean the system's.
                raise ValueError(f"`{name}` names no file")
            files[name] = unquote(value)
        elif name == "auth_mechanism":
            mechanism = value.lower()
        else:
            rest.append(option)
    if mechanism not in ("plain", "external"):
        raise ValueError("`auth_mechanism` is `plain` or `external`")
    parameters = pika.URLParameters(urlunsplit(parts._replace(query="&".join(rest))))
    if parts.scheme == "amqp":
        for name in files:
            raise ValueError(f"`{name}` is for amqps://")
    if ("cert" in files) != ("key" in files):
        raise ValueError("`cert` and `key` go together")
    if mechanism == "external":
        if "cert" not in files:
            raise ValueError("`auth_mechanism=external` needs `cert` and `key`, over amqps://")
        parameters.credentials = pika.credentials.ExternalCredentials()
    if parts.scheme == "amqp":
        return parameters
    parameters.ssl_options = pika.SSLOptions(_context(files), parameters.host)
    return parameters


def _context(files: Dict[str, str]) -> ssl.SSLContext:
    """Whom we trust, and who we are."""
    read = [files["ca"]] if "ca" in files else []
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            read = [files["cert"], files["key"]]
            context.load_cert_chain(*read)
        return context
    except OSError as failure:
        # It names no file by itself.
        raise OSError(f"{', '.join(read)}: {failure}") from failure
