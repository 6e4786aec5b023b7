"""A strict converter between values and JSON values: it never coerces, and never writes what it could not read.

    datetime, date, time, UUID, Decimal, bytes (base64)    strings in their one canonical form
    timedelta                                              microseconds
    attrs class, dataclass, TypedDict                      an object: no unknown key, none missing that has no default
    tuple, set, frozenset, deque, NamedTuple               lists
    Enum, Literal                                          the value
    a mapping whose keys are not written as strings        a list of pairs
    a union whose members differ in their JSON classes     the member
    any other union                                        {"type": name, "value": member}

A float is a number with a fraction or an exponent, an int one without; NaN and the infinities are refused. A float
field may hold an int, as type checkers allow: it is written as the float that equals it, and refused when none does.

Knows Python values and JSON values; knows no bytes, and of metacache only what a type expression consists of.
"""

# The class of a value is what this module looks at, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import attrs

from metacache.errors import InvalidTypeError
from metacache.serializers import Form, resolve
from metacache.serializers.fits import finder, json_value, outer_classes
from metacache_attrs.records import record
from metacache_attrs.values import (
    ANY,
    FLOAT,
    TIMEDELTA,
    Codec,
    Value,
    choice,
    exact,
    exactly,
    flag,
    plain,
    string,
    wrong,
)

__all__ = ["StrictConverter"]


@final
class StrictConverter:
    """Makes the codecs of types. Remembers those of classes."""

    def __init__(self) -> None:
        self._of_classes: dict[type, Codec] = {}

    def codec_of_class(self, class_: type) -> Codec:
        """Return the codec of *class_*, made once. Raises InvalidTypeError as `codec` does."""
        if class_ not in self._of_classes:
            self._of_classes[class_] = self.codec(class_)
        return self._of_classes[class_]

    # Any: a type expression is any object.
    def codec(self, type_: Any) -> Codec:
        """Return the codec of *type_*. Raises InvalidTypeError, which says which part of it cannot be kept and why."""
        return self.codec_of(resolve(type_))

    def codec_of(self, form: Form) -> Codec:
        """Return the codec of the type that *form* describes."""
        try:
            return _Maker().of(form)
        except RecursionError:
            raise InvalidTypeError(f"{form.name} is nested too deeply") from None


@final
class _Maker:
    """Makes the codecs of one type and of all types within it, each once."""

    def __init__(self) -> None:
        self._made: dict[int, Codec] = {}

    def of(self, form: Form) -> Codec:
        key = id(form)
        if key not in self._made:
            # A type within itself goes through this one.
            self._made[key] = Codec(lambda value: self._made[key].write(value), lambda data: self._made[key].read(data))
            self._made[key] = self._make(form)
        return self._made[key]

    def _make(self, form: Form) -> Codec:
        make = _MAKERS.get(form.kind)
        if make is None:
            raise InvalidTypeError(form.reason or f"{form.name} has no form in JSON")
        try:
            return make(self, form)
        except InvalidTypeError:
            raise
        except TypeError as error:
            raise InvalidTypeError(f"{form.name}: {error}") from None

    def fields(self, form: Form) -> dict[str, Codec]:
        """Return the codecs of the fields of *form*, in order."""
        codecs: dict[str, Codec] = {}
        for label, part in zip(form.labels, form.parts, strict=True):
            try:
                codecs[label] = self.of(part)
            except InvalidTypeError as error:
                raise InvalidTypeError(f"{form.name}.{label}: {error.message}") from None
        return codecs


def _list(maker: _Maker, form: Form) -> Codec:
    class_ = form.class_
    part = maker.of(form.parts[0])
    as_is = part.as_is

    def write(value: Value) -> Value:
        exactly(value, class_)
        return list(value if as_is.issuperset(map(type, value)) else map(part.write, value))

    def read(data: Value) -> Value:
        exactly(data, list)
        value = class_(data if as_is.issuperset(map(type, data)) else map(part.read, data))
        return _as_long(value, data)

    return Codec(write, read)


def _as_long(value: Value, data: Value) -> Value:
    if len(value) != len(data):
        raise ValueError("an element or a key twice")
    return value


def _tuple(maker: _Maker, form: Form) -> Codec:
    return _row([maker.of(part) for part in form.parts], tuple, tuple)


def _named_tuple(maker: _Maker, form: Form) -> Codec:
    return _row([*maker.fields(form).values()], form.class_, form.class_._make)


def _row(codecs: Sequence[Codec], class_: type, make: Callable[..., Value]) -> Codec:
    """Return the codec of a tuple that has a part for each of *codecs*."""

    def write(value: Value) -> Value:
        return [codec.write(part) for codec, part in zip(codecs, exactly(value, class_), strict=True)]

    def read(data: Value) -> Value:
        return make(codec.read(part) for codec, part in zip(codecs, exactly(data, list), strict=True))

    return Codec(write, read)


def _mapping(maker: _Maker, form: Form) -> Codec:
    class_, key_form = form.class_, form.parts[0]
    key = exact(str) if "bare" in key_form.labels else maker.of(key_form)
    part = maker.of(form.parts[1])
    is_object = _is_text(key_form)
    holder = dict if is_object else list

    def write(value: Value) -> Value:
        pairs = ((key.write(name), part.write(held)) for name, held in exactly(value, class_).items())
        return dict(pairs) if is_object else list(map(list, pairs))

    def read(data: Value) -> Value:
        pairs = exactly(data, holder).items() if is_object else map(_pair, exactly(data, holder))
        return _as_long(class_((key.read(name), part.read(held)) for name, held in pairs), data)

    return Codec(write, read)


def _pair(data: Value) -> Value:
    if len(exactly(data, list)) != 2:
        raise ValueError("a pair has two parts")
    return data


