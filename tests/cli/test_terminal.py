"""The command line on a real terminal (pty) and in pipes: colours, widths, escapes, Ctrl-C, and the screen of `top`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Final

import pytest

from metacache import Client, Cluster, Connection
from metacache.cli.text import width_of
from metacache.testing import Memcached
from tests.cli.rig import Terminal, environment, piped

COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"

BOTH = pytest.mark.parametrize("with_rich", [True, False], ids=["rich", "plain"])


def shown_by(terminal: Terminal) -> list[str]:
    """Return the lines that a command showed until its end, without colours."""
    with terminal:
        assert terminal.finish() == 0
        return COLOUR.sub("", terminal.shown).replace("\r\n", "\n").splitlines()


# --- colours ---------------------------------------------------------------------------------------------------------


def test_a_terminal_gets_colours_from_rich(memcached: Memcached) -> None:
    with Terminal(memcached.url, ["stats"]) as terminal:
        assert terminal.finish() == 0
        assert COLOUR.search(terminal.shown)
        assert str(memcached.node) in COLOUR.sub("", terminal.shown)


@pytest.mark.parametrize(
    ("with_rich", "more"),
    [(False, {}), (True, {"NO_COLOR": "1"}), (True, {"TERM": "dumb"})],
    ids=["without rich", "NO_COLOR", "dumb"],
)
def test_a_terminal_gets_plain_text(memcached: Memcached, with_rich: bool, more: dict[str, str]) -> None:
    with Terminal(memcached.url, ["stats"], with_rich=with_rich, variables=more) as terminal:
        assert terminal.finish() == 0
        assert "\x1b" not in terminal.shown
        assert str(memcached.node) in terminal.shown


@pytest.mark.parametrize("arguments", [["ping"], ["stats"], ["get", "k"], ["keys"], ["explain", "k"], ["--help"]])
def test_a_pipe_gets_no_escape_sequence(memcached: Memcached, arguments: list[str]) -> None:
    Client(Connection(memcached.node)).set("k", b"value")
    status, out, err = piped(memcached.url, *arguments, variables={"FORCE_COLOR": "1"})
    assert status == 0
    assert out
    assert b"\x1b" not in out + err


def test_rich_and_plain_show_the_same_text(memcached: Memcached) -> None:
    with Cluster([memcached.node]) as cluster:
        cluster.client(str).set("k", "value 値 \x1b[31m [bold]markup[/bold] :smile:")
    texts = [shown_by(Terminal(memcached.url, ["get", "k"], with_rich=with_rich)) for with_rich in (True, False)]
    kept = [[line for line in text if not line.startswith("last used")] for text in texts]
    assert kept[0] == kept[1]
    assert kept[0][-1] == r"  value 値 \x1b[31m [bold]markup[/bold] :smile:"


# --- widths ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("columns", [30, 50, 80])
def test_tables_fit_into_the_terminal(memcached: Memcached, columns: int, *, with_rich: bool) -> None:
    Client(Connection(memcached.node)).set("値" * 60, b"value")
    for arguments in (["ping"], ["stats"], ["keys"], ["explain", "--move", "add=h"]):
        lines = shown_by(Terminal(memcached.url, arguments, columns=columns, with_rich=with_rich))
        table = [line for line in lines if "keys move" not in line and "in the server" not in line]
        assert max(map(width_of, table)) <= columns, arguments
        assert len(table) > 1


# --- dangerous text --------------------------------------------------------------------------------------------------


@BOTH
def test_keys_and_values_cannot_control_the_terminal(memcached: Memcached, *, with_rich: bool) -> None:
    client = Client(Connection(memcached.node))
    evil = "\x1b]0;owned\x07\x9b2J\x08\r\u202e"
    client.set(f"key{evil}", f"value{evil}".encode())
    with Cluster([memcached.node]) as cluster:
        cluster.client(str).set(f"text{evil}", f"value{evil}")
    keys = [f"key{evil}", f"text{evil}", f"none{evil}"]
    for arguments in (["keys"], *(["get", key] for key in keys), ["inspect", evil]):
        with Terminal(memcached.url, arguments, with_rich=with_rich) as terminal:
            terminal.finish()
            shown = COLOUR.sub("", terminal.shown).replace("\r\x1b[K", "").replace("\r\n", "")
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown), arguments


def test_a_terminal_without_utf_8_gets_ascii(memcached: Memcached) -> None:
    Client(Connection(memcached.node)).set("ключ", "значение 値".encode())
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for arguments in (["get", "ключ"], ["keys"], ["explain", "ключ"], ["explain", "--move", "add=h"]):
        status, out, err = piped(memcached.url, *arguments, variables=ascii_only)
        assert status == 0, err
        assert (out + err).isascii()
    status, out, _ = piped(memcached.url, "get", "ключ", variables=ascii_only)
    assert rb"\u0437\u043d\u0430" in out
    assert "ключ" in piped(memcached.url, "keys", variables={"LC_ALL": "C.UTF-8"})[1].decode()


def test_raw_bytes_are_refused_on_a_terminal(memcached: Memcached) -> None:
    Client(Connection(memcached.node)).set("k", b"\x1b[2J")
    with Terminal(memcached.url, ["get", "k", "--raw"]) as terminal:
        assert terminal.finish() == 2
        assert "redirect the output" in terminal.shown


# --- progress --------------------------------------------------------------------------------------------------------


@BOTH
def test_a_terminal_on_standard_error_shows_progress(memcached: Memcached, *, with_rich: bool) -> None:
    client = Client(Connection(memcached.node))
    for begin in range(0, 60_000, 10_000):
        client.set_many({f"user:{number}": b"x" for number in range(begin, begin + 10_000)})
    read, write = os.pipe()
    with Terminal(memcached.url, ["keys"], stdout=write, with_rich=with_rich) as terminal:
        os.close(write)
        with open(read, "rb") as pipe:
            assert len(pipe.read().splitlines()) == 60_001
        assert terminal.finish() == 0
        assert re.search(r"\r.*%.* of 60,000 items", terminal.shown)
        assert terminal.shown.rstrip().endswith("in the server")
        assert "\r\x1b[K60,000 of 60,000 items" in terminal.shown, "the bar is erased at the end"


def test_no_progress_goes_into_a_pipe(memcached: Memcached) -> None:
    Client(Connection(memcached.node)).set("k", b"x")
    _, _, err = piped(memcached.url, "keys")
    assert b"\r" not in err


# --- top -------------------------------------------------------------------------------------------------------------


@BOTH
def test_top_is_live_and_ctrl_c_restores_the_terminal(memcached: Memcached, *, with_rich: bool) -> None:
    with Terminal(memcached.url, ["top", "--interval", "0.05"], with_rich=with_rich) as terminal:
        terminal.wait_for(str(memcached.node))
        Client(Connection(memcached.node)).get_many([str(number) for number in range(100)])
        terminal.wait_for("0.0%")  # all reads were misses
        terminal.resize(40)
        terminal.write("\x03")
        assert terminal.finish() == 0
        assert terminal.shown.count(ENTER) == terminal.shown.count(LEAVE) == 1
        assert terminal.shown.endswith(f"\x1b[?25h{LEAVE}")
        assert "Traceback" not in terminal.shown
        assert terminal.attributes == terminal.before


def test_sigterm_restores_the_terminal(memcached: Memcached) -> None:
    with Terminal(memcached.url, ["top", "--interval", "0.05"]) as terminal:
        terminal.wait_for(str(memcached.node))
        terminal.process.terminate()
        assert terminal.finish() == 143
        assert terminal.shown.endswith(f"\x1b[?25h{LEAVE}")


def test_top_shows_a_node_that_goes_down_and_comes_back(memcached: Memcached) -> None:
    with Terminal(memcached.url, ["top", "--interval", "0.05"], with_rich=False) as terminal:
        terminal.wait_for(" up ")
        memcached.kill()
        terminal.wait_for(" down ")
        terminal.wait_for("refused")
        memcached.restart()
        terminal.shown = ""
        terminal.wait_for(" up ")
        terminal.write("\x03")
        assert terminal.finish() == 0


def test_top_with_a_count_ends_by_itself(memcached: Memcached) -> None:
    with Terminal(memcached.url, ["top", "--interval", "0.01", "--count", "2"]) as terminal:
        assert terminal.finish() == 0


# --- questions and ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "status"), [("yes", 0), ("no", 1), ("", 1), ("y", 1)])
def test_flush_names_the_nodes_and_asks(memcached: Memcached, answer: str, status: int) -> None:
    client = Client(Connection(memcached.node))
    client.set("k", b"v")
    with Terminal(memcached.url, ["flush"]) as terminal:
        terminal.wait_for("Type yes to go on: ")
        assert f"every item of: {memcached.node}" in terminal.shown
        assert client.get("k") == b"v"
        terminal.write(f"{answer}\n")
        assert terminal.finish() == status
    assert client.get("k") == (None if status == 0 else b"v")


def test_ctrl_c_ends_other_commands_with_130(memcached: Memcached) -> None:
    Client(Connection(memcached.node)).set("k", b"v")
    with Terminal(memcached.url, ["flush"]) as terminal:
        terminal.wait_for("Type yes to go on: ")
        terminal.write("\x03")
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.shown
    assert Client(Connection(memcached.node)).get("k") == b"v"


def test_rich_is_not_imported_for_a_pipe(memcached: Memcached) -> None:
    code = "import sys; from metacache.cli.main import main; main(['stats']); sys.exit('rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(memcached.url, {}), check=False
    )
    assert done.returncode == 0
