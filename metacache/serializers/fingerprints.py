"""Compute the schema fingerprint of a type: 16 bits that change when the shape of the type changes.

The result is the same in every process, on every Python and with every version of the libraries.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from metacache.errors import InvalidTypeError
from metacache.serializers.names import is_type, type_name
from metacache.serializers.shapes import UnknownShape, graph_of

__all__ = ["check_type", "fingerprint"]


def fingerprint(type_: object, *, serializer: str = "") -> int:
    """Return the fingerprint of *type_*, 1 to 65535.

    It is the low 16 bits of the XXH3 hash of the shape's canonical text; 0 becomes 1. The text has the kinds of types,
    the names of fields in order, constraints, and the values of enums. It has the default of a field if the bytes may
    lack the field. Documentation, other metadata in Annotated, other defaults and code do not count. Names of modules
    and classes count only for a class without fields that is neither an enum nor in the standard library.

    Give the name of the *serializer* if its wire_id is private, because several serializers may share that wire_id.
    Equal types of two serializers then have different fingerprints.

    Raises InvalidTypeError if a part of the type has neither a shape nor a name of its own. Examples: a class without
    fields that is local to a function or in ``__main__``, an unbound type variable, a name that cannot be resolved.
    """
    check_type(type_)
    try:
        text = graph_of(type_).text()
    except UnknownShape as error:
        name = type_name(type_)
        reason = "values cannot have it as their type" if str(error) == name else f"it contains {error}"
        raise InvalidTypeError(f"{name} has no fingerprint: {reason}") from None
    plain = _digest(text)
    if not serializer:
        return plain
    mixed = _digest(f"{text}|{serializer}")
    return mixed if mixed != plain else mixed % 0xFFFF + 1


def check_type(type_: object) -> None:
    """Raise InvalidTypeError if *type_* is not a type expression: a value, for example, or a type in quotes."""
    if not is_type(type_):
        class_ = type(type_).__qualname__
        raise InvalidTypeError(
            f"an object of class {class_} is not a type; give a class or an expression such as list[int]"
        )


def _digest(text: str) -> int:
    return xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) & 0xFFFF or 1
