"""Encode a value only if it comes back, and say what is wrong with one that does not.

Every serializer makes this check before it writes. Knows a serializer's two directions as functions; knows no format.
"""

# The class of a value is what this module looks at, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, Generic, TypeAlias, TypeVar, final

from metacache.errors import InvalidTypeError, SerializationError
from metacache.interrupts import fails_again
from metacache.serializers.fits import Finder, Mismatch, Value, anything, finder
from metacache.serializers.forms import Form, Type, resolve
from metacache.serializers.sameness import Comparer, Token

__all__ = ["Probe", "Refusals", "RoundTrip", "difference"]

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E")

# Encodes a value as one of the given class, and returns what is read back. Raises InvalidTypeError if the class alone
# is not served.
Probe: TypeAlias = Callable[[Type, Value], Value]


def difference(value: object, again: object) -> str | None:
    """Return where *again*, which was read back, is not the same as *value*, and how; None if it is the same.

    Values are compared part by part and never by ``==`` of their own classes.
    """
    try:
        Comparer().check(value, again)
    except Mismatch as found:
        return found.text
    return None


@final
class RoundTrip(Generic[T, E]):
    """Encodes values of one type, and refuses those that would not come back the same.

    Args:
        type_: the type, for messages.
        encode: returns a value encoded, usually as bytes.
        decode: returns the value that is encoded so.
        untyped: judges parts whose type is Any, for messages.
        probe: finds the part that the format cannot hold; None leaves such parts out of messages.
        tokens: what identifies the values of classes whose parts Python cannot see.
    """

    def __init__(
        self,
        type_: Type,
        encode: Callable[[T], E],
        decode: Callable[[E], T],
        *,
        untyped: Finder = anything,
        probe: Probe | None = None,
        tokens: Mapping[type, Token] = MappingProxyType({}),
    ) -> None:
        self._encode = encode
        self._decode = decode
        form = resolve(type_)
        self._comparer = Comparer(form, tokens)
        self._refusals = Refusals(form, self._comparer, untyped=untyped, probe=probe)

    def __call__(self, value: T, /) -> tuple[E, T]:
        """Return *value* encoded, and decoded again.

        Raises SerializationError, which says which part of *value* is wrong.
        """
        return self._refusals.run(self._attempt, value)

    def _attempt(self, value: T) -> tuple[E, T]:
        data = self._encode(value)
        again = self._decode(data)
        self._comparer.check(value, again)
        return data, again


@final
class Refusals:
    """Finds out why a serializer refuses a value of one type. Messages have paths and types, and never a value."""

    def __init__(
        self, form: Form, comparer: Comparer, *, untyped: Finder = anything, probe: Probe | None = None
    ) -> None:
        self._find = finder(form, widen=True, untyped=untyped)
        self._comparer = comparer
        self._probe = probe

    def run(self, attempt: Callable[[T], R], value: T, /) -> R:
        """Return ``attempt(value)``. Raises SerializationError if it fails.

        An exception that interrupts *attempt* (a signal handler's, another thread's) is not a failure and propagates.
        """
        try:
            return attempt(value)
        except Mismatch as found:  # only this package raises it
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
        # The type says best what was expected, and after it the part that cannot be kept alone.
        return self._find(value) or self._search(value, _DEEPEST)

    def _search(self, value: Value, depth: int) -> Mismatch | None:
        """Return the innermost part of *value* that cannot be kept; None if each part alone can."""
        if not depth:
            raise RecursionError
        for step, part in self._comparer.parts(value):
            found = self._search(part, depth - 1)
            if found is not None:
                return found.within(step)
        return self._alone(value)

    def _alone(self, value: Value) -> Mismatch | None:
        """Return what is wrong with *value* when it is encoded alone, as one of its class."""
        class_ = type(value)
        try:
            self._comparer.identify(value)
            if self._probe is not None and self._comparer.is_one_piece(class_):
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
_DEEPEST: Final = 200  # orjson writes 254 levels

# The one reason for which a format cannot hold a value of each class.
_REASONS: Final[Mapping[type, str]] = {
    int: "the int has more digits or bits than the format can hold",
    float: "the format cannot hold NaN or an infinity",
    str: "the str has a lone surrogate",
}
