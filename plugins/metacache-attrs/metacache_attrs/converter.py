"""A strict cattrs converter between values and JSON values: it never coerces, and never stores what it could not read.

    datetime, date, time, UUID, Decimal, bytes (base64)    strings in their one canonical form
    timedelta                                              microseconds
    attrs class, dataclass, TypedDict                      an object: no unknown key, none missing that has no default
    tuple, set, frozenset, deque, NamedTuple               lists
    Enum, Literal                                          the value
    a mapping whose keys are not written as strings        a list of pairs
    a union whose members JSON tells apart                 the member
    any other union                                        {"type": name, "value": member}

A float is a number with a fraction or an exponent, an int one without; NaN and the infinities are refused. A float
field may hold an int, as type checkers allow: it is written as the float that equals it, and refused when none does.

Knows Python values and JSON values; knows no bytes, and of metacache only which keys a TypedDict must have.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime
import enum
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, final

import attrs
import cattrs
import typing_extensions
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from metacache.serializers.shapes import required_keys
from metacache_attrs.values import (
    ANY,
    ARRAY,
    FLOAT,
    OBJECT,
    STRINGS,
    TIMEDELTA,
    Codec,
    Type,
    Value,
    choice,
    exact,
    exactly,
    string,
    wrong,
)

__all__ = ["StrictConverter"]


@final
class StrictConverter(cattrs.Converter):
    """cattrs' code for classes, over strict hooks for everything else. One thread at a time.

    It chooses hooks by itself, because the dispatch of cattrs takes a subclass of str or int for a str or int. Hooks
    raise TypeError, ValueError or KeyError for a value of a wrong type.
    """

    def __init__(self) -> None:
        super().__init__(detailed_validation=False, forbid_extra_keys=True)
        self._codecs: dict[Type, Codec] = {}

    @typing_extensions.override
    def get_structure_hook(self, type: Type, cache_result: bool = True) -> Callable[[Value, Type], Value]:
        read = self.codec(type).read
        return lambda data, _: read(data)

    @typing_extensions.override
    def get_unstructure_hook(self, type: Type, cache_result: bool = True) -> Callable[[Value], Value]:
        return self.codec(type).write

    @typing_extensions.override
    def structure(self, obj: Value, cl: Type) -> Value:
        """Return the value of type *cl* that *obj* is in JSON."""
        return self.codec(cl).read(obj)

    @typing_extensions.override
    def unstructure(self, obj: Value, unstructure_as: Type = None) -> Value:
        """Return *obj* in JSON; its type is its class unless told."""
        return self.codec(type(obj) if unstructure_as is None else unstructure_as).write(obj)

    def codec(self, type_: Type) -> Codec:
        """Return the codec of *type_*. Raises TypeError when it, or a type within it, cannot be kept."""
        known = self._codecs.get(type_)
        if known is not None:
            return known
        make = next((make for is_one, make in _MAKERS if is_one(type_)), None)
        if make is None:
            raise TypeError(f"{type_!r} has no form in JSON")
        if make is _record:  # a class may hold itself, and finds this one then
            self._codecs[type_] = Codec(
                OBJECT, lambda value: self._codecs[type_].write(value), lambda data: self._codecs[type_].read(data)
            )
        codec = self._codecs[type_] = make(self, type_)
        return codec


# What an abstract collection is read as, and must be to be written.
_COLLECTIONS: Final[dict[Type, type]] = {
    **{class_: class_ for class_ in (list, set, frozenset, collections.deque)},
    **dict.fromkeys((collections.abc.Sequence, collections.abc.MutableSequence), list),
    **dict.fromkeys((collections.abc.Set, collections.abc.MutableSet), set),
}
_MAPPINGS: Final[dict[Type, type]] = {
    **{class_: class_ for class_ in (dict, collections.OrderedDict)},
    **dict.fromkeys((collections.abc.Mapping, collections.abc.MutableMapping), dict),
}


def _collection(converter: StrictConverter, type_: Type) -> Codec:
    class_ = _COLLECTIONS[_form(type_)]
    part = converter.codec(*(typing.get_args(type_) or (Any,)))

    def read(data: Value) -> Value:
        value = class_(map(part.read, exactly(data, list)))
        return _as_long(value, data)

    return Codec(ARRAY, lambda value: list(map(part.write, exactly(value, class_))), read)


def _as_long(value: Value, data: Value) -> Value:
    if len(value) != len(data):
        raise ValueError("an element or a key twice")
    return value


def _tuple(converter: StrictConverter, type_: Type) -> Codec:
    arguments = (Any, ...) if type_ is tuple else typing.get_args(type_)
    if arguments[1:] != (Ellipsis,):
        return _row(converter, tuple, arguments, tuple)
    part = converter.codec(arguments[0])
    return Codec(
        ARRAY,
        lambda value: list(map(part.write, exactly(value, tuple))),
        lambda data: tuple(map(part.read, exactly(data, list))),
    )


def _named_tuple(converter: StrictConverter, class_: Type) -> Codec:
    hints = typing.get_type_hints(class_)
    return _row(converter, class_, [hints[name] for name in class_._fields], class_._make)


def _row(converter: StrictConverter, class_: type, parts: Iterable[Type], make: Callable[..., Value]) -> Codec:
    """Return the codec of a tuple of so many parts."""
    codecs = [converter.codec(part) for part in parts]

    def write(value: Value) -> Value:
        return [codec.write(part) for codec, part in zip(codecs, exactly(value, class_), strict=True)]

    def read(data: Value) -> Value:
        return make(codec.read(part) for codec, part in zip(codecs, exactly(data, list), strict=True))

    return Codec(ARRAY, write, read)


def _mapping(converter: StrictConverter, type_: Type) -> Codec:
    class_ = _MAPPINGS[_form(type_)]
    key, part = map(converter.codec, typing.get_args(type_) or (str, Any))
    is_object = key.kinds == frozenset((str,))
    form = dict if is_object else list

    def write(value: Value) -> Value:
        pairs = ((key.write(name), part.write(held)) for name, held in exactly(value, class_).items())
        return dict(pairs) if is_object else list(map(list, pairs))

    def read(data: Value) -> Value:
        pairs = exactly(data, form).items() if is_object else map(_pair, exactly(data, form))
        return _as_long(class_((key.read(name), part.read(held)) for name, held in pairs), data)

    return Codec(frozenset((form,)), write, read)


def _pair(data: Value) -> Value:
    if len(exactly(data, list)) != 2:
        raise ValueError("a pair has two parts")
    return data


# --- records --------------------------------------------------------------------------------------------------------


def _record(converter: StrictConverter, type_: Type) -> Codec:
    class_ = _form(type_)
    hints = typing.get_type_hints(class_)
    if any(isinstance(hint, dataclasses.InitVar) for hint in hints.values()):
        raise TypeError(f"{class_.__name__} takes what it does not keep (InitVar)")
    if attrs.has(class_) and any(field.type is None for field in attrs.fields(class_)):
        raise TypeError(f"{class_.__name__} has a field without a type")
    to_object = make_dict_unstructure_fn(type_, converter)
    of_object = make_dict_structure_fn(type_, converter)
    return Codec(
        OBJECT, lambda value: to_object(exactly(value, class_)), lambda data: of_object(exactly(data, dict), type_)
    )


def _typed_dict(converter: StrictConverter, class_: Type) -> Codec:
    fields = {name: converter.codec(hint) for name, hint in typing_extensions.get_type_hints(class_).items()}
    required = required_keys(class_)

    def checked(value: Value) -> Value:
        if required <= exactly(value, dict).keys() <= fields.keys():
            return value
        raise ValueError(f"a key of {class_.__name__} is missing, or unknown to it")

    return Codec(
        OBJECT,
        lambda value: {name: fields[name].write(held) for name, held in checked(value).items()},
        lambda data: {name: fields[name].read(held) for name, held in checked(data).items()},
    )


# --- what stands for another type -----------------------------------------------------------------------------------


def _union(converter: StrictConverter, type_: Type) -> Codec:
    # float last: it takes an int too, which another member may take as what it is.
    members = sorted(typing.get_args(type_), key=lambda member: member is float)
    codecs = [converter.codec(member) for member in members]
    kinds = frozenset[type]().union(*(codec.kinds for codec in codecs))
    if len(kinds) == sum(len(codec.kinds) for codec in codecs):
        by_kind = {kind: codec for codec in codecs for kind in codec.kinds}
        return Codec(kinds, lambda value: _first(codecs, value)[1], lambda data: by_kind[type(data)].read(data))
    names = [_name(member) for member in members]
    by_name = dict(zip(names, codecs, strict=True))
    if len(by_name) < len(codecs):
        raise TypeError(f"{type_!r} has two members of one name")

    def write(value: Value) -> Value:
        index, written = _first(codecs, value)
        return {"type": names[index], "value": written}

    def read(data: Value) -> Value:
        if exactly(data, dict).keys() != {"type", "value"}:
            raise ValueError("no tagged member of a union")
        return by_name[data["type"]].read(data["value"])

    return Codec(OBJECT, write, read)


def _first(codecs: list[Codec], value: Value) -> tuple[int, Value]:
    """Return the index of the first codec that takes *value*, and what it writes."""
    for index, codec in enumerate(codecs):
        try:
            return index, codec.write(value)
        except Exception:  # it raises as many kinds as there are ways not to be of a type
            continue
    raise wrong(value, "a member of the union")


def _name(type_: Type) -> str:
    """Return what a member is called: User, list[int]. Never its module, which may move."""
    if type_ in (None, type(None)):
        return "None"
    form = _form(type_)
    name: str = getattr(form, "__name__", str(form))
    if form in _LITERALS:
        return str(sorted(map(repr, typing.get_args(type_))))
    arguments = ["..." if part is Ellipsis else _name(part) for part in typing.get_args(type_)]
    return f"{name}[{', '.join(arguments)}]" if arguments else name


# Any: special forms have no type in common.
_LITERALS: Final[tuple[Any, ...]] = (typing.Literal, typing_extensions.Literal)
_UNIONS: Final[tuple[Any, ...]] = (typing.Union, types.UnionType)
_WRAPPERS: Final[tuple[Any, ...]] = (typing.Annotated, typing.Final)


def _is_class(type_: Type, base: type) -> bool:
    return isinstance(type_, type) and issubclass(type_, base)


def _form(type_: Type) -> Type:
    """Return what a subscripted type is made of (list for ``list[int]``), else the type itself."""
    origin: Type = typing.get_origin(type_)
    return type_ if origin is None else origin


# Which types, and what makes their codec; the first row that fits.
_MAKERS: Final[tuple[tuple[Callable[[Type], bool], Callable[[StrictConverter, Type], Codec]], ...]] = (
    (lambda type_: type_ in (None, type(None)), lambda _, __: exact(type(None))),
    (lambda type_: type_ in (bool, int, str), lambda _, type_: exact(type_)),
    (lambda type_: type_ is float, lambda _, __: FLOAT),
    (lambda type_: type_ is Any, lambda _, __: ANY),
    (lambda type_: type_ in STRINGS, lambda _, type_: string(type_)),
    (lambda type_: type_ is datetime.timedelta, lambda _, __: TIMEDELTA),
    (lambda type_: _is_class(type_, enum.Enum), lambda _, type_: choice(list(type_))),
    (lambda type_: _form(type_) in _LITERALS, lambda _, type_: choice(typing.get_args(type_))),
    (lambda type_: _form(type_) in _UNIONS, _union),
    (lambda type_: _form(type_) is tuple, _tuple),
    (lambda type_: _is_class(type_, tuple) and hasattr(type_, "_fields"), _named_tuple),
    (lambda type_: _form(type_) in _COLLECTIONS, _collection),
    (lambda type_: _form(type_) in _MAPPINGS, _mapping),
    (typing_extensions.is_typeddict, _typed_dict),
    (lambda type_: attrs.has(_form(type_)) or dataclasses.is_dataclass(_form(type_)), _record),
    (lambda type_: _form(type_) in _WRAPPERS, lambda converter, type_: converter.codec(typing.get_args(type_)[0])),
    (lambda type_: hasattr(type_, "__supertype__"), lambda converter, type_: converter.codec(type_.__supertype__)),
    (lambda type_: type(type_).__name__ == "TypeAliasType", lambda converter, type_: converter.codec(type_.__value__)),
)
