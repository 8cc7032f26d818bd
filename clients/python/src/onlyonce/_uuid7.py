"""Keys that carry their time (RFC 9562 section 5.7)."""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid

#: Bits behind the time, of which the highest is 0 in a fresh draw: there is room to count on.
_TAIL_BITS = 74
#: A clock that was set back further than this, in milliseconds, is believed.
_BACK_MAX = 60_000

_lock = threading.Lock()
_last_ms = 0
_last_tail = 0


def uuid7() -> str:
    """A new UUIDv7. Later ones of this process are greater, also within a millisecond and when
    the clock is set back by less than a minute. Its time lets the service refuse it however late
    it comes back.
    """
    global _last_ms, _last_tail
    with _lock:
        now = time.time_ns() // 1_000_000
        if now <= _last_ms <= now + _BACK_MAX:
            # By a random step: who has seen one key cannot tell the next.
            _last_tail += 1 + secrets.randbits(32)
            if _last_tail >> _TAIL_BITS:
                _last_ms, _last_tail = _last_ms + 1, secrets.randbits(_TAIL_BITS - 1)
        else:
            _last_ms, _last_tail = now, secrets.randbits(_TAIL_BITS - 1)
        milliseconds, tail = _last_ms, _last_tail
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


def _forked() -> None:
    """A child must not count on from where its parent does."""
    global _lock, _last_ms
    _lock, _last_ms = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
