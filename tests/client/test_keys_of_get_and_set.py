"""`get` and `set` repeat the rule of `KeyEncoder` for speed: they send and refuse each key as other methods do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache.errors import InvalidKeyError
from metacache.operations.arguments import DEFAULT
from metacache.operations.options import Options
from metacache.operations.policies import UndecodablePolicy
from metacache.operations.readers import Reader
from metacache.operations.requests import ITEM_FLAGS, MODE_ADD, VALUE_FLAGS, Operations
from metacache.operations.statistics import Counts
from metacache.protocol.keys import Key
from metacache.serializers.builtin import BytesSerializer
from metacache.serializers.frame import Frame
from metacache.transports.base import Operation
from tests.protocol.test_keys import keys

R = TypeVar("R")
Written: TypeAlias = tuple[bytes, bytes] | str


def operations(prefix: str) -> Operations[bytes]:
    reader = Reader(Frame(BytesSerializer()), UndecodablePolicy(strict=False), Counts())
    return Operations(reader, Options(prefix=prefix), lambda: 0.0)


def written(build: Callable[[], Operation[R]], flags: bytes) -> Written:
    """Return the routing key and the request without *flags*, its last ones; or why the key is refused."""
    try:
        op = build()
    except InvalidKeyError as error:
        return error.message
    assert op.head.endswith(flags)
    return op.key, op.head.removesuffix(flags)


PREFIXES = ["", "app:", "é", "a b:"]
# One of each kind that the rule distinguishes. Random keys are seldom wrong in one way only.
KINDS: list[Key] = [
    "k",
    "",
    "a b",
    "é",
    "k\x7f",
    "k\ud800",
    "x" * 251,
    "é" * 126,
    b"k",
    b"",
    b"a b",
    b"\xff",
    b"x" * 251,
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("key", KINDS, ids=ascii)
def test_each_kind_of_key_is_written_or_refused_as_by_other_methods(key: Key, prefix: str) -> None:
    ops = operations(prefix)
    check_set(ops, key)
    for default in (None, b"default"):
        check_get(ops, key, default)


def check_set(ops: Operations[bytes], key: Key) -> None:
    of_set = written(lambda: ops.set(key, b"value", DEFAULT), b"")
    assert of_set == written(lambda: ops.add(key, b"value", DEFAULT), MODE_ADD)


def check_get(ops: Operations[bytes], key: Key, default: bytes | None) -> None:
    of_get = written(lambda: ops.get(key, default), VALUE_FLAGS)
    assert of_get == written(lambda: ops.get_item(key), ITEM_FLAGS)


@given(key=keys, prefix=st.sampled_from(PREFIXES))
def test_a_set_writes_or_refuses_a_key_as_an_add_does(key: Key, prefix: str) -> None:
    check_set(operations(prefix), key)


@given(key=keys, prefix=st.sampled_from(PREFIXES), default=st.sampled_from([None, b"default"]))
def test_a_get_writes_or_refuses_a_key_as_a_get_item_does(key: Key, prefix: str, default: bytes | None) -> None:
    check_get(operations(prefix), key, default)
