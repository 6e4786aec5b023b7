"""The public names of `metacache` are documented, show real types, and importing them loads no plugin."""

from __future__ import annotations

import ast
import inspect
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

import metacache

# The public classes and functions. Constants and type aliases have no docstrings.
CLASSES: Final = [name for name in metacache.__all__ if inspect.isclass(getattr(metacache, name))]
FUNCTIONS: Final = [name for name in metacache.__all__ if inspect.isfunction(getattr(metacache, name))]

CONTRACT: Final = """Client AsyncClient connect connect_async Cluster AsyncCluster Pool AsyncPool Connection
AsyncConnection Transport AsyncTransport Node RendezvousRouter Router Item Metadata Outcomes StoreResult DeleteResult
Serializer SerializerPlugin load_serializer available_serializers Zlib Settings MetacacheError InvalidKeyError
InvalidArgumentError ValueTooLargeError ConflictError SerializationError DecodeError SerializerNotFound ServerError
ClientError AuthenticationError ProtocolError TransportError ConnectError ConnectionLost OperationTimeout NodeDownError
PoolTimeout ClosedError BatchError ClientStatistics""".split()  # noqa: SIM905 - read as a list of words


def test_all_public_names_exist() -> None:
    assert set(CONTRACT) <= set(metacache.__all__)
    assert all(hasattr(metacache, name) for name in metacache.__all__)
    assert len(set(metacache.__all__)) == len(metacache.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_and_its_members_are_documented(name: str) -> None:
    class_: type = getattr(metacache, name)
    assert (class_.__doc__ or "").strip()
    undocumented = [
        member
        for member, value in vars(class_).items()
        if not member.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property | classmethod))
        and not (inspect.getdoc(getattr(class_, member)) or "").strip()
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_is_documented(name: str) -> None:
    assert (getattr(metacache, name).__doc__ or "").strip()


@pytest.mark.parametrize("class_", [metacache.Client, metacache.AsyncClient], ids=lambda class_: class_.__name__)
def test_help_of_a_client_shows_real_types(class_: type) -> None:
    methods = [function for _, function in inspect.getmembers(class_, inspect.isfunction)]
    assert [function.__name__ for function in methods if "Any" in str(inspect.signature(function))] == []


@pytest.mark.parametrize("function", [metacache.connect, metacache.connect_async], ids=lambda each: each.__name__)
def test_help_of_connect_shows_real_types(function: Callable[..., object]) -> None:
    assert "Any" not in str(inspect.signature(function))


def test_importing_metacache_imports_no_plugin() -> None:
    program = "import sys, metacache; print([name for name in sys.modules if name.split('.')[0] in sys.argv[1:]])"
    plugins = ["msgspec", "orjson", "metacache_msgspec", "metacache_orjson", "metacache_attrs"]
    plugins += ["pydantic", "metacache_pydantic"]
    ran = subprocess.run([sys.executable, "-c", program, *plugins], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# --- Any -------------------------------------------------------------------------------------------------------------

ROOT: Final = Path(metacache.__file__).parent


def units(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Return the functions of *body*, the methods of its classes, and its other statements."""
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from units(statement.body)
        else:
            yield statement


def types_in(unit: ast.stmt) -> Iterator[ast.expr | None]:
    """Return the types in *unit*: of arguments, results, variables and casts, and type aliases."""
    for node in ast.walk(unit):
        match node:
            case ast.arg(annotation=type_) | ast.FunctionDef(returns=type_) | ast.AsyncFunctionDef(returns=type_):
                yield type_
            case ast.AnnAssign(annotation=type_, value=value):
                yield type_
                yield value if "TypeAlias" in ast.unparse(type_) else None
            case ast.Assign(value=ast.Name() as type_) | ast.Call(func=ast.Name("cast"), args=[type_, _]):
                yield type_
            case _:
                pass


def unexplained(source: str) -> list[int]:
    """Return the first lines of the units of *source* that contain Any without a comment about it in or above them."""
    lines = source.splitlines()
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and re.search(r"\bAny\b", token.string)
    }
    found: list[int] = []
    for unit in units(ast.parse(source).body):
        first = unit.lineno
        while lines[first - 2].lstrip().startswith("#"):
            first -= 1
        says_any = any(type_ is not None and re.search(r"\bAny\b", ast.unparse(type_)) for type_ in types_in(unit))
        if says_any and comments.isdisjoint(range(first, (unit.end_lineno or first) + 1)):
            found.append(unit.lineno)
    return found


def test_every_any_has_a_reason() -> None:
    found = {path.relative_to(ROOT): unexplained(path.read_text()) for path in ROOT.rglob("*.py")}
    assert len(found) > 50
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "def f(x: Any) -> None: ...",
        "async def f() -> list[Any]: ...",
        "def f(*xs: Any) -> None: ...",
        "x: dict[str, Any] = {}",
        "x: 'Future[Any]'",
        "X = Any",
        "X: TypeAlias = Callable[..., Any]",
        "x = cast(Any, y)",
        "class C:\n    def f(self) -> Any: ...",
    ],
)
def test_an_any_without_a_reason_is_found(line: str) -> None:
    at = len(line.splitlines())
    assert unexplained(f"# A comment.\n{line}  # and another\n") == [1 + at]
    assert unexplained(f"# Any: of another unit\n\n{line}\n") == [2 + at]
    assert unexplained(f"{line}  # Any: as it comes\n") == []
    assert unexplained("# Any: whatever it is\n".join(("y = 1\n", *line.splitlines(keepends=True)))) == []


# --- what help() shows -----------------------------------------------------------------------------------------------


def signatures() -> Iterator[tuple[str, str]]:
    """Yield every public function and method of `metacache` with its signature, as `help` shows it."""
    for name in metacache.__all__:
        public: object = getattr(metacache, name)
        members = {"": public}
        if inspect.isclass(public):
            members |= {f".{key}": value for key, value in vars(public).items() if not key.startswith("_")}
            members |= {".__init__": vars(public).get("__init__")}
        for suffix, member in members.items():
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield f"{name}{suffix}", str(inspect.signature(function))


def test_help_shows_the_type_of_a_value_and_never_any() -> None:
    found = dict(signatures())
    assert len(found) > 100
    assert "-> 'Client[T]'" in found["connect"]
    assert "Serializer[T]" in found["Client.__init__"]
    assert {name: signature for name, signature in found.items() if re.search(r"\bAny\b", signature)} == {}
