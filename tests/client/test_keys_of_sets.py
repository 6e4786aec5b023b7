"""`set` repeats the rule of `KeyEncoder` for speed: it accepts, refuses and writes each key as `add` does."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from metacache.errors import InvalidKeyError
from metacache.operations.arguments import DEFAULT
from metacache.operations.options import Options
from metacache.operations.policies import UndecodablePolicy
from metacache.operations.readers import Reader
from metacache.operations.requests import MODE_ADD, Operations
from metacache.operations.results import StoreResult
from metacache.operations.statistics import Counts
from metacache.protocol.keys import Key
from metacache.serializers.builtin import BytesSerializer
from metacache.serializers.frame import Frame
from metacache.transports.base import Operation
from tests.protocol.test_keys import keys

Written: TypeAlias = tuple[bytes, bytes] | str


def operations(prefix: str) -> Operations[bytes]:
    reader = Reader(Frame(BytesSerializer()), UndecodablePolicy(strict=False), Counts())
    return Operations(reader, Options(prefix=prefix), lambda: 0.0)


def written(operation: Operation[StoreResult]) -> Written:
    return operation.key, operation.head.removesuffix(MODE_ADD)


def of_set(ops: Operations[bytes], key: Key) -> Written:
    try:
        return written(ops.set(key, b"value", DEFAULT))
    except InvalidKeyError as error:
        return error.message


def of_add(ops: Operations[bytes], key: Key) -> Written:
    try:
        return written(ops.add(key, b"value", DEFAULT))
    except InvalidKeyError as error:
        return error.message


@given(key=keys, prefix=st.sampled_from(["", "app:", "é", "a b:"]))
def test_a_set_writes_or_refuses_a_key_as_an_add_does(key: Key, prefix: str) -> None:
    ops = operations(prefix)
    assert of_set(ops, key) == of_add(ops, key)
