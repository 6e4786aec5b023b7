"""What a serializer, a serializer plugin and a compressor are. A plugin need not inherit from these."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from typing_extensions import TypeForm

__all__ = ["Compressor", "Serializer", "SerializerPlugin"]

T = TypeVar("T")


class Serializer(Protocol[T]):
    """Turns values of one type into bytes and back."""

    @property
    def wire_id(self) -> int:
        """The id of the serializer, stored with each value that it writes.

        A multiple of 32 for a binary format, 16 more than a multiple of 32 for a text format. The reference of client
        flags lists the ids in use. 224 (binary) and 240 (text) are private: other serializers may have them too. Any
        other id is refused, because other clients would read the value as a pickle or as compressed.
        """
        ...

    @property
    def fingerprint(self) -> int:
        """A number from 0 to 65535 that changes when the shape of T changes.

        0 means that there is none, which a private wire_id does not allow. `metacache.serializers.fingerprint` makes
        one. With a private wire_id, pass it the serializer's name too.
        """
        ...

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes. Whatever it raises becomes a SerializationError, and nothing is sent."""
        ...

    def loads(self, data: bytes, /) -> T:
        """Return the T that *data* is, never one that was coerced. Any exception means that *data* is none: a miss."""
        ...


class SerializerPlugin(Protocol):
    """What an entry point of the group ``metacache.serializers`` names: an object, usually a module-level instance."""

    @property
    def api_version(self) -> Literal[1]:
        """1. Write ``api_version: Literal[1] = 1``."""
        ...

    @property
    def wire_id(self) -> int:
        """The wire_id of the serializers it builds."""
        ...

    def supports(self, type_: object, /) -> bool:
        """Return whether `build` can serve *type_*."""
        ...

    # No overload for classes: pyright would refuse a plugin that has this signature alone.
    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer of *type_*. Its wire_id is the plugin's.

        Raise TypeError (or InvalidTypeError) with the reason when it cannot serve *type_*. It is also called after
        `supports` has returned False, to ask for that reason; the message is shown, so it names types and no value.
        """
        ...


class Compressor(Protocol):
    """Makes large encoded values smaller; the entry-point group ``metacache.compressors`` names instances."""

    @property
    def compressor_id(self) -> int:
        """The id of the compressor, 1 to 15, stored with each value. 1 is zlib, 2 is zstd."""
        ...

    @property
    def min_size(self) -> int:
        """Values of fewer bytes are stored without compression."""
        ...

    def compress(self, data: bytes, /) -> bytes:
        """Return *data* compressed. The result is stored only if it is smaller, and `decompress` makes *data* of it."""
        ...

    def decompress(self, data: bytes, /) -> bytes:
        """Return what was compressed.

        Raise when *data* is damaged, unfinished, followed by more, or inflates beyond a limit.
        """
        ...
