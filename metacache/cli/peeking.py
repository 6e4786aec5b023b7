"""`peek`: read an item of any writer without the side effects of a read.

The request is ``mg key f c t s h l u``, with ``v`` for the value. The flag ``u`` keeps the idle time and the place in
the LRU. One side effect is left: every ``mg`` consumes the win flag of a stale item. `peek` gives the flag back with
``md key C<cas> I``, which marks the item as stale again. That gives the item another CAS.
"""

from __future__ import annotations

from functools import partial
from typing import Final, final

import attrs

from metacache.cluster.blocking import Cluster
from metacache.errors import MetacacheError
from metacache.operations.answers import read_delete
from metacache.operations.readers import is_placeholder
from metacache.operations.requests import CAS, INVALIDATE_FLAGS, operation
from metacache.protocol import commands
from metacache.protocol.flags import Commands, Token, encode_flags
from metacache.protocol.keys import Key, KeyEncoder
from metacache.protocol.replies import Reply, flag_number, flag_ttl, return_flags
from metacache.transports.base import Verb

__all__ = ["Peeked", "peek"]

GET: Final = Verb("get", commands.MG_VALUE, is_read=True)
EXISTS: Final = Verb("exists", commands.MG, is_read=True)
RETURN_WIN: Final = Verb("get", commands.MD)
_WANTED: Final[dict[str, Token]] = dict.fromkeys(
    (
        "return_client_flags",
        "return_cas",
        "return_ttl",
        "return_size",
        "return_fetched",
        "return_idle",
        "no_bump",
    ),
    True,
)
STATE_FLAGS: Final = encode_flags(Commands.MG, _WANTED)
VALUE_FLAGS: Final = encode_flags(Commands.MG, {"value": True, **_WANTED})


@final
@attrs.frozen
class Peeked:
    """A stored item and its metadata.

    Attributes:
        data: the stored bytes; empty without the value.
        client_flags, cas, size: as in `Item`.
        ttl: the seconds that are left; None: it never expires.
        is_fetched: it was read before.
        idle_seconds: seconds since it was last read or written.
        is_placeholder: it is the empty item of a caller who computes the value.
        is_stale: it was invalidated.
        is_claimed: another caller holds the win flag.
        is_win_lost: this read consumed the win flag and could not give it back.
        has_won: this read got the win flag.
    """

    data: bytes = attrs.field(repr=False)
    client_flags: int
    cas: int
    size: int
    ttl: int | None
    is_fetched: bool
    idle_seconds: int
    is_placeholder: bool
    is_stale: bool
    is_claimed: bool
    is_win_lost: bool = False
    has_won: bool = False


def peek(cluster: Cluster, key: Key, *, with_value: bool) -> Peeked | None:
    """Return the item of *key*, or None if there is none. Raises InvalidKeyError and the errors of a transport."""
    raw, token, base64 = KeyEncoder().encode(key)
    verb, flags = (GET, VALUE_FLAGS) if with_value else (EXISTS, STATE_FLAGS)
    found = cluster.run(operation(verb, key, raw, b"mg %b%b%b" % (token, base64, flags), None, _read))
    if found is None or not found.has_won:
        return found
    if not found.cas:  # a server without CAS (-C): without a guard, the mark could reach a newer value
        return attrs.evolve(found, is_win_lost=True)
    head = b"md %b%b%b" % (token, base64, CAS % found.cas + INVALIDATE_FLAGS)
    try:
        cluster.run(operation(RETURN_WIN, key, raw, head, None, read_delete))
    except MetacacheError:
        return attrs.evolve(found, is_win_lost=True)
    # If the CAS no longer matches, a newer value was stored meanwhile, and no win flag is missing.
    return found


def _read(reply: Reply) -> Peeked | None:
    tokens, data = reply
    if tokens[0] == b"EN":
        return None
    flags = return_flags(reply)
    number = partial(flag_number, flags)
    size = number(b"s")
    return Peeked(
        data=data or b"",
        client_flags=number(b"f"),
        cas=number(b"c"),
        size=size,
        ttl=flag_ttl(flags),
        is_fetched=number(b"h") == 1,
        idle_seconds=number(b"l"),
        is_placeholder=size == 0 and is_placeholder(flags, b""),
        is_stale=b"X" in flags,
        is_claimed=b"Z" in flags,
        has_won=b"W" in flags,
    )
