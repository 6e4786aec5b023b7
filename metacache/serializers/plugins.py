"""Serializer plugins by entry point: listed without importing, imported by name, and refused when they cannot be used.

Knows entry points and the plugin protocol; knows no particular plugin but the one for int.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Any, Final, cast, final

import attrs

from metacache.entry_points import PluginGroup, distribution_of
from metacache.errors import SerializerConflict, SerializerNotFound
from metacache.interrupts import is_from_handler
from metacache.serializers.builtin import INT as INT_PLUGIN
from metacache.serializers.interfaces import Serializer, SerializerPlugin
from metacache.serializers.names import is_type
from metacache.serializers.wire_ids import INT, RULE, is_wire_id

__all__ = ["EXTRAS", "PLUGINS", "Plugin", "Refused", "SerializerInfo", "available_serializers", "find_plugin"]

API_VERSION: Final = 1

EXTRAS: Final = {"msgspec": "msgspec", "msgspec-json": "msgspec", "orjson": "orjson", "attrs": "attrs"}
"""Which extra of metacache installs the serializers that we know of."""

PLUGINS: Final = PluginGroup("metacache.serializers", "serializer", SerializerNotFound, SerializerConflict, EXTRAS)


@final
@attrs.frozen
class SerializerInfo:
    """An installed serializer: its name, the distribution that brings it, its version, and the object it names."""

    name: str
    distribution: str
    version: str
    target: str


def available_serializers() -> tuple[SerializerInfo, ...]:
    """Return the installed serializers by name. Imports none of them."""
    return PLUGINS.listed(SerializerInfo)


@final
class Refused(Exception):
    """A plugin does not serve a type. The message is its reason, empty when it gives none."""


@final
@attrs.frozen
class Plugin:
    """An imported plugin: its name, the object itself, and its distribution."""

    name: str
    plugin: SerializerPlugin
    owner: str

    def built(self, type_: Any) -> Serializer[Any]:  # Any: a type expression; the caller knows which
        """Return the serializer of *type_*. Raises Refused."""
        if not is_type(type_):  # a plugin may show it in its reason, and it may be a value
            raise Refused("it is not a type")
        try:
            serves = self.plugin.supports(type_)
            # Where it does not serve the type, it raises the reason.
            serializer = self.plugin.build(type_)
        except Exception as error:
            if is_from_handler(error):
                raise
            raise Refused(_reason(error)) from error
        if not serves:
            raise Refused
        if serializer.wire_id != self.plugin.wire_id:
            raise SerializerNotFound(
                f"serializer {self.name!r} cannot be used: its plugin has wire_id {self.plugin.wire_id}, "
                f"and what it builds has {serializer.wire_id}"
            )
        return serializer


def _reason(error: Exception) -> str:
    # A TypeError, or the name that an annotation does not find, is about the type; others may be about anything.
    return str(error) if isinstance(error, TypeError | NameError) else f"it raised {type(error).__name__}"


def find_plugin(name: str, among: Iterable[EntryPoint] | None = None) -> Plugin:
    """Return the plugin called *name*, *among* the installed ones.

    Raises SerializerNotFound (SerializerConflict) when there is none that can be used.
    """
    entry_point = PLUGINS.find(name, among)
    loaded = PLUGINS.load(entry_point)
    version = getattr(loaded, "api_version", None)
    if version != API_VERSION:
        raise SerializerNotFound(f"serializer {name!r} has api_version {version!r}, this metacache takes {API_VERSION}")
    wire_id: object = getattr(loaded, "wire_id", None)
    if not is_wire_id(wire_id) and not (wire_id == INT and loaded is INT_PLUGIN):
        raise SerializerNotFound(f"serializer {name!r} has wire_id {wire_id!r}, but {RULE}")
    # The boundary: an entry point names any object.
    return Plugin(name, cast("SerializerPlugin", loaded), f"{name!r} of {distribution_of(entry_point)}")
