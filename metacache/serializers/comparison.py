"""Compare a value with the value that was decoded for it: part by part, and never with a user's ``__eq__``.

One rule for all formats says when two values are the same. Their classes are the same, and:

    None, bool, int, str, bytes, ...  equal
    float, complex                    equal bits: 0.0 is not -0.0; NaN is the same as NaN
    Decimal                           equal sign, digits and exponent; a signaling NaN is refused
    datetime, time                    equal fields and offset; `_time_key` lists the zones that are refused
    Enum                              the same member
    list, tuple, deque, OrderedDict   part by part, in order
    dict, set, frozenset              part by part, in any order
    attrs class, dataclass, Struct    field by field
    pydantic model                    field by field, private attributes and `model_fields_set` too

The one exception to the rule on classes: an int is the same as the float decoded for it, if the type says float there
and the float holds the int exactly. `layouts` says how each class is taken apart.
"""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from operator import is_
from types import MappingProxyType, NoneType
from typing import Final, TypeAlias, final

from metacache.acceleration import are_same
from metacache.serializers.forms import RECORDS, Form, walk
from metacache.serializers.layouts import EVERY, NONE, Layout, layout_of
from metacache.serializers.mismatches import Mismatch, Value, float_holds
from metacache.serializers.models import is_fixed_zone

__all__ = ["Comparer", "ComparisonKey"]

# Returns a key of a value that is compared as one piece. The key consists of builtin classes; equal values, equal keys.
ComparisonKey: TypeAlias = Callable[[Value], object]

# Builtin classes: their == compares contents and runs no code of the user.
_PLAIN: Final = frozenset((NoneType, bool, int, str, bytes, uuid.UUID, datetime.date, datetime.timedelta))
# The zones that every format can store.
_PORTABLE_ZONES: Final = (None, datetime.UTC)
_MINUTE: Final = datetime.timedelta(minutes=1)


def _time_key(value: Value) -> object:
    """Return the key of a datetime or time. Raises Mismatch for a zone or fold that some format cannot store."""
    zone: datetime.tzinfo | None = value.tzinfo
    advice = "use .astimezone(timezone.utc)" if isinstance(value, datetime.datetime) else "use a time in UTC"
    if value.fold:
        raise Mismatch(f"fold=1 cannot be stored; {advice}")
    if zone is None:
        return value
    if is_fixed_zone(zone):  # every read by pydantic returns this class
        return value.replace(tzinfo=None), value.utcoffset()
    if type(zone) is not datetime.timezone:
        raise Mismatch(f"expected a datetime.timezone as tzinfo, got {type(zone).__name__}; {advice}")
    offset = zone.utcoffset(None)
    if offset % _MINUTE or zone.tzname(None) != datetime.timezone(offset).tzname(None):
        raise Mismatch(f"expected a zone with an offset of whole minutes and no name; {advice}")
    return value.replace(tzinfo=None), offset


def _decimal_key(value: decimal.Decimal) -> object:
    if value.is_snan():
        raise Mismatch("a signaling NaN cannot be stored")
    return value.as_tuple()


_KEYS: Final[Mapping[type, ComparisonKey]] = {
    float: float.hex,
    complex: lambda value: (value.real.hex(), value.imag.hex()),
    bytearray: bytes,
    datetime.datetime: _time_key,
    datetime.time: _time_key,
    decimal.Decimal: _decimal_key,
    memoryview: lambda value: (value.format, value.shape, value.tobytes()),
}

# What `are_same` needs of the classes that have no fields of a user.
_TIME: Final = [("tzinfo", *_PORTABLE_ZONES), ("fold", 0)]
_FIELDS: Final[Mapping[type, Sequence[object]]] = {
    uuid.UUID: ("int",),
    datetime.date: [],
    datetime.timedelta: [],
    datetime.datetime: _TIME,
    datetime.time: _TIME,
}


