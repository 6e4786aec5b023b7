"""Which serializer would serve a type: for the messages of errors. Imports the installed plugins; slow.

Knows plugins; raises nothing because of one that cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Any, Final

from metacache.errors import InvalidTypeError
from metacache.serializers.fingerprints import fingerprint
from metacache.serializers.names import is_type
from metacache.serializers.plugins import EXTRAS, PLUGINS, Refused, find_plugin

__all__ = ["suggestion"]

# The first that serves a type is suggested first. Others follow by name.
_PREFERRED: Final = ("bytes", "str", "int", "msgspec", "orjson", "attrs", "json", "msgspec-json")


def suggestion(type_: Any, *, refused: str | None = None) -> str:  # Any: a type expression
    """Return advice about *type_*, which has no serializer, or which the serializer *refused* does not serve."""
    if not is_type(type_):
        return "give a class, or an expression as list[int]"
    among = PLUGINS.installed()
    found = dict.fromkeys(entry_point.name for entry_point in among if entry_point.name != refused)
    names = [name for name in _PREFERRED if name in found] + [name for name in found if name not in _PREFERRED]
    reasons = {name: _refusal(name, among, type_) for name in names}
    serving = [name for name, reason in reasons.items() if reason is None]
    if serving:
        return f"give serializer={_either([repr(name) for name in serving])}"
    missing = dict.fromkeys(extra for name, extra in EXTRAS.items() if name not in (*reasons, refused))
    install = f"; try pip install {_either([repr(f'metacache[{extra}]') for extra in missing])}" if missing else ""
    if refused is not None:
        return f"no other installed serializer serves it{install}"
    return _fingerprint_error(type_) or f"none of the installed serializers serves it{install or _listed(reasons)}"


def _either(names: list[str]) -> str:
    return f"{names[0]} (or {', '.join(names[1:])})" if names[1:] else names[0]


def _listed(reasons: dict[str, str | None]) -> str:
    return f" ({'; '.join(f'{name}: {reason}' for name, reason in reasons.items() if reason and name in EXTRAS)})"


def _fingerprint_error(type_: object) -> str:
    """Return why no serializer can serve *type_*, empty when that is not so."""
    try:
        fingerprint(type_)
    except InvalidTypeError as error:
        return str(error)
    return ""


def _refusal(name: str, among: Iterable[EntryPoint], type_: Any) -> str | None:  # Any: as above
    """Return why the serializer *name* does not serve *type_*, None when it does."""
    try:
        find_plugin(name, among).built(type_)
    except Refused as refused:
        return str(refused) or "it does not say why"
    except (Exception, SystemExit) as error:  # importing a plugin runs any code
        return f"it cannot be used ({type(error).__name__})"
    return None
