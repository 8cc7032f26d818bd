"""onlyonce: an operation that was asked for once happens once.

- ``Client`` and ``AsyncClient`` run operations once, with the record service (``onlyonce serve``).
- ``RetryingClient`` and ``AsyncRetryingClient`` send requests to APIs that know idempotency keys,
  with one key for each intent.
- ``uuid7`` and ``key_from`` make keys.

docs/clients.md has a walk-through; the errors say who failed, whether it happened, and whether to
send it again.
"""

from ._async import AsyncAttempt, AsyncClient, AsyncRetryingClient
from ._canonical import fingerprint, key_from
from ._client import Attempt, Client
from ._errors import (
    DidNotHappen,
    Expired,
    Fenced,
    Gone,
    InProgress,
    Mismatch,
    NoAnswer,
    NotExecuted,
    NotRecorded,
    OnceError,
    OutcomeUnknown,
    Refused,
    ResultNotJson,
    Sealed,
    SecondReply,
    StoreAway,
)
from ._http import Answer, Lost, Request, Transport
from ._intents import FileIntents, IntentStore, MemoryIntents
from ._record import Options
from ._retrying import Retrying, RetryingClient
from ._uuid7 import uuid7

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AsyncAttempt",
    "AsyncClient",
    "AsyncRetryingClient",
    "Attempt",
    "Client",
    "DidNotHappen",
    "Expired",
    "Fenced",
    "FileIntents",
    "Gone",
    "InProgress",
    "IntentStore",
    "Lost",
    "MemoryIntents",
    "Mismatch",
    "NoAnswer",
    "NotExecuted",
    "NotRecorded",
    "OnceError",
    "Options",
    "OutcomeUnknown",
    "Refused",
    "Request",
    "ResultNotJson",
    "Retrying",
    "RetryingClient",
    "Sealed",
    "SecondReply",
    "StoreAway",
    "Transport",
    "fingerprint",
    "key_from",
    "uuid7",
]
