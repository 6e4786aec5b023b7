"""Two hosts with a cable between them: network namespaces of this machine, for tests with real loss, delay and cuts.

All addresses are inside of the namespaces, which `hosts` makes and removes. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import attrs
import pytest

__all__ = ["Answer", "Hosts", "hosts"]

ROOT: Final = Path(__file__).parents[2]
SERVER: Final = "192.0.2.1"  # RFC 5737: for documentation, so it is nowhere in use
CLIENT: Final = "192.0.2.2"
PORT: Final = 11211
PATIENCE: Final = 20.0  # seconds


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@final
@attrs.frozen
class Answer:
    """What one call of the client did: its result or the name of its error, and how long it took."""

    result: str | None
    error: str
    seconds: float


@final
class Hosts:
    """A host with a memcached, and a host with a client in a process of its own."""

    def __init__(self, name: str, memcached: str) -> None:
        self._server = f"{name}-server"
        self._client = f"{name}-client"
        self._memcached = memcached
        self._processes: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        """Make the namespaces and the cable between them, and start the server."""
        for name, address in ((self._server, SERVER), (self._client, CLIENT)):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            if name == self._client:
                _ip("-n", self._server, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", name)
                for each, own in ((self._server, SERVER), (self._client, address)):
                    _ip("-n", each, "addr", "add", f"{own}/24", "dev", "eth0")
                    _ip("-n", each, "link", "set", "eth0", "up")
        self._serve()

    def _serve(self) -> None:
        user = ["-u", "root"]
        self._start(self._server, self._memcached, *user, "-l", SERVER, "-p", str(PORT), "-U", "0")
        end = time.monotonic() + PATIENCE
        while b":2BCB" not in self._listening() and time.monotonic() < end:  # 11211 in hexadecimal
            time.sleep(0.01)

    def _listening(self) -> bytes:
        command = ["ip", "netns", "exec", self._server, "cat", "/proc/net/tcp"]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def connect(self, kind: str, timeout: float) -> None:
        """Start a client of *kind* on its host."""
        node = f"{SERVER}:{PORT}"
        self._process = self._start(
            self._client, sys.executable, "-m", "tests.faults.hosts_client", kind, node, str(timeout)
        )

    def call(self, method: str, *arguments: str) -> Answer:
        """Let the client call a method; return what it did."""
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the client process ended"
        result, error, seconds = json.loads(line)
        return Answer(result, error, seconds)

    def cut(self) -> None:
        """Lose all packets of the server. No host is informed."""
        _ip("-n", self._server, "route", "add", "blackhole", f"{CLIENT}/32")

    def mend(self) -> None:
        """Undo `cut`."""
        _ip("-n", self._server, "route", "del", "blackhole", f"{CLIENT}/32")

    def unplug(self) -> None:
        """Take the interface of the server down."""
        _ip("-n", self._server, "link", "set", "eth0", "down")

    def plug(self) -> None:
        """Take the interface of the server up again."""
        _ip("-n", self._server, "link", "set", "eth0", "up")

    def shape(self, *netem: str) -> None:
        """Let packets be delayed and lost in both directions, as in ``shape("delay", "30ms", "loss", "10%")``."""
        tc = shutil.which("tc")
        if tc is None:
            pytest.skip("tc is not installed, so packets cannot be lost or delayed")
        for name in (self._server, self._client):
            command = ["ip", "netns", "exec", name, tc, "qdisc", "replace", "dev", "eth0", "root", "netem", *netem]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"this kernel cannot lose or delay packets: {done.stderr.strip()}")

    def _start(self, namespace: str, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._processes.append(process)
        return process

    def remove(self) -> None:
        """End the processes and remove the namespaces."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        for name in (self._server, self._client):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


@contextmanager
def hosts() -> Generator[Hosts]:
    """Make two hosts; skip the test, with the reason, where the machine does not allow it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need iproute2 (apt install iproute2)")
    memcached = os.environ.get("METACACHE_MEMCACHED") or shutil.which("memcached")
    if memcached is None:
        pytest.skip("memcached is not installed")
    made = Hosts(f"metacache-{os.getpid()}", memcached)
    try:
        try:
            made.build()
        except subprocess.CalledProcessError as refused:
            pytest.skip(f"this machine allows no network namespaces: {refused.stderr.strip()}")
        yield made
    finally:
        made.remove()
