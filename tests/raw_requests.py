"""Requests for items as a test writes them: any key and any flags of the flag table, which no client would send.

A client puts its requests together itself (`metacache.operations`). The key is a wire token: these functions do not
check or encode it.
"""

from __future__ import annotations

from collections.abc import Mapping

from metacache.protocol.commands import MA, MA_VALUE, MD, MD_DROP, ME, MG, MG_CONDITIONAL, MG_VALUE, MS, Request
from metacache.protocol.flags import Commands, Token, encode_flags


def meta_get(key: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``mg key flags``; flags by name (`REQUEST_FLAGS`)."""
    with_value = MG_CONDITIONAL if flags.get("unless_cas") else MG_VALUE
    return Request(with_value if flags.get("value") else MG, b"mg " + key + encode_flags(Commands.MG, flags))


def meta_set(key: bytes, body: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``ms key datalen flags`` with its data block."""
    return Request(MS, b"ms %b %d%b" % (key, len(body), encode_flags(Commands.MS, flags)), body)


def meta_delete(key: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``md key flags``."""
    command = MD_DROP if flags.get("drop_value") else MD
    return Request(command, b"md " + key + encode_flags(Commands.MD, flags))


def meta_arithmetic(key: bytes, flags: Mapping[str, Token]) -> Request:
    """Return ``ma key flags``; the mode is ``"+"`` (or I) or ``"-"`` (or D)."""
    return Request(MA_VALUE if flags.get("value") else MA, b"ma " + key + encode_flags(Commands.MA, flags))


def meta_debug(key: bytes) -> Request:
    """Return ``me key``."""
    return Request(ME, b"me " + key)
