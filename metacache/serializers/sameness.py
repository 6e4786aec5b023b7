"""Are two values the same: equal part by part, and of the same classes? Never asks a class's own ``__eq__``.

A value is compared with what is read back for it, by one rule for all formats:

    None, bool, int, str, bytes, ...  equal
    float, complex                    equal bits: 0.0 is not -0.0; NaN is the same as NaN
    Decimal                           equal sign, digits and exponent; a signaling NaN is refused
    datetime, time                    equal fields and zone; `_moment` says which zones are refused
    Enum                              the same member
    list, tuple, deque, OrderedDict   part by part, in order
    dict, set, frozenset              part by part, in any order
    attrs class, dataclass, Struct    field by field
    an int read back as a float       the same if the type says float there and the float holds it exactly

Knows values; knows no bytes and no format. What a class is made of is for `parts`.
"""

# The class of a value is what this module looks at, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from operator import is_
from types import MappingProxyType, NoneType
from typing import Final, TypeAlias, final

from metacache.serializers.fits import Mismatch, Value, holds
from metacache.serializers.forms import RECORDS, Form, walk
from metacache.serializers.parts import EVERY, NONE, Kind, kind_of

__all__ = ["Comparer", "Token"]

# What identifies a value that is one piece, as a value of builtin classes.
Token: TypeAlias = Callable[[Value], object]

# Their == compares what they hold, and runs nothing of a user's.
_PLAIN: Final = frozenset((NoneType, bool, int, str, bytes, uuid.UUID, datetime.date, datetime.timedelta))
# Zones that every format keeps.
_SURE: Final = (None, datetime.UTC)
_MINUTE: Final = datetime.timedelta(minutes=1)


def _moment(value: Value) -> object:
    """Return what identifies a datetime or a time. Raise Mismatch for a zone or fold that some format does not keep."""
    zone: datetime.tzinfo | None = value.tzinfo
    advice = "use .astimezone(timezone.utc)" if isinstance(value, datetime.datetime) else "use a time in UTC"
    if value.fold:
        raise Mismatch(f"fold=1 is not kept; {advice}")
    if zone is None:
        return value
    if type(zone) is not datetime.timezone:
        raise Mismatch(f"expected a datetime.timezone as tzinfo, got {type(zone).__name__}; {advice}")
    offset = zone.utcoffset(None)
    if offset % _MINUTE or zone.tzname(None) != datetime.timezone(offset).tzname(None):
        raise Mismatch(f"expected a zone of whole minutes and without a name; {advice}")
    return value.replace(tzinfo=None), offset


def _decimal(value: decimal.Decimal) -> object:
    if value.is_snan():
        raise Mismatch("a signaling NaN is not kept")
    return value.as_tuple()


_TOKENS: Final[Mapping[type, Token]] = {
    float: float.hex,
    complex: lambda value: (value.real.hex(), value.imag.hex()),
    bytearray: bytes,
    datetime.datetime: _moment,
    datetime.time: _moment,
    decimal.Decimal: _decimal,
    memoryview: lambda value: (value.format, value.shape, value.tobytes()),
}


