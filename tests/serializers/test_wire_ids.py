"""The wire ids of metacache's serializers, of plugins, and of serializers that a user gives to a client."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest

from metacache import (
    AsyncClient,
    Client,
    InvalidArgumentError,
    InvalidTypeError,
    SerializerConflict,
    SerializerNotFound,
    connect,
    load_serializer,
)
from metacache.serializers import IntSerializer, fingerprint
from metacache.serializers.frame import Frame, Undecodable
from metacache.testing import AsyncFakeTransport, FakeTransport, check_serializer
from tests.plugins.distributions import PLUGIN, install, put_on_path
from tests.serializers.text import Text

GOOD: Final = frozenset(range(16, 241, 16))
PRIVATE: Final = (224, 240)
OURS: Final = {
    "int": 2,
    "str": 16,
    "bytes": 32,
    "json": 48,
    "msgspec": 64,
    "msgspec-json": 80,
    "orjson": 112,
    "attrs": 144,
    "pydantic": 176,
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on sys.path."""
    put_on_path(monkeypatch, tmp_path)
    return tmp_path


def add_plugin(directory: Path, name: str, arguments: str) -> None:
    module = name.replace("-", "_")
    install(directory, name, {name: f"{module}:P"}, {module: f"{PLUGIN}\n    P = Plugin({arguments})\n"})


def test_metacaches_own_ids_are_those_of_the_list() -> None:
    found = {plugin.name: plugin.load().wire_id for plugin in entry_points(group="metacache.serializers")}
    assert found == OURS
    listed = (Path(__file__).parents[2] / "metacache/serializers/README.md").read_text()
    assert all(f"| {wire_id} | `{name}` |" in listed for name, wire_id in OURS.items())
    assert all(f"| {wire_id} | " in listed for wire_id in GOOD | {2})


@pytest.mark.parametrize("wire_id", range(1, 256))
def test_a_wire_id_is_a_multiple_of_16(wire_id: int) -> None:
    serializer = Text(wire_id, 1)
    makers: list[Any] = [
        lambda: Frame(serializer),
        lambda: Client(FakeTransport(), serializer),
        lambda: AsyncClient(AsyncFakeTransport(), serializer),
        lambda: connect("memcached://127.0.0.1:1", str, serializer=serializer),
    ]
    for make in makers:
        if wire_id in GOOD:
            make()
            continue
        with pytest.raises(
            InvalidArgumentError, match=f"Text has wire_id {wire_id}, but a wire_id must be from 16 to 240"
        ):
            make()


@pytest.mark.parametrize("wire_id", range(-1, 258))
def test_check_serializer_enforces_the_rule(wire_id: int) -> None:
    def check() -> None:
        check_serializer(Text(wire_id, 1), values=["a"], refused_bytes=[])

    if wire_id in GOOD:
        check()
    else:
        with pytest.raises(AssertionError, match="a wire_id must be from 16 to 240, a multiple of 32"):
            check()


def test_only_metacaches_own_int_has_the_id_of_numbers() -> None:
    assert Frame(IntSerializer()).flags == 0xB0000002
    assert Frame(load_serializer("int", int, fingerprint="off")).flags == 0xB0000002
    check_serializer(IntSerializer(), values=[1], refused_bytes=[b"x"])
    with pytest.raises(InvalidArgumentError, match="Text has wire_id 2"):
        Frame(Text(2))


@pytest.mark.parametrize("wire_id", [-1, 0, 1, 2, 3, 8, 17, 33, 128 + 1, 200, 255, 256, "'64'", "64.0", "None", "True"])
def test_a_plugin_with_another_id_is_refused_with_the_rule(wire_id: object, directory: Path) -> None:
    name = f"odd{abs(hash(str(wire_id)))}"
    add_plugin(directory, name, str(wire_id))
    with pytest.raises(SerializerNotFound) as refused:
        load_serializer(name, str)
    assert str(refused.value).startswith(
        f"serializer '{name}' has wire_id {wire_id}, but a wire_id must be from 16 to 240"
    )
    assert "a multiple of 32 plus 16 for a text format" in str(refused.value)
    assert "other clients keep their own flags in the low five bits" in str(refused.value)


