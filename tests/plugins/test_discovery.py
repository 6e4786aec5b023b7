"""Plugins are listed without importing and loaded by name. Errors say what to install or uninstall."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metacache import (
    InvalidArgumentError,
    InvalidTypeError,
    SerializerConflict,
    SerializerInfo,
    SerializerNotFound,
    available_serializers,
    load_serializer,
)
from tests.plugins.distributions import PLUGIN, install, put_on_path


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory on sys.path."""
    put_on_path(monkeypatch, tmp_path)
    return tmp_path


def test_a_third_party_plugin_is_found_by_its_name(directory: Path) -> None:
    install(
        directory,
        "stranger",
        {"strange": "stranger:P"},
        {"stranger": PLUGIN + "\n    P = Plugin(240, fingerprint=1)\n"},
    )
    serializer = load_serializer("strange", str)
    assert serializer.wire_id == 240
    assert serializer.loads(serializer.dumps("Zoë")) == "Zoë"


def test_listing_names_distribution_and_version_and_imports_nothing(directory: Path) -> None:
    install(
        directory, "explosive", {"bang": "explosive:P"}, {"explosive": "raise SystemExit('imported')"}, version="2.1"
    )
    listed = available_serializers()
    assert SerializerInfo("bang", "explosive", "2.1", "explosive:P") in listed
    assert "explosive" not in sys.modules
    assert [info.name for info in listed] == sorted(info.name for info in listed)
    assert {"attrs", "bytes", "int", "json", "msgspec", "msgspec-json", "orjson", "pydantic", "str"} <= {
        info.name for info in listed
    }


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("msgspec", "msgspec"),
        ("msgspec-json", "msgspec"),
        ("orjson", "orjson"),
        ("attrs", "attrs"),
        ("pydantic", "pydantic"),
    ],
)
def test_the_error_for_a_known_missing_plugin_has_the_install_command(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(SerializerNotFound) as missing:
        load_serializer(name, str)
    assert str(missing.value) == f"serializer '{name}' is not installed: pip install 'metacache[{extra}]'"


def test_the_error_for_an_unknown_name_lists_the_installed_names() -> None:
    with pytest.raises(
        SerializerNotFound, match=r"no serializer is called 'pickel'; installed serializers: attrs, bytes, .*str"
    ):
        load_serializer("pickel", str)


def test_the_error_for_a_duplicate_name_names_both_distributions(directory: Path) -> None:
    install(directory, "first", {"same": "first:P"}, {"first": "raise SystemExit('imported')"})
    install(directory, "second", {"same": "second:P"}, {"second": "raise SystemExit('imported')"})
    with pytest.raises(SerializerConflict) as conflict:
        load_serializer("same", str)
    assert str(conflict.value) == (
        "several distributions offer serializer 'same': first (first:P) and second (second:P); uninstall all but one"
    )


def test_one_distribution_found_twice_is_not_a_conflict(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path_factory.mktemp("again")
    for where in (directory, again):
        install(
            where, "twofold", {"twofold": "twofold:P"}, {"twofold": PLUGIN + "\n    P = Plugin(240, fingerprint=1)\n"}
        )
    put_on_path(monkeypatch, again)
    assert load_serializer("twofold", str).wire_id == 240


def test_the_error_for_a_shared_wire_id_names_both_plugins(directory: Path) -> None:
    install(directory, "holder", {"holder": "holder:P"}, {"holder": PLUGIN + "\n    P = Plugin(96)\n"})
    install(directory, "taker", {"taker": "taker:P"}, {"taker": PLUGIN + "\n    P = Plugin(96)\n"})
    assert load_serializer("holder", str).wire_id == 96
    for _ in range(2):
        with pytest.raises(SerializerConflict) as conflict:
            load_serializer("taker", str)
        assert str(conflict.value) == (
            "wire_id 96 belongs to both 'holder' of holder and 'taker' of taker; uninstall one of them"
        )
    assert load_serializer("holder", str).wire_id == 96


@pytest.mark.parametrize("version", ["2", "0", "None", "'1'"])
def test_the_error_for_another_api_version_names_both_versions(version: str, directory: Path) -> None:
    module = f"newer_{version.strip(chr(39))}"
    source = PLUGIN + f"\n    P = Plugin(96, {version})\n"
    install(directory, "newer", {"newer": f"{module}:P"}, {module: source})
    with pytest.raises(SerializerNotFound, match=f"'newer' has api_version {version}, but this metacache needs 1"):
        load_serializer("newer", str)


def test_an_object_that_is_not_a_plugin_is_refused(directory: Path) -> None:
    install(directory, "nothing", {"nothing": "nothing_at_all:P"}, {"nothing_at_all": "P = object()"})
    with pytest.raises(SerializerNotFound, match="'nothing' has api_version None"):
        load_serializer("nothing", str)


def test_the_error_for_a_failed_import_has_the_reason(directory: Path) -> None:
    install(directory, "hollow", {"hollow": "hollow:P"}, {"hollow": "import no_such_library"})
    with pytest.raises(SerializerNotFound, match="'hollow' cannot be imported from hollow:P: No module named"):
        load_serializer("hollow", str)


def test_a_type_that_the_plugin_does_not_serve_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match=r"serializer 'json' does not serve bytes: .*; give serializer='bytes'"):
        load_serializer("json", bytes)


@pytest.mark.parametrize("name", [None, 1, b"json"])
def test_a_name_must_be_a_str(name: str) -> None:
    with pytest.raises(InvalidTypeError, match="a serializer's name must be a str"):
        load_serializer(name, str)


def test_fingerprint_must_be_strict_or_off() -> None:
    with pytest.raises(InvalidArgumentError, match="'strict' or 'off', not 'lax'"):
        # A third value, which type checkers refuse.
        load_serializer("json", int, fingerprint="lax")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert load_serializer("json", int).fingerprint != 0
    assert load_serializer("json", int, fingerprint="off").fingerprint == 0
