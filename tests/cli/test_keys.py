"""`keys` lists the items of all nodes from their dumps, in bounded memory."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time

import pytest

from metacache import Client, ClientError, Cluster, Connection, ConnectionLost, OperationTimeout, ServerError, Settings
from metacache.cli import metadump
from metacache.cli.dump_lines import Dumped, key_row, parse_line
from metacache.cli.metadump import dump
from metacache.cli.text import UNICODE
from metacache.testing import Memcached
from tests.certificates import trusting
from tests.cli.rig import CommandLine, environment, reader_that_leaves
from tests.conftest import start
from tests.scripted import Peer, ScriptedServer


def names(out: str) -> set[str]:
    """Return the keys in the rows of `keys`."""
    return {line.split(maxsplit=3)[3] for line in out.splitlines()[1:]}


def item(key: bytes, expires_at: int, used_at: int, *, is_fetched: bool = False) -> Dumped:
    return Dumped(key, expires_at, used_at, is_fetched, size=65)


# --- lines -----------------------------------------------------------------------------------------------------------


REST = b" exp=20 la=17 cas=5 fetch=yes cls=1 size=65"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"key=foo exp=-1 la=17 cas=5 fetch=no cls=1 size=65", item(b"foo", -1, 17)),
        (b"key=a%2520b%0A%FF" + REST + b" flags=3", item(b"a%20b\n\xff", 20, 17, is_fetched=True)),
        (b"key=" + REST, item(b"", 20, 17, is_fetched=True)),
        (b"END", None),
        (b"key=foo exp=x", None),
        (b"", None),
    ],
)
def test_a_line_of_a_dump_is_parsed(line: bytes, expected: Dumped | None) -> None:
    assert parse_line(line) == expected


def test_a_row_has_size_ttl_idle_time_and_key() -> None:
    row = key_row(UNICODE, 1000, None)
    assert row(item(b"foo\x1b", 1060, 990)).split() == ["65", "60", "10", r"foo\x1b"]
    assert row(item(b"foo", -1, 990)).split() == ["65", "-", "10", "foo"]
    long = item(b"user:" + b"x" * 100, 1060, 990)
    for width in (10, 40, 60, 80):
        line = key_row(UNICODE, 1000, width)(long)
        assert len(line) == width + 1
        assert line.endswith("x…\n")


# --- real servers ----------------------------------------------------------------------------------------------------


def test_keys_of_all_nodes_are_listed(
    two: tuple[Memcached, Memcached, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, url = two
    with Cluster.from_url(url) as cluster:
        cluster.client(prefix="user:", default_ttl=600).set_many({str(number): b"x" for number in range(50)})
        cluster.client().set(b"a b\n\xff", b"x")
    run = CommandLine(url, capsys)
    shown = run("keys")
    assert shown.status == 0
    assert names(shown.out) == {*(f"user:{number}" for number in range(50)), r"a b\n\xff"}
    assert shown.err.startswith("51 of 51 items, ")
    found = [json.loads(line) for line in run("keys", "--json").out.splitlines()]
    assert {each["node"] for each in found} == {node.strip() for node in url.removeprefix("memcached://").split(",")}
    assert base64.b64encode(b"a b\n\xff").decode() in {each.get("key_base64") for each in found}
    assert {590 < each["ttl"] <= 600 for each in found if "key" in each} == {True}
    assert {each["ttl"] for each in found if "key_base64" in each} == {None}


def test_keys_are_filtered_by_prefix_and_limited(run: CommandLine, cluster: Cluster) -> None:
    cluster.client().set_many({f"{kind}:{number}": b"x" for kind in ("a", "b") for number in range(20)})
    shown = run("keys", "--prefix", "a:")
    assert names(shown.out) == {f"a:{number}" for number in range(20)}
    assert shown.err.startswith("20 of 40 items, ")
    assert len(run("keys", "--prefix", "a:", "--limit", "3").out.splitlines()) == 4
    assert run("keys", "--prefix", "none").status == 0


def test_an_empty_server_has_no_keys(run: CommandLine) -> None:
    shown = run("keys")
    assert (shown.status, len(shown.out.splitlines())) == (0, 1)


def test_hashed_keys_are_shown_as_such(run: CommandLine, cluster: Cluster) -> None:
    cluster.client(long_keys="hash").set("k" * 300, b"x")
    (name,) = names(run("keys").out)
    assert name.startswith("(hashed long key) sha256:")


def test_a_node_that_is_down_does_not_hide_the_others(
    two: tuple[Memcached, Memcached, str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, url = two
    Client(Connection(one.node)).set("k", b"x")
    other.kill()
    shown = CommandLine(url, capsys)("keys")
    assert shown.status == 3
    assert names(shown.out) == {"k"}
    assert str(other.node) in shown.err


def test_a_server_that_refuses_dumps_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with start("-X") as server:
        shown = CommandLine(server.url, capsys)("keys")
    assert shown.status == 3
    assert f"keys on {server.node}: the server refused to list its keys" in shown.err


def test_a_password_protected_server_is_listed(tmp_path: os.PathLike[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = os.path.join(tmp_path, "users")
    with open(path, "w") as file:
        file.write("root:hidden\n")
    with start("-Y", path) as server:
        settings = Settings(username="root", password="hidden")
        Client(Connection(server.node, settings=settings)).set("k", b"x")
        shown = CommandLine(f"memcached://root:hidden@127.0.0.1:{server.port}", capsys)("keys")
        refused = CommandLine(f"memcached://root:wrongly@127.0.0.1:{server.port}", capsys)("keys")
    assert names(shown.out) == {"k"}
    assert refused.status == 3
    assert "wrongly" not in refused.err + refused.out


def test_a_frozen_server_ends_the_listing(memcached: Memcached) -> None:
    memcached.freeze()
    began = time.monotonic()
    with pytest.raises(OperationTimeout, match=r"nothing was received for 0\.2 seconds"):
        list(dump(memcached.node, Settings(timeout=0.2)))
    memcached.thaw()
    assert time.monotonic() - began < 10


# --- scripted servers ------------------------------------------------------------------------------------------------

REQUEST = b"lru_crawler metadump all\r\n"
LINES = [b"key=a exp=-1 la=1 cas=1 fetch=no cls=1 size=65", b"key=END exp=-1 la=1 cas=1 fetch=no cls=1 size=65"]
REPLY = b"\n".join(LINES) + b"\nEND\r\n"


def dumped(server: ScriptedServer) -> list[bytes]:
    return [line for lines in dump(server.node, Settings(timeout=5)) for line in lines]


@pytest.mark.parametrize("cut", range(1, len(REPLY)))
def test_a_dump_may_arrive_in_any_pieces(cut: int) -> None:
    def script(peer: Peer) -> None:
        peer.expect(REQUEST)
        peer.send(REPLY, chunks=[cut], delay=0.001)

    with ScriptedServer(script) as server:
        assert dumped(server) == LINES


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadump, "BUSY_PAUSE", 0.01)

    def busy(peer: Peer) -> None:
        peer.expect(REQUEST)
        peer.send(b"BUSY currently processing crawler request\r\n")
        peer.expect_end()

    def free(peer: Peer) -> None:
        peer.expect(REQUEST)
        peer.send(REPLY)

    with ScriptedServer(busy, busy, free) as server:
        assert dumped(server) == LINES
    monkeypatch.setattr(metadump, "BUSY_FOR", 0.0)
    with ScriptedServer(busy) as server, pytest.raises(ServerError, match="busy with another crawl"):
        dumped(server)


@pytest.mark.parametrize("line", [b"ERROR", b"CLIENT_ERROR lru crawler disabled", b"ERROR metadump not allowed"])
def test_a_refusal_is_an_error(line: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.expect(REQUEST)
        peer.send(line + b"\r\n")

    with ScriptedServer(script) as server, pytest.raises(ClientError, match="refused to list its keys"):
        dumped(server)


def test_a_dump_that_is_cut_off_is_an_error() -> None:
    def script(peer: Peer) -> None:
        peer.expect(REQUEST)
        peer.send(REPLY[:-5])
        peer.fin()

    with ScriptedServer(script) as server, pytest.raises(ConnectionLost, match="before the end of the dump"):
        dumped(server)


def test_keys_are_listed_over_tls(tls_server: Memcached) -> None:
    settings = Settings(tls=trusting())
    client = Client(Connection(tls_server.node, settings=settings))
    wanted = {f"over-tls:{number}" for number in range(3000)}
    client.set_many(dict.fromkeys(wanted, b"x"))
    found = {item.key.decode() for lines in dump(tls_server.node, settings) for item in map(parse_line, lines) if item}
    assert wanted <= found


# --- scale -----------------------------------------------------------------------------------------------------------

MEASURED = """
import sys
from metacache.cli.main import main
status = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(status)
"""


def peak(url: str, *arguments: str) -> tuple[int, int]:
    """Return how many lines a command prints, and the most memory that it used, in KiB."""
    command = [sys.executable, "-c", MEASURED, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment(url, {})) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = sum(1 for _ in process.stdout)
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    return lines, int(errors.split("VmHWM:")[1].split()[0])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_memory_does_not_grow_with_the_number_of_items() -> None:
    with start("-m", "256") as server:
        client = Client(Connection(server.node), timeout=60.0)
        few = peak(server.url, "keys")
        for begin in range(0, 200_000, 10_000):
            client.set_many({f"user:{number}": b"x" for number in range(begin, begin + 10_000)})
        many = peak(server.url, "keys")
    assert few[0] == 1
    assert many[0] > 199_000  # the server may move an item from one LRU list to another past its dump
    # The lines alone are 7 MB.
    assert many[1] - few[1] < 4000


def test_a_reader_that_leaves_ends_the_listing_quietly(memcached: Memcached) -> None:
    client = Client(Connection(memcached.node), timeout=60.0)
    for begin in range(0, 50_000, 10_000):
        client.set_many({f"user:{number}": b"x" for number in range(begin, begin + 10_000)})
    with reader_that_leaves(memcached.url, "keys") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""
