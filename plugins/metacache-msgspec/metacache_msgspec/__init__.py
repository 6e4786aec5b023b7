"""msgspec for metacache: ``msgspec`` is MessagePack, ``msgspec-json`` JSON. One encoder and one decoder a type.

msgspec takes an int for a float, a number for a Decimal, an object with unknown keys: here, what it would not have
written itself is refused. Knows msgspec and the plugin protocol; which types are served is for `served`.
"""

# The class of a value is what this module looks at, and pyright calls the class of an Any unknown.
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

# What identifies values of msgspec's own classes, whose parts Python cannot see. Any: values of these classes.
_TOKENS: Final[Mapping[type, Callable[[Any], object]]] = {
    msgspec.Raw: bytes,
    msgspec.msgpack.Ext: lambda value: (value.code, bytes(value.data)),
}


@final
class _Msgspec(Generic[T]):
    """The serializer of one type."""

    # Any: msgspec.msgpack or msgspec.json; a module has no other type.
    def __init__(self, wire_id: int, type_: TypeForm[T], module: Any) -> None:
        self.wire_id = wire_id
        self.fingerprint: int = fingerprint(type_)
        self._decode = module.Decoder(type_).decode
        self._decode_any = module.Decoder().decode
        self._encoders = [module.Encoder().encode]
        if module is msgspec.msgpack and any(form.kind == "datetime" for _, form in walk(resolve(type_))):
            self._encoders.append(_encode_moments_as_text)
        self._trips = [
            RoundTrip(type_, encode, self._read, probe=partial(_probe, module, encode), tokens=_TOKENS)
            for encode in self._encoders
        ]

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes. Raises SerializationError, which names the part that would not come back the same.

        An int in a float's place, as type checkers allow, is written as the float that equals it.
        """
        trip, *others = self._trips
        encode, *_ = self._encoders
        try:
            _, again = trip(value)
        except SerializationError as error:
            if not others or not is_own(error):
                raise
        else:
            # Not the bytes of *value*: these may have an int where the type says float.
            data: bytes = encode(again)
            return data
        _, again = others[0](value)
        return _encode_moments_as_text(again)

    def loads(self, data: bytes, /) -> T:
        """Return the value; raises when *data* is not exactly of the type."""
        value = self._read(data)
        for encode in self._encoders:
            if self._is_written_by(encode, value, data):
                return value
        raise ValueError("msgspec had to coerce or to drop something")

    def _read(self, data: bytes) -> T:
        interrupted: BaseException | None = None
        try:
            value: T = self._decode(data)
        except msgspec.ValidationError as error:
            # msgspec wraps what a class raises as it is made, and so what a signal handler raises meanwhile.
            if error.__cause__ is None or fails_again(self._decode, data, error):
                raise
            interrupted = error.__cause__
        else:
            return value
        raise interrupted

    def _is_written_by(self, encode: Callable[[T], bytes], value: T, data: bytes) -> bool:
        """Return whether *encode* writes *value* as *data*, but for what does not matter.

        That is the order of a set, and a default that was left out.
        """
        try:
            canonical = encode(value)
        except OverflowError as error:  # a timestamp of MessagePack in UTC, for a moment near the ends of time
            if not fails_again(encode, value, error):
                raise
            return False
        return canonical == data or _agree(self._decode_any(data), self._decode_any(canonical))


def _encode_moments_as_text(value: object) -> bytes:
    """Return MessagePack with datetimes as text. A timestamp of MessagePack has no zone but UTC."""
    return msgspec.msgpack.encode(msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview)))


# Any: msgspec.msgpack or msgspec.json, a class, and one of its values.
def _probe(module: Any, encode: Callable[[Any], bytes], class_: Any, part: Any) -> Any:
    return module.decode(encode(part), type=class_)


# Any, here and below: msgspec decodes without a type to whichever values the bytes hold.
def _agree(data: Any, again: Any) -> bool:
    """Return whether *data* has the kinds of *again*, which is the same written by msgspec, and no more parts."""
    kind = _kind(data)
    if kind != _kind(again):
        return False
    if kind == "dict":
        kept = {(_kind(key), key) for key in again}
        if kept.issuperset([(_kind(key), key) for key in data]):
            return all(map(_agree, data.values(), map(again.get, data)))
        return False
    if kind != "list":
        return True
    if len(data) <= len(again) and all(map(_agree, data, again)):
        return True
    # The parts of a set stand in an order of their own.
    return sorted(map(_signature, data)) == sorted(map(_signature, again))


def _signature(value: Any) -> str:
    """Return the kinds of all that *value* holds. The order in a list does not count: it may be a set.

    msgspec turns an int into a float, a number into text, never back. So equal kinds mean that it turned none.
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
    """Builds serializers of one format."""

    api_version: Literal[1] = 1

    # Any: msgspec.msgpack or msgspec.json; a module has no other type.
    def __init__(self, wire_id: int, module: Any) -> None:
        self.wire_id = wire_id
        self._module = module

    def supports(self, type_: object, /) -> bool:
        """Return whether msgspec takes *type_* without hooks, and can read what it writes."""
        try:
            check_served(type_, self._module)
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Raises InvalidTypeError, which says which part of it is not served."""
        check_served(type_, self._module)
        return _Msgspec(self.wire_id, type_, self._module)


MSGPACK: Final = _Plugin(64, msgspec.msgpack)
JSON: Final = _Plugin(80, msgspec.json)