def _typed_dict(maker: _Maker, form: Form) -> Codec:
    fields = maker.fields(form)

    def checked(value: Value) -> Value:
        if form.required <= exactly(value, dict).keys() <= fields.keys():
            return value
        raise ValueError(f"a key of {form.name} is missing, or unknown to it")

    return Codec(
        lambda value: {name: fields[name].write(held) for name, held in checked(value).items()},
        lambda data: {name: fields[name].read(held) for name, held in checked(data).items()},
    )


def _enum(_: _Maker, form: Form) -> Codec:
    return flag(form.class_) if issubclass(form.class_, enum.Flag) else choice(list(form.class_))


# --- unions -----------------------------------------------------------------------------------------------------------


@final
@attrs.frozen
class _Member:
    """One member of a union. It takes values of its classes (None: any class), and of these what fits."""

    codec: Codec
    name: str
    classes: frozenset[type] | None
    fits: Callable[[Value], object]


def _union(maker: _Maker, form: Form) -> Codec:
    # float last: it takes an int too, which another member may take as it is.
    parts = sorted(form.parts, key=lambda part: part.kind == "float")
    members = [
        _Member(
            maker.of(part), part.name, outer_classes(part, widen=True), finder(part, widen=True, untyped=json_value)
        )
        for part in parts
    ]
    kinds = [_kinds(part) for part in parts]
    if len(frozenset[type]().union(*kinds)) == sum(map(len, kinds)):
        by_kind = {kind: member.codec for kinds_, member in zip(kinds, members, strict=True) for kind in kinds_}
        return Codec(
            lambda value: _chosen(members, value).codec.write(value),
            lambda data: by_kind[type(data)].read(data),
            frozenset[type]().union(*(member.codec.as_is for member in members)),
        )
    by_name = {member.name: member.codec for member in members}
    if len(by_name) < len(members):
        raise TypeError("two members of the union have one name")
    return _tagged(members, by_name)


def _tagged(members: Sequence[_Member], by_name: Mapping[str, Codec]) -> Codec:
    def write(value: Value) -> Value:
        member = _chosen(members, value)
        return {"type": member.name, "value": member.codec.write(value)}

    def read(data: Value) -> Value:
        if exactly(data, dict).keys() != {"type", "value"}:
            raise ValueError("no tagged member of a union")
        return by_name[data["type"]].read(data["value"])

    return Codec(write, read)


def _chosen(members: Sequence[_Member], value: Value) -> _Member:
    """Return the first member that takes *value*."""
    class_ = type(value)
    fitting = [member for member in members if member.classes is None or class_ in member.classes]
    if len(fitting) > 1:
        fitting = [member for member in fitting if member.fits(value) is None]
    if not fitting:
        raise wrong(value, "a member of the union")
    return fitting[0]


# --- which JSON values a type is written as ---------------------------------------------------------------------------

_SCALARS: Final = frozenset[type]((type(None), bool, int, float, str))
_OBJECT: Final = frozenset[type]((dict,))
_ARRAY: Final = frozenset[type]((list,))

_JSON_KINDS: Final[Mapping[str, frozenset[type]]] = {
    **{kind: frozenset((class_,)) for kind, class_ in {"none": type(None), "bool": bool, "int": int}.items()},
    **{kind: frozenset((class_,)) for kind, class_ in {"float": float, "timedelta": int}.items()},
    **dict.fromkeys(("str", "bytes", "datetime", "date", "time", "uuid", "decimal"), frozenset[type]((str,))),
    **dict.fromkeys(("list", "tuple", "vartuple", "namedtuple"), _ARRAY),
    **dict.fromkeys(("attrs", "dataclass", "typeddict"), _OBJECT),
    "any": _SCALARS | _OBJECT | _ARRAY,
}


def _kinds(form: Form) -> frozenset[type]:
    """Return the classes of the JSON values that values of *form* are written as."""
    if form.kind == "literal":
        return frozenset(type(plain(label)) for label in form.labels)
    if form.kind == "enum":
        return frozenset(type(plain(member)) for member in form.class_) or frozenset((int,))
    if form.kind == "alias":
        return _kinds(form.parts[0])
    if form.kind == "dict":
        return _OBJECT if _is_text(form.parts[0]) else _ARRAY
    if form.kind != "union":
        return _JSON_KINDS.get(form.kind, frozenset())
    kinds = [_kinds(part) for part in form.parts]
    together = frozenset[type]().union(*kinds)
    return together if len(together) == sum(map(len, kinds)) else _OBJECT


def _is_text(key: Form) -> bool:
    """Return whether a dict's keys of *key* are written as strings, so that the dict is an object."""
    if key.kind in ("dict", "list", "attrs", "dataclass"):
        return False
    return "bare" in key.labels or _kinds(key) == frozenset((str,))


_MAKERS: Final[Mapping[str, Callable[[_Maker, Form], Codec]]] = {
    **dict.fromkeys(("none", "bool", "int", "str"), lambda _, form: exact(form.class_)),
    **dict.fromkeys(("bytes", "datetime", "date", "time", "uuid", "decimal"), lambda _, form: string(form.class_)),
    "float": lambda _, __: FLOAT,
    "timedelta": lambda _, __: TIMEDELTA,
    "any": lambda _, __: ANY,
    "enum": _enum,
    "literal": lambda _, form: choice(form.labels),
    "union": _union,
    "alias": lambda maker, form: maker.of(form.parts[0]),
    "list": _list,
    "vartuple": _list,
    "tuple": _tuple,
    "namedtuple": _named_tuple,
    "dict": _mapping,
    "typeddict": _typed_dict,
    "attrs": lambda maker, form: record(form, maker.fields(form)),
    "dataclass": lambda maker, form: record(form, maker.fields(form)),
}
