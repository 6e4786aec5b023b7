"""The harness of the storms notices what it looks for: foreign values, lateness, leases, double writes, growth."""

from __future__ import annotations

import random
import socket
import time

import pytest

from metacache import Connection, MetacacheError, NodeDownError, OperationTimeout, ProtocolError
from metacache.client.blocking import Client
from metacache.testing import Memcached
from storms.canary import ForeignValue, canary, check_canary
from storms.chaos import forked
from storms.lag import LagMeter
from storms.measures import growth
from storms.proxy import CuttingProxy
from storms.raw import leases, open_connections
from storms.signals import Interruptions
from storms.tally import Tally


def test_a_canary_belongs_to_its_key_whole() -> None:
    value = canary("key:1", 5, 7, random.Random(3))
    check_canary("key:1", value)
    check_canary("key:1", None)
    wrong = [b"", b"key:1", value[:-1] or b"x", value + b"x", b"x" + value, value.replace(b"|7|", b"|8|")]
    for each in wrong:
        with pytest.raises(ForeignValue):
            check_canary("key:1", each)
    with pytest.raises(ForeignValue):
        check_canary("key:2", value)


def test_a_late_call_is_a_fault_unless_the_sleeper_was_late_too() -> None:
    punctual, lagging = LagMeter(), LagMeter()
    punctual._due, lagging._due = 100.0, 10.0
    for meter, late in ((punctual, 1), (lagging, 0)):
        tally = Tally()
        tally.timed("get", 9.0, 1.0, 10.2, meter)
        assert (tally.over, tally.late, len(tally.faults)) == (1, late, late)
    tally = Tally()
    tally.timed("get", 9.0, 1.0, 10.04, punctual)
    assert (tally.over, tally.late) == (0, 0)


def test_a_meter_sees_that_a_thread_keeps_the_interpreter() -> None:
    meter = LagMeter()
    meter.start()
    time.sleep(0.02)
    began = time.monotonic()
    sum(range(20_000_000))  # one call of C, which releases nothing
    ended = time.monotonic()
    meter.stop()
    assert meter.between(began, ended) > (ended - began) / 2


def test_errors_of_failing_nodes_are_expected_and_others_are_faults() -> None:
    tally = Tally()
    tally.failed("get", NodeDownError("down"))
    tally.failed("get", OperationTimeout("late"))
    assert tally.faults == []
    tally.failed("get", ProtocolError("broken"))
    assert len(tally.faults) == 1


def test_a_lease_that_stayed_behind_is_seen(shared_memcached: Memcached) -> None:
    key, other = "harness:lease", "harness:value"
    with socket.create_connection(("127.0.0.1", shared_memcached.port)) as connection:
        before = open_connections(shared_memcached)
        connection.sendall(b"mg %b v N30\r\nms %b 0\r\n\r\n" % (key.encode(), other.encode()))
        connection.recv(1000)
        time.sleep(0.05)
        assert leases(shared_memcached, [key, other, "harness:none"]) == [key]
        connection.sendall(b"md %b\r\n" % key.encode())
        connection.recv(1000)
    assert before >= 1


def test_the_proxy_cuts_and_counts_the_requests(memcached: Memcached) -> None:
    with CuttingProxy(memcached.port, random.Random(1)) as proxy:
        for number in range(20):
            with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
                connection.sendall(b"ms twice 2 ME\r\nab\r\nma once:%d N0\r\n" % number)
                try:
                    while connection.recv(1000):
                        connection.sendall(b"mn\r\n" * 200)
                except OSError:
                    pass
        assert proxy.connections == 20
        assert proxy.seen[b"ms", b"twice"] == 20
        assert proxy.seen[b"ma", b"once:3"] == 1


def test_growth_compares_the_end_with_the_time_after_the_warm_up() -> None:
    assert growth([1] * 20) is None
    assert growth([50] * 20 + [100] * 80) == 0
    assert growth([100] * 90 + [102] * 10) == pytest.approx(0.02)


def test_a_child_that_fails_is_reported() -> None:
    assert forked(lambda: None) == ""
    assert "exited with 1" in forked(lambda: 1 // 0)


def test_exceptions_of_signals_that_are_replaced_or_swallowed_are_faults(shared_memcached: Memcached) -> None:
    with Connection(shared_memcached.node) as connection:
        client = Client(connection)

        swallowed: list[Exception] = []

        def honest() -> None:
            client.get("harness:signals")

        def swallowing_once() -> BaseException | None:
            try:
                honest()
            except (TimeoutError, OSError, MetacacheError) as error:
                if swallowed:
                    raise
                swallowed.append(error)
                return error
            return None

        for step, is_faulty in ((honest, False), (swallowing_once, True)):
            interruptions = Interruptions(random.Random(2))
            with interruptions.installed():
                for _ in range(10):
                    interruptions.round(step)
            assert bool(interruptions.faults) is is_faulty
