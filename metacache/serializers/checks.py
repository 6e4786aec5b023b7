"""Does a value have a type? Exactly, for JSON types; at its outermost, for any type expression.

Knows values and shapes; knows no bytes. A check never converts: True is no int here, and 1 no float.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import typing_extensions

from metacache.errors import InvalidTypeError
from metacache.serializers.shapes import Shape, UnknownShape, literal_text, quoted, shape_of, unquoted

__all__ = ["Check", "json_check", "outer_check"]

Check: TypeAlias = Callable[[object], bool]

_SCALARS: Final[dict[str, type]] = {"none": type(None), "bool": bool, "int": int, "float": float, "str": str}


def json_check(type_: object) -> Check:
    """Return a check for values of *type_*.

    It may be made of None, bool, int, float, str, list, dict[str, …], Literal, TypedDict, Any and unions.

    Raises InvalidTypeError when *type_* is made of anything else.
    """
    try:
        return _check(shape_of(type_), ())
    except UnknownShape as error:
        raise InvalidTypeError(f"JSON has no {error}; use a serializer plugin") from None


def _check(shape: Shape, outer: tuple[Check, ...]) -> Check:
    """Return the check of *shape*, which stands inside of what *outer* checks, the innermost last."""
    exact = _SCALARS.get(shape.kind)
    if exact is not None:
        return lambda value: type(value) is exact
    make = _MAKERS.get(shape.kind)
    if make is None:
        raise UnknownShape(shape.kind)
    return make(shape, outer)


def _any(_: Shape, __: tuple[Check, ...]) -> Check:
    return _is_json


# pyright calls what is inside of a list or dict unknown, and so it is: that is what the checks find out.


def _is_json(value: object) -> bool:
    if type(value) is list:
        return all(map(_is_json, value))  # pyright: ignore[reportUnknownArgumentType]
    if type(value) is dict:
        return all(
            type(key) is str and _is_json(part)  # pyright: ignore[reportUnknownArgumentType]
            for key, part in value.items()  # pyright: ignore[reportUnknownVariableType]
        )
    return type(value) in _SCALARS.values()


def _list(shape: Shape, outer: tuple[Check, ...]) -> Check:
    part = _check(shape.parts[0], outer)
    return lambda value: type(value) is list and all(map(part, value))  # pyright: ignore[reportUnknownArgumentType]


def _dict(shape: Shape, outer: tuple[Check, ...]) -> Check:
    if shape.parts[0].kind not in ("str", "any"):
        raise UnknownShape(f"dict with {shape.parts[0].kind} keys")
    part = _check(shape.parts[1], outer)
    return lambda value: (
        type(value) is dict
        and all(
            type(key) is str and part(held)  # pyright: ignore[reportUnknownArgumentType]
            for key, held in value.items()  # pyright: ignore[reportUnknownVariableType]
        )
    )


def _union(shape: Shape, outer: tuple[Check, ...]) -> Check:
    members = [_check(part, outer) for part in shape.parts]
    return lambda value: any(member(value) for member in members)


def _literal(shape: Shape, _: tuple[Check, ...]) -> Check:
    return lambda value: type(value) in _SCALARS.values() and literal_text(value) in shape.labels


def _typed_dict(shape: Shape, outer: tuple[Check, ...]) -> Check:
    def check(value: object) -> bool:
        if type(value) is not dict or not required <= value.keys():
            return False
        return all(
            key in fields and fields[key](held)  # pyright: ignore[reportUnknownArgumentType]
            for key, held in value.items()  # pyright: ignore[reportUnknownVariableType]
        )

    required = {unquoted(label) for label in shape.labels if not _is_optional(label)}
    names = [unquoted(label[:-1] if _is_optional(label) else label) for label in shape.labels]
    parts = [_check(part, (*outer, check)) for part in shape.parts]
    fields = dict(zip(names, parts, strict=True))
    return check


def _is_optional(label: str) -> bool:
    return label.endswith("?") and quoted(unquoted(label)) != label


def _alias(shape: Shape, outer: tuple[Check, ...]) -> Check:
    def check(value: object) -> bool:
        return inner(value)

    inner = _check(shape.parts[0], (*outer, check))
    return check


def _up(shape: Shape, outer: tuple[Check, ...]) -> Check:
    return outer[-int(shape.labels[0])]


_MAKERS: Final[dict[str, Callable[[Shape, tuple[Check, ...]], Check]]] = {
    "any": _any,
    "list": _list,
    "dict": _dict,
    "union": _union,
    "literal": _literal,
    "typeddict": _typed_dict,
    "alias": _alias,
    "up": _up,
}


# --- the outermost type -----------------------------------------------------------------------------------------------

# Any: a type expression is any object.
_Type = Any


def outer_check(type_: object) -> Check:
    """Return a check whether a value is of *type_* as far as its outermost class tells.

    That it is a User, a list, one of a union's. What it cannot tell (Any, a Protocol, a type variable) it accepts.
    Plugins use it in ``dumps``, so that a value of a wrong type is refused before it is stored; what is inside is for
    the serializer, or for whoever reads it.
    """
    classes = tuple(_classes(type_))
    if object in classes:
        return lambda _: True
    exact = tuple(class_ for class_ in classes if class_ in (bool, int, float, str, bytes))
    others = tuple(class_ for class_ in classes if class_ not in exact)
    return lambda value: type(value) in exact or (bool(others) and isinstance(value, others))


def _classes(type_: _Type) -> collections.abc.Iterator[type]:
    origin: _Type = typing.get_origin(type_)
    arguments = typing.get_args(type_)
    if type_ is None:
        yield type(None)
    elif origin in (typing.Union, types.UnionType):
        for member in arguments:
            yield from _classes(member)
    elif origin in (typing.Literal, typing_extensions.Literal):
        yield from {type(value) for value in arguments}
    elif origin is typing.Annotated:
        yield from _classes(type_.__origin__)
    elif isinstance(type_, typing.NewType):
        yield from _classes(type_.__supertype__)
    elif hasattr(type_, "__value__"):  # a type alias
        yield from _classes(type_.__value__)
    elif typing_extensions.is_typeddict(origin or type_):
        yield dict
    else:
        yield _class_of(origin or type_)


def _class_of(type_: _Type) -> type:
    try:
        isinstance(None, type_)
    except TypeError:  # Any, a Protocol that is not checkable, a type variable
        return object
    return type_ if isinstance(type_, type) else object
