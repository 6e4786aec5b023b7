"""Encode a value only if decoding returns the same value, and explain the problem if it does not.

The plugins of metacache make this check at every write. The built-in serializers need no round trip, because their
formats keep each value that they accept. A serializer passes its encode and decode functions to `RoundTrip`.
"""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, Generic, TypeAlias, TypeVar, final

from metacache.errors import InvalidTypeError, SerializationError
from metacache.interrupts import fails_again
from metacache.serializers.comparison import Comparer, ComparisonKey
from metacache.serializers.forms import Form, Type, resolve
from metacache.serializers.mismatches import Finder, Mismatch, Value, accept_anything, finder

__all__ = ["Probe", "RefusalExplainer", "RoundTrip", "difference"]

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E")

# Encodes a value as one of the given class, and returns the decoded value. Raises InvalidTypeError if the serializer
# does not serve the class alone.
Probe: TypeAlias = Callable[[Type, Value], Value]


def difference(value: object, decoded: object) -> str | None:
    """Return the path to the first part of *decoded* that differs from *value*, and the difference; else None.

    Compares values part by part, and never with the ``==`` of a user's class.
    """
    try:
        Comparer().check(value, decoded)
    except Mismatch as found:
        return found.text
    return None


@final
class RoundTrip(Generic[T, E]):
    """Encodes values of one type, and refuses a value for which decoding returns another value.

    Args:
        type_: the type of the values. Fields that it calls float may hold an int that a float holds exactly.
        encode: encodes a value, usually as bytes.
        decode: decodes the result of *encode*.
        untyped: checks parts whose type is Any, for messages.
        probe: encodes and decodes one part alone, to find the part that the format cannot hold. With None, messages do
            not name such a part.
        comparison_keys: by class, for classes whose parts Python cannot see: a function that returns a key of a value.
            Equal values have equal keys.
    """

    def __init__(
        self,
        type_: Type,
        encode: Callable[[T], E],
        decode: Callable[[E], T],
        *,
        untyped: Finder = accept_anything,
        probe: Probe | None = None,
        comparison_keys: Mapping[type, ComparisonKey] = MappingProxyType({}),
    ) -> None:
        self._encode = encode
        self._decode = decode
        form = resolve(type_)
        self._comparer = Comparer(form, comparison_keys)
        self._explainer = RefusalExplainer(form, self._comparer, untyped=untyped, probe=probe)

    def __call__(self, value: T, /) -> tuple[E, T]:
        """Return *value* encoded, and the value that was decoded from that.

        Raises SerializationError with the path to the wrong part of *value*.
        """
        return self._explainer.run(self._attempt, value)

    def _attempt(self, value: T) -> tuple[E, T]:
        data = self._encode(value)
        decoded = self._decode(data)
        if self._comparer.check(value, decoded):
            data = self._encode(decoded)  # a format may write an int and the equal float differently
        return data, decoded


@final
class RefusalExplainer:
    """Explains why a serializer refuses a value of one type. Messages have paths and types, never a value."""

    def __init__(
        self, form: Form, comparer: Comparer, *, untyped: Finder = accept_anything, probe: Probe | None = None
    ) -> None:
        self._find = finder(form, widen=True, untyped=untyped)
        self._comparer = comparer
        self._probe = probe

    def run(self, attempt: Callable[[T], R], value: T, /) -> R:
        """Return ``attempt(value)``. If it fails, raises SerializationError with the path and the problem.

        An exception that a signal handler or another thread raises in *attempt* propagates unchanged.
        """
        try:
            return attempt(value)
        except Mismatch as found:  # only this package raises it, so it is no interruption
            problem = self._problem(value, found)
        except Exception as error:
            if not fails_again(attempt, value, error):
                raise
            problem = self._problem(value, error)
        raise SerializationError(problem)

    def _problem(self, value: Value, error: Exception) -> str:
        if isinstance(error, RecursionError):
            return _TOO_DEEP
        try:
            found = self._explain(value)
        except RecursionError as too_deep:
            if not fails_again(self._explain, value, too_deep):
                raise
            return _TOO_DEEP
        return (found or _cannot_keep(value, error)).text

    def _explain(self, value: Value) -> Mismatch | None:
        # A mismatch with the type is the clearest problem. Otherwise look for a part that the format cannot hold.
        return self._find(value) or self._innermost_problem(value, _MAX_DEPTH)

    def _innermost_problem(self, value: Value, depth: int) -> Mismatch | None:
        """Return the mismatch of the innermost part that cannot be stored; None if each part alone can be stored."""
        if not depth:
            raise RecursionError
        try:
            parts = self._comparer.parts(value)
        except Mismatch as unreadable:
            return unreadable
        for step, part in parts:
            found = self._innermost_problem(part, depth - 1)
            if found is not None:
                return found.within(step)
        return self._problem_alone(value)

    def _problem_alone(self, value: Value) -> Mismatch | None:
        """Return the problem when *value* is encoded alone, as a value of its own class."""
        class_ = type(value)
        try:
            self._comparer.check_storable(value)
            if self._probe is not None and self._comparer.can_stand_alone(class_):
                self._comparer.check(value, self._probe(class_, value))
        except Mismatch as found:
            return found
        except Exception as error:
            if self._probe is None or not fails_again(partial(self._probe, class_), value, error):
                raise
            return None if isinstance(error, InvalidTypeError) else _cannot_keep(value, error)
        return None


def _cannot_keep(value: Value, error: Exception) -> Mismatch:
    if isinstance(error, Mismatch):
        return error
    class_ = type(value)
    return Mismatch(_REASONS.get(class_) or f"a {class_.__name__} cannot be read back ({type(error).__name__})")


_TOO_DEEP: Final = "$: nested too deeply"
_MAX_DEPTH: Final = 200  # levels; orjson refuses more than 254

# For each class, the only reason why a format cannot hold a value of it.
_REASONS: Final[Mapping[type, str]] = {
    int: "the int has more digits or bits than the format can hold",
    float: "the format cannot hold NaN or an infinity",
    str: "the str has a lone surrogate",
}
