"""Serializer plugins by entry point: listed without importing, imported by name, and refused when they cannot be used.

Knows entry points and the plugin protocol; knows no particular plugin but the one for int.
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

__all__ = ["EXTRAS", "Plugin", "Refused", "SerializerInfo", "available_serializers", "find_plugin", "installed"]

GROUP: Final = "metacache.serializers"
API_VERSION: Final = 1

EXTRAS: Final = {"msgspec": "msgspec", "msgspec-json": "msgspec", "orjson": "orjson", "attrs": "attrs"}
"""Which extra of metacache installs the serializers that we know of."""


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
    return tuple(sorted(set(map(_info, installed())), key=lambda info: (info.name, info.target)))


def installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of all plugins, by name. Slow: reads the metadata of every distribution."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry_point: entry_point.name))


def _info(entry_point: EntryPoint) -> SerializerInfo:
    if entry_point.dist is None:
        return SerializerInfo(entry_point.name, "unknown", "unknown", entry_point.value)
    metadata = entry_point.dist.metadata  # read once: each access parses it
    return SerializerInfo(entry_point.name, metadata["Name"], metadata["Version"], entry_point.value)


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
    if not isinstance(name, str):
        raise InvalidTypeError(f"a serializer's name is a str, not {type(name).__name__}")
    entry_point = _entry_point(name, installed() if among is None else among)
    try:
        loaded: object = entry_point.load()
    except Exception as error:
        raise SerializerNotFound(f"serializer {name!r} cannot be imported from {entry_point.value}: {error}") from error
    version = getattr(loaded, "api_version", None)
    if version != API_VERSION:
        raise SerializerNotFound(f"serializer {name!r} has api_version {version!r}, this metacache takes {API_VERSION}")
    wire_id: object = getattr(loaded, "wire_id", None)
    if not is_wire_id(wire_id) and not (wire_id == INT and loaded is INT_PLUGIN):
        raise SerializerNotFound(f"serializer {name!r} has wire_id {wire_id!r}, but {RULE}")
    # The boundary: an entry point names any object.
    return Plugin(name, cast("SerializerPlugin", loaded), f"{name!r} of {_info(entry_point).distribution}")


def _entry_point(name: str, among: Iterable[EntryPoint]) -> EntryPoint:
    # A distribution on sys.path twice (an editable install and a wheel, say) counts once.
    found = {(_info(entry_point), entry_point) for entry_point in among if entry_point.name == name}
    by_owner = {(info.distribution, info.target): entry_point for info, entry_point in found}
    if len(by_owner) > 1:
        owners = " and ".join(sorted(f"{distribution} ({target})" for distribution, target in by_owner))
        raise SerializerConflict(f"serializer {name!r} is offered by {owners}; uninstall one of them")
    if not by_owner:
        raise SerializerNotFound(_how_to_install(name))
    return next(iter(by_owner.values()))


def _how_to_install(name: str) -> str:
    if name in EXTRAS:
        return f"serializer {name!r} is not installed: pip install 'metacache[{EXTRAS[name]}]'"
    installed = ", ".join(dict.fromkeys(info.name for info in available_serializers())) or "none"
    return f"no serializer is called {name!r}; installed are: {installed}"