def test_a_plugin_and_its_serializers_must_have_one_id(directory: Path) -> None:
    add_plugin(directory, "two-faced", "96, built=128")
    with pytest.raises(SerializerNotFound, match="its plugin has wire_id 96, but the serializer it built has 128"):
        load_serializer("two-faced", str)


# --- private ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire_id", PRIVATE)
def test_a_private_id_needs_a_fingerprint(wire_id: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"the private wire_id {wire_id}, .*but no fingerprint"):
        Frame(Text(wire_id, 0))
    with pytest.raises(AssertionError, match="is private and needs a fingerprint"):
        check_serializer(Text(wire_id, 0), values=["a"], refused_bytes=[])
    assert Frame(Text(wire_id, 1)).flags == 0xB0001000 | wire_id


@pytest.mark.parametrize("wire_id", PRIVATE)
def test_a_private_value_of_another_fingerprint_or_of_none_is_not_read(wire_id: int) -> None:
    frame = Frame(Text(wire_id, 1))
    assert frame.decode(0xB0001000 | wire_id, b"x") == "x"
    for flags in (0xB0000000, 0xB0002000):
        with pytest.raises(Undecodable, match="fingerprint"):
            frame.decode(flags | wire_id, b"x")


@pytest.mark.parametrize("wire_id", PRIVATE)
def test_several_plugins_may_share_a_private_id(wire_id: int, directory: Path) -> None:
    names = [f"{kind}-{wire_id}" for kind in ("one", "other")]
    for name in names:
        add_plugin(directory, name, f"{wire_id}, fingerprint=fingerprint(str, serializer='{name}')")
    first, second = (load_serializer(name, str) for name in names)
    assert first.wire_id == second.wire_id == wire_id
    assert first.fingerprint != second.fingerprint
    with pytest.raises(Undecodable):
        Frame(second).decode(*Frame(first).encode("x"))


def test_the_fingerprint_of_a_private_id_must_include_the_name(directory: Path) -> None:
    add_plugin(directory, "none", "224, fingerprint=0")
    add_plugin(directory, "plain", "224, fingerprint=fingerprint(str)")
    for name in ("none", "plain"):
        with pytest.raises(SerializerNotFound, match=rf"must be fingerprint\(type_, serializer='{name}'\)"):
            load_serializer(name, str)


def test_a_private_id_needs_strict_fingerprints(directory: Path) -> None:
    add_plugin(directory, "unmarked", "240, fingerprint=7")
    assert load_serializer("unmarked", str).fingerprint == 7
    with pytest.raises(InvalidArgumentError, match=r"private wire_id 240.*: fingerprint='off' is not allowed for it"):
        load_serializer("unmarked", str, fingerprint="off")


def test_only_one_plugin_may_have_a_public_id(directory: Path) -> None:
    for name in ("public", "public-too"):
        add_plugin(directory, name, "208")
    load_serializer("public", str)
    with pytest.raises(SerializerConflict, match="wire_id 208 belongs to both 'public' of public and 'public-too' of"):
        load_serializer("public-too", str)


def test_a_suggestion_does_not_claim_the_wire_id_of_a_plugin(directory: Path) -> None:
    for name in ("asked", "wanted"):
        add_plugin(directory, name, "128, served=frozenset")
    without_serializer: Any = connect  # Any: type checkers also refuse this call
    with pytest.raises(InvalidTypeError, match="'asked'"):
        without_serializer("memcached://127.0.0.1:1", frozenset)
    assert load_serializer("wanted", frozenset).wire_id == 128


@pytest.mark.parametrize("type_", [int, str, list[int], dict[str, list[int]], None])
def test_a_name_changes_the_fingerprint(type_: object) -> None:
    plain = fingerprint(type_)
    named = {fingerprint(type_, serializer=f"name{index}") for index in range(2000)}
    assert plain not in named
    assert 0 not in named
    assert len(named) > 1900
