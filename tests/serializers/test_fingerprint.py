"""The fingerprint changes with the shape of a type, and not with the process, the Python or the names of classes."""

from __future__ import annotations

import ast
import dataclasses
import enum
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, NotRequired

import attrs
import msgspec
import pytest
import typing_extensions
from typing_extensions import TypedDict

from metacache import interrupts
from metacache.serializers import defaults, fingerprint, graphs, literals, models, names, records, shapes
from tests.serializers import golden_types
from tests.serializers.golden_types import TYPES

GOLDEN: Final = Path(__file__).with_name("fingerprints.json")

TEXTS: Final = """
import json
from tests.serializers.golden_types import TYPES
from metacache.serializers.shapes import graph_of
print(json.dumps({name: graph_of(type_).text() for name, type_ in TYPES.items()}))
"""

# Types of the table in the syntax of Python 3.12, under the names of the old spelling.
NEW_SYNTAX: Final = """
import json
from dataclasses import dataclass
from metacache.serializers.shapes import graph_of

type Names = list[str]
type Json = dict[str, Json] | list[Json] | str | int | float | bool | None
type Nested[T] = list[Nested[T]] | T
type Left = list[Right]
type Right = dict[str, Left]

@dataclass
class Pair[K, V]:
    first: K
    second: list[V]

@dataclass
class Box[T]:
    held: T

@dataclass
class Base[T]:
    value: T

@dataclass
class Swapped[T, K](Base[list[T]]):
    key: K
    other: T

@dataclass
class Many[T, *Ts]:
    first: T
    rest: tuple[*Ts]

TYPES = {
    "alias": Names,
    "recursive alias": Json,
    "optional recursive alias": Json | None,
    "recursive alias of a parameter": Nested[int],
    "alias of an alias": Left,
    "the other alias": Right,
    "generic": Pair[str, int],
    "box": Box[int],
    "bare box": Box,
    "box in a box": Box[list[Box[int]]],
    "box of an alias": Box[Names],
    "swapped": Swapped[int, str],
    "swapped the other way": Swapped[str, int],
    "many": Many[int, str, bytes],
    "one of many": Many[int],
    "bare many": Many,
}
print(json.dumps({name: graph_of(type_).text() for name, type_ in TYPES.items()}))
"""


def texts() -> dict[str, str]:
    return {name: shapes.graph_of(type_).text() for name, type_ in TYPES.items()}


