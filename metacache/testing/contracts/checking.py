"""`check_serializer`: one function with which the tests of a plugin check the contract of its serializers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from metacache.serializers import difference
from metacache.serializers.interfaces import Serializer
from metacache.serializers.plain import is_own_int
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
    """Check that *serializer* keeps the contract. Raises AssertionError that names the violation.

    Args:
        serializer: the serializer to check.
        values: must be equal after ``dumps`` and ``loads``, and have the same classes. They are compared field by
            field, without ``__eq__`` of their classes. An int may come back as a float that is exactly equal.
        refused_bytes: ``loads`` must refuse them: bytes of another shape, from which a coercion would make a wrong T.
        refused_values: ``dumps`` must refuse them.
    """
    assert is_wire_id(serializer.wire_id) or is_own_int(serializer), f"wire_id is {serializer.wire_id}, but {RULE}"
    assert 0 <= serializer.fingerprint <= 0xFFFF, f"fingerprint {serializer.fingerprint} is not between 0 and 65535"
    is_shared = serializer.wire_id in PRIVATE
    assert serializer.fingerprint or not is_shared, f"wire_id {serializer.wire_id} is private and needs a fingerprint"
    for value in values:
        data = serializer.dumps(value)
        assert type(data) is bytes, f"dumps returned {type(data).__name__}, not bytes"
        again = serializer.loads(data)
        found = difference(value, again)
        assert found is None, f"a {type(value).__name__} differs after dumps and loads at {found}"
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
        # The value has a wrong type on purpose.
        serializer.dumps(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except Exception:
        return False
    return True
