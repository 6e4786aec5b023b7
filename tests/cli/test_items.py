"""The commands for one item, against a real server: what they print, what they change, and their exit status."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import pymemcache
import pymemcache.serde
import pytest

from metacache import Client, Cluster, Connection, Settings, Zlib, load_serializer
from metacache.testing import Memcached
from tests.cli.rig import CommandLine, piped
from tests.conftest import start


class User(msgspec.Struct):
    """A typed object, stored as MessagePack."""

    name: str
    age: int


def line_of(out: str, name: str) -> str:
    """Return what a line of `get` says of *name*."""
    return next(line for line in out.splitlines() if line.startswith(name))[len(name) :].strip()


# --- get -------------------------------------------------------------------------------------------------------------


def test_get_shows_a_typed_object_with_its_metadata(run: CommandLine, cluster: Cluster) -> None:
    users = cluster.client(User, serializer="msgspec", compressor=Zlib(min_size=10))
    users.set("ada", User("Ada" * 50, 36), ttl=300)
    shown = run("get", "ada")
    assert shown.status == 0
    assert line_of(shown.out, "written by").startswith("metacache: msgspec (wire id 64), fingerprint 0x")
    assert line_of(shown.out, "written by").endswith(", zlib")
    assert line_of(shown.out, "format") == "MessagePack"
    assert line_of(shown.out, "ttl").startswith(("4 min 5", "5 min 0"))
    assert "decompressed 163" in line_of(shown.out, "size")
    assert '    "age": 36' in shown.out.splitlines()


def test_get_prints_json(run: CommandLine, cluster: Cluster) -> None:
    cluster.client(User, serializer="msgspec").set("ada", User("Ada", 36), ttl=300)
    item = cluster.client(User, serializer="msgspec").get_item("ada")
    assert item is not None
    found = run("get", "ada", "--json").json
    assert found["value"] == {"name": "Ada", "age": 36}
    assert found["cas"] == item.cas
    assert found["client_flags"] == item.client_flags
    assert found["fingerprint"] == item.client_flags >> 12 & 0xFFFF
    assert 290 < found["ttl"] <= 300
    assert found["state"] == "value"


# Any: pymemcache takes every value.
@pytest.mark.parametrize(
    ("value", "format_", "shown"),
    [
        ("text", "text", "text"),
        (5, "number", 5),
        ("y" * 1000, "text", "y" * 1000),
        ({"a": 1}, "pickle", None),
    ],
)
def test_get_shows_items_of_pymemcache(
    run: CommandLine, memcached: Memcached, value: Any, format_: str, shown: object
) -> None:
    other = pymemcache.Client(("127.0.0.1", memcached.port), serde=pymemcache.serde.CompressedSerde())
    other.set("k", value, noreply=False)
    other.close()
    found = run("get", "k", "--json").json
    assert found["client"] == "pymemcache or pylibmc"
    assert (found["format"], found.get("value")) == (format_, shown)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pylibmc has no wheel")
def test_get_shows_items_of_pylibmc(run: CommandLine, memcached: Memcached) -> None:
    import pylibmc  # not at the top: it is not installed on newer Pythons

    other = pylibmc.Client([f"127.0.0.1:{memcached.port}"], binary=False)
    other.set("number", 5)
    other.set("long", "y" * 1000, min_compress_len=10)
    assert run("get", "number", "--json").json["value"] == 5
    found = run("get", "long", "--json").json
    assert (found["compressor"], found["value"]) == ("zlib", "y" * 1000)


def test_get_of_a_missing_key_is_status_1(run: CommandLine) -> None:
    assert run("get", "none").status == 1
    assert run("get", "none", "--json").json == {"key": "none", "result": "not found"}


def test_get_neither_counts_as_a_read_nor_restarts_the_idle_time(run: CommandLine, cluster: Cluster) -> None:
    client = cluster.client()
    client.set("k", b"v")
    run("get", "k")
    run("exists", "k")
    metadata = client.inspect("k")
    assert metadata is not None
    assert not metadata.fetched_before


@pytest.mark.parametrize("command", ["get", "exists"])
def test_the_win_of_a_stale_item_is_left_to_the_next_reader(run: CommandLine, cluster: Cluster, command: str) -> None:
    client = cluster.client()
    client.set("k", b"v")
    assert client.invalidate("k", stale_for=60)
    for _ in range(2):
        shown = run(command, "k")
        assert shown.status == 0
        assert "stale" in shown.out
    item = client.get_item("k")
    assert item is not None
    assert (item.stale, item.won) == (True, True)
    assert item.ttl is not None
    assert 50 < item.ttl <= 60, "the TTL stays"
    run(command, "k")
    again = client.get_item("k")
    assert again is not None
    assert not again.won, "a win that another caller has is not taken from it"


def test_a_win_that_cannot_be_given_back_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with start("-C") as server:
        client = Client(Connection(server.node))
        client.set("k", b"v")
        client.invalidate("k", stale_for=60)
        shown = CommandLine(server.url, capsys)("get", "k")
    assert "could not give it back" in line_of(shown.out, "note")


def test_a_lease_placeholder_is_no_value(run: CommandLine, cluster: Cluster) -> None:
    def look() -> bytes:
        shown.append(run("get", "k"))
        shown.append(run("exists", "k"))
        shown.append(run("get", "k", "--json"))
        return b"made"

    shown: list[Any] = []  # Any: Ran; pyright does not see that `look` runs
    assert cluster.client().get_or_compute("k", look) == b"made"
    assert [each.status for each in shown] == [1, 1, 1]
    assert "lease placeholder" in shown[0].out
    assert "value\n" not in shown[0].out
    assert shown[1].out == "lease\n"
    assert "value" not in shown[2].json
    assert cluster.client().get("k") == b"made", "the winner could store"


def test_raw_writes_the_decompressed_bytes_only(memcached: Memcached, cluster: Cluster) -> None:
    cluster.client(compressor=Zlib(min_size=1)).set("k", b"\x00\x1b" * 500)
    assert piped(memcached.url, "get", "k", "--raw") == (0, b"\x00\x1b" * 500, b"")


def test_a_long_value_is_cut_unless_all_is_asked_for(run: CommandLine, cluster: Cluster) -> None:
    cluster.client(str).set("k", "line\n" * 1000)
    assert "801 more lines" in run("get", "k").out
    assert run("get", "k", "--all").out.count("  line\n") == 1000


def test_a_key_that_is_not_text_is_given_as_base64(run: CommandLine, cluster: Cluster) -> None:
    key = b"a b\x00\xff"
    cluster.client().set(key, b"v")
    encoded = base64.b64encode(key).decode()
    shown = run("get", encoded, "--base64")
    assert shown.status == 0
    assert line_of(shown.out, "key") == r"a b\x00\xff"
    assert run("get", encoded, "--base64", "--json").json["key_base64"] == encoded
    assert run("delete", encoded, "--base64").status == 0
    assert run("get", "not base64!", "--base64").status == 2


# --- writing ---------------------------------------------------------------------------------------------------------


def test_set_stores_for_the_client_of_the_type(run: CommandLine, cluster: Cluster) -> None:
    assert run("set", "s", "täxt").out == "stored\n"
    assert run("set", "n", "41", "--type", "int").status == 0
    assert run("set", "b", "bytes", "--type", "bytes").status == 0
    assert run("set", "j", '{"a": 1}', "--type", "json", "--ttl", "5m").status == 0
    assert cluster.client(str).get("s") == "täxt"
    assert cluster.client(int).increment("n") == 42
    assert cluster.client().get("b") == b"bytes"
    typed = Client(cluster, load_serializer("json", dict[str, int]))
    item = typed.get_item("j")
    assert item is not None
    assert item.value == {"a": 1}
    assert item.ttl is not None
    assert 290 < item.ttl <= 300


def test_set_reads_a_file_and_standard_input(
    run: CommandLine, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "value"
    path.write_bytes(b"\x00\xff\n")
    assert run("set", "f", "--file", str(path), "--type", "bytes").status == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    assert run("set", "p", "--file", "-").status == 0
    assert cluster.client().get("f") == b"\x00\xff\n"
    assert cluster.client(str).get("p") == "from a pipe"


WRONG: Final = (
    (("set", "k"), "give one value"),
    (("set", "k", "v", "--file", "x"), "give one value"),
    (("set", "k", "--file", "/no/such/file"), "cannot be read"),
    (("set", "k", "1.5", "--type", "int"), "not a whole number"),
    (("set", "k", "{", "--type", "json"), "not JSON"),
    (("set", "k", "v", "--ttl", "soon"), "a TTL is a number of seconds"),
    (("set", "k", "v", "--ttl", "0"), "at least one second"),
    (("set", "k" * 251, "v"), "251 bytes"),
    (("touch", "k", "-1"), "a TTL is a number"),
    (("inspect", "a b"), "inspect does not support"),
    (("get", ""), "the key is empty"),
)


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(given)[:30] for given, _ in WRONG])
def test_a_wrong_argument_is_status_2_and_changes_nothing(
    run: CommandLine, cluster: Cluster, arguments: tuple[str, ...], message: str
) -> None:
    cluster.client(str).set("k", "before")
    shown = run(*arguments)
    assert shown.status == 2
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert cluster.client(str).get("k") == "before"


def test_a_value_is_in_no_error(run: CommandLine) -> None:
    assert "secret" not in run("set", "k", "secret", "--type", "int").err


def test_delete_touch_exists_and_inspect_say_whether_there_is_an_item(run: CommandLine, cluster: Cluster) -> None:
    cluster.client(int).set("k", 1)
    assert [run(command, "k").status for command in ("exists", "inspect")] == [0, 0]
    assert run("touch", "k", "2h").out == "touched\n"
    item = cluster.client(int).get_item("k")
    assert item is not None
    assert item.ttl is not None
    assert 7190 < item.ttl <= 7200
    assert run("inspect", "k", "--json").json["cas"] == item.cas
    assert run("delete", "k", "--json").json == {"key": "k", "result": "deleted"}
    for arguments in (("exists", "k"), ("inspect", "k"), ("touch", "k", "1h"), ("delete", "k")):
        shown = run(*arguments)
        assert (shown.status, shown.out) == (1, "not found\n")


def test_exists_sees_items_of_every_serializer(run: CommandLine, cluster: Cluster) -> None:
    cluster.client(User, serializer="msgspec").set("k", User("Ada", 36))
    assert (run("exists", "k").status, run("exists", "k").out) == (0, "value\n")


def test_a_server_that_is_down_is_status_3(memcached: Memcached, run: CommandLine) -> None:
    memcached.kill()
    for arguments in (("get", "k"), ("set", "k", "v"), ("delete", "k"), ("touch", "k", "1h"), ("exists", "k")):
        shown = run(*arguments)
        assert shown.status == 3
        assert shown.err.startswith(f"metacache: {arguments[0]} 'k' on {memcached.node}: ")


def test_settings_of_the_url_are_used(memcached: Memcached, capsys: pytest.CaptureFixture[str]) -> None:
    memcached.freeze()
    shown = CommandLine(f"{memcached.url}/?timeout=0.05", capsys)("get", "k")
    memcached.thaw()
    assert shown.status == 3
    assert Settings().timeout > 0.05
