"""Load a serializer by name for a type: `load_serializer`.

Keeps one piece of state for the process: which plugin uses which wire_id, so that two plugins cannot share one.
"""

from __future__ import annotations

from typing import Final, Generic, Literal, TypeVar, final, overload

from metacache.errors import InvalidArgumentError, InvalidTypeError, SerializerConflict, SerializerNotFound
from metacache.marks import TypeForm
from metacache.serializers.fingerprints import fingerprint as plain_fingerprint
from metacache.serializers.interfaces import Serializer
from metacache.serializers.names import type_name
from metacache.serializers.plugins import Plugin, SerializerInfo, TypeRefused, available_serializers, find_plugin
from metacache.serializers.suggestions import suggestion
from metacache.serializers.wire_ids import PRIVATE

__all__ = ["SerializerInfo", "available_serializers", "load_serializer"]

T = TypeVar("T")

# The owner of each wire_id that this process has used. Concurrent calls are safe: dict.setdefault is atomic.
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
    """Return the serializer called *name* for *type_*, which may be any type expression that its plugin serves.

    With ``fingerprint="off"`` values are stored without a fingerprint. Then values survive a change of the type's shape
    if they still decode.

    Raises SerializerNotFound if no usable plugin has that name, and SerializerConflict if several plugins claim the
    name or its wire_id. Raises InvalidTypeError if the plugin does not serve *type_*; the message has the reason and
    names installed serializers that do. Raises InvalidArgumentError if *fingerprint* is "off" and the serializer has a
    private wire_id.
    """
    if fingerprint not in ("strict", "off"):
        raise InvalidArgumentError(f"fingerprint must be 'strict' or 'off', not {fingerprint!r}")
    found = find_plugin(name)
    try:
        serializer: Serializer[T] = found.built(type_)
    except TypeRefused as refused:
        refusal = f"serializer {name!r} does not serve {type_name(type_)}"
        reason = f": {refused}" if str(refused) else ""
        raise InvalidTypeError(f"{refusal}{reason}; {suggestion(type_, refused=name)}") from refused.__cause__
    if serializer.wire_id in PRIVATE:
        _check_private(name, serializer, type_, fingerprint)
    else:
        _claim_wire_id(found)
    return serializer if fingerprint == "strict" or serializer.fingerprint == 0 else _Unfingerprinted(serializer)


def _claim_wire_id(found: Plugin) -> None:
    other = _in_use.setdefault(found.plugin.wire_id, found.owner)
    if other != found.owner:
        raise SerializerConflict(
            f"wire_id {found.plugin.wire_id} belongs to both {other} and {found.owner}; uninstall one of them"
        )


def _check_private(name: str, serializer: Serializer[T], type_: object, fingerprint: str) -> None:
    """Check that the fingerprint distinguishes *serializer* from others with the same private wire_id."""
    is_private = f"serializer {name!r} has the private wire_id {serializer.wire_id}, which other serializers may share"
    if fingerprint == "off":
        raise InvalidArgumentError(f"{is_private}: fingerprint='off' is not allowed for it")
    if serializer.fingerprint == 0 or serializer.fingerprint == _fingerprint_without_name(type_):
        raise SerializerNotFound(f"{is_private}: its fingerprint must be fingerprint(type_, serializer={name!r})")


def _fingerprint_without_name(type_: object) -> int | None:
    try:
        return plain_fingerprint(type_)
    except InvalidTypeError:
        return None


@final
class _Unfingerprinted(Generic[T]):
    """A serializer that stores values without a fingerprint."""

    fingerprint = 0

    def __init__(self, serializer: Serializer[T]) -> None:
        self.wire_id = serializer.wire_id
        self.dumps = serializer.dumps
        self.loads = serializer.loads
