"""The probe and the second attempt, which both clusters share: with a number for time and lists for pools."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, Final, TypeAlias, TypeVar

import pytest

from metacache import (
    ClosedError,
    ConnectError,
    MetacacheError,
    Node,
    NodeDownError,
    NodeState,
    OperationTimeout,
    PoolTimeout,
    RendezvousRouter,
    ServerError,
)
from metacache.cluster import admin
from metacache.cluster.health import Health, is_node_failure
from metacache.cluster.membership import Membership
from metacache.cluster.serving import probe, run
from metacache.cluster.snapshot import Member
from metacache.transports.base import Operation
from metacache.transports.blocking.driver import drive

R = TypeVar("R")

NOW: Final = 1000.0
DEADLINE: Final = 1010.0
SUSPECT: Final = Health(NodeState.SUSPECT, 2)
DOWN: Final = Health(NodeState.DOWN, 3, 0.5, NOW + 5.0, NOW - 1.0)
DUE: Final = Health(NodeState.DOWN, 3, 0.5, NOW, NOW - 1.0)
PROBING: Final = DUE.probing(NOW + 30.0)
NODES: Final = [Node("127.0.0.1:1", name=name) for name in "abc"]

# Any: what a pool returns for an operation of any type.
Result: TypeAlias = MetacacheError | Callable[[], Any] | str | bool


class Rig:
    """A membership of three nodes without pools, and effects that take the results of each node from a list."""

    def __init__(self, *, keys_move: bool = False, **results: list[Result]) -> None:
        self.states: list[tuple[str, NodeState]] = []
        self.nodes: Membership[object] = Membership(
            RendezvousRouter,
            keys_move=keys_move,
            guard=nullcontext(),
            listener=lambda node, _, after: self.states.append((node.name, after)),
        )
        self.nodes.set_nodes(NODES, lambda _: object())
        self.results = results
        self.calls: list[tuple[str, str, float]] = []
        self.op = admin.ping()
        self.op.given = self.op_key = next(key for key in map(str, range(100)) if self.owner(key) == "b")
        self.op.key = self.op_key.encode()
        self.second = self.nodes.snapshot.router.rank(self.op.key, 2)[1].name

    def owner(self, key: str) -> str:
        return self.nodes.snapshot.owner(key.encode()).node.name

    def set_health(self, name: str, health: Health) -> None:
        self.nodes.snapshot = self.nodes.snapshot.with_health(name, health)

    def state(self, name: str) -> NodeState:
        return self.nodes.snapshot.healths[name].state

    def now(self) -> float:
        return NOW

    def run(self, member: Member[object], op: Operation[R], /, *, deadline: float) -> Awaitable[R]:
        self.calls.append((member.node.name, op.verb.name, deadline))
        result = self.results[member.node.name].pop(0)
        # A future that is done: awaiting it suspends nothing, and adds no frame of this module to a traceback.
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()  # Any: as above
        if callable(result):
            result = result()
        if isinstance(result, MetacacheError):
            if is_node_failure(result):
                self.nodes.failed(member, NOW)
            future.set_exception(result)
        else:
            future.set_result(result)
        return future

    async def served(self) -> object:
        """Return what the key of node b is served with."""
        return await run(self.nodes, self, self.op, DEADLINE)

    async def refused(self) -> MetacacheError:
        """Return the error with which the key of node b is refused."""
        try:
            result = await self.served()
        except MetacacheError as error:
            return error
        raise AssertionError(f"it returned {result}")


async def test_the_owner_serves_a_key_and_a_reply_makes_it_healthy() -> None:
    rig = Rig(b=["value"])
    rig.set_health("b", SUSPECT)
    assert await rig.served() == "value"
    assert rig.calls == [("b", "ping", DEADLINE)]
    assert rig.states == [("b", NodeState.UP)]


async def test_an_error_of_the_server_is_a_reply() -> None:
    rig = Rig(b=[ServerError("out of memory")])
    rig.set_health("b", SUSPECT)
    assert isinstance(await rig.refused(), ServerError)
    assert rig.state("b") is NodeState.UP


async def test_a_full_pool_is_not_a_reply() -> None:
    rig = Rig(b=[PoolTimeout("full")])
    rig.set_health("b", SUSPECT)
    assert isinstance(await rig.refused(), PoolTimeout)
    assert rig.state("b") is NodeState.SUSPECT


async def test_the_third_failure_moves_the_request_that_was_not_sent() -> None:
    rig = Rig(keys_move=True, a=["value"], b=[ConnectError("refused")], c=["value"])
    rig.set_health("b", SUSPECT)
    assert await rig.served() == "value"
    assert [name for name, _, _ in rig.calls] == ["b", rig.second]
    assert rig.calls[1][2] == DEADLINE


@pytest.mark.parametrize(
    ("keys_move", "health", "error"),
    [
        (True, SUSPECT, OperationTimeout("late")),  # it may have been applied
        (True, Health(), ConnectError("refused")),  # not down yet
        (False, SUSPECT, ConnectError("refused")),  # keys do not move
    ],
)
async def test_any_other_failure_is_raised(*, keys_move: bool, health: Health, error: MetacacheError) -> None:
    rig = Rig(keys_move=keys_move, b=[error])
    rig.set_health("b", health)
    assert await rig.refused() is error
    assert len(rig.calls) == 1


async def test_beyond_half_of_the_weight_the_failure_is_raised_that_took_the_node_down() -> None:
    rig = Rig(keys_move=True, b=[ConnectError("refused")])
    for name in "ac":
        rig.set_health(name, DOWN)
    rig.set_health("b", SUSPECT)
    assert isinstance(await rig.refused(), ConnectError)
    assert isinstance(await rig.refused(), NodeDownError)
    assert len(rig.calls) == 1


async def test_a_node_that_is_down_is_not_asked_before_it_is_due() -> None:
    rig = Rig()
    rig.set_health("b", DOWN)
    error = await rig.refused()
    assert isinstance(error, NodeDownError)
    assert (error.node, error.operation, error.key) == ("b", "ping", rig.op_key)
    assert rig.calls == []


# --- probes ----------------------------------------------------------------------------------------------------------


async def test_an_answered_probe_lets_the_owner_serve_in_what_is_left_of_the_time() -> None:
    rig = Rig(b=[True, "value"])
    rig.set_health("b", DUE)
    assert await rig.served() == "value"
    assert rig.calls == [("b", "probe", (NOW + DEADLINE) / 2), ("b", "ping", DEADLINE)]
    assert rig.states == [("b", NodeState.PROBING), ("b", NodeState.UP)]


@pytest.mark.parametrize("keys_move", [False, True])
async def test_a_failed_probe_doubles_the_pause(*, keys_move: bool) -> None:
    rig = Rig(keys_move=keys_move, a=["value"], b=[OperationTimeout("late")], c=["value"])
    rig.set_health("b", DUE)
    if keys_move:
        assert await rig.served() == "value"
        assert [name for name, _, _ in rig.calls] == ["b", rig.second]
    else:
        assert isinstance(await rig.refused(), NodeDownError)
    assert rig.nodes.snapshot.healths["b"].pause == 1.0
    assert rig.nodes.snapshot.healths["b"].failures == 4
    assert rig.state("b") is NodeState.DOWN


async def test_a_probe_without_result_lets_the_next_caller_probe() -> None:
    rig = Rig(b=[PoolTimeout("full"), True, "value"])
    rig.set_health("b", DUE)
    assert isinstance(await rig.refused(), NodeDownError)
    assert rig.nodes.snapshot.healths["b"].pause == 0.5
    assert await rig.served() == "value"


async def test_one_caller_probes_at_a_time() -> None:
    rig = Rig()
    rig.set_health("b", PROBING)
    assert isinstance(await rig.refused(), NodeDownError)
    assert rig.calls == []
    assert rig.state("b") is NodeState.PROBING


async def test_a_caller_without_time_does_not_probe() -> None:
    rig = Rig()
    rig.set_health("b", DUE)
    assert not await probe(rig.nodes, rig, rig.nodes.snapshot.members["b"], NOW)
    assert rig.state("b") is NodeState.DOWN


async def test_an_exception_that_interrupts_a_probe_comes_out_and_charges_no_node() -> None:
    rig = Rig(b=[_interrupt])
    rig.set_health("b", DUE)
    with pytest.raises(ConnectError, match="of a signal handler"):
        await rig.served()
    assert rig.nodes.snapshot.healths["b"] == Health(NodeState.DOWN, 3, 0.5, 0.0, NOW - 1.0)


async def test_an_exception_that_interrupts_a_request_is_not_a_reason_for_a_second_attempt() -> None:
    def fail_elsewhere_then_interrupt() -> None:
        rig.nodes.failed(rig.nodes.snapshot.members["b"], NOW)  # as another thread does meanwhile
        _interrupt()

    rig = Rig(keys_move=True, a=["value"], b=[fail_elsewhere_then_interrupt], c=["value"])
    rig.set_health("b", SUSPECT)
    with pytest.raises(ConnectError, match="of a signal handler"):
        await rig.served()
    assert len(rig.calls) == 1
    assert rig.nodes.snapshot.moved == {"b"}


def _interrupt() -> None:
    raise ConnectError("of a signal handler")


# --- other nodes are set meanwhile -----------------------------------------------------------------------------------


async def test_when_other_nodes_are_set_during_a_probe_they_serve() -> None:
    def set_others() -> MetacacheError:
        rig.nodes.set_nodes([Node("127.0.0.1:4", name="d")], lambda _: object())
        return OperationTimeout("late")

    rig = Rig(b=[set_others], d=["value"])
    rig.set_health("b", DUE)
    assert await rig.served() == "value"
    assert [name for name, _, _ in rig.calls] == ["b", "d"]


async def test_a_pool_that_was_drained_meanwhile_is_not_the_end_of_the_request() -> None:
    def drain() -> MetacacheError:
        rig.nodes.set_nodes([Node("127.0.0.1:4", name="d")], lambda _: object())
        return ClosedError("the pool was closed")

    rig = Rig(b=[drain], d=["value"])
    assert await rig.served() == "value"


async def test_a_pool_that_returns_with_its_node_is_another_one() -> None:
    def drain_and_return() -> MetacacheError:
        rig.nodes.set_nodes(NODES[:1], lambda _: object())
        rig.nodes.set_nodes(NODES, lambda _: object())
        return ClosedError("the pool was closed")

    rig = Rig(b=[drain_and_return, "value"])
    assert await rig.served() == "value"


@pytest.mark.parametrize("maybe_applied", [False, True])
async def test_a_closed_cluster_or_a_request_that_was_sent_gets_no_second_attempt(*, maybe_applied: bool) -> None:
    def close() -> MetacacheError:
        if maybe_applied:
            rig.nodes.set_nodes(NODES[:1], lambda _: object())
        else:
            rig.nodes.close()
        return ClosedError("the connection was closed", maybe_applied=maybe_applied)

    rig = Rig(b=[close])
    assert isinstance(await rig.refused(), ClosedError)
    assert len(rig.calls) == 1


async def test_a_request_to_a_closed_cluster_is_refused_by_name() -> None:
    rig = Rig()
    rig.nodes.close()
    error = await rig.refused()
    assert isinstance(error, ClosedError)
    assert (error.operation, error.key) == ("ping", rig.op_key)


# --- the driver ------------------------------------------------------------------------------------------------------


async def test_the_blocking_driver_runs_the_same_text() -> None:
    rig = Rig(b=[True, False])
    rig.set_health("b", DUE)
    assert drive(run(rig.nodes, rig, rig.op, DEADLINE)) is False


async def test_a_coroutine_that_waits_for_a_loop_is_refused_by_the_blocking_driver() -> None:
    with pytest.raises(RuntimeError, match="something other than its effects"):
        drive(asyncio.sleep(0))
