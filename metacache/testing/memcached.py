"""`Memcached`: starts a private memcached on a free loopback port or a unix socket, and ends it.

It never uses a server that already runs. Only the process that started a server ends it, by its process id.
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
from typing import Final, Literal, Self, final

from metacache.copying import refuse_copy
from metacache.marks import override
from metacache.nodes import Node

__all__ = ["Memcached", "MemcachedNotFound"]

# The environment variable with the program to start. Without it, the program is the memcached on PATH.
VARIABLE: Final = "METACACHE_MEMCACHED"
STARTUP: Final = 10.0  # seconds


@final
class MemcachedNotFound(Exception):
    """There is no memcached program to start."""


@final
class Memcached:
    """A memcached process for tests.

    Args:
        options: additional command-line options (``["-m", "8", "-M"]``).
        unix: listen on a unix socket instead of a loopback port.
        port: listen on this loopback port, for example that of a server that was ended; 0: a free port.

    ``url`` and ``node`` are its address. The process ends with `close`, or when this object is freed, or when Python
    exits. It stays only if a signal kills Python. A forked child may close or drop its copy: the process goes on.

    Raises MemcachedNotFound if there is no program to start, RuntimeError if the server does not start.
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
                f"no memcached on PATH; install it (apt install memcached) or set ${VARIABLE} to its path"
            )
        port_file = self._directory / "port"
        port_file.unlink(missing_ok=True)
        where = ["-s", str(self.path)] if self._unix else ["-l", "127.0.0.1", "-p", str(self._port or -1), "-U", "0"]
        user = ["-u", "root"] if os.geteuid() == 0 else []
        process = _spawn([program, *user, *where, *self._options], port_file)
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
                _, output = process.communicate()
                raise RuntimeError(
                    f"memcached ended with {process.returncode}: {output.decode(errors='replace').strip()}"
                )
            if self._unix and self.path.exists():
                return
            if not self._unix and port_file.exists() and (words := port_file.read_text().split()):
                self._port = int(words[-1])
                with socket.create_connection(("127.0.0.1", self._port), STARTUP):
                    return
            time.sleep(0.005)
        raise RuntimeError(f"memcached was not ready within {STARTUP} seconds")

    @override
    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"<Memcached {self.node}: pid {self.pid}, {state}>"

    @property
    def kind(self) -> Literal["memcached"]:
        """What this server is; a `ServedMemory` is "embedded"."""
        return "memcached"

    @property
    def is_running(self) -> bool:
        """True until the process has ended. A frozen process is running."""
        return self._process.poll() is None

    @property
    def path(self) -> Path:
        """The path of the unix socket."""
        return self._directory / "memcached.sock"

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._port

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def node(self) -> Node:
        """The address, as a Node."""
        return Node(f"unix:{self.path}" if self._unix else f"127.0.0.1:{self._port}")

    @property
    def url(self) -> str:
        """The URL for `connect`."""
        return f"memcached+unix://{self.path}" if self._unix else f"memcached://127.0.0.1:{self._port}"

    def freeze(self) -> None:
        """Stop the process with SIGSTOP, and wait until it has stopped. Connections stay open without replies."""
        os.kill(self.pid, signal.SIGSTOP)
        end = time.monotonic() + STARTUP
        while not self._is_frozen() and time.monotonic() < end:
            time.sleep(0.001)

    def _is_frozen(self) -> bool:
        """Return whether all threads of the process have stopped; True if there is no /proc."""
        tasks = Path(f"/proc/{self.pid}/task")
        if not tasks.is_dir():
            return True
        # proc(5): "pid (name) state …"
        return all((task / "stat").read_text().rpartition(") ")[2][:1] == "T" for task in tasks.iterdir())

    def thaw(self) -> None:
        """Let the process continue with SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End the process immediately with SIGKILL."""
        self._end()

    def restart(self) -> None:
        """Kill the process and start an empty one at the same address."""
        self.kill()
        self.path.unlink(missing_ok=True)
        self._process = self._start()

    def close(self) -> None:
        """End the process and remove its files. Idempotent."""
        self.kill()  # not SIGTERM, which takes a second: there is nothing to save
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _spawn(command: list[str], port_file: Path) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env={**os.environ, "MEMCACHED_PORT_FILENAME": str(port_file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        # Not MemcachedNotFound: the embedded server must not silently take the place of a program that the user named.
        raise RuntimeError(f"{command[0]} cannot be started: {error.strerror}; see ${VARIABLE}") from error


def _end(owner: int, process: subprocess.Popen[bytes]) -> None:
    if os.getpid() != owner:
        return
    process.kill()
    if process.stderr is not None and not process.stderr.closed:  # else communicate() was already called
        process.communicate()


def _remove(owner: int, directory: Path) -> None:
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)
