"""A private memcached: started on a free loopback port or a unix socket, and ended with whoever started it.

Never one that was found running; it is stopped by its own process id, and by nobody but the process that started it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from typing_extensions import override

from metacache.copying import refuse_copy
from metacache.nodes import Node

__all__ = ["Memcached", "MemcachedNotFound"]

# Which memcached to start, where it is not the one on PATH.
VARIABLE: Final = "METACACHE_MEMCACHED"
STARTUP: Final = 10.0  # seconds


@final
class MemcachedNotFound(Exception):
    """There is no memcached to start."""


@final
class Memcached:
    """One memcached process.

    Args:
        options: more command-line options (``["-m", "8", "-M"]``).
        unix: listen on a unix socket instead of a free loopback port.
        port: listen on this loopback port (to start again where another was); 0: any that is free.

    ``url`` and ``node`` say where it is. It ends with `close`, at the latest when nobody holds it or Python exits; only
    a signal that ends Python at once leaves it behind. A forked child that closes or drops it leaves it running.

    Raises MemcachedNotFound when there is none to start, RuntimeError when it does not start.
    """

    __reduce_ex__ = refuse_copy

    def __init__(self, options: Sequence[str] = (), *, unix: bool = False, port: int = 0) -> None:
        self._options = list(options)
        self._directory = Path(tempfile.mkdtemp(prefix="metacache-"))
        self._remove = weakref.finalize(self, _remove, os.getpid(), self._directory)
        self._unix = unix
        self._port = port
        try:
            self._process = self._start()
        except BaseException:
            self._remove()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        program = os.environ.get(VARIABLE) or shutil.which("memcached")
        if program is None:
            raise MemcachedNotFound(
                f"no memcached on PATH; install it (apt install memcached) or name it in ${VARIABLE}"
            )
        port_file = self._directory / "port"
        port_file.unlink(missing_ok=True)
        where = ["-s", str(self.path)] if self._unix else ["-l", "127.0.0.1", "-p", str(self._port or -1), "-U", "0"]
        user = ["-u", "root"] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [program, *user, *where, *self._options],
            env={**os.environ, "MEMCACHED_PORT_FILENAME": str(port_file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._end = weakref.finalize(self, _end, os.getpid(), process)
        try:
            self._wait_until_ready(process, port_file)
        except BaseException:
            self._end()
            raise
        return process

    def _wait_until_ready(self, process: subprocess.Popen[bytes], port_file: Path) -> None:
        end = time.monotonic() + STARTUP
        while time.monotonic() < end:
            if process.poll() is not None:
                _, said = process.communicate()
                raise RuntimeError(
                    f"memcached ended with {process.returncode}: {said.decode(errors='replace').strip()}"
                )
            if self._unix and self.path.exists():
                return
            if not self._unix and port_file.exists() and (told := port_file.read_text().split()):
                self._port = int(told[-1])
                with socket.create_connection(("127.0.0.1", self._port), STARTUP):
                    return
            time.sleep(0.005)
        raise RuntimeError(f"memcached was not ready within {STARTUP} seconds")

    @override
    def __repr__(self) -> str:
        state = "running" if self._process.poll() is None else "stopped"
        return f"<Memcached {self.node}: pid {self.pid}, {state}>"

    @property
    def path(self) -> Path:
        """The path of its unix socket."""
        return self._directory / "memcached.sock"

    @property
    def port(self) -> int:
        """Its TCP port."""
        return self._port

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def node(self) -> Node:
        """Its Node."""
        return Node(f"unix:{self.path}" if self._unix else f"127.0.0.1:{self._port}")

    @property
    def url(self) -> str:
        """Its URL for `connect`."""
        return f"memcached+unix://{self.path}" if self._unix else f"memcached://127.0.0.1:{self._port}"

    def freeze(self) -> None:
        """Stop it from running (SIGSTOP); connections stay open and nothing is answered once this has returned."""
        os.kill(self.pid, signal.SIGSTOP)
        end = time.monotonic() + STARTUP
        while not self._is_frozen() and time.monotonic() < end:
            time.sleep(0.001)

    def _is_frozen(self) -> bool:
        """Tell whether all of its threads have stopped; where there is no /proc, take it for so."""
        tasks = Path(f"/proc/{self.pid}/task")
        if not tasks.is_dir():
            return True
        # proc(5): "pid (name) state …"
        return all((task / "stat").read_text().rpartition(") ")[2][:1] == "T" for task in tasks.iterdir())

    def thaw(self) -> None:
        """Let it run on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._end()

    def restart(self) -> None:
        """Kill it and start it again, empty, in the same place."""
        self.kill()
        self.path.unlink(missing_ok=True)
        self._process = self._start()

    def close(self) -> None:
        """End it and remove its files. Closing twice is nothing."""
        self.kill()  # it has nothing to save, and would take a second over SIGTERM
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _end(owner: int, process: subprocess.Popen[bytes]) -> None:
    if os.getpid() != owner:
        return
    process.kill()
    if process.stderr is not None and not process.stderr.closed:  # else it had ended before
        process.communicate()


def _remove(owner: int, directory: Path) -> None:
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
