"""The serializer plugin ``pydantic``: models, and every other type that pydantic's TypeAdapter supports, as JSON.

A write reads back what it wrote, and a read writes what it read. Both refuse data that does not come back the same.
`codec` turns values into bytes, and `served` decides which types are served.
"""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Literal, TypeVar, final

from pydantic import SecretBytes, SecretStr
from typing_extensions import TypeForm

from metacache.errors import InvalidTypeError
from metacache.interrupts import fails_again
from metacache.serializers import RoundTrip, Serializer, fingerprint, resolve
from metacache.serializers.comparison import Comparer
from metacache.serializers.forms import walk
from metacache.serializers.mismatches import Mismatch
from metacache_pydantic.codec import Codec
from metacache_pydantic.served import adapter_of, check_served

__all__ = ["PLUGIN"]

T = TypeVar("T")


# Any: values of these classes.
_COMPARISON_KEYS: Final[Mapping[type, Callable[[Any], object]]] = {
    SecretStr: SecretStr.get_secret_value,
    SecretBytes: SecretBytes.get_secret_value,
}


# Values of these kinds are not encoded alone to explain a refusal, because their class does not say the types of parts.
_NOT_PROBED: Final = frozenset(("list", "dict", "tuple", "vartuple", "typeddict", "unknown"))


@final
class _Pydantic(Generic[T]):
    """The serializer for one type."""

    wire_id = 176

    def __init__(self, type_: TypeForm[T]) -> None:
        self.fingerprint: int = fingerprint(type_)
        form = resolve(type_)
        self._comparer = Comparer(form, _COMPARISON_KEYS)
        self._codec = Codec(adapter_of(type_), form, self._comparer.parts)
        self._codecs = {
            each.class_: Codec(adapter_of(each.class_), each, self._comparer.parts)
            for _, each in walk(form)
            if isinstance(each.class_, type) and each.kind not in _NOT_PROBED
        }
        self._round_trip = RoundTrip(
            type_,
            self._codec.encode_all,
            self._codec.read_explained,
            probe=self._probe,
            comparison_keys=_COMPARISON_KEYS,
        )

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as JSON. Raises SerializationError with the path to a part that would not come back the same.

        The JSON has the fields that were set, if the others have their defaults. Otherwise it has all fields, after a
        line with the names of those that were not set.
        """
        try:
            return self._attempt(value)
        except Mismatch:  # only metacache raises it, so it is no interruption
            pass
        except Exception as error:
            if not fails_again(self._attempt, value, error):
                raise
        # Not the JSON of *value*: pydantic writes an int that is a key where the type says float without a point, and
        # a read refuses that.
        _, kept = self._round_trip(value)
        data = self._codec.encode_all(kept)
        self._codec.decode(data)  # a read must accept it too
        return data

    def loads(self, data: bytes, /) -> T:
        """Return the value. Raises if *data* is not exactly what `dumps` writes for a value of the type."""
        value: T = self._codec.decode(data)
        return value

    def _attempt(self, value: T) -> bytes:
        data = self._codec.encode(value)
        self._comparer.check(value, self._codec.decode(data))
        return data

    def _probe(self, class_: type, part: object) -> object:
        codec = self._codecs.get(class_)
        if codec is None:
            raise InvalidTypeError("this class is no part of the type")
        return codec.read_explained(codec.encode_all(part))


@final
class _Plugin:
    """The plugin object: builds serializers for the types that pydantic supports."""

    api_version: Literal[1] = 1
    wire_id = _Pydantic.wire_id

    def supports(self, type_: object, /) -> bool:
        """Return whether pydantic supports *type_* and can read what it writes."""
        try:
            check_served(type_)
        except InvalidTypeError:
            return False
        return True

    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer for *type_*. Raises InvalidTypeError, which names the part that is not served."""
        check_served(type_)
        return _Pydantic(type_)


PLUGIN: Final = _Plugin()
