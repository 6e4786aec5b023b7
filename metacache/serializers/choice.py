"""Choose the serializer of a client: a given one, an installed one by its name, or the built-in one of the type."""

from __future__ import annotations

from typing import Final, TypeVar

from metacache.errors import InvalidTypeError
from metacache.marks import TypeForm
from metacache.serializers.interfaces import Serializer
from metacache.serializers.plain import BytesSerializer, IntSerializer, StrSerializer

__all__ = ["serializer_for"]

T = TypeVar("T")

# Compared by identity: a built-in serializer would return an int or str instead of an instance of a subclass.
_BUILTIN: Final = ((bytes, BytesSerializer), (str, StrSerializer), (int, IntSerializer))


def serializer_for(type_: TypeForm[T], serializer: str | Serializer[T] | None) -> Serializer[T]:
    """Return *serializer*, the installed serializer of that name, or the built-in serializer of *type_*.

    Raises InvalidTypeError if *serializer* is None and *type_* has no built-in one, SerializerNotFound for a name.
    """
    if isinstance(serializer, str):
        from metacache.serializers.discovery import load_serializer  # takes 30 ms, which other clients save

        return load_serializer(serializer, type_)
    if serializer is not None:
        return serializer
    for class_, builtin in _BUILTIN:
        if type_ is class_:
            return builtin()  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # T is class_
    # Late, as above.
    from metacache.serializers.fingerprints import check_type
    from metacache.serializers.names import type_name
    from metacache.serializers.suggestions import suggestion

    check_type(type_)
    raise InvalidTypeError(f"values of {type_name(type_)} need a serializer: {suggestion(type_)}")
