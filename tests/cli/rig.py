"""Runs the command line: in this process, in a subprocess with pipes, or on a terminal of its own (pty)."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, final

import attrs
import pytest

from metacache.cli.main import main

PATIENCE: Final = 30.0  # seconds; other work may slow this machine down

NONE: Final[Mapping[str, str]] = MappingProxyType({})

# Blocks the import of rich, as if it were not installed.
WITHOUT_RICH: Final = "import sys; sys.modules['rich'] = None; from metacache.cli.main import main; sys.exit(main())"


@final
@attrs.frozen
class Ran:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # Any: JSON
        return json.loads(self.out)


@final
class CommandLine:
    """Runs commands in this process on one URL. Standard output is not a terminal."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ran:
        self._capsys.readouterr()
        status = main([*arguments, "--url", self.url])
        out, err = self._capsys.readouterr()
        return Ran(status, out, err)


def environment(url: str, more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "LINES")}
    return {**kept, "METACACHE_URL": url, "TERM": "xterm-256color", **more}


def program(*, with_rich: bool = True) -> list[str]:
    return [sys.executable, "-m", "metacache"] if with_rich else [sys.executable, "-c", WITHOUT_RICH]


def piped(url: str, *arguments: str, variables: Mapping[str, str] = NONE) -> tuple[int, bytes, bytes]:
    """Run a command in a subprocess with pipes; return its status, output and errors."""
    done = subprocess.run(
        [*program(), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(url, variables),
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def _take_ctrl_c() -> None:
    """Let Ctrl-C reach this process: its terminal controls it, and no shell has made it ignore the signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@final
class Terminal:
    """A command whose standard streams are a terminal of a given size."""

    def __init__(
        self,
        url: str,
        arguments: Sequence[str],
        *,
        columns: int = 80,
        with_rich: bool = True,
        stdout: int | None = None,
        variables: Mapping[str, str] = NONE,
    ) -> None:
        self._leader, follower = pty.openpty()
        self.resize(columns)
        self.before = termios.tcgetattr(follower)
        self.process = subprocess.Popen(
            [*program(with_rich=with_rich), *arguments],
            stdin=follower,
            stdout=follower if stdout is None else stdout,
            stderr=follower,
            env=environment(url, variables),
            start_new_session=True,
            preexec_fn=_take_ctrl_c,
        )
        self._follower = follower
        self.shown = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    @property
    def attributes(self) -> list[Any]:  # Any: as termios declares it
        return termios.tcgetattr(self._follower)

    def wait_for(self, text: str) -> str:
        """Read until *text* was shown, and return everything that was."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < end, f"{text!r} was not shown: {self.shown[-500:]!r}"
            self._read(0.1)
        return self.shown

    def _read(self, seconds: float) -> None:
        if select.select([self._leader], [], [], seconds)[0]:
            self.shown += os.read(self._leader, 65536).decode()

    def write(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def finish(self) -> int:
        """Wait for the end of the command; return its status, negative for a signal."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, f"the command did not end: {self.shown[-500:]!r}"
            self._read(0.05)
        while select.select([self._leader], [], [], 0)[0]:
            self._read(0)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._leader)
        os.close(self._follower)


@contextmanager
def reader_that_leaves(url: str, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a command whose output goes into a pipe."""
    process = subprocess.Popen(
        [*program(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(url, {})
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