@final
class Comparer:
    """Compares values with the values that were decoded for them. Caches the layout of each class.

    Args:
        form: the type of the values, if it is known. The layouts of its records are cached from the start.
        keys: for classes whose parts Python cannot see, a function that returns a key of a value.
    """

    def __init__(self, form: Form | None = None, keys: Mapping[type, ComparisonKey] = MappingProxyType({})) -> None:
        self._keys: dict[type, ComparisonKey] = {**_KEYS, **keys}
        self._layouts: dict[type, Layout] = {}
        self._fields = {class_: fields for class_, fields in _FIELDS.items() if class_ not in keys}
        for _, each in () if form is None else walk(form):
            if each.kind in RECORDS and each.class_ is not dict:
                # The form of a generic class has the fields of one parametrisation only.
                is_generic = bool(getattr(each.class_, "__parameters__", ()))
                self._add(each.class_, layout_of(each.class_, None if is_generic else each))

    def check(self, value: Value, decoded: Value) -> bool:
        """Raise Mismatch if *decoded* is not the same as *value*. Return whether an int became a float."""
        if are_same is not None and are_same(value, decoded, self._fields):
            return False
        class_ = type(value)
        layout = self._layouts.get(class_)
        if layout is None and class_ not in _PLAIN and class_ not in self._keys:
            layout = self._layout(class_)
        if layout is None or layout.floats is None or class_ is not type(decoded):
            return self._compare_parts(_ROOT, (value,), (decoded,), EVERY)
        # a record, the usual case: saves one level of recursion
        return self._compare_parts(layout, layout.parts_of(value), layout.parts_of(decoded), layout.floats)

    def parts(self, value: Value) -> list[tuple[str, Value]]:
        """Return the parts of *value*, each after the step that leads to it."""
        class_ = type(value)
        if class_ in _PLAIN or class_ in self._keys:
            return []
        layout = self._layout(class_)
        parts = layout.parts_of(value)
        return [(layout.show(step, len(parts)), part) for step, part in zip(layout.steps, parts, strict=False)]

    def check_storable(self, value: Value) -> None:
        """Raise Mismatch if metacache never stores *value*, for example a time with fold=1."""
        make_key = self._keys.get(type(value))
        if make_key is not None:
            make_key(value)

    def can_stand_alone(self, class_: type) -> bool:
        """Return whether a value of *class_* can be encoded without its container: it has no parts, or typed fields."""
        return class_ in _PLAIN or class_ in self._keys or self._layout(class_).is_record

    def _compare_parts(
        self, layout: Layout, values: Sequence[Value], others: Sequence[Value], floats: Container[object]
    ) -> bool:
        # One long function, so that each level of a value costs only one Python frame of the recursion limit. The most
        # frequent branches come first: the comparison of a record of ten fields takes a few µs.
        is_widened = False
        for step, value, decoded in zip(layout.steps, values, others):  # noqa: B905 - `strict` costs as much as two fields
            if value is decoded:
                continue
            class_ = type(value)
            try:
                if class_ is not type(decoded):
                    if class_ is int and type(decoded) is float and step in floats and _reads_back_as(value, decoded):
                        is_widened = True
                        continue
                    raise _changed_class(value, decoded)
                if class_ in _PLAIN:
                    if value == decoded:
                        continue
                    raise _changed_value(class_)
                if class_ is float and value == decoded and value:
                    continue
                if class_ is datetime.datetime and value.tzinfo is decoded.tzinfo in _PORTABLE_ZONES and not value.fold:
                    if value == decoded:
                        continue
                    raise _changed_value(class_)
                make_key = self._keys.get(class_)
                if make_key is not None:
                    if make_key(value) == make_key(decoded):
                        continue
                    raise _changed_value(class_)
                inner = self._layouts.get(class_) or self._layout(class_)
                parts, rest = (value, decoded) if inner.parts is None else (inner.parts(value), inner.parts(decoded))
                if len(parts) != len(rest):
                    raise Mismatch(f"the {class_.__name__} would come back with another number of parts")
                # Plain parts are compared in C. A set in another order is not decided here.
                is_plain = _PLAIN.issuperset(map(type, parts)) and all(map(is_, map(type, parts), map(type, rest)))
                if is_plain and parts == rest:
                    continue
                if inner.reorder is not None:
                    rest = inner.reorder(self._key, parts, rest)
                inherited: Container[object] = EVERY if step in floats else NONE
                floats_within = inherited if inner.floats is None else inner.floats
                is_widened = self._compare_parts(inner, parts, rest, floats_within) or is_widened
            except Mismatch as found:
                found.within(layout.show(step, len(values)))
                raise
        return is_widened

    def _layout(self, class_: type) -> Layout:
        layout = self._layouts.get(class_)
        return self._add(class_, layout_of(class_)) if layout is None else layout

    def _add(self, class_: type, layout: Layout) -> Layout:
        if layout.attributes is not None and class_ not in self._keys:
            self._fields[class_] = layout.attributes
        return self._layouts.setdefault(class_, layout)

    def _key(self, value: Value) -> object:
        """Return a hashable key. Values that are the same have equal keys."""
        class_ = type(value)
        if class_ is int and float_holds(value):
            return float, float.hex(float(value))  # it may be decoded as this float
        if class_ in _PLAIN:
            return class_, value
        make_key = self._keys.get(class_)
        if make_key is not None:
            return class_, make_key(value)
        layout = self._layout(class_)
        return class_, layout.combine(list(map(self._key, layout.parts_of(value))))


def _reads_back_as(number: int, real: float) -> bool:
    return number == real and float.hex(float(number)) == float.hex(real)  # 0 must not become -0.0


_ROOT: Final = Layout(show=lambda _, __: "")


def _changed_value(class_: type) -> Mismatch:
    return Mismatch(f"the {class_.__name__} would come back with another value")


def _changed_class(value: Value, decoded: Value) -> Mismatch:
    return Mismatch(f"the {type(value).__name__} would come back as {type(decoded).__name__}")
