"""Find serializer plugins by entry point: list them without importing, import one by name, and check that it is usable.

The names of metacache's own plugins appear here only for advice (which extra to install). The one plugin with a rule of
its own is that of int, whose wire_id is 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast, final

import attrs

from metacache.errors import InvalidTypeError, SerializerConflict, SerializerNotFound
from metacache.interrupts import is_from_handler
from metacache.serializers.builtin import INT as INT_PLUGIN
from metacache.serializers.interfaces import Serializer, SerializerPlugin
from metacache.serializers.names import is_type
from metacache.serializers.wire_ids import INT, RULE, is_wire_id

__all__ = ["EXTRAS", "Plugin", "SerializerInfo", "TypeRefused", "available_serializers", "find_plugin", "installed"]

GROUP: Final = "metacache.serializers"
API_VERSION: Final = 1

EXTRAS: Final = {"msgspec": "msgspec", "msgspec-json": "msgspec", "orjson": "orjson", "attrs": "attrs"}
"""The extra of metacache that installs each serializer of metacache's own plugins."""


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
    return tuple(sorted(set(map(_info, installed())), key=lambda info: (info.name, info.target)))


def installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of all plugins, sorted by name. Slow: reads the metadata of every distribution."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry_point: entry_point.name))


def _info(entry_point: EntryPoint) -> SerializerInfo:
    if entry_point.dist is None:
        return SerializerInfo(entry_point.name, "unknown", "unknown", entry_point.value)
    metadata = entry_point.dist.metadata  # read once: each access parses it
    return SerializerInfo(entry_point.name, metadata["Name"], metadata["Version"], entry_point.value)


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
    if not isinstance(name, str):
        raise InvalidTypeError(f"a serializer's name must be a str, not {type(name).__name__}")
    entry_point = _entry_point(name, installed() if among is None else among)
    try:
        loaded: object = entry_point.load()
    except Exception as error:
        raise SerializerNotFound(f"serializer {name!r} cannot be imported from {entry_point.value}: {error}") from error
    version = getattr(loaded, "api_version", None)
    if version != API_VERSION:
        raise SerializerNotFound(
            f"serializer {name!r} has api_version {version!r}, but this metacache needs {API_VERSION}"
        )
    wire_id: object = getattr(loaded, "wire_id", None)
    if not is_wire_id(wire_id) and not (wire_id == INT and loaded is INT_PLUGIN):
        raise SerializerNotFound(f"serializer {name!r} has wire_id {wire_id!r}, but {RULE}")
    # cast: an entry point may name any object; the checks above are all that can be checked without a type.
    return Plugin(name, cast("SerializerPlugin", loaded), f"{name!r} of {_info(entry_point).distribution}")


def _entry_point(name: str, among: Iterable[EntryPoint]) -> EntryPoint:
    # A distribution that is on sys.path twice (for example an editable install and a wheel) counts once.
    found = {(_info(entry_point), entry_point) for entry_point in among if entry_point.name == name}
    by_owner = {(info.distribution, info.target): entry_point for info, entry_point in found}
    if len(by_owner) > 1:
        owners = " and ".join(sorted(f"{distribution} ({target})" for distribution, target in by_owner))
        raise SerializerConflict(f"several distributions offer serializer {name!r}: {owners}; uninstall all but one")
    if not by_owner:
        raise SerializerNotFound(_how_to_install(name))
    return next(iter(by_owner.values()))


def _how_to_install(name: str) -> str:
    if name in EXTRAS:
        return f"serializer {name!r} is not installed: pip install 'metacache[{EXTRAS[name]}]'"
    installed = ", ".join(dict.fromkeys(info.name for info in available_serializers())) or "none"
    return f"no serializer is called {name!r}; installed serializers: {installed}"
