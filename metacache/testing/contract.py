"""What every serializer must hold to, as one call that a plugin's tests make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from metacache.serializers import difference
from metacache.serializers.builtin import is_own_int
from metacache.serializers.interfaces import Serializer
from metacache.serializers.wire_ids import PRIVATE, RULE, is_wire_id

__all__ = ["check_serializer"]

T = TypeVar("T")


def check_serializer(
    serializer: Serializer[T],
    *,
    values: Iterable[T],
    refused_bytes: Iterable[bytes],
    refused_values: Iterable[object] = (),
) -> None:
    """Check that *serializer* keeps the contract; raises AssertionError that says where it does not.

    *values* come back the same: each part is equal and of the same class. Parts are compared field by field, not by
    ``==`` of their own classes. A float may come back for an int that it holds exactly. *refused_bytes* must not load:
    bytes of another shape, where a coercion would make a wrong T. *refused_values* must not dump.
    """
    assert is_wire_id(serializer.wire_id) or is_own_int(serializer), f"wire_id is {serializer.wire_id}, but {RULE}"
    assert 0 <= serializer.fingerprint <= 0xFFFF, f"fingerprint {serializer.fingerprint} is not between 0 and 65535"
    is_shared = serializer.wire_id in PRIVATE
    assert serializer.fingerprint or not is_shared, f"wire_id {serializer.wire_id} is private and needs a fingerprint"
    for value in values:
        data = serializer.dumps(value)
        assert type(data) is bytes, f"dumps gave {type(data).__name__}, not bytes"
        again = serializer.loads(data)
        found = difference(value, again)
        assert found is None, f"a {type(value).__name__} came back as another at {found}"
    for data in refused_bytes:
        assert not _loads(serializer, data), f"{data!r} was loaded as {serializer.loads(data)!r}"
    for wrong in refused_values:
        assert not _dumps(serializer, wrong), f"a {type(wrong).__name__} was dumped"


def _loads(serializer: Serializer[T], data: bytes) -> bool:
    try:
        serializer.loads(data)
    except Exception:
        return False
    return True


def _dumps(serializer: Serializer[T], value: object) -> bool:
    try:
        # A value of a wrong type is the point.
        serializer.dumps(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except Exception:
        return False
    return True
