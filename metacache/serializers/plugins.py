"""Find serializer plugins by entry point: list them without importing, import one by name, and check that it is usable.

The names of metacache's own plugins appear here only for advice (which extra to install). The one plugin with a rule of
its own is that of int, whose wire_id is 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs

from metacache.entry_points import PluginGroup, distribution_of
from metacache.errors import SerializerConflict, SerializerNotFound
from metacache.interrupts import is_from_handler
from metacache.serializers.builtin import INT as INT_PLUGIN
from metacache.serializers.interfaces import Serializer, SerializerPlugin
from metacache.serializers.names import is_type
from metacache.serializers.wire_ids import INT, RULE, is_wire_id

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["EXTRAS", "PLUGINS", "Plugin", "SerializerInfo", "TypeRefused", "available_serializers", "find_plugin"]

API_VERSION: Final = 1

EXTRAS: Final = {
    "msgspec": "msgspec",
    "msgspec-json": "msgspec",
    "orjson": "orjson",
    "attrs": "attrs",
    "pydantic": "pydantic",
}
"""The extra of metacache that installs each serializer of metacache's own plugins."""

PLUGINS: Final = PluginGroup("metacache.serializers", "serializer", SerializerNotFound, SerializerConflict, EXTRAS)


@final
@attrs.frozen
class SerializerInfo:
    """An installed serializer: its name, its distribution and version, and the object that its entry point names."""

    name: str
    distribution: str
    version: str
    target: str


def available_serializers() -> tuple[SerializerInfo, ...]:
    """Return the installed serializers, sorted by name. Imports none of them."""
    return PLUGINS.listed(SerializerInfo)


@final
class TypeRefused(Exception):
    """A plugin does not serve a type. The message is the plugin's reason, or empty if it gives none."""


@final
@attrs.frozen
class Plugin:
    """An imported plugin: its name, the object itself, and its distribution."""

    name: str
    plugin: SerializerPlugin
    owner: str

    def built(self, type_: Any) -> Serializer[Any]:  # Any: a type expression; the caller knows which
        """Return the serializer for *type_*. Raises TypeRefused if the plugin does not serve it."""
        if not is_type(type_):  # it may be a value, which the reason of a plugin could quote
            raise TypeRefused("it is not a type")
        try:
            serves = self.plugin.supports(type_)
            # If the plugin does not serve the type, `build` raises the reason.
            serializer = self.plugin.build(type_)
        except Exception as error:
            if is_from_handler(error):
                raise
            raise TypeRefused(_reason(error)) from error
        if not serves:
            raise TypeRefused
        if serializer.wire_id != self.plugin.wire_id:
            raise SerializerNotFound(
                f"serializer {self.name!r} cannot be used: its plugin has wire_id {self.plugin.wire_id}, "
                f"but the serializer it built has {serializer.wire_id}"
            )
        return serializer


def _reason(error: Exception) -> str:
    # A TypeError, or a NameError from an annotation, is about the type. The text of others may quote anything.
    return str(error) if isinstance(error, TypeError | NameError) else f"it raised {type(error).__name__}"


def find_plugin(name: str, among: Iterable[EntryPoint] | None = None) -> Plugin:
    """Return the plugin called *name*. *among*: the entry points to look at; by default all that are installed.

    Raises SerializerNotFound if there is no usable one, and SerializerConflict if several distributions offer *name*.
    """
    entry_point = PLUGINS.find(name, among)
    loaded = PLUGINS.load(entry_point)
    version = getattr(loaded, "api_version", None)
    if version != API_VERSION:
        raise SerializerNotFound(
            f"serializer {name!r} has api_version {version!r}, but this metacache needs {API_VERSION}"
        )
    wire_id: object = getattr(loaded, "wire_id", None)
    if not is_wire_id(wire_id) and not (wire_id == INT and loaded is INT_PLUGIN):
        raise SerializerNotFound(f"serializer {name!r} has wire_id {wire_id!r}, but {RULE}")
    # cast: an entry point may name any object; the checks above are all that can be checked without a type.
    return Plugin(name, cast("SerializerPlugin", loaded), f"{name!r} of {distribution_of(entry_point)}")
