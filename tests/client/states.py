"""All states and client flags that an item can have, for the tests of several methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from metacache import Node
from metacache.protocol.flags import Token
from metacache.serializers import BytesSerializer, IntSerializer, JsonSerializer, StrSerializer
from tests import raw_requests
from tests.client.rig import ask, store

__all__ = ["FLAGS", "MAGIC", "STATES", "Seen", "all_items", "look", "put"]

MAGIC: Final = 0b1011 << 28
BODY: Final = b"body"
TTL: Final = 5000


class State(NamedTuple):
    """How to create an item. ``value`` None: by a lease."""

    value: bytes | None = BODY
    is_stale: bool = False
    is_taken: bool = False


ABSENT: Final = "absent"
STATES: Final[Mapping[str, State]] = {
    "fresh": State(),
    "fresh empty": State(b""),
    "stale": State(is_stale=True),
    "stale, win taken": State(is_stale=True, is_taken=True),
    "stale empty": State(b"", is_stale=True),
    "stale empty, win taken": State(b"", is_stale=True, is_taken=True),
    "lease": State(None),
    "stale lease": State(None, is_stale=True),
    "stale lease, win taken": State(None, is_stale=True, is_taken=True),
}

_WIRE_IDS: Final = {
    "bytes": BytesSerializer().wire_id,
    "str": StrSerializer().wire_id,
    "int": IntSerializer().wire_id,
    "json": JsonSerializer(int).wire_id,
}
# The client flags of all kinds of writers. "X zlib": compressed by an installed compressor, "X unknown": by another.
FLAGS: Final[Mapping[str, int]] = {
    "none": 0,
    **{name: MAGIC | wire_id for name, wire_id in _WIRE_IDS.items()},
    **{f"{name} zlib": MAGIC | 1 << 8 | wire_id for name, wire_id in _WIRE_IDS.items()},
    **{f"{name} unknown": MAGIC | 9 << 8 | wire_id for name, wire_id in _WIRE_IDS.items()},
    **{f"{name} shaped": MAGIC | 0x1234 << 12 | wire_id for name, wire_id in _WIRE_IDS.items()},
    "no serializer": MAGIC,
    "another plugin": MAGIC | 0x1234 << 12 | 255,
    **{f"another client {number}": number for number in (1, 2, 4, 8, 16, 2**32 - 1, 0b1010 << 28 | 1)},
}


class Seen(NamedTuple):
    """The content of an item, and the marks that a reader gets."""

    value: bytes
    client_flags: int
    ttl: int
    marks: frozenset[bytes]


def all_items() -> Iterator[tuple[str, str]]:
    """Yield all pairs of a state and client flags, by name, that an item can have."""
    for name, state in STATES.items():
        yield from ((name, flags) for flags in (FLAGS if state.value is not None else ("none",)))


def put(node: Node, key: str, state: str, flags: str) -> None:
    """Create an item in *state* with *flags*; none for "absent"."""
    value, is_stale, is_taken = STATES[state]
    raw = key.encode()
    if value is None:
        ask(node, raw_requests.meta_get(raw, {"vivify": TTL}))
    else:
        store(node, key, value, client_flags=FLAGS[flags], ttl=TTL)
    if is_stale:
        ask(node, raw_requests.meta_delete(raw, {"invalidate": True}))
    if is_taken:
        ask(node, raw_requests.meta_get(raw, {"return_size": True}))


def look(node: Node, key: str) -> Seen | None:
    """Read an item like another program. Consumes the win flag."""
    flags: Mapping[str, Token] = {"value": True, "return_client_flags": True, "return_ttl": True}
    tokens, value = ask(node, raw_requests.meta_get(key.encode(), flags))
    if value is None:
        return None
    shown = {token[:1]: token[1:] for token in tokens[2:]}
    return Seen(value, int(shown[b"f"]), int(shown[b"t"]), frozenset(shown.keys() & {b"W", b"Z", b"X"}))
