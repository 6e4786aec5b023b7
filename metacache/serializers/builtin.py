"""The plugins of the built-in serializers, and the serializer for types that JSON has.

`dumps` refuses a value of another type, and of a subclass. `loads` refuses bytes that do not encode the type. One
exception: JSON stores an int where the type says float, if a float holds it exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar, cast, final

from metacache.errors import InvalidTypeError, SerializationError
from metacache.marks import TypeForm
from metacache.serializers.comparison import Comparer
from metacache.serializers.fingerprints import fingerprint
from metacache.serializers.forms import Type
from metacache.serializers.interfaces import Serializer
from metacache.serializers.json_types import float_widener, json_form
from metacache.serializers.mismatches import Value, find_non_json, finder
from metacache.serializers.plain import BytesSerializer, IntSerializer, StrSerializer
from metacache.serializers.round_trips import RefusalExplainer

__all__ = [
    "BYTES",
    "INT",
    "JSON",
    "STR",
    "BytesSerializer",
    "IntSerializer",
    "JsonSerializer",
    "StrSerializer",
]

T = TypeVar("T")


@final
class JsonSerializer(Generic[T]):
    """Stores values as JSON, with the json module of the standard library.

    Serves types made of None, bool, int, float, str, list, dict[str, …], Literal, TypedDict, Any, unions and aliases.
    """

    wire_id = 48

    def __init__(self, type_: TypeForm[T]) -> None:
        form = json_form(type_)
        self.fingerprint: int = fingerprint(type_)
        self._find = finder(form, untyped=find_non_json)
        self._find_widened = finder(form, widen=True, untyped=find_non_json)
        self._widen = float_widener(form)
        self._explainer = RefusalExplainer(form, Comparer(), untyped=find_non_json, probe=_probe)

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON.

        Raises SerializationError for a part of another type, and for NaN and infinity; the message has the path to it.
        An int where the type says float is stored as the equal float.
        """
        return self._explainer.run(self._write, value)

    def _write(self, value: Value) -> bytes:
        # No round trip is needed: JSON keeps each of these types exactly, and no code of the user runs.
        if self._find(value) is not None:
            found = self._find_widened(value)
            if found is not None:
                raise found
            value = self._widen(value)
        return _ENCODE(value).encode()

    def loads(self, data: bytes, /) -> T:
        """Return the value. Raises if *data* is not JSON in UTF-8, or if the value is not of the type."""
        # json.loads would also accept UTF-16 and UTF-32, so decode here.
        value: object = _DECODE(data.decode())
        if self._find(value) is not None:
            raise SerializationError("the JSON value is not of the type of this client")
        return cast("T", value)  # the finder has just checked it


def _probe(_: Type, part: Value) -> Value:
    return _DECODE(_ENCODE(part).encode().decode())


def _refuse_constant(name: str) -> object:
    raise SerializationError(f"JSON has no {name}")


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # "1e999"
        raise SerializationError("the number is too large for a float")
    return number


_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# Any: a JSON value of any type, until the finder has checked it.
_DECODE: Final[Callable[[str], Any]] = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite_float
).decode


@final
class _Builtin(Generic[T]):
    """The plugin of a serializer for one class."""

    api_version: Literal[1] = 1

    def __init__(self, class_: type[T], serializer: Serializer[T]) -> None:
        self.wire_id = serializer.wire_id
        self._class = class_
        self._serializer = serializer

    def supports(self, type_: object, /) -> bool:
        """Return whether *type_* is the class of this plugin."""
        return type_ is self._class

    def build(self, type_: object, /) -> Any:  # Any: it is Serializer[T] for that class, which type checkers cannot see
        """Return the serializer. Raises InvalidTypeError for another type."""
        if self.supports(type_):
            return self._serializer
        raise InvalidTypeError(f"it serves only {self._class.__name__}")


@final
class _JsonPlugin:
    """The plugin ``json``."""

    api_version: Literal[1] = 1
    wire_id = JsonSerializer.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether *type_* consists of types that JSON has."""
        try:
            json_form(type_)
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer for *type_*. Raises InvalidTypeError with the part that JSON does not have."""
        return JsonSerializer(type_)


BYTES: Final = _Builtin(bytes, BytesSerializer())
STR: Final = _Builtin(str, StrSerializer())
INT: Final = _Builtin(int, IntSerializer())
JSON: Final = _JsonPlugin()
