"""Plugins by entry point: list the installed ones without importing any, and import the one that is asked for.

Serializers, compressors and node sources are found here. This module reads names and distributions; it does not check
or call the object that an entry point names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, final

import attrs

from metacache.errors import InvalidTypeError, MetacacheError
from metacache.interrupts import fails_again, is_own

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

__all__ = ["PluginGroup", "distribution_of"]

R = TypeVar("R")


@final
@attrs.frozen
class PluginGroup:
    """One kind of plugin.

    Args:
        name: the entry point group.
        kind: the word for such a plugin in messages.
        error: the class to raise when no plugin of a name can be used.
        conflict: the class to raise when two distributions offer one name.
        extras: the extra of metacache that installs a plugin, by the plugin's name.
    """

    name: str
    kind: str
    error: type[MetacacheError]
    conflict: type[MetacacheError]
    extras: Mapping[str, str] = attrs.Factory(dict[str, str])

    def installed(self) -> tuple[EntryPoint, ...]:
        """Return the entry points of all plugins, by name.

        Slow the first time, and after an installation: it reads the metadata of every distribution.
        """
        return _installed(self.name, tuple((path, _changed_at(path)) for path in sys.path))

    def listed(self, info: Callable[[str, str, str, str], R]) -> tuple[R, ...]:
        """Return *info* of the name, distribution, version and target of each plugin, by name. Imports none of them."""
        return tuple(info(*row) for row in sorted(set(map(_row, self.installed()))))

    def find(self, name: str, among: Iterable[EntryPoint] | None = None) -> EntryPoint:
        """Return the entry point of the plugin called *name*, *among* the installed ones. Imports nothing.

        Raises InvalidTypeError when *name* is not a str, *conflict* when two distributions offer it, *error* when none
        does.
        """
        if not isinstance(name, str):
            raise InvalidTypeError(f"a {self.kind}'s name must be a str, not {type(name).__name__}")
        found = [point for point in (self.installed() if among is None else among) if point.name == name]
        # A distribution on sys.path twice (an editable install and a wheel, say) counts once.
        by_owner = {f"{distribution_of(point)} ({point.value})": point for point in found}
        if len(by_owner) > 1:
            owners = " and ".join(sorted(by_owner))
            raise self.conflict(f"several distributions offer {self.kind} {name!r}: {owners}; uninstall all but one")
        if not by_owner:
            raise self.error(self._how_to_install(name))
        return next(iter(by_owner.values()))

    def _how_to_install(self, name: str) -> str:
        if name in self.extras:
            return f"{self.kind} {name!r} is not installed: pip install 'metacache[{self.extras[name]}]'"
        names = ", ".join(dict.fromkeys(point.name for point in self.installed())) or "none"
        return f"no {self.kind} is called {name!r}; installed {self.kind}s: {names}"

    def load(self, entry_point: EntryPoint) -> object:
        """Import and return the object that *entry_point* names. Raises *error* when that fails."""
        try:
            loaded: object = entry_point.load()
        except Exception as error:
            if not fails_again(type(entry_point).load, entry_point, error):
                raise
            what = f"{self.kind} {entry_point.name!r} cannot be imported from {entry_point.value}"
            raise self.error(f"{what}: {error}") from error
        return loaded


@lru_cache(maxsize=8)
def _installed(group: str, _: object) -> tuple[EntryPoint, ...]:
    from importlib import metadata  # late: it takes 20 ms, and a client of bytes, str or int needs no plugin

    return tuple(sorted(metadata.entry_points(group=group), key=lambda entry_point: entry_point.name))


def _changed_at(directory: str) -> int:
    """Return when something was last installed into *directory*, in nanoseconds; 0 if it is not a directory."""
    try:
        return os.stat(directory or os.curdir).st_mtime_ns
    except OSError as error:
        if not is_own(error):
            raise
        return 0


def distribution_of(entry_point: EntryPoint) -> str:
    """Return the name of the distribution that brings *entry_point*."""
    return _row(entry_point)[1]


def _row(entry_point: EntryPoint) -> tuple[str, str, str, str]:
    if entry_point.dist is None:
        return entry_point.name, "unknown", "unknown", entry_point.value
    return entry_point.name, *_owner(entry_point.dist), entry_point.value


@lru_cache(maxsize=64)
def _owner(distribution: Distribution) -> tuple[str, str]:
    """Return the name and version of *distribution*. It parses its metadata, which takes a millisecond."""
    about = distribution.metadata
    return about["Name"], about["Version"]
