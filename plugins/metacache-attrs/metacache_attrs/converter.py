"""Convert values to JSON values and back, strictly: without coercion in either direction.

    datetime, date, time, UUID, Decimal, bytes (base64)    strings in canonical form
    timedelta                                              microseconds
    attrs class, dataclass, TypedDict                      an object; every key without a default is required
    tuple, set, frozenset, deque, NamedTuple               lists
    Enum, Literal                                          the value
    a mapping whose keys do not become strings             a list of pairs
    a union whose members share no JSON type               the member
    any other union                                        {"type": name, "value": member}

A float is a number with a fraction or an exponent, and an int is a number without. NaN and infinities are refused. A
float field may hold an int, as type checkers allow. It is written as the equal float, and refused if there is none.

JSON values are None, bool, int, float, str, list and dict: this module does not parse or write JSON bytes.
"""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import attrs

from metacache.errors import InvalidTypeError
from metacache.serializers import Form, resolve
from metacache.serializers.mismatches import find_non_json, finder, outer_classes
from metacache_attrs.records import record_codec
from metacache_attrs.values import (
    ANY,
    FLOAT,
    TIMEDELTA,
    Codec,
    Value,
    check_class,
    choice_codec,
    exact_codec,
    flag_codec,
    json_of_choice,
    string_codec,
    wrong_class,
)

__all__ = ["StrictConverter"]


@final
class StrictConverter:
    """Makes the codecs of types. Caches those of classes."""

    def __init__(self) -> None:
        self._of_classes: dict[type, Codec] = {}

    def codec_of_class(self, class_: type) -> Codec:
        """Return the codec of *class_* from the cache. Raises InvalidTypeError as `codec` does."""
        if class_ not in self._of_classes:
            self._of_classes[class_] = self.codec(class_)
        return self._of_classes[class_]

    # Any: a type expression is any object.
    def codec(self, type_: Any) -> Codec:
        """Return the codec of *type_*. Raises InvalidTypeError, which names the part that JSON cannot hold, and why."""
        return self.codec_of_form(resolve(type_))

    def codec_of_form(self, form: Form) -> Codec:
        """Return the codec of the type that *form* describes."""
        try:
            return _CodecBuilder().of(form)
        except RecursionError:
            raise InvalidTypeError(f"{form.name} is nested too deeply") from None


@final
class _CodecBuilder:
    """Makes the codec of one type. Each type within it gets one codec, so recursive types end."""

    def __init__(self) -> None:
        self._built: dict[int, Codec] = {}

    def of(self, form: Form) -> Codec:
        key = id(form)
        if key not in self._built:
            # A recursive type calls itself through this entry.
            self._built[key] = Codec(
                lambda value: self._built[key].write(value), lambda data: self._built[key].read(data)
            )
            self._built[key] = self._make(form)
        return self._built[key]

    def _make(self, form: Form) -> Codec:
        make = _BUILDERS.get(form.kind)
        if make is None:
            raise InvalidTypeError(form.reason or f"JSON has no form for {form.name}")
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


def _list(builder: _CodecBuilder, form: Form) -> Codec:
    class_ = form.class_
    part = builder.of(form.parts[0])
    unchanged = part.unchanged

    def write(value: Value) -> Value:
        check_class(value, class_)
        return list(value if unchanged.issuperset(map(type, value)) else map(part.write, value))

    def read(data: Value) -> Value:
        check_class(data, list)
        value = class_(data if unchanged.issuperset(map(type, data)) else map(part.read, data))
        return _of_same_length(value, data)

    return Codec(write, read)


def _of_same_length(value: Value, data: Value) -> Value:
    if len(value) != len(data):
        raise ValueError("an element or a key appears twice")
    return value


def _tuple(builder: _CodecBuilder, form: Form) -> Codec:
    return _tuple_codec([builder.of(part) for part in form.parts], tuple, tuple)


def _named_tuple(builder: _CodecBuilder, form: Form) -> Codec:
    return _tuple_codec([*builder.fields(form).values()], form.class_, form.class_._make)


def _tuple_codec(codecs: Sequence[Codec], class_: type, make: Callable[..., Value]) -> Codec:
    """Return the codec of a tuple with one part for each of *codecs*."""

    def write(value: Value) -> Value:
        return [codec.write(part) for codec, part in zip(codecs, check_class(value, class_), strict=True)]

    def read(data: Value) -> Value:
        return make(codec.read(part) for codec, part in zip(codecs, check_class(data, list), strict=True))

    return Codec(write, read)


def _mapping(builder: _CodecBuilder, form: Form) -> Codec:
    class_, key_form = form.class_, form.parts[0]
    key = exact_codec(str) if "bare" in key_form.labels else builder.of(key_form)
    part = builder.of(form.parts[1])
    is_object = _becomes_string(key_form)
    holder = dict if is_object else list

    def write(value: Value) -> Value:
        pairs = ((key.write(name), part.write(held)) for name, held in check_class(value, class_).items())
        return dict(pairs) if is_object else list(map(list, pairs))

    def read(data: Value) -> Value:
        pairs = check_class(data, holder).items() if is_object else map(_pair, check_class(data, holder))
        return _of_same_length(class_((key.read(name), part.read(held)) for name, held in pairs), data)

    return Codec(write, read)


def _pair(data: Value) -> Value:
    if len(check_class(data, list)) != 2:
        raise ValueError("a pair must have two parts")
    return data


def _typed_dict(builder: _CodecBuilder, form: Form) -> Codec:
    fields = builder.fields(form)

    def checked(value: Value) -> Value:
        if form.required <= check_class(value, dict).keys() <= fields.keys():
            return value
        raise ValueError(f"a key of {form.name} is missing or unknown")

    return Codec(
        lambda value: {name: fields[name].write(held) for name, held in checked(value).items()},
        lambda data: {name: fields[name].read(held) for name, held in checked(data).items()},
    )


