"""A private memcached ends with the process that started it, however that ends, and with no other process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from metacache.testing import Memcached, MemcachedNotFound
from tests.conftest import start

ENDINGS: Final = {
    "by itself": "",
    "by an error": "raise LookupError",
    "in a frame that holds it": "def hold(held): sys.exit()\nhold(server)",
    "in a cycle": "server.itself = [server]",
    "after a restart": "server.restart(); report()",
    "frozen": "server.freeze()",
}
PROGRAM: Final = """
import sys
from metacache.testing import Memcached
server = Memcached(unix=True)
def report(): print(server.pid, server.path.parent, flush=True)
report()
"""


def run(*program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", *program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def is_running(pid: int) -> bool:
    """Return whether the process exists. Ends it if so, because a failing test must not leave it."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_memcached_ends_with_a_program_that_does_not_close_it(ending: str) -> None:
    start().close()  # skips the test if there is no memcached
    done = run(PROGRAM + ENDINGS[ending])
    pairs = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert len(pairs) == (2 if ending == "after a restart" else 1), done.stderr
    assert [is_running(int(pid)) for pid, _ in pairs] == [False] * len(pairs)
    assert not any(Path(directory).exists() for _, directory in pairs)
    assert ("Traceback" in done.stderr) == (ending == "by an error"), done.stderr


def test_a_memcached_ends_when_its_object_is_freed() -> None:
    server = start()
    pid, directory = server.pid, server.path.parent
    del server
    gc.collect()
    assert not is_running(pid)
    assert not directory.exists()


@pytest.mark.parametrize("deed", ["pass", "server.close()", "server.kill()", "del server; gc.collect()"])
def test_a_memcached_survives_the_end_of_a_forked_child(deed: str) -> None:
    start().close()  # skips the test if there is no memcached
    done = run(FORKING, deed)
    assert done.stdout.split() == ["child", "0", "True", "stored"], done.stderr


FORKING: Final = """
import gc, os, sys
from metacache import Client, Connection
from metacache.testing import Memcached
server = Memcached(unix=True)
child = os.fork()
if not child:
    exec(sys.argv[1])
    print("child", flush=True)
    sys.exit()  # with all that is registered to run at exit
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), server.path.exists())
with server, Client(Connection(server.node)) as client:
    print("stored" if client.set("key", b"1") else "lost")
"""


def test_close_is_idempotent_and_the_repr_shows_it() -> None:
    server = start()
    assert repr(server).endswith("running>")
    server.close()
    server.close()
    assert repr(server).endswith("stopped>")
    assert not server.path.parent.exists()


def test_a_failed_start_leaves_no_process_and_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    start().close()
    with pytest.raises(RuntimeError, match="memcached ended with"):
        Memcached(["--no-such-option"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("METACACHE_MEMCACHED", raising=False)
    with pytest.raises(MemcachedNotFound):
        Memcached()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("METACACHE_MEMCACHED", str(tmp_path / "absent"))
    with pytest.raises(RuntimeError, match=r"absent cannot be started: No such file .* \$METACACHE_MEMCACHED"):
        Memcached()
    assert list(tmp_path.iterdir()) == []
