"""Namespaces: groups of keys that one write makes unreachable. One text for both clients.

A namespace has a random token in the cache, and its keys begin with that token. To clear it stores another token: the
old values are not asked for any more, and leave the cache by their time to live or by eviction. A token is random and
not a counter. The server may evict a counter, and one that starts again would make old values reachable.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from typing import Final, TypeVar

from metacache.errors import InvalidArgumentError, InvalidTypeError, MetacacheError
from metacache.operations.arguments import DEFAULT
from metacache.operations.options import Options
from metacache.operations.recipes import Effects
from metacache.operations.requests import Operations
from metacache.protocol.keys import Key
from metacache.serializers.plain import BytesSerializer

__all__ = ["TOKENS", "clear_namespace", "namespace_prefix", "token_options"]

T = TypeVar("T")

TOKENS: Final = BytesSerializer()
TOKEN: Final = 16  # bytes
# A reader makes the token if it is absent, and reads it again if another caller was faster.
ATTEMPTS: Final = 5
# No key without control characters begins so.
MARK: Final = "\0n"


def token_options(options: Options) -> Options:
    """Return the options of the client that reads and writes the tokens: they never expire, and errors raise."""
    return Options(prefix=options.prefix, long_keys=options.long_keys, timeout=options.timeout)


async def namespace_prefix(effects: Effects, tokens: Operations[bytes], prefix: Key, name: str) -> Key:
    """Return the prefix of the keys in the namespace *name*; make its token if it is absent."""
    try:
        return await _token_prefix(effects, tokens, prefix, name)
    except MetacacheError as error:
        _name_the_call(error, "namespace", name)
        raise


async def clear_namespace(effects: Effects, tokens: Operations[bytes], name: str) -> None:
    """Store another token for the namespace *name*."""
    try:
        await effects.run(tokens.set(_key(name, "clear_namespace"), os.urandom(TOKEN), DEFAULT))
    except MetacacheError as error:
        _name_the_call(error, "clear_namespace", name)
        raise


async def _token_prefix(effects: Effects, tokens: Operations[bytes], prefix: Key, name: str) -> Key:
    key = _key(name, "namespace")
    for _ in range(ATTEMPTS):
        token = await effects.run(tokens.get(key, None))
        if token is not None and len(token) == TOKEN:
            return _prefix(prefix, token)
        made = os.urandom(TOKEN)
        # What is no token is replaced; an absent one is added, so that all callers agree on one.
        store = tokens.add(key, made, DEFAULT) if token is None else tokens.set(key, made, DEFAULT)
        if await effects.run(store):
            return _prefix(prefix, made)
    # Something undecodable is stored there, which a get shows as a miss: replace it.
    made = os.urandom(TOKEN)
    await effects.run(tokens.set(key, made, DEFAULT))
    return _prefix(prefix, made)


def _name_the_call(error: MetacacheError, operation: str, name: str) -> None:
    """Replace the method and the key of the token in *error* by what the caller wrote."""
    if error.key == f"{MARK}{name}":  # an exception of a signal handler has another key, or none
        error.operation, error.key = operation, name


def _key(name: str, operation: str) -> str:
    if not isinstance(name, str):
        raise InvalidTypeError(f"the name of a namespace is a str, not {type(name).__name__}", operation=operation)
    if not name:
        raise InvalidArgumentError("the name of a namespace is not empty", operation=operation)
    return MARK + name


def _prefix(prefix: Key, token: bytes) -> Key:
    text = urlsafe_b64encode(token).rstrip(b"=") + b":"
    return prefix + text.decode() if isinstance(prefix, str) else prefix + text