def _enum(_: _CodecBuilder, form: Form) -> Codec:
    return flag_codec(form.class_) if issubclass(form.class_, enum.Flag) else choice_codec(list(form.class_))


# --- unions -----------------------------------------------------------------------------------------------------------


@final
@attrs.frozen
class _Member:
    """One member of a union: its codec, and what decides whether a value is of this member (None: any class)."""

    codec: Codec
    name: str
    classes: frozenset[type] | None
    fits: Callable[[Value], object]


def _union(builder: _CodecBuilder, form: Form) -> Codec:
    # float comes last, because it also accepts an int, which another member may accept unchanged.
    parts = sorted(form.parts, key=lambda part: part.kind == "float")
    members = [
        _Member(
            builder.of(part),
            part.name,
            outer_classes(part, widen=True),
            finder(part, widen=True, untyped=find_non_json),
        )
        for part in parts
    ]
    kinds = [_json_classes(part) for part in parts]
    if len(frozenset[type]().union(*kinds)) == sum(map(len, kinds)):
        by_kind = {kind: member.codec for kinds_, member in zip(kinds, members, strict=True) for kind in kinds_}
        return Codec(
            lambda value: _member_for(members, value).codec.write(value),
            lambda data: by_kind[type(data)].read(data),
            frozenset[type]().union(*(member.codec.unchanged for member in members)),
        )
    by_name = {member.name: member.codec for member in members}
    if len(by_name) < len(members):
        raise TypeError("two members of the union have the same name")
    return _tagged(members, by_name)


def _tagged(members: Sequence[_Member], by_name: Mapping[str, Codec]) -> Codec:
    def write(value: Value) -> Value:
        member = _member_for(members, value)
        return {"type": member.name, "value": member.codec.write(value)}

    def read(data: Value) -> Value:
        if check_class(data, dict).keys() != {"type", "value"}:
            raise ValueError("expected an object with the keys type and value")
        return by_name[data["type"]].read(data["value"])

    return Codec(write, read)


def _member_for(members: Sequence[_Member], value: Value) -> _Member:
    """Return the first member that accepts *value*."""
    class_ = type(value)
    fitting = [member for member in members if member.classes is None or class_ in member.classes]
    if len(fitting) > 1:
        fitting = [member for member in fitting if member.fits(value) is None]
    if not fitting:
        raise wrong_class(value, "a member of the union")
    return fitting[0]


# --- the JSON classes of a type ---------------------------------------------------------------------------------------

_SCALARS: Final = frozenset[type]((type(None), bool, int, float, str))
_OBJECT: Final = frozenset[type]((dict,))
_ARRAY: Final = frozenset[type]((list,))

_JSON_CLASSES: Final[Mapping[str, frozenset[type]]] = {
    **{kind: frozenset((class_,)) for kind, class_ in {"none": type(None), "bool": bool, "int": int}.items()},
    **{kind: frozenset((class_,)) for kind, class_ in {"float": float, "timedelta": int}.items()},
    **dict.fromkeys(("str", "bytes", "datetime", "date", "time", "uuid", "decimal"), frozenset[type]((str,))),
    **dict.fromkeys(("list", "tuple", "vartuple", "namedtuple"), _ARRAY),
    **dict.fromkeys(("attrs", "dataclass", "typeddict"), _OBJECT),
    "any": _SCALARS | _OBJECT | _ARRAY,
}


def _json_classes(form: Form) -> frozenset[type]:
    """Return the classes of the JSON values for *form*."""
    if form.kind == "literal":
        return frozenset(type(json_of_choice(label)) for label in form.labels)
    if form.kind == "enum":
        return frozenset(type(json_of_choice(member)) for member in form.class_) or frozenset((int,))
    if form.kind == "alias":
        return _json_classes(form.parts[0])
    if form.kind == "dict":
        return _OBJECT if _becomes_string(form.parts[0]) else _ARRAY
    if form.kind != "union":
        return _JSON_CLASSES.get(form.kind, frozenset())
    kinds = [_json_classes(part) for part in form.parts]
    together = frozenset[type]().union(*kinds)
    return together if len(together) == sum(map(len, kinds)) else _OBJECT


def _becomes_string(key: Form) -> bool:
    """Return whether keys of the type *key* become strings, so that the dict becomes a JSON object."""
    if key.kind in ("dict", "list", "attrs", "dataclass"):
        return False
    return "bare" in key.labels or _json_classes(key) == frozenset((str,))


_BUILDERS: Final[Mapping[str, Callable[[_CodecBuilder, Form], Codec]]] = {
    **dict.fromkeys(("none", "bool", "int", "str"), lambda _, form: exact_codec(form.class_)),
    **dict.fromkeys(
        ("bytes", "datetime", "date", "time", "uuid", "decimal"), lambda _, form: string_codec(form.class_)
    ),
    "float": lambda _, __: FLOAT,
    "timedelta": lambda _, __: TIMEDELTA,
    "any": lambda _, __: ANY,
    "enum": _enum,
    "literal": lambda _, form: choice_codec(form.labels),
    "union": _union,
    "alias": lambda builder, form: builder.of(form.parts[0]),
    "list": _list,
    "vartuple": _list,
    "tuple": _tuple,
    "namedtuple": _named_tuple,
    "dict": _mapping,
    "typeddict": _typed_dict,
    "attrs": lambda builder, form: record_codec(form, builder.fields(form)),
    "dataclass": lambda builder, form: record_codec(form, builder.fields(form)),
}
