"""An event loop that is blocked, for example by a computation in a task, charges no node, and errors say so."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Final

import pytest

from metacache import AsyncClient, AsyncConnection, ConnectError, MetacacheError, OperationTimeout, Settings
from metacache.cluster.health import is_node_failure
from metacache.testing import Memcached
from tests.transports.aio_rig import client_of, nothing_left, until

pytestmark = pytest.mark.alone

BLOCKED: Final = 0.6  # seconds; a third of it is more than a busy machine blocks a loop by chance

# A busy machine may block a loop by chance. So a loop that is not to be blocked gets several attempts.
ATTEMPTS: Final = 5


def was_dialled(connection: AsyncConnection) -> bool:
    return connection.counts.dialled == 1


@pytest.mark.both_loops
async def test_an_authentication_answered_while_the_loop_was_blocked_is_in_time(memcached: Memcached) -> None:
    settings = Settings(timeout=10.0, connect_timeout=BLOCKED / 3, username="user", password="secret")
    connection = AsyncConnection(memcached.node, settings=settings)
    memcached.freeze()
    async with nothing_left(), AsyncClient(connection, owns=True) as client:
        call = asyncio.create_task(client.set("busy", b"v"))
        await until(lambda: connection.counts.dialled == 1)  # user and password are sent
        threading.Timer(BLOCKED / 2, memcached.thaw).start()
        time.sleep(BLOCKED)
        assert await call


@pytest.mark.both_loops
@pytest.mark.parametrize("is_blocked", [False, True])
async def test_a_dial_that_timed_out_while_the_loop_was_blocked_does_not_charge_the_node(
    memcached: Memcached, *, is_blocked: bool
) -> None:
    settings = Settings(timeout=10.0, connect_timeout=BLOCKED / 3, username="user", password="secret")
    memcached.freeze()  # the kernel accepts the connection, and the server does not answer
    for _ in range(ATTEMPTS):
        failures: list[MetacacheError] = []
        connection = AsyncConnection(memcached.node, settings=settings, on_failure=failures.append)
        async with nothing_left(), AsyncClient(connection, owns=True) as client:
            call = asyncio.create_task(client.get("key"))
            await until(partial(was_dialled, connection))
            if is_blocked:
                time.sleep(BLOCKED)
            with pytest.raises(ConnectError, match="did not answer the authentication") as raised:
                await call
        assert [is_node_failure(failure) for failure in failures] == [not raised.value.is_local]
        if raised.value.is_local == is_blocked:
            break
    else:
        raise AssertionError(f"in no attempt is_local was {is_blocked}")
    memcached.thaw()


@pytest.mark.both_loops
@pytest.mark.parametrize("is_blocked", [False, True])
async def test_a_timeout_error_says_whether_the_loop_was_blocked(memcached: Memcached, *, is_blocked: bool) -> None:
    async with nothing_left(), client_of(memcached.node) as client:
        for _ in range(ATTEMPTS):
            assert await client.set("key", b"v")
            memcached.freeze()
            call = asyncio.create_task(client.with_options(timeout=BLOCKED / 3).get("key"))
            await asyncio.sleep(0)
            if is_blocked:
                time.sleep(BLOCKED)
            with pytest.raises(OperationTimeout) as raised:
                await call
            memcached.thaw()
            if ("the event loop was blocked for " in str(raised.value)) == is_blocked:
                break
        else:
            raise AssertionError(f"is_blocked is {is_blocked}, and no error says so")
