"""Describe how to take the values of a class apart, so that `comparison` can compare them part by part."""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter, is_
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final, TypeAlias, final

import attrs

from metacache.interrupts import fails_again
from metacache.serializers.forms import Form, resolve
from metacache.serializers.mismatches import Mismatch, Value
from metacache.serializers.models import config_of, fields_of, is_model, private_names

__all__ = ["EVERY", "NONE", "Layout", "layout_of"]


@final
class _Every:
    """A container that contains every object."""

    def __contains__(self, _: object) -> bool:
        return True


EVERY: Final = _Every()
NONE: Final[Container[object]] = ()

_Parts: TypeAlias = Callable[[Value], Sequence[Value]]


_INDEXES: Final = range(sys.maxsize)


_Key: TypeAlias = Callable[[Value], object]
_Reorder: TypeAlias = Callable[[_Key, Sequence[Value], Sequence[Value]], Sequence[Value]]


def _positions_in(key: _Key, parts: Sequence[Value], rest: Sequence[Value]) -> list[int]:
    """Return the index in *rest* of each of *parts*. Raises Mismatch if *rest* lacks one."""
    waiting: dict[object, list[int]] = {}
    for index, each in enumerate(rest):
        waiting.setdefault(key(each), []).append(index)
    keys = list(map(key, parts))
    if [each for each, count in collections.Counter(keys).items() if len(waiting.get(each, ())) < count]:
        raise Mismatch("it would come back with other keys or elements")
    return [waiting[each].pop() for each in keys]


def _reorder_set(key: _Key, parts: Sequence[Value], rest: Sequence[Value]) -> Sequence[Value]:
    return [rest[index] for index in _positions_in(key, parts, rest)]


def _reorder_dict(key: _Key, parts: Sequence[Value], rest: Sequence[Value]) -> Sequence[Value]:
    half = len(parts) // 2
    keys, others = parts[:half], rest[:half]
    if all(map(is_, keys, others)):
        return rest
    positions = _positions_in(key, keys, others)
    return [rest[index] for index in positions] + [rest[half + index] for index in positions]


def _dict_key(keys: list[object]) -> object:
    half = len(keys) // 2
    return frozenset(zip(keys[:half], keys[half:], strict=True))


def _index_step(step: object, _: int) -> str:
    return f"[{step}]"


def _field_step(step: object, _: int) -> str:
    return f".{step}"


def _any_step(_: object, __: int) -> str:
    return "[*]"


def _dict_step(step: Any, count: int) -> str:  # Any: always an int here; other layouts have names
    half = count // 2
    return f".keys()[{step}]" if step < half else f".values()[{step - half}]"


def _deque_step(step: Any, _: int) -> str:  # Any: as above
    return f"[{step - 1}]" if step else ".maxlen"


@final
@attrs.frozen
class Layout:
    """How to take the values of one class apart.

    Attributes:
        parts: returns the parts of a value; None if the value itself is the sequence of its parts.
        show: returns the text of a step to a part, given the step and the number of parts.
        steps: the steps to the parts: names or indexes.
        floats: the steps whose type says float; None if that depends on the type of the field that contains the value.
        reorder: arranges the parts of a second value in the order of the first; None if order counts. Its first
            argument returns a key for a part; equal parts have equal keys.
        combine: returns the key of a value from the keys of its parts.
        attributes: the names of attributes that together have all parts; None if no attributes have them.
        is_record: True for a class with typed fields and without type variables.
    """

    parts: _Parts | None = None
    show: Callable[[Any, int], str] = _index_step  # Any: a name or an index
    steps: Sequence[object] = _INDEXES
    floats: Container[object] | None = None
    reorder: _Reorder | None = None
    combine: Callable[[list[object]], object] = tuple
    attributes: tuple[str, ...] | None = None
    is_record: bool = False

    def parts_of(self, value: Value) -> Sequence[Value]:
        """Return the parts of *value*."""
        parts: Sequence[Value] = value if self.parts is None else self.parts(value)
        return parts


def _keys_and_values(value: dict[Value, Value]) -> Sequence[Value]:
    # Call the methods of dict: a subclass of the user may override them.
    return [*dict[Value, Value].keys(value), *dict[Value, Value].values(value)]


_CONTAINERS: Final[Mapping[type, Layout]] = {
    list: Layout(),
    tuple: Layout(),
    collections.deque: Layout(lambda value: [value.maxlen, *value], _deque_step),
    dict: Layout(_keys_and_values, _dict_step, reorder=_reorder_dict, combine=_dict_key),
    collections.OrderedDict: Layout(_keys_and_values, _dict_step),
    set: Layout(list, _any_step, reorder=_reorder_set, combine=frozenset),
    frozenset: Layout(list, _any_step, reorder=_reorder_set, combine=frozenset),
}


