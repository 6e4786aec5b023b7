"""The schema fingerprint: 16 bits that change when the shape of a type changes.

Pure; the same in every process, on every Python and with every version of the libraries.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from metacache.errors import InvalidTypeError
from metacache.serializers.names import is_type, type_name
from metacache.serializers.shapes import UnknownShape, graph_of

__all__ = ["check_type", "fingerprint"]


def fingerprint(type_: object, *, serializer: str = "") -> int:
    """Return the fingerprint of *type_*, 1 to 65535.

    It is the low 16 bits of the XXH3 hash of the canonical text of the shape, and 1 where they are 0. The text has
    kinds, field names in order, field types, constraints, enum values, and the defaults of fields that the bytes may
    lack. Names of modules and classes count only for classes that are no record, no enum and not of the standard
    library. Documentation and other metadata in an Annotated, other defaults, and code do not count.

    *serializer* is the name of the serializer. Give it where the wire_id is private, because several serializers may
    share that: equal types of two serializers then have different fingerprints.

    Raises InvalidTypeError for a type that holds something without a shape and without a name of its own: a class that
    is local to a function or in ``__main__`` and has no fields, a type variable that nothing binds, a name that cannot
    be resolved.
    """
    check_type(type_)
    try:
        text = graph_of(type_).text()
    except UnknownShape as error:
        name = type_name(type_)
        reason = "it is not a type of values" if str(error) == name else f"it holds {error}"
        raise InvalidTypeError(f"{name} has no fingerprint: {reason}") from None
    plain = _digest(text)
    if not serializer:
        return plain
    mixed = _digest(f"{text}|{serializer}")
    return mixed if mixed != plain else mixed % 0xFFFF + 1


def check_type(type_: object) -> None:
    """Raise InvalidTypeError when *type_* is an object of another kind, as a value, or a type in quotes."""
    if not is_type(type_):
        class_ = type(type_).__qualname__
        raise InvalidTypeError(
            f"an object of class {class_} is not a type; give a class, or an expression as list[int]"
        )


def _digest(text: str) -> int:
    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) & 0xFFFF or 1