@final
class Comparer:
    """Compares values with what is read back for them. Remembers the classes it has met.

    Args:
        form: the type of the values, if it is known; its classes are learned before the first comparison.
        tokens: what identifies the values of classes whose parts Python cannot see.
    """

    def __init__(self, form: Form | None = None, tokens: Mapping[type, Token] = MappingProxyType({})) -> None:
        self._tokens: dict[type, Token] = {**_TOKENS, **tokens}
        self._kinds: dict[type, Kind] = {}
        for _, each in () if form is None else walk(form):
            if each.kind in RECORDS and each.class_ is not dict:
                # Of a generic class the form has the fields of one parametrisation.
                is_generic = bool(getattr(each.class_, "__parameters__", ()))
                self._kinds[each.class_] = kind_of(each.class_, None if is_generic else each)

    def check(self, value: Value, again: Value) -> None:
        """Raise Mismatch where *again*, which was read back, is not the same as *value*."""
        class_ = type(value)
        kind = self._kinds.get(class_)
        if kind is None and class_ not in _PLAIN and class_ not in self._tokens:
            kind = self._kind(class_)
        if kind is None or kind.floats is None or class_ is not type(again):
            self._row(_ROOT, (value,), (again,), EVERY)
        else:  # a record: the usual case, one level less
            self._row(kind, kind.apart(value), kind.apart(again), kind.floats)

    def parts(self, value: Value) -> list[tuple[str, Value]]:
        """Return the parts of *value*, each with the step to it."""
        class_ = type(value)
        if class_ in _PLAIN or class_ in self._tokens:
            return []
        kind = self._kind(class_)
        parts = kind.apart(value)
        return [(kind.show(step, len(parts)), part) for step, part in zip(kind.steps, parts, strict=False)]

    def identify(self, value: Value) -> None:
        """Raise Mismatch if *value* is one that no format keeps."""
        token = self._tokens.get(type(value))
        if token is not None:
            token(value)

    def is_one_piece(self, class_: type) -> bool:
        """Return whether values of *class_* can be encoded alone: they have no parts, or fields with names."""
        return class_ in _PLAIN or class_ in self._tokens or self._kind(class_).is_record

    def _row(self, kind: Kind, values: Sequence[Value], others: Sequence[Value], floats: Container[object]) -> None:
        # One Python frame for each level of a value, so that the limit on recursion allows deep values. The branches
        # stand in the order of how often they are taken: a record of ten fields is compared in 2 µs.
        for step, value, again in zip(kind.steps, values, others):  # noqa: B905 - `strict` costs as much as two fields
            if value is again:
                continue
            class_ = type(value)
            try:
                if class_ is not type(again):
                    if class_ is int and type(again) is float and step in floats and _becomes(value, again):
                        continue
                    raise _other_class(value, again)
                if class_ in _PLAIN:
                    if value == again:
                        continue
                    raise _another(class_)
                if class_ is float and value == again and value:
                    continue
                if class_ is datetime.datetime and value.tzinfo is again.tzinfo in _SURE and not value.fold:
                    if value == again:
                        continue
                    raise _another(class_)
                token = self._tokens.get(class_)
                if token is not None:
                    if token(value) == token(again):
                        continue
                    raise _another(class_)
                inner = self._kinds.get(class_) or self._kind(class_)
                parts, rest = (value, again) if inner.parts is None else (inner.parts(value), inner.parts(again))
                if len(parts) != len(rest):
                    raise Mismatch(f"the {class_.__name__} would come back with another number of parts")
                # All of it in C. A set in another order goes on.
                is_plain = _PLAIN.issuperset(map(type, parts)) and all(map(is_, map(type, parts), map(type, rest)))
                if is_plain and parts == rest:
                    continue
                if inner.reorder is not None:
                    rest = inner.reorder(self._key, parts, rest)
                inherited: Container[object] = EVERY if step in floats else NONE
                self._row(inner, parts, rest, inherited if inner.floats is None else inner.floats)
            except Mismatch as found:
                found.within(kind.show(step, len(values)))
                raise

    def _kind(self, class_: type) -> Kind:
        return self._kinds.setdefault(class_, kind_of(class_))

    def _key(self, value: Value) -> object:
        """Return a hashable that is equal for values that are the same."""
        class_ = type(value)
        if class_ is int and holds(value):
            return float, float.hex(float(value))  # it may come back as this float
        if class_ in _PLAIN:
            return class_, value
        token = self._tokens.get(class_)
        if token is not None:
            return class_, token(value)
        kind = self._kind(class_)
        return class_, kind.combine(list(map(self._key, kind.apart(value))))


def _becomes(number: int, real: float) -> bool:
    return number == real and float.hex(float(number)) == float.hex(real)  # 0 does not become -0.0


_ROOT: Final = Kind(show=lambda _, __: "")


def _another(class_: type) -> Mismatch:
    return Mismatch(f"the {class_.__name__} would come back as another")


def _other_class(value: Value, again: Value) -> Mismatch:
    return Mismatch(f"the {type(value).__name__} would come back as {type(again).__name__}")
