"""Define the protocols of serializers, serializer plugins and compressors.

They are structural: a plugin need not inherit from them.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from metacache.marks import TypeForm

__all__ = ["Compressor", "Serializer", "SerializerPlugin"]

T = TypeVar("T")


class Serializer(Protocol[T]):
    """Converts values of one type to bytes and back."""

    @property
    def wire_id(self) -> int:
        """The id that is stored with each value and names its serializer.

        It is 32, 64, 96, … for a binary format, and 16, 48, 80, … for a text format. README.md beside this file lists
        the ids in use. 224 (binary) and 240 (text) are private: several serializers may share them. metacache refuses
        any other id, because other clients would unpickle or decompress the value.
        """
        ...

    @property
    def fingerprint(self) -> int:
        """A number from 0 to 65535 that changes when the shape of T changes. 0 means no fingerprint.

        `metacache.serializers.fingerprint` computes it. With a private wire_id 0 is not allowed, and the fingerprint
        must include the serializer's name.
        """
        ...

    def dumps(self, value: T, /) -> bytes:
        """Return *value* as bytes. If it raises, the client sends nothing and raises a SerializationError."""
        ...

    def loads(self, data: bytes, /) -> T:
        """Return the T that *data* encodes, without coercion. Raise any exception otherwise: the value is a miss."""
        ...


class SerializerPlugin(Protocol):
    """The object that an entry point of the group ``metacache.serializers`` names, usually a module-level instance."""

    @property
    def api_version(self) -> Literal[1]:
        """The version of this protocol. Write ``api_version: Literal[1] = 1``."""
        ...

    @property
    def wire_id(self) -> int:
        """The wire_id of the serializers it builds."""
        ...

    def supports(self, type_: object, /) -> bool:
        """Return whether `build` can return a serializer for *type_*."""
        ...

    # No overload for classes here: pyright would then reject a plugin that has only this signature.
    def build(self, type_: TypeForm[T], /) -> Serializer[T]:
        """Return the serializer for *type_*. Its wire_id must equal that of the plugin.

        Raise TypeError (or InvalidTypeError) with the reason if the plugin does not serve *type_*. metacache also calls
        `build` after `supports` returned False, to get the reason. Users see it, so name types and never values.
        """
        ...


class Compressor(Protocol):
    """Compresses encoded values. Entry points of the group ``metacache.compressors`` name instances."""

    @property
    def compressor_id(self) -> int:
        """A number from 1 to 15 that is stored with each compressed value. 1 is zlib, 2 is zstd."""
        ...

    @property
    def min_size(self) -> int:
        """The least number of bytes to compress. Smaller values are stored without compression."""
        ...

    def compress(self, data: bytes, /) -> bytes:
        """Return *data* compressed. The client stores the result only if it is smaller than *data*."""
        ...

    def decompress(self, data: bytes, /) -> bytes:
        """Return the bytes that were compressed to *data*.

        Raise if *data* is damaged, truncated or followed by other bytes, or if the result would exceed a limit.
        """
        ...
