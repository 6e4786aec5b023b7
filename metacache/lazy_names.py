"""Load the names of a package when they are first used, so that importing the package is quick.

The package has a table of its names by module. Type checkers read the imports under TYPE_CHECKING instead; a test
compares both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["names_of"]


def names_of(
    package: dict[str, object], modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    *package*: its ``globals()``. *modules*: for each module, the names that it has, separated by spaces.
    """
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def load(name: str) -> object:
        module = module_of.get(name)
        if module is None:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        found: object = getattr(import_module(module), name)
        package[name] = found  # the next use does not call this function
        return found

    return load, lambda: sorted({*package, *module_of})
