"""Real hosts in network namespaces: a cable that is cut, an interface that goes down, packets that are late or lost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.faults.hosts import Hosts, hosts
from tests.faults.rig import every_kind

TIMEOUT = 0.5
FAILURES = {"OperationTimeout", "ConnectionLost", "ConnectError", "NodeDownError"}
LARGE = "x" * 300_000

pytestmark = pytest.mark.alone  # it measures times


@pytest.fixture
def pair() -> Iterator[Hosts]:
    with hosts() as made:
        yield made


def check_outage(pair: Hosts) -> None:
    """Check that calls fail at their deadline."""
    for key in ("a", "b"):
        answer = pair.call("get", key)
        assert answer.error in FAILURES
        assert answer.seconds < TIMEOUT + 0.5


def check_recovery(pair: Hosts) -> None:
    """Check that calls succeed again, and that no value is that of another key."""
    end = time.monotonic() + 30
    answer = pair.call("get", "b")
    while answer.error and time.monotonic() < end:
        assert answer.error in FAILURES
        time.sleep(0.1)
        answer = pair.call("get", "b")
    for key in ("a", "b", "a", "b"):
        answer = pair.call("get", key)
        assert (answer.error, answer.result) == ("", f"value of {key}")


@pytest.mark.parametrize("kind", ["Cluster", "AsyncCluster"])
def test_calls_fail_at_their_deadline_while_the_interface_is_down_and_work_again_later(kind: str, pair: Hosts) -> None:
    pair.connect(kind, TIMEOUT)
    for key in "ab":
        assert pair.call("set", key, f"value of {key}").error == ""
    pair.unplug()
    check_outage(pair)
    pair.plug()
    check_recovery(pair)


@pytest.mark.parametrize("kind", ["Connection", "Pool", "AsyncConnection", "AsyncPool"])
def test_calls_fail_at_their_deadline_while_the_cable_is_cut_and_work_again_later(kind: str, pair: Hosts) -> None:
    pair.connect(kind, TIMEOUT)
    for key in "ab":
        assert pair.call("set", key, f"value of {key}").error == ""
    pair.cut()
    check_outage(pair)
    pair.mend()
    check_recovery(pair)


@every_kind
def test_values_are_right_over_a_cable_with_loss_and_delay(kind: str, pair: Hosts) -> None:
    pair.connect(kind, 10.0)
    pair.shape("delay", "10ms", "loss", "5%")
    for number in range(5):
        key = f"key-{number}"
        assert pair.call("set", key, key + LARGE).error == ""
        answer = pair.call("get", key)
        assert (answer.error, answer.result) == ("", key + LARGE)


def test_the_namespaces_are_removed() -> None:
    with hosts():
        assert _namespaces()
    assert _namespaces() == []


def _namespaces() -> list[str]:
    found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if line.startswith(f"metacache-{os.getpid()}-")]
