"""What all flows are made of. A flow is a generator: it yields what is to be done, and whoever
drives it, on threads or on asyncio, does that and sends the result back in. So there is one order
of events, not one for each kind of caller.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Callable, Generator, TypeVar, Union

from ._http import Request

T = TypeVar("T")

#: The first pause after a failure, and the longest, in seconds.
PAUSE_FIRST = 0.1
PAUSE_MAX = 5.0


@dataclass(frozen=True)
class Send:
    """To send a request; gives an ``Answer`` or raises ``Lost``."""

    request: Request


@dataclass(frozen=True)
class Pause:
    """To let so many seconds pass."""

    seconds: float


@dataclass(frozen=True)
class Do:
    """To do something short that may wait for a disk; gives what it returns."""

    work: Callable[[], Any]


@dataclass(frozen=True)
class Run:
    """To run the operation while its claim is renewed; gives what it returns, or raises."""

    claim: Any


Step = Union[Send, Pause, Do, Run]
Flow = Generator[Step, Any, T]


def pause_after(tries: int) -> float:
    """How long to wait before the next try, in seconds: longer each time, and by chance, so that
    those who failed together do not come back together."""
    most = min(PAUSE_MAX, PAUSE_FIRST * 2.0 ** min(tries, 10))
    return most * (0.5 + random.random() / 2)
