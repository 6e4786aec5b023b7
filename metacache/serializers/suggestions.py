"""Suggest serializers for a type, for error messages. Slow: imports every installed plugin.

A plugin that cannot be used is reported with its reason and does not fail the suggestion.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from metacache.errors import InvalidTypeError
from metacache.serializers.fingerprints import fingerprint
from metacache.serializers.names import is_type
from metacache.serializers.plugins import EXTRAS, PLUGINS, TypeRefused, find_plugin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["suggestion"]

# The order in which serializers are suggested. All others follow, sorted by name.
_PREFERRED: Final = ("bytes", "str", "int", "msgspec", "orjson", "attrs", "pydantic", "json", "msgspec-json")


def suggestion(type_: Any, *, refused: str | None = None) -> str:  # Any: a type expression
    """Return advice for *type_*, for which no serializer was given or which the serializer *refused* does not serve."""
    if not is_type(type_):
        return "give a class or an expression such as list[int]"
    among = PLUGINS.installed()
    found = dict.fromkeys(entry_point.name for entry_point in among if entry_point.name != refused)
    names = [name for name in _PREFERRED if name in found] + [name for name in found if name not in _PREFERRED]
    reasons = {name: _reason_against(name, among, type_) for name in names}
    serving = [name for name, reason in reasons.items() if reason is None]
    if serving:
        return f"give serializer={_alternatives([repr(name) for name in serving])}"
    missing = dict.fromkeys(extra for name, extra in EXTRAS.items() if name not in (*reasons, refused))
    install = (
        f"; try pip install {_alternatives([repr(f'metacache[{extra}]') for extra in missing])}" if missing else ""
    )
    if refused is not None:
        return f"no other installed serializer serves this type{install}"
    return _fingerprint_error(type_) or f"no installed serializer serves this type{install or _all_reasons(reasons)}"


def _alternatives(names: list[str]) -> str:
    return f"{names[0]} (or {', '.join(names[1:])})" if names[1:] else names[0]


def _all_reasons(reasons: dict[str, str | None]) -> str:
    return f" ({'; '.join(f'{name}: {reason}' for name, reason in reasons.items() if reason and name in EXTRAS)})"


def _fingerprint_error(type_: object) -> str:
    """Return why no serializer can serve *type_*, or an empty string if one could."""
    try:
        fingerprint(type_)
    except InvalidTypeError as error:
        return str(error)
    return ""


def _reason_against(name: str, among: Iterable[EntryPoint], type_: Any) -> str | None:  # Any: a type expression
    """Return why the serializer *name* does not serve *type_*, or None if it does."""
    try:
        find_plugin(name, among).built(type_)
    except TypeRefused as refused:
        return str(refused) or "it gives no reason"
    except (Exception, SystemExit) as error:  # importing a plugin runs arbitrary code
        return f"it cannot be used ({type(error).__name__})"
    return None
