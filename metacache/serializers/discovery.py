"""Serializer plugins found by entry point: listed without importing, loaded by name, and nothing but one that fits.

Knows entry points and the plugin protocol; knows no particular plugin.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final, Generic, Literal, TypeVar, cast, final, overload

import attrs
from typing_extensions import TypeForm

from metacache.errors import InvalidArgumentError, InvalidTypeError, SerializerConflict, SerializerNotFound
from metacache.serializers.protocols import Serializer, SerializerPlugin

__all__ = ["SerializerInfo", "available_serializers", "load_serializer"]

T = TypeVar("T")

GROUP: Final = "metacache.serializers"
API_VERSION: Final = 1

# Which extra installs the serializers we know of.
_EXTRAS: Final = {"msgspec": "msgspec", "msgspec-json": "msgspec", "orjson": "orjson", "attrs": "attrs"}

# Who has which wire_id, of the plugins loaded in this process.
_loaded: Final[dict[int, str]] = {}


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
    return tuple(
        sorted(
            {_info(entry_point) for entry_point in entry_points(group=GROUP)}, key=lambda info: (info.name, info.target)
        )
    )


def _info(entry_point: EntryPoint) -> SerializerInfo:
    distribution = entry_point.dist
    name, version = (distribution.name, distribution.version) if distribution else ("unknown", "unknown")
    return SerializerInfo(entry_point.name, name, version, entry_point.value)


@overload
def load_serializer(
    name: str, type_: type[T], *, fingerprint: Literal["strict", "off"] = "strict"
) -> Serializer[T]: ...
@overload
def load_serializer(
    name: str, type_: TypeForm[T], *, fingerprint: Literal["strict", "off"] = "strict"
) -> Serializer[T]: ...
def load_serializer(
    name: str, type_: type[T] | TypeForm[T], *, fingerprint: Literal["strict", "off"] = "strict"
) -> Serializer[T]:
    """Return the serializer called *name* for *type_*, any type expression that its plugin takes.

    ``fingerprint="off"`` writes none, so that values survive a change of the type's shape as far as they still decode.

    Raises SerializerNotFound (SerializerConflict) when no plugin of that name can be used, InvalidTypeError when the
    plugin does not serve *type_*.
    """
    if fingerprint not in ("strict", "off"):
        raise InvalidArgumentError(f"fingerprint is 'strict' or 'off', not {fingerprint!r}")
    plugin = _plugin(name)
    if not plugin.supports(type_):
        raise InvalidTypeError(f"serializer {name!r} does not serve {type_!r}")
    serializer: Serializer[T] = plugin.build(type_)
    return serializer if fingerprint == "strict" else _Unfingerprinted(serializer)


def _plugin(name: str) -> SerializerPlugin:
    if not isinstance(name, str):
        raise InvalidTypeError(f"a serializer's name is a str, not {type(name).__name__}")
    entry_point = _entry_point(name)
    try:
        loaded: object = entry_point.load()
    except Exception as error:
        raise SerializerNotFound(f"serializer {name!r} cannot be imported from {entry_point.value}: {error}") from error
    version = getattr(loaded, "api_version", None)
    if version != API_VERSION:
        raise SerializerNotFound(f"serializer {name!r} has api_version {version!r}, this metacache takes {API_VERSION}")
    plugin = cast("SerializerPlugin", loaded)  # the boundary: an entry point names any object
    owner = f"{name!r} of {_info(entry_point).distribution}"
    other = _loaded.setdefault(plugin.wire_id, owner)
    if other != owner:
        raise SerializerConflict(
            f"wire_id {plugin.wire_id} is claimed by {other} and by {owner}; uninstall one of them"
        )
    return plugin


def _entry_point(name: str) -> EntryPoint:
    # A distribution on sys.path twice (an editable install and a wheel, say) counts once.
    found = {(_info(entry_point), entry_point) for entry_point in entry_points(group=GROUP, name=name)}
    by_owner = {(info.distribution, info.target): entry_point for info, entry_point in found}
    if len(by_owner) > 1:
        owners = " and ".join(sorted(f"{distribution} ({target})" for distribution, target in by_owner))
        raise SerializerConflict(f"serializer {name!r} is offered by {owners}; uninstall one of them")
    if not by_owner:
        raise SerializerNotFound(_how_to_install(name))
    return next(iter(by_owner.values()))


def _how_to_install(name: str) -> str:
    if name in _EXTRAS:
        return f"serializer {name!r} is not installed: pip install 'metacache[{_EXTRAS[name]}]'"
    installed = ", ".join(dict.fromkeys(info.name for info in available_serializers())) or "none"
    return f"no serializer is called {name!r}; installed are: {installed}"


@final
class _Unfingerprinted(Generic[T]):
    """A serializer without its fingerprint."""

    fingerprint = 0

    def __init__(self, serializer: Serializer[T]) -> None:
        self.wire_id = serializer.wire_id
        self.dumps = serializer.dumps
        self.loads = serializer.loads