def layout_of(class_: type, form: Form | None = None) -> Layout:
    """Return the layout of *class_*. *form* is the form of the class if the caller has it."""
    known = _CONTAINERS.get(class_)
    if known is not None:
        return known
    if issubclass(class_, enum.Enum):
        return Layout(lambda value: (value._value_,), _field_step, ("value",))
    if issubclass(class_, type | FunctionType | BuiltinFunctionType):
        return Layout(lambda value: (id(value),))
    names = _field_names(class_)
    contents = [contents for base, contents in _BUILTIN_BASES if issubclass(class_, base)][:1]
    if names is None and contents:
        return Layout(lambda value: (contents[0](value), getattr(value, "__dict__", None)), floats=NONE)
    if names is None:
        return Layout(_pickle_parts, floats=NONE)
    floats = _float_fields(resolve(class_) if form is None else form)
    layout = partial(Layout, show=_field_step, floats=floats, is_record=not getattr(class_, "__parameters__", ()))
    if issubclass(class_, tuple):
        return layout(lambda value: tuple[Value, ...].__getitem__(value, slice(None)), steps=names)
    if is_model(class_):
        private = private_names(class_)
        steps = (*names, *private, *_MODEL_STEPS)
        return layout(_model_reader(names, private), steps=steps, attributes=_MODEL_ATTRIBUTES)
    are_always_set = _are_always_set(class_)
    parts = _fields_reader(names) if are_always_set else _careful_reader(names)
    if dataclasses.is_dataclass(class_) and config_of(class_).get("extra") == "allow":
        return layout(lambda value: (*parts(value), _extra(value, names)), steps=(*names, "extra"))
    if not contents:
        return layout(parts, steps=names, attributes=names if are_always_set else None)
    return layout(lambda value: (*parts(value), contents[0](value)), steps=(*names, "contents"))


# The further content of a record with a builtin base class. These functions call no method of the user's class.
_BUILTIN_BASES: Final[Sequence[tuple[type, Callable[[Value], Value]]]] = (
    (dict, _keys_and_values),
    (list, lambda value: list[Value].__getitem__(value, slice(None))),
    (set, lambda value: frozenset(set[Value].__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset[Value].__iter__(value))),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
)


def _field_names(class_: Any) -> tuple[str, ...] | None:  # Any: a class with the attributes that its kind has
    if hasattr(class_, "__struct_fields__"):
        struct_fields: tuple[str, ...] = class_.__struct_fields__
        return struct_fields
    if attrs.has(class_):
        return tuple(field.name for field in attrs.fields(class_))
    if is_model(class_):
        return tuple(fields_of(class_))
    if dataclasses.is_dataclass(class_):
        return tuple(field.name for field in dataclasses.fields(class_))
    fields: tuple[str, ...] | None = getattr(class_, "_fields", None) if issubclass(class_, tuple) else None
    return fields


class _Unset(enum.Enum):
    """Stands for the value of a field that was never set."""

    UNSET = "unset"


def _are_always_set(class_: Any) -> bool:  # Any: as above
    """Return whether `__init__` takes every field of *class_*. Other fields may be unset."""
    fields: Iterable[Any] = getattr(
        class_, "__attrs_attrs__", None
    ) or (  # Any: attrs and dataclasses have other fields
        dataclasses.fields(class_) if dataclasses.is_dataclass(class_) else ()
    )
    return all(field.init for field in fields)


def _fields_reader(names: tuple[str, ...]) -> _Parts:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple([getattr(value, name) for name in names])


def _careful_reader(names: tuple[str, ...]) -> _Parts:
    """Return a reader of fields of which some may be unset."""
    return lambda value: tuple([getattr(value, name, _Unset.UNSET) for name in names])


def _extra(value: Value, names: tuple[str, ...]) -> Value:
    """Return the attributes that pydantic added to a dataclass for unknown keys."""
    attributes: dict[str, Value] = value.__dict__
    return {name: part for name, part in attributes.items() if name not in names and not name.startswith("__")}


_MODEL_STEPS: Final = ("model_extra", "model_fields_set")
_MODEL_ATTRIBUTES: Final = ("__dict__", "__pydantic_private__", "__pydantic_extra__", "__pydantic_fields_set__")


def _model_reader(names: tuple[str, ...], private: tuple[str, ...]) -> _Parts:
    """Return the reader of a model: its fields, its private attributes, its extra fields and its set names."""

    def read(value: Value) -> Sequence[Value]:
        fields: dict[str, Value] = value.__dict__
        hidden: dict[str, Value] = value.__pydantic_private__ or {}
        found = [fields.get(name, _Unset.UNSET) for name in names]
        if private:
            found.extend(hidden.get(name, _Unset.UNSET) for name in private)
        found.append(value.__pydantic_extra__)
        found.append(sorted(value.__pydantic_fields_set__))
        return found

    return read


def _float_fields(form: Form) -> Container[object]:
    """Return the fields of a class whose type contains a float. A type that is not resolved counts as one."""
    if form.kind == "unknown":
        return EVERY
    return frozenset(name for name, part in zip(form.labels, form.parts, strict=True) if _contains_float(part))


def _contains_float(form: Form) -> bool:
    seen = {id(form)}
    ahead = [form]
    while ahead:
        each = ahead.pop()
        if each.kind in ("float", "unknown"):
            return True
        if each.kind not in ("struct", "attrs", "dataclass", "model", "namedtuple"):  # a record has a layout of its own
            ahead.extend(part for part in each.parts if id(part) not in seen)
            seen.update(map(id, each.parts))
    return False


def _pickle_parts(value: Value) -> Sequence[Value]:
    """Return what pickle would store for *value*, for a class of no known kind. Raises Mismatch if there is none."""
    try:
        reduced = _reduced(value)
    except TypeError as error:
        if not fails_again(_reduced, value, error):
            raise
        raise Mismatch(f"a {type(value).__name__} cannot be compared") from None
    parts = (reduced,) if isinstance(reduced, str) else reduced
    return [list(part) if isinstance(part, Iterator) else part for part in parts]


def _reduced(value: Value) -> Value:
    return value.__reduce_ex__(2)
