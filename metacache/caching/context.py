"""Which keys the running task or thread computes, so that a factory that asks for its own key is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import ContextVar, Token
from typing import TypeAlias

from metacache.errors import BusyError
from metacache.protocol.keys import K

__all__ = ["begin_computing", "end_computing", "refuse_own"]

_Keys: TypeAlias = frozenset[tuple[int, bytes]]

# The id of the client's flights, and a routing key.
_computing: ContextVar[_Keys] = ContextVar("metacache_computing", default=frozenset())


def begin_computing(owner: object, raws: Collection[bytes]) -> Token[_Keys]:
    """Note that the caller computes the keys *raws* of the client that *owner* belongs to."""
    return _computing.set(_computing.get() | {(id(owner), raw) for raw in raws})


def end_computing(token: Token[_Keys]) -> None:
    """End what `begin_computing` began."""
    _computing.reset(token)


def refuse_own(owner: object, operation: str, keys: Mapping[K, bytes]) -> None:
    """Raise BusyError if the caller computes one of *keys*, routing keys by the caller's keys, right now."""
    known = _computing.get()
    if not known:
        return
    for key, raw in keys.items():
        if (id(owner), raw) in known:
            raise BusyError(
                "the factory of this key asks for the key itself, whose value it is computing",
                operation=operation,
                key=key,
            )
