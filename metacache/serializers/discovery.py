"""`load_serializer`: from a name and a type to a serializer, or to an error that says why and which to use instead.

Knows the wire_ids of the plugins in use in this process; knows no particular plugin.
"""

from __future__ import annotations

from typing import Final, Generic, Literal, TypeVar, final, overload

from typing_extensions import TypeForm

from metacache.errors import InvalidArgumentError, InvalidTypeError, SerializerConflict, SerializerNotFound
from metacache.serializers.fingerprints import fingerprint as plain_fingerprint
from metacache.serializers.interfaces import Serializer
from metacache.serializers.names import type_name
from metacache.serializers.plugins import Plugin, Refused, SerializerInfo, available_serializers, find_plugin
from metacache.serializers.suggestions import suggestion
from metacache.serializers.wire_ids import PRIVATE

__all__ = ["SerializerInfo", "available_serializers", "load_serializer"]

T = TypeVar("T")

# Which plugin has which wire_id, of those in use in this process.
_in_use: Final[dict[int, str]] = {}


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
    plugin does not serve *type_*: the message says why, and which installed serializer would. InvalidArgumentError when
    the serializer has a private wire_id and *fingerprint* is "off".
    """
    if fingerprint not in ("strict", "off"):
        raise InvalidArgumentError(f"fingerprint is 'strict' or 'off', not {fingerprint!r}")
    found = find_plugin(name)
    try:
        serializer: Serializer[T] = found.built(type_)
    except Refused as refused:
        refusal = f"serializer {name!r} does not serve {type_name(type_)}"
        reason = f": {refused}" if str(refused) else ""
        raise InvalidTypeError(f"{refusal}{reason}; {suggestion(type_, refused=name)}") from refused.__cause__
    if serializer.wire_id in PRIVATE:
        _check_private(name, serializer, type_, fingerprint)
    else:
        _claim(found)
    return serializer if fingerprint == "strict" or serializer.fingerprint == 0 else _Unfingerprinted(serializer)


def _claim(found: Plugin) -> None:
    other = _in_use.setdefault(found.plugin.wire_id, found.owner)
    if other != found.owner:
        raise SerializerConflict(
            f"wire_id {found.plugin.wire_id} is claimed by {other} and by {found.owner}; uninstall one of them"
        )


def _check_private(name: str, serializer: Serializer[T], type_: object, fingerprint: str) -> None:
    """Check that values of *serializer* are not taken for those of another one with the same wire_id."""
    is_private = f"serializer {name!r} has the private wire_id {serializer.wire_id}, which others may have too"
    if fingerprint == "off":
        raise InvalidArgumentError(f"{is_private}: fingerprint='off' is not for it")
    if serializer.fingerprint == 0 or serializer.fingerprint == _plain(type_):
        raise SerializerNotFound(f"{is_private}: its fingerprint must be fingerprint(type_, serializer={name!r})")


def _plain(type_: object) -> int | None:
    try:
        return plain_fingerprint(type_)
    except InvalidTypeError:
        return None


@final
class _Unfingerprinted(Generic[T]):
    """A serializer without its fingerprint."""

    fingerprint = 0

    def __init__(self, serializer: Serializer[T]) -> None:
        self.wire_id = serializer.wire_id
        self.dumps = serializer.dumps
        self.loads = serializer.loads
