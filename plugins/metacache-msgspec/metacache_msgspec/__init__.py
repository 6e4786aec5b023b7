"""The serializer plugins ``msgspec`` (MessagePack) and ``msgspec-json`` (JSON).

msgspec accepts an int for a float, a number for a Decimal, and an object with unknown keys. These serializers refuse
data that msgspec would not write for the decoded value. `served` decides which types are served.
"""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar, final

import msgspec
from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError, SerializationError
from metacache.interrupts import fails_again, is_own
from metacache.serializers import RoundTrip, Serializer, fingerprint, resolve
from metacache.serializers.forms import walk
from metacache_msgspec.served import check_served

__all__ = ["JSON", "MSGPACK"]

T = TypeVar("T")

# Keys for values of msgspec's own classes, whose parts Python cannot see. Any: values of these classes.
_COMPARISON_KEYS: Final[Mapping[type, Callable[[Any], object]]] = {
    msgspec.Raw: bytes,
    msgspec.msgpack.Ext: lambda value: (value.code, bytes(value.data)),
}


@final
class _Msgspec(Generic[T]):
    """The serializer for one type."""

    # Any: msgspec.msgpack or msgspec.json; a module has no other type.
    def __init__(self, wire_id: int, type_: TypeForm[T], module: Any) -> None:
        self.wire_id = wire_id
        self.fingerprint: int = fingerprint(type_)
        self._decode = module.Decoder(type_).decode
        self._decode_any = module.Decoder().decode
        self._encoders = [module.Encoder().encode]
        if module is msgspec.msgpack and any(form.kind == "datetime" for _, form in walk(resolve(type_))):
            self._encoders.append(_encode_times_as_text)
        self._round_trip, *others = [
            RoundTrip(
                type_, encode, self._read, probe=partial(_probe, module, encode), comparison_keys=_COMPARISON_KEYS
            )
            for encode in self._encoders
        ]
        self._other_round_trip = others[0] if others else None

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes. Raises SerializationError with the path to a part that would not come back the same.

        An int where the type says float, which type checkers allow, is written as the equal float.
        """
        data: bytes
        other = self._other_round_trip
        try:
            data, _ = self._round_trip(value)
        except SerializationError as error:
            if other is None or not is_own(error):
                raise
        else:
            return data
        data, _ = other(value)
        return data

    def loads(self, data: bytes, /) -> T:
        """Return the value. Raises if *data* is not exactly of the type."""
        value = self._read(data)
        for encode in self._encoders:
            try:
                canonical = encode(value)
            except OverflowError as error:  # a datetime too near year 1 or 9999 for a timestamp in UTC
                if not fails_again(encode, value, error):
                    raise
            else:
                if canonical == data or self._is_equivalent(data, canonical):
                    return value
        raise ValueError("msgspec coerced or dropped a part of the data")

    def _read(self, data: bytes) -> T:
        interrupted: BaseException | None = None
        try:
            value: T = self._decode(data)
        except msgspec.ValidationError as error:
            # msgspec wraps an exception from the constructor of a class, so also one from a signal handler.
            if error.__cause__ is None or fails_again(self._decode, data, error):
                raise
            interrupted = error.__cause__
        else:
            return value
        raise interrupted

    def _is_equivalent(self, data: bytes, canonical: bytes) -> bool:
        """Return whether *data* is *canonical*, except for the order of sets and omitted defaults."""
        return _same_kinds(self._decode_any(data), self._decode_any(canonical))


def _encode_times_as_text(value: object) -> bytes:
    """Return MessagePack with datetimes as text, because a MessagePack timestamp can only be in UTC."""
    return msgspec.msgpack.encode(msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview)))


# Any: msgspec.msgpack or msgspec.json, a class, and one of its values.
def _probe(module: Any, encode: Callable[[Any], bytes], class_: Any, part: Any) -> Any:
    return module.decode(encode(part), type=class_)


# Any, here and below: without a type, msgspec decodes to values of any builtin class.
def _same_kinds(data: Any, again: Any) -> bool:
    """Return whether *data* has the same kinds of parts as *again*, the encoding by msgspec, and no further parts."""
    kind = _kind(data)
    if kind != _kind(again):
        return False
    if kind == "dict":
        kept = {(_kind(key), key) for key in again}
        if kept.issuperset([(_kind(key), key) for key in data]):
            return all(map(_same_kinds, data.values(), map(again.get, data)))
        return False
    if kind != "list":
        return True
    if len(data) <= len(again) and all(map(_same_kinds, data, again)):
        return True
    # It may be a set, whose parts may be in another order.
    return sorted(map(_signature, data)) == sorted(map(_signature, again))


def _signature(value: Any) -> str:
    """Return the kinds of all parts of *value*. The order in a list does not count, because it may be a set.

    msgspec converts an int to a float, or a number to text, but never back. So equal kinds mean that it converted none.
    """
    if type(value) is list:
        return f"[{','.join(sorted(map(_signature, value)))}]"
    if type(value) is dict:
        return f"{{{','.join(sorted(f'{_kind(key)} {key!r}:{_signature(part)}' for key, part in value.items()))}}}"
    return _kind(value)


def _kind(value: object) -> str:
    return type(value).__name__


@final
class _Plugin:
    """The plugin object of one format."""

    api_version: Literal[1] = 1

    # Any: msgspec.msgpack or msgspec.json; a module has no other type.
    def __init__(self, wire_id: int, module: Any) -> None:
        self.wire_id = wire_id
        self._module = module

    def supports(self, type_: object, /) -> bool:
        """Return whether msgspec supports *type_* without hooks and can decode what it encodes."""
        try:
            check_served(type_, self._module)
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer for *type_*. Raises InvalidTypeError, which names the part that is not served."""
        check_served(type_, self._module)
        return _Msgspec(self.wire_id, type_, self._module)


MSGPACK: Final = _Plugin(64, msgspec.msgpack)
JSON: Final = _Plugin(80, msgspec.json)
