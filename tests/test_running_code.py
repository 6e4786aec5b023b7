"""No module of metacache or of a plugin unpickles, evaluates text, or imports a module by name, except the listed ones.

The search is one of syntax trees. It finds imports, names and attributes, however they are called or renamed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = sorted([*ROOT.glob("metacache/**/*.py"), *ROOT.glob("plugins/*/metacache_*/**/*.py")])

# Modules that run code which bytes or texts contain, or that import a module by its name.
MODULES: Final = {
    *("pickle", "_pickle", "pickletools", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "dbm"),
    *("importlib", "imp", "pkgutil", "runpy", "code", "codeop", "builtins", "yaml", "jsonpickle"),
}
# Finding and loading entry points, which users install. `entry_points.py` is the only place that loads one.
ALLOWED_MODULES: Final = {"importlib.metadata"}
# Built-in functions, and attributes of those names.
NAMES: Final = {"eval", "exec", "compile", "__import__", "__builtins__", "breakpoint"}
ATTRIBUTES: Final = (NAMES - {"compile"}) | {"import_module", "__loader__", "exec_module", "load_module"}

# What each listed file uses, and why that runs no code of others.
EXCEPTIONS: Final[dict[str, tuple[frozenset[str], str]]] = {
    "metacache/testing/walkthrough.py": (
        frozenset({"eval", "compile"}),
        "runs the statements of the demo, which it reads from the source of the package",
    ),
    "metacache/testing/contracts/processes.py": (
        frozenset({"pickle"}),
        "hands a contract's own class to a Python process that it starts; that process unpickles nothing else",
    ),
    "metacache/cli/main.py": (
        frozenset({"importlib.import_module"}),
        "imports the module of a command from a constant table of the package",
    ),
    "metacache/cli/output.py": (frozenset({"importlib.util"}), "asks whether rich is installed and imports nothing"),
    "metacache/lazy_names.py": (
        frozenset({"importlib.import_module"}),
        "imports the module of a public name from a constant table of the package",
    ),
    "plugins/metacache-django/metacache_django/sealing.py": (
        frozenset({"pickle"}),
        "Django's caches store any object, so this plugin pickles; it verifies the signature before it unpickles",
    ),
}


def uses(source: str) -> Iterator[str]:
    """Return the names of everything in *source* that runs or imports code by name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases if is_forbidden(alias.name))
            case ast.ImportFrom(module=str(module), names=aliases) if module.partition(".")[0] in MODULES:
                yield from (name for alias in aliases if is_forbidden(name := f"{module}.{alias.name}"))
            case ast.Name(id=name) if name in NAMES:
                yield name
            case ast.Attribute(attr=name) if name in ATTRIBUTES:
                yield name
            case ast.Call(func=ast.Name("getattr"), args=[_, ast.Constant(str(name)), *_]) if name in ATTRIBUTES:
                yield name
            case _:
                pass


def is_forbidden(module: str) -> bool:
    is_allowed = any(f"{module}.".startswith(f"{allowed}.") for allowed in ALLOWED_MODULES)
    return module.partition(".")[0] in MODULES and not is_allowed


def short(name: str, listed: frozenset[str]) -> str:
    """Return the listed name that covers *name*: ``pickle`` covers ``pickle.loads``."""
    covering = [each for each in listed if f"{name}.".startswith(f"{each}.")]
    return covering[0] if covering else name


def test_no_module_runs_or_imports_code_by_name() -> None:
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        allowed, _ = EXCEPTIONS.get(name, (frozenset[str](), ""))
        used = {short(each, allowed) for each in uses(path.read_text())}
        if different := used ^ allowed:
            found[name] = different  # an exception that is not needed is reported too
    assert len(SOURCES) > 100
    assert found == {}


def test_every_exception_has_a_reason() -> None:
    assert all(len(reason.split()) > 5 for _, reason in EXCEPTIONS.values())


def test_an_entry_point_is_loaded_in_one_place() -> None:
    loading = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any(
            isinstance(node, ast.Attribute) and node.attr == "load" and "entry_point" in ast.unparse(node.value).lower()
            for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    assert loading == ["metacache/entry_points.py"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import pickle", "pickle"),
        ("import pickle as harmless", "pickle"),
        ("from pickle import loads", "pickle.loads"),
        ("def f():\n    from _pickle import Unpickler", "_pickle.Unpickler"),
        ("import marshal, shelve", "marshal"),
        ("import importlib.util", "importlib.util"),
        ("from importlib import import_module as load", "importlib.import_module"),
        ("import importlib", "importlib"),
        ("x = eval('1')", "eval"),
        ("run = exec", "exec"),
        ("map(compile, texts)", "compile"),
        ("__import__(name)", "__import__"),
        ("builtins.eval(text)", "eval"),
        ("getattr(module, 'exec')(text)", "exec"),
        ("__builtins__['ev' + 'al'](text)", "__builtins__"),
        ("spec.loader.exec_module(module)", "exec_module"),
    ],
)
def test_the_search_finds(line: str, name: str) -> None:
    assert name in set(uses(line))


@pytest.mark.parametrize(
    "line",
    [
        "import re; re.compile('x')",
        "from importlib import metadata",
        "from importlib.metadata import entry_points",
        "# pickle.loads(data)",
        "'eval(text)'",
        "json.loads(data)",
    ],
)
def test_the_search_ignores(line: str) -> None:
    assert list(uses(line)) == []
