"""What the values of a class consist of, so that they can be compared part by part. Knows classes and no format."""

# The class of a value is what this module looks at, and pyright calls the class of an Any unknown.
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

from metacache.serializers.fits import Mismatch, Value
from metacache.serializers.forms import Form, resolve

__all__ = ["EVERY", "NONE", "Kind", "kind_of"]


@final
class _Every:
    """Contains everything."""

    def __contains__(self, _: object) -> bool:
        return True


EVERY: Final = _Every()
NONE: Final[Container[object]] = ()

_Parts: TypeAlias = Callable[[Value], Sequence[Value]]


_POSITIONS: Final = range(sys.maxsize)


_Key: TypeAlias = Callable[[Value], object]
_Reorder: TypeAlias = Callable[[_Key, Sequence[Value], Sequence[Value]], Sequence[Value]]


def _places(key: _Key, parts: Sequence[Value], rest: Sequence[Value]) -> list[int]:
    """Return where each of *parts* stands in *rest*."""
    waiting: dict[object, list[int]] = {}
    for index, each in enumerate(rest):
        waiting.setdefault(key(each), []).append(index)
    keys = list(map(key, parts))
    if [each for each, count in collections.Counter(keys).items() if len(waiting.get(each, ())) < count]:
        raise Mismatch("it would come back with other keys or elements")
    return [waiting[each].pop() for each in keys]


def _as_a_set(key: _Key, parts: Sequence[Value], rest: Sequence[Value]) -> Sequence[Value]:
    return [rest[place] for place in _places(key, parts, rest)]


def _as_a_dict(key: _Key, parts: Sequence[Value], rest: Sequence[Value]) -> Sequence[Value]:
    half = len(parts) // 2
    keys, others = parts[:half], rest[:half]
    if all(map(is_, keys, others)):
        return rest
    places = _places(key, keys, others)
    return [rest[place] for place in places] + [rest[half + place] for place in places]


def _of_a_dict(keys: list[object]) -> object:
    half = len(keys) // 2
    return frozenset(zip(keys[:half], keys[half:], strict=True))


def _position(step: object, _: int) -> str:
    return f"[{step}]"


def _field(step: object, _: int) -> str:
    return f".{step}"


def _anywhere(_: object, __: int) -> str:
    return "[*]"


def _pair(step: Any, count: int) -> str:  # Any: a position, as `itertools.count` gives it
    half = count // 2
    return f".keys()[{step}]" if step < half else f".values()[{step - half}]"


def _of_deque(step: Any, _: int) -> str:  # Any: as above
    return f"[{step - 1}]" if step else ".maxlen"


@final
@attrs.frozen
class Kind:
    """How the values of one class are taken apart.

    Attributes:
        parts: returns the parts of a value; None where the value itself is the sequence of them.
        show: returns the text of a step to a part, from the step and the number of parts.
        steps: the steps to the parts, names or positions.
        floats: the steps at which the type says float; None where that depends on what holds the value.
        reorder: returns the parts of another value so that what is the same stands where it stands in the first; it is
            given what makes equal keys for parts that are the same. None where the order counts.
        combine: returns a key of a value from the keys of its parts.
        is_record: True for a class whose fields have types of their own, without type variables.
    """

    parts: _Parts | None = None
    show: Callable[[Any, int], str] = _position  # Any: a name or a position
    steps: Sequence[object] = _POSITIONS
    floats: Container[object] | None = None
    reorder: _Reorder | None = None
    combine: Callable[[list[object]], object] = tuple
    is_record: bool = False

    def apart(self, value: Value) -> Sequence[Value]:
        """Return the parts of *value*."""
        parts: Sequence[Value] = value if self.parts is None else self.parts(value)
        return parts


def _pairs(value: dict[Value, Value]) -> Sequence[Value]:
    # The methods of dict itself: a class of a user's may have others.
    return [*dict[Value, Value].keys(value), *dict[Value, Value].values(value)]


