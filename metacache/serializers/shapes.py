"""The shape of a type expression: kinds, field names, constraints, and no class or module names.

One walk over what `typing` offers on every Python from 3.11 on; the fingerprint and the JSON check are read off its
result. A construct that it does not know is `UnknownShape`, never a guess.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import re
import types
import typing
import uuid
from typing import Any, Final, final

import attrs
import typing_extensions

__all__ = ["Shape", "UnknownShape", "literal_text", "quoted", "required_keys", "shape_of", "unquoted"]


@final
@attrs.frozen
class Shape:
    """One node: its kind, its labels (field names, literal values, constraints), its parts. Its text identifies it."""

    kind: str
    labels: tuple[str, ...] = ()
    parts: tuple[Shape, ...] = ()

    @property
    def text(self) -> str:
        """The canonical text: equal for equal shapes on every Python."""
        if not self.labels and not self.parts:
            return self.kind
        return f"{self.kind}({','.join(self.labels)};{','.join(part.text for part in self.parts)})"


@final
class UnknownShape(Exception):
    """The expression holds something whose shape cannot be told."""


# Any: a type expression is any object; typing gives no type for it that all its forms satisfy.
_Type = Any

_SCALARS: Final[dict[object, str]] = {
    None: "none",
    type(None): "none",
    bool: "bool",
    int: "int",
    float: "float",
    complex: "complex",
    str: "str",
    bytes: "bytes",
    bytearray: "bytearray",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "timedelta",
    uuid.UUID: "uuid",
    decimal.Decimal: "decimal",
    Any: "any",
}

_CONTAINERS: Final[dict[object, str]] = {
    list: "list",
    set: "set",
    frozenset: "frozenset",
    dict: "dict",
    collections.deque: "deque",
    collections.OrderedDict: "ordereddict",
    collections.abc.Sequence: "sequence",
    collections.abc.MutableSequence: "mutablesequence",
    collections.abc.Collection: "collection",
    collections.abc.Iterable: "iterable",
    collections.abc.Set: "abstractset",
    collections.abc.MutableSet: "mutableset",
    collections.abc.Mapping: "mapping",
    collections.abc.MutableMapping: "mutablemapping",
}
_MAPPINGS: Final = frozenset(("dict", "ordereddict", "mapping", "mutablemapping"))

# Wrappers that say something of a field or a name, not of its shape.
_TRANSPARENT: Final = frozenset((typing.Final, typing_extensions.ReadOnly, typing.Required, typing.NotRequired))

# What msgspec.Meta and annotated_types call their constraints.
_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")

MAX_NODES: Final = 10_000


def shape_of(type_: object) -> Shape:
    """Return the shape of *type_*. Raises UnknownShape."""
    return _Walk().of(type_, {})


@final
class _Walk:
    """One walk.

    It knows the records and aliases it is inside of, so that recursion becomes a number: how many of them up.
    """

    def __init__(self) -> None:
        self._inside: list[object] = []
        self._nodes = 0

    def of(self, type_: _Type, bound: dict[object, _Type]) -> Shape:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnknownShape("too large")
        if not isinstance(type_, collections.abc.Hashable):
            raise UnknownShape(type(type_).__name__)
        if isinstance(type_, typing.TypeVar):
            return self._of_variable(type_, bound)
        if type_ in _SCALARS:
            return Shape(_SCALARS[type_])
        origin, arguments = typing.get_origin(type_), typing.get_args(type_)
        if origin is not None:
            return self._of_generic(origin, arguments, type_, bound)
        if type_ in _CONTAINERS or type_ is tuple:
            return self._of_container(type_, (Any, ...) if type_ is tuple else (), bound)
        if isinstance(type_, typing.NewType):
            return self.of(type_.__supertype__, bound)
        if _is_alias(type_):
            return self._of_alias(type_, type_, bound)
        if isinstance(type_, type):
            return self._of_class(type_, bound)
        raise UnknownShape(type(type_).__name__)

    def _of_variable(self, variable: typing.TypeVar, bound: dict[object, _Type]) -> Shape:
        if variable in bound:
            return self.of(bound[variable], {})
        if variable.__constraints__:
            return self._of_union(variable.__constraints__, bound)
        return Shape("any") if variable.__bound__ is None else self.of(variable.__bound__, bound)

    def _of_generic(
        self, origin: _Type, arguments: tuple[_Type, ...], type_: _Type, bound: dict[object, _Type]
    ) -> Shape:
        if origin in (typing.Union, types.UnionType):
            return self._of_union(arguments, bound)
        if origin in (typing.Literal, typing_extensions.Literal):
            return Shape("literal", tuple(sorted({literal_text(value) for value in arguments})))
        if origin is typing.Annotated:
            return self._of_annotated(type_, bound)
        if origin in _TRANSPARENT:
            return self.of(arguments[0], bound)
        arguments = tuple(
            bound.get(argument, argument) if isinstance(argument, typing.TypeVar) else argument
            for argument in arguments
        )
        if origin in _CONTAINERS or origin is tuple:
            return self._of_container(origin, arguments, bound)
        inner: dict[object, _Type] = dict(
            zip(getattr(origin, "__parameters__", getattr(origin, "__type_params__", ())), arguments, strict=False)
        )
        if _is_alias(origin):
            return self._of_alias(type_, origin, inner)
        return self._of_class(origin, inner)

    def _of_alias(self, key: _Type, alias: _Type, bound: dict[object, _Type]) -> Shape:
        inner = self._inside_of(key, lambda: self.of(alias.__value__, bound))
        # A name for something else is no shape of its own, unless it is what "up" points at.
        return Shape("alias", parts=(inner,)) if "up(" in inner.text else inner

    def _of_union(self, members: tuple[_Type, ...], bound: dict[object, _Type]) -> Shape:
        shapes = [self.of(member, bound) for member in members]
        flat = [part for shape in shapes for part in (shape.parts if shape.kind == "union" else (shape,))]
        # Sorted: typing keeps one object for unions that differ in order only, whichever was made first in the process.
        unique = sorted({part.text: part for part in flat}.items())
        return unique[0][1] if len(unique) == 1 else Shape("union", parts=tuple(part for _, part in unique))

    def _of_annotated(self, type_: _Type, bound: dict[object, _Type]) -> Shape:
        inner = self.of(type_.__origin__, bound)
        labels = sorted(label for meta in type_.__metadata__ for label in _constraints(meta))
        return Shape("constrained", tuple(labels), (inner,)) if labels else inner

    def _of_container(self, origin: _Type, arguments: tuple[_Type, ...], bound: dict[object, _Type]) -> Shape:
        if origin is tuple:
            kind = "vartuple" if arguments[-1:] == (Ellipsis,) else "tuple"
            return Shape(
                kind, parts=tuple(self.of(argument, bound) for argument in arguments if argument is not Ellipsis)
            )
        kind = _CONTAINERS[origin]
        # A bare container is one of Any.
        arguments = arguments or ((Any, Any) if kind in _MAPPINGS else (Any,))
        return Shape(kind, parts=tuple(self.of(argument, bound) for argument in arguments))

    # --- records -----------------------------------------------------------------------------------------------------

    def _of_class(self, class_: _Type, bound: dict[object, _Type]) -> Shape:
        if _is_enum(class_):
            return Shape("enum", tuple(sorted(literal_text(member.value) for member in class_)))
        record = next((read for is_one, read in _RECORDS if is_one(class_)), None)
        if record is None:
            raise UnknownShape(getattr(class_, "__name__", "a form unknown here"))
        key = (class_, tuple(bound.items()))
        return self._inside_of(key, lambda: self._of_fields(class_, record(class_), bound))

    def _inside_of(self, key: object, walk: collections.abc.Callable[[], Shape]) -> Shape:
        if key in self._inside:
            # Counted from the innermost, so that a shape's text does not depend on where it stands.
            return Shape("up", (str(len(self._inside) - self._inside.index(key)),))
        self._inside.append(key)
        try:
            return walk()
        finally:
            self._inside.pop()

    def _of_fields(self, class_: _Type, record: _Record, bound: dict[object, _Type]) -> Shape:
        kind, names = record
        try:
            hints = typing_extensions.get_type_hints(class_, include_extras=True)
        except Exception as error:  # a forward reference to what exists for type checkers only
            raise UnknownShape(str(type(error).__name__)) from None
        if not names.keys() <= hints.keys():
            raise UnknownShape("a field without a type")
        return Shape(kind, tuple(names.values()), tuple(self.of(hints[name], bound) for name in names))


# The kind, and for each field its attribute name and its label.
_Record: typing.TypeAlias = tuple[str, dict[str, str]]


def _typed_dict(class_: _Type) -> _Record:
    required = required_keys(class_)
    names = typing_extensions.get_type_hints(class_)
    return "typeddict", {name: quoted(name) + ("" if name in required else "?") for name in names}


def required_keys(class_: _Type) -> frozenset[str]:
    """Return the keys that a TypedDict must have."""
    hints = typing_extensions.get_type_hints(class_, include_extras=True)
    return frozenset(name for name, hint in hints.items() if _is_required(hint, name in class_.__required_keys__))


def _is_required(hint: _Type, otherwise: bool) -> bool:
    """Tell it by the annotation: __required_keys__ overlooks NotRequired where annotations are strings."""
    origin: _Type = typing.get_origin(hint)
    if origin in (typing.Required, typing.NotRequired):
        return origin is typing.Required
    if origin in (typing.Annotated, typing_extensions.ReadOnly):
        return _is_required(typing.get_args(hint)[0], otherwise)
    return otherwise


def _is_enum(class_: _Type) -> bool:
    return isinstance(class_, type) and issubclass(class_, enum.Enum)


def _is_named_tuple(class_: _Type) -> bool:
    return hasattr(class_, "_fields") and isinstance(class_, type) and issubclass(class_, tuple)


def _named_tuple(class_: _Type) -> _Record:
    return "namedtuple", {name: name for name in class_._fields}


def _is_struct(class_: _Type) -> bool:
    return hasattr(class_, "__struct_encode_fields__")


def _struct(class_: _Type) -> _Record:
    # msgspec.Struct, known by its attributes: the core does not import msgspec.
    config = class_.__struct_config__
    kind = "structarray" if config.array_like else "struct"
    if config.tag is not None:
        kind += f"[{quoted(config.tag_field or '')}={literal_text(config.tag)}]"
    return kind, dict(zip(class_.__struct_fields__, map(quoted, class_.__struct_encode_fields__), strict=True))


def _attrs(class_: _Type) -> _Record:
    return "record", {field.name: field.name for field in attrs.fields(class_)}


def _dataclass(class_: _Type) -> _Record:
    return "record", {field.name: field.name for field in dataclasses.fields(class_)}


_Asks: typing.TypeAlias = collections.abc.Callable[[_Type], bool]
_Reads: typing.TypeAlias = collections.abc.Callable[[_Type], _Record]

_RECORDS: Final[tuple[tuple[_Asks, _Reads], ...]] = (
    (typing_extensions.is_typeddict, _typed_dict),
    (_is_named_tuple, _named_tuple),
    (_is_struct, _struct),
    (attrs.has, _attrs),
    (dataclasses.is_dataclass, _dataclass),
)


def _is_alias(type_: _Type) -> bool:
    return isinstance(type_, typing_extensions.TypeAliasType) or type(type_).__name__ == "TypeAliasType"


def _constraints(meta: _Type) -> list[str]:
    if isinstance(meta, str):
        return []  # documentation
    known = [name for name in _CONSTRAINTS if hasattr(meta, name)]
    if not known:
        raise UnknownShape(type(meta).__name__)
    return [f"{name}={literal_text(getattr(meta, name))}" for name in known if getattr(meta, name) is not None]


def literal_text(value: object) -> str:
    """Return a text that tells literals apart by type and value. Raises UnknownShape for what can be no literal."""
    if isinstance(value, enum.Enum):
        return literal_text(value.value)
    if isinstance(value, re.Pattern):
        # A str or bytes, which isinstance cannot tell.
        return literal_text(value.pattern)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    if isinstance(value, str):
        return f"str:{quoted(value)}"
    if isinstance(value, bytes):
        return f"bytes:{value.hex()}"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"int:{value:d}"
    if isinstance(value, float):
        return f"float:{value.hex()}"
    raise UnknownShape(type(value).__name__)


def quoted(text: str) -> str:
    """Escape what separates the parts of a shape's text."""
    return re.sub(r"[\\,;()=?]", r"\\\g<0>", text)


def unquoted(text: str) -> str:
    """Undo `quoted`."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
