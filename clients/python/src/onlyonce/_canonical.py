"""One spelling of a value as bytes: different values never have the same one.

Each part is a tag, its length in bytes, a colon, and its content, so that no two lists of fields
run together into the same bytes. The client for TypeScript spells the same values alike;
clients/vectors.json holds both to it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Mapping

#: What may be nested in what, at most.
DEPTH_MAX = 64


def canonical(value: Any, depth: int = 0) -> bytes:
    """The bytes of ``None``, bool, int, str, bytes, a list or tuple of these, or a dict with str
    as keys, whatever the order of its members.

    Raises ``TypeError`` for everything else. A float is refused because one amount has several
    (``0.1 + 0.2``), a ``Decimal`` because ``1.0`` equals ``1.00`` and is spelled differently, and a
    date because it may lack its time zone: write them as text, in the form that is meant.
    """
    if DEPTH_MAX < depth:
        raise TypeError(f"a value is nested deeper than {DEPTH_MAX}")
    if value is None:
        return _part(b"n", b"")
    if isinstance(value, bool):
        return _part(b"b", b"1" if value else b"0")
    if isinstance(value, int):
        return _part(b"i", b"%d" % value)
    if isinstance(value, str):
        return _part(b"s", _text(value))
    if isinstance(value, (bytes, bytearray)):
        return _part(b"x", bytes(value))
    if isinstance(value, (list, tuple)):
        return _part(b"l", b"".join(canonical(item, depth + 1) for item in value))
    if isinstance(value, Mapping):
        return _part(b"m", _members(value, depth))
    raise TypeError(
        f"a {type(value).__name__} has no one spelling: give text, or an int in the smallest unit"
    )


def fingerprint(inputs: Any) -> str:
    """What tells these inputs from others: the same for equal ones, in both clients."""
    return "k1:" + hashlib.sha256(canonical(inputs)).hexdigest()


def key_from(namespace: str, *fields: Any) -> str:
    """A key made from what identifies one operation, such as
    ``key_from("charge", order_id, amount_in_cents, "EUR")``.

    Equal fields give the same key, always and everywhere; any difference in value, type, number or
    order of fields gives another. Two intentions with equal fields are therefore one: put what
    tells them apart (an order's id, a day) among the fields. docs/clients.md lists the pitfalls.

    ``namespace`` names the kind of operation and is not empty. Fields are what ``canonical`` takes;
    there is at least one. Raises ``TypeError`` or ``ValueError`` for others.
    """
    if not isinstance(namespace, str) or not namespace:
        raise ValueError("the namespace is a text that is not empty")
    if not fields:
        raise ValueError("without a field every operation would have the same key")
    return "k1-" + hashlib.sha256(canonical([namespace, *fields])).hexdigest()


def _part(tag: bytes, content: bytes) -> bytes:
    return tag + b"%d:" % len(content) + content


def _text(value: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise TypeError("a text with half a character (a lone surrogate) has no bytes") from None


def _members(value: Mapping[Any, Any], depth: int) -> bytes:
    members = []
    for name, item in value.items():
        if not isinstance(name, str):
            raise TypeError("the names of members are text")
        members.append((_text(name), item))
    members.sort(key=lambda member: member[0])
    return b"".join(_part(b"s", name) + canonical(item, depth + 1) for name, item in members)