_CONTAINERS: Final[Mapping[type, Kind]] = {
    list: Kind(),
    tuple: Kind(),
    collections.deque: Kind(lambda value: [value.maxlen, *value], _of_deque),
    dict: Kind(_pairs, _pair, reorder=_as_a_dict, combine=_of_a_dict),
    collections.OrderedDict: Kind(_pairs, _pair),
    set: Kind(list, _anywhere, reorder=_as_a_set, combine=frozenset),
    frozenset: Kind(list, _anywhere, reorder=_as_a_set, combine=frozenset),
}


def kind_of(class_: type, form: Form | None = None) -> Kind:
    """Return how the values of *class_* are taken apart. *form* is that of the class, if it is known."""
    known = _CONTAINERS.get(class_)
    if known is not None:
        return known
    if issubclass(class_, enum.Enum):
        return Kind(lambda value: (value._value_,), _field, ("value",))
    if issubclass(class_, type | FunctionType | BuiltinFunctionType):
        return Kind(lambda value: (id(value),))
    names = _field_names(class_)
    contents = [contents for base, contents in _BASES if issubclass(class_, base)][:1]
    if names is None and contents:
        return Kind(lambda value: (contents[0](value), getattr(value, "__dict__", None)), floats=NONE)
    if names is None:
        return Kind(_reduced, floats=NONE)
    floats = _floats(resolve(class_) if form is None else form)
    kind = partial(Kind, show=_field, floats=floats, is_record=not getattr(class_, "__parameters__", ()))
    if issubclass(class_, tuple):
        return kind(lambda value: tuple[Value, ...].__getitem__(value, slice(None)), steps=names)
    parts = _getter(class_, names)
    if not contents:
        return kind(parts, steps=names)
    return kind(lambda value: (*parts(value), contents[0](value)), steps=(*names, "contents"))


# What a record holds beside its fields if it has such a base. No method of its own class is called.
_BASES: Final[Sequence[tuple[type, Callable[[Value], Value]]]] = (
    (dict, _pairs),
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
    if dataclasses.is_dataclass(class_):
        return tuple(field.name for field in dataclasses.fields(class_))
    fields: tuple[str, ...] | None = getattr(class_, "_fields", None) if issubclass(class_, tuple) else None
    return fields


class _Unset(enum.Enum):
    """What a field holds that was never set."""

    UNSET = "unset"


def _getter(class_: Any, names: tuple[str, ...]) -> _Parts:  # Any: as above
    fields: Iterable[Any] = getattr(
        class_, "__attrs_attrs__", None
    ) or (  # Any: attrs and dataclasses have other fields
        dataclasses.fields(class_) if dataclasses.is_dataclass(class_) else ()
    )
    if len(names) > 1 and not [field for field in fields if not field.init]:
        return attrgetter(*names)
    # A field that `__init__` does not set may be unset.
    return lambda value: tuple([getattr(value, name, _Unset.UNSET) for name in names])


def _floats(form: Form) -> Container[object]:
    """Return the fields of a class whose type holds a float, or may: a type variable, a name that is not found."""
    if form.kind == "unknown":
        return EVERY
    return frozenset(name for name, part in zip(form.labels, form.parts, strict=True) if _holds_float(part))


def _holds_float(form: Form) -> bool:
    seen = {id(form)}
    ahead = [form]
    while ahead:
        each = ahead.pop()
        if each.kind in ("float", "unknown"):
            return True
        if each.kind not in ("struct", "attrs", "dataclass", "namedtuple"):  # these have fields of their own
            ahead.extend(part for part in each.parts if id(part) not in seen)
            seen.update(map(id, each.parts))
    return False


def _reduced(value: Value) -> Sequence[Value]:
    """Return what pickle would store of *value*, whose class is of no known kind."""
    reduced = value.__reduce_ex__(2)
    parts = (reduced,) if isinstance(reduced, str) else reduced
    return [list(part) if isinstance(part, Iterator) else part for part in parts]
