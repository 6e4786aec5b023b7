"""The serializers in the box: bytes, str, int as decimal text, and JSON of JSON types.

Each refuses what is not exactly its type, on the way in and on the way out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar, cast, final

from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError, SerializationError
from metacache.interrupts import fails_again
from metacache.serializers.checks import json_form, widener
from metacache.serializers.fingerprints import fingerprint
from metacache.serializers.fits import Value, finder, json_value
from metacache.serializers.forms import Type
from metacache.serializers.interfaces import Serializer
from metacache.serializers.roundtrips import Refusals
from metacache.serializers.sameness import Comparer

__all__ = [
    "BYTES",
    "INT",
    "JSON",
    "STR",
    "BytesSerializer",
    "IntSerializer",
    "JsonSerializer",
    "StrSerializer",
    "is_own_int",
]

T = TypeVar("T")


def _refused(wanted: str, value: object) -> SerializationError:
    return SerializationError(f"$: expected {wanted}, got {type(value).__name__}")


@final
class BytesSerializer:
    """bytes as they are."""

    wire_id = 32
    fingerprint = 0

    def dumps(self, value: bytes, /) -> bytes:
        """Return *value*; bytearray and memoryview are refused, for they may change while they are sent."""
        if type(value) is bytes:
            return value
        raise _refused("bytes", value)

    def loads(self, data: bytes, /) -> bytes:
        """Return *data*."""
        return data


@final
class StrSerializer:
    """str as UTF-8."""

    wire_id = 16
    fingerprint = 0

    def dumps(self, value: str, /) -> bytes:
        """Return *value* in UTF-8; a lone surrogate is refused."""
        if type(value) is str:
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                if not fails_again(str.encode, value, error):
                    raise
            raise SerializationError("$: the str has a lone surrogate")
        raise _refused("str", value)

    def loads(self, data: bytes, /) -> str:
        """Return the text; raises when *data* is not UTF-8."""
        return data.decode()


@final
class IntSerializer:
    """int as decimal text, which the server can increment."""

    wire_id = 2  # other clients read a number
    fingerprint = 0

    def dumps(self, value: int, /) -> bytes:
        """Return the digits of *value*; bool is refused."""
        if type(value) is int:
            try:
                return b"%d" % value
            except ValueError as error:
                if not fails_again(str, value, error):
                    raise
            raise SerializationError("$: the int has more digits than Python converts")
        raise _refused("int", value)

    def loads(self, data: bytes, /) -> int:
        """Return the number. The server pads a decremented one with spaces on the right."""
        if _is_decimal(data):
            return int(data)
        raise SerializationError("not a decimal number")


def is_own_int(serializer: object) -> bool:
    """Return whether *serializer* is the one that may have the wire_id of numbers."""
    return isinstance(serializer, IntSerializer)


_is_decimal = re.compile(rb"-?[0-9]+ *").fullmatch


@final
class JsonSerializer(Generic[T]):
    """JSON by the standard library.

    Of types made of None, bool, int, float, str, list, dict[str, …], Literal, TypedDict, unions and aliases.
    """

    wire_id = 48

    def __init__(self, type_: TypeForm[T]) -> None:
        form = json_form(type_)
        self.fingerprint: int = fingerprint(type_)
        self._find = finder(form, untyped=json_value)
        self._find_widened = finder(form, widen=True, untyped=json_value)
        self._widen = widener(form)
        self._refusals = Refusals(form, Comparer(), untyped=json_value, probe=_probe)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON.

        Raises SerializationError, which names the part that is not of the type, or a NaN or infinity. An int where the
        type says float is stored as the float that equals it.
        """
        return self._refusals.run(self._write, value)

    def _write(self, value: Value) -> bytes:
        # What fits comes back the same: JSON has these types, and nothing of a user's runs.
        if self._find(value) is not None:
            found = self._find_widened(value)
            if found is not None:
                raise found
            value = self._widen(value)
        return _ENCODE(value).encode()

    def loads(self, data: bytes, /) -> T:
        """Return the value; raises when *data* is no JSON or not of the type."""
        # Decoded here: json.loads would take UTF-16 and UTF-32 too.
        value: object = _DECODE(data.decode())
        if self._find(value) is not None:
            raise SerializationError("the JSON has not the type of this client")
        return cast("T", value)  # the finder has just seen that it is one


def _probe(_: Type, part: Value) -> Value:
    return _DECODE(_ENCODE(part).encode().decode())


def _refuse_constant(name: str) -> object:
    raise SerializationError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # "1e999": a number that no float is near
        raise SerializationError("a number beyond the floats")
    return number


_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# Any: JSON of any type, until the finder has seen it.
_DECODE: Final[Callable[[str], Any]] = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode


@final
class _Builtin(Generic[T]):
    """The plugin of a serializer that serves one class."""

    api_version: Literal[1] = 1

    def __init__(self, class_: type[T], serializer: Serializer[T]) -> None:
        self.wire_id = serializer.wire_id
        self._class = class_
        self._serializer = serializer

    def supports(self, type_: object, /) -> bool:
        """Return whether *type_* is the class."""
        return type_ is self._class

    def build(self, type_: object, /) -> Any:  # Any: would be Serializer[T] of the class, which has just been compared
        """Return the serializer. Raises InvalidTypeError for any type but the class."""
        if self.supports(type_):
            return self._serializer
        raise InvalidTypeError(f"it stores {self._class.__name__} and nothing else")


@final
class _JsonPlugin:
    """The plugin ``json``."""

    api_version: Literal[1] = 1
    wire_id = JsonSerializer.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether *type_* is made of JSON types only."""
        try:
            json_form(type_)
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*."""
        return JsonSerializer(type_)


BYTES: Final = _Builtin(bytes, BytesSerializer())
STR: Final = _Builtin(str, StrSerializer())
INT: Final = _Builtin(int, IntSerializer())
JSON: Final = _JsonPlugin()
