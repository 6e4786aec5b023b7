"""Turns the values of a Django cache into signed bytes and back. Pure: it knows no settings and no client.

An int from 0 to 2**64-1 is decimal text, because the server counts with decimal text. It has no signature. Every other
value is a pickle with a signature:

    1 byte    FORMAT, which no decimal text begins with
    32 bytes  HMAC-SHA256 of the cache key and the pickle
    the rest  the pickle

The signature covers the cache key. So an attacker who can write to memcached cannot copy the session of one user to the
key of another user. He can still store an older value of the same key, and change an int.
"""

from __future__ import annotations

import enum
import hmac
import pickle
import re
from collections.abc import Iterable
from typing import Final, final

from django.core.exceptions import SynchronousOnlyOperation

from metacache.interrupts import fails_again

__all__ = ["SEALED", "SealedBytes", "Sealer", "Unreadable"]

FORMAT: Final = b"\x01"
SIGNATURE: Final = 32  # bytes
BEGIN: Final = len(FORMAT) + SIGNATURE  # of the pickle

# Separates the keys of this signature from all other keys that a site derives from the same SECRET_KEY.
PURPOSE: Final = b"metacache_django: values, format 1"

_is_number = re.compile(rb"[0-9]{1,20} *").fullmatch  # the server pads a decremented number with spaces
LARGEST: Final = 2**64 - 1


@final
class SealedBytes:
    """The serializer of the backend's client: it stores bytes that a `Sealer` made, under the wire id of this format.

    A serializer of metacache does not see the key, and a signature covers the key. So the backend seals and unseals.
    """

    wire_id = 160
    fingerprint = 0

    def dumps(self, value: bytes, /) -> bytes:
        """Return *value*."""
        return value

    def loads(self, data: bytes, /) -> bytes:
        """Return *data*."""
        return data


SEALED: Final = SealedBytes()


@final
class Unreadable(enum.Enum):
    """Why stored bytes are not a value. The texts are for the log."""

    FORMAT = "it has another format"
    SIGNATURE = "its signature does not match: another SECRET_KEY signed it, or it was changed or copied"
    PICKLE = "its pickle cannot be loaded: a class was moved, renamed or removed"


@final
class Sealer:
    """Signs with one secret, and accepts the signatures of several.

    Args:
        secret: of new signatures, such as Django's SECRET_KEY.
        fallbacks: more secrets whose signatures are accepted, such as SECRET_KEY_FALLBACKS.
    """

    __slots__ = ("_keys",)

    def __init__(self, secret: str | bytes, fallbacks: Iterable[str | bytes] = ()) -> None:
        self._keys: list[bytes] = [_derived(each) for each in (secret, *fallbacks)]

    def seal(self, key: str, value: object) -> bytes:
        """Return *value* as bytes for the cache key *key*. Raises what pickle raises for *value*."""
        if type(value) is int and 0 <= value <= LARGEST:
            return b"%d" % value
        pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        return b"".join((FORMAT, _signature(self._keys[0], key, pickled), pickled))

    def unseal(self, key: str, data: bytes) -> object:
        """Return the value that was sealed for *key*, or an `Unreadable`. Loads no pickle without a valid signature."""
        if data[:1] != FORMAT:
            return int(data) if _is_number(data) else Unreadable.FORMAT
        signature, pickled = data[1:BEGIN], data[BEGIN:]
        for secret in self._keys:
            if hmac.compare_digest(_signature(secret, key, pickled), signature):
                return _load(pickled)
        return Unreadable.SIGNATURE


def _derived(secret: str | bytes) -> bytes:
    return hmac.digest(secret.encode() if isinstance(secret, str) else secret, PURPOSE, "sha256")


def _signature(secret: bytes, key: str, pickled: bytes) -> bytes:
    # The length comes first: without it, the end of a key could be taken for the begin of a pickle.
    name = key.encode()
    return hmac.digest(secret, b"%d:%b%b" % (len(name), name, pickled), "sha256")


def _load(pickled: bytes) -> object:
    try:
        value: object = pickle.loads(pickled)
    except SynchronousOnlyOperation:
        raise  # the value queries the database: the backend loads it again, in a thread
    except Exception as error:
        if not fails_again(pickle.loads, pickled, error):
            raise  # a signal handler or another thread raised it
        return Unreadable.PICKLE
    return value