def texts_of(python: str, path: Path, program: str, seed: str = "0") -> dict[str, str]:
    """Return the canonical texts that *program* prints in another process."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-W", "error", "-c", program]
    done = subprocess.run(command, env=environment, cwd=path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def pure_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with the modules for shapes, all pure Python, because other Pythons lack the other packages."""
    directory = tmp_path_factory.mktemp("pure")
    for package in ("attr", "attrs", "annotated_types"):
        source = Path(attrs.__file__).parent.parent / package
        shutil.copytree(source, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(str(typing_extensions.__file__), directory)
    modules = [defaults, graphs, interrupts, literals, models, names, records, shapes, golden_types]
    for name, file in ((module.__name__, str(module.__file__)) for module in modules):
        target = directory.joinpath(*name.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return directory


def test_fingerprints_are_the_same_in_every_release() -> None:
    """A changed fingerprint makes all stored values of the type misses: never change this file for an old name."""
    assert {name: fingerprint(type_) for name, type_ in TYPES.items()} == json.loads(GOLDEN.read_text())


def test_different_golden_types_have_different_fingerprints() -> None:
    same = [
        {"int", "new type", "new type of a new type", "final", "required", "annotated without a constraint"},
        {"str", "literal str"},
        {"list of int", "old list"},
        {"row", "old row"},
        {"optional", "optional, new spelling"},
        {"union", "union, other order"},
        {"literal", "literal, other order"},
        {"annotated", "init var and class var"},
        {"never", "no return"},
        {"tuple", "old tuple"},
        {"tuple with a tail", "tuple with a tail, new spelling"},
        {"flag", "strict flag"},
    ]
    shared: dict[int, set[str]] = {}
    for name, type_ in TYPES.items():
        shared.setdefault(fingerprint(type_), set()).add(name)
    assert [found for found in shared.values() if len(found) > 1] == same
    assert len(TYPES) >= 140


@pytest.mark.parametrize("seed", ["0", "1", "4294967295"])
def test_every_process_sees_the_same_shapes(seed: str, pure_packages: Path) -> None:
    assert texts_of(sys.executable, pure_packages, TEXTS, seed) == texts()


def pythons(minor: int) -> Iterator[str]:
    """Yield the interpreters of Python 3.*minor* on this machine."""
    yield from map(str, sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}")))
    found = shutil.which(f"python3.{minor}")
    if found is not None and "shims" not in found:  # pyenv also has shims for inactive versions
        yield found


def python_of(minor: int) -> str:
    """Return one of these interpreters, or skip the test if there is none."""
    python = next(pythons(minor), None)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} on this machine")
    return python


@pytest.mark.parametrize("minor", [minor for minor in (11, 12, 13, 14) if minor != sys.version_info.minor])
def test_every_python_sees_the_same_shapes(minor: int, pure_packages: Path) -> None:
    assert texts_of(python_of(minor), pure_packages, TEXTS) == texts()


@pytest.mark.parametrize("minor", [12, 13, 14])
def test_the_syntax_of_python_3_12_makes_the_same_shapes(minor: int, pure_packages: Path) -> None:
    found = texts_of(python_of(minor), pure_packages, NEW_SYNTAX)
    assert len(found) == 16
    assert found == {name: text for name, text in texts().items() if name in found}


RAW: Final = (ord("r"), ord("a"))  # the conversions !r and !a of an f-string


def test_texts_never_depend_on_repr() -> None:
    """The repr of a value differs between versions of Python and of the libraries."""
    for module in (defaults, graphs, literals, models, records, shapes):
        assert module.__file__
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            assert not (isinstance(node, ast.Name) and node.id in ("repr", "ascii")), module.__name__
            assert not (isinstance(node, ast.FormattedValue) and node.conversion in RAW), module.__name__


# --- what changes it ---------------------------------------------------------------------------------------------


def data(**fields: Any) -> type:  # Any: type expressions
    return dataclasses.make_dataclass("Made", fields.items())


def record(**fields: Any) -> type:
    return attrs.make_class("Made", {name: attrs.field(type=type_) for name, type_ in fields.items()})


def struct(**fields: Any) -> type:
    return msgspec.defstruct("Made", list(fields.items()))


def typed_dict(**fields: Any) -> Any:
    make: Any = TypedDict  # Any: type checkers know only literal fields
    return make("Made", fields)


def named_tuple(**fields: Any) -> Any:
    make: Any = NamedTuple  # Any: as above
    return make("Made", list(fields.items()))


FORMS: Final = [data, record, struct, typed_dict, named_tuple]


@pytest.mark.parametrize("form", FORMS)
def test_a_field_added_removed_renamed_retyped_or_moved_changes_it(form: Any) -> None:
    made = [
        form(a=int, b=str),
        form(a=int, b=str, c=str),
        form(a=int),
        form(a=int, c=str),
        form(a=int, b=bytes),
        form(a=int, b=str | None),
        form(a=int, b=list[str]),
        form(a=list[int], b=str),
        form(b=str, a=int),
        form(a=int, b=form(a=int, b=str)),
    ]
    assert 0 not in map(fingerprint, made)
    assert len(set(map(fingerprint, made))) == len(made)


@pytest.mark.parametrize("form", FORMS)
def test_a_change_deep_inside_changes_it(form: Any) -> None:
    first, second = (types.GenericAlias(list, form(a=form(b=part))) for part in (int, str))
    assert fingerprint(first) != fingerprint(second)


def test_names_of_classes_and_modules_and_defaults_do_not_change_it() -> None:
    @attrs.frozen
    class One:
        a: int
        b: str = "x"

    @dataclasses.dataclass
    class Other:
        """A dataclass with the same fields is the same record."""

        a: int = 7
        b: str = "y"

    Other.__module__ = "elsewhere"
    assert fingerprint(One) == fingerprint(Other) != 0


def test_the_values_of_an_enum_change_it_and_their_names_do_not() -> None:
    def made(**members: object) -> int:
        return fingerprint(enum.Enum("Made", members))

    assert made(A=1, B=2) == made(X=2, Y=1) != 0
    assert len({made(A=1, B=2), made(A=1, B=3), made(A=1), made(A=1, B=2, C=3), made(A="1", B="2")}) == 5


def test_whether_a_typed_dict_key_is_required_changes_it() -> None:
    assert fingerprint(typed_dict(a=int)) != fingerprint(typed_dict(a=NotRequired[int]))


def test_constraints_change_it_and_documentation_does_not() -> None:
    assert fingerprint(Annotated[int, msgspec.Meta(ge=0)]) != fingerprint(int)
    assert fingerprint(Annotated[int, msgspec.Meta(ge=0)]) != fingerprint(Annotated[int, msgspec.Meta(ge=1)])
    assert fingerprint(Annotated[int, msgspec.Meta(ge=0)]) != fingerprint(Annotated[int, msgspec.Meta(gt=0)])
    assert fingerprint(Annotated[int, "documentation"]) == fingerprint(int)


def test_the_names_and_tags_of_a_struct_in_the_bytes_change_it() -> None:
    class Plain(msgspec.Struct):
        user_name: str

    class Renamed(msgspec.Struct, rename="camel"):
        user_name: str

    class Tagged(msgspec.Struct, tag="plain"):
        user_name: str

    class Row(msgspec.Struct, array_like=True):
        user_name: str

    assert len(set(map(fingerprint, (Plain, Renamed, Tagged, Row)))) == 4
