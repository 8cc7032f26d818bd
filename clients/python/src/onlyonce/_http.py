"""HTTP as the clients use it: one request, one answer, or none.

The default transport is the standard library's, with a connection for each request: none is ever
found closed by the other side. It follows no redirect and knows no cookies.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Optional, Tuple

#: The largest answer, in bytes.
ANSWER_MAX = 64 << 20
_PIECE = 1 << 16


class Lost(Exception):
    """No whole answer came. What was sent may have arrived or not."""


@dataclass(frozen=True)
class Request:
    """What is sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    #: For how many seconds an answer is waited for, from when the connection is begun.
    timeout: float


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    #: In their order, with repeats.
    headers: List[Tuple[str, str]]
    body: bytes

    def header(self, name: str) -> Optional[str]:
        """The first field of that name, in whatever case."""
        for field, value in self.headers:
            if field.lower() == name.lower():
                return value
        return None

    def json(self) -> Any:
        """The body as JSON. Raises ``ValueError`` if it is not."""
        return json.loads(self.body)

    @property
    def idempotency_status(self) -> Optional[str]:
        """How far the request got: ``executed``, ``replayed``, ... (docs/http.md)."""
        said = self.header("Idempotency-Status")
        return said.strip() if said is not None else None

    @property
    def replayed(self) -> bool:
        """Whether the answer had been given before."""
        return (self.header("Idempotent-Replayed") or "").strip() == "true"


#: Sends a request. Raises ``Lost`` when no whole answer came.
Transport = Callable[[Request], Answer]


def default_transport(context: Optional[ssl.SSLContext] = None) -> Transport:
    """The standard library's, with these certificates."""

    def send(request: Request) -> Answer:
        return _send(request, context)

    return send


def _send(request: Request, context: Optional[ssl.SSLContext]) -> Answer:
    url = urllib.parse.urlsplit(request.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"{request.url!r} is not an address of http or https")
    ends = time.monotonic() + request.timeout
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        trust = context or ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            url.hostname, url.port, timeout=request.timeout, context=trust
        )
    else:
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=request.timeout)
    target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
    headers = {"Connection": "close", "Accept-Encoding": "identity", **request.headers}
    try:
        connection.request(request.method, target, request.body or None, headers)
        response = connection.getresponse()
        return Answer(response.status, response.getheaders(), _body(connection, response, ends))
    except (OSError, http.client.HTTPException) as failure:
        if isinstance(failure, http.client.InvalidURL):
            raise ValueError(str(failure)) from None
        raise Lost(f"{type(failure).__name__}: {failure}") from failure
    finally:
        connection.close()


def _body(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, ends: float
) -> bytes:
    """Reads to the end; an answer that is cut, endless or too slow is none."""
    body = bytearray()
    while True:
        left = ends - time.monotonic()
        if left <= 0:
            raise Lost("the answer took too long")
        if connection.sock is not None:
            connection.sock.settimeout(left)
        piece = response.read1(_PIECE)
        if not piece:
            break
        body += piece
        if ANSWER_MAX < len(body):
            raise Lost(f"the answer is larger than {ANSWER_MAX} bytes")
    if response.length:
        raise Lost("the answer broke off")
    return bytes(body)


def problem_of(answer: Answer) -> Optional[Mapping[str, Any]]:
    """The problem document that an answer is, if it is one of onlyonce's."""
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind != "application/problem+json":
        return None
    try:
        document = answer.json()
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("type"), str):
        return None
    return document if "happened" in document and "retryable" in document else None


def retry_after(answer: Answer) -> Optional[float]:
    """For how many seconds the answer says to wait; ``None`` if it does not, or not legibly."""
    said = (answer.header("Retry-After") or "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        at = email.utils.parsedate_to_datetime(said)
    except (TypeError, ValueError, IndexError):
        return None
    seconds = at.timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None
