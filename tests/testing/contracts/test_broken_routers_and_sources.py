"""Each check of the contracts of routers and of node sources fails for one that breaks it."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import pytest
from typing_extensions import override

from metacache import MetacacheError, Node, RendezvousRouter, Router
from metacache.discovery import NodeSource
from metacache.testing import NodeSourceContract, RouterContract

# --- routers ---------------------------------------------------------------------------------------------------------


class Wrapped:
    """A correct router. The broken ones below differ from it in one thing."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._inner = RendezvousRouter(nodes)

    @property
    def nodes(self) -> Any:  # Any: a broken one returns other types
        return self._inner.nodes

    def pick(self, key: bytes, /) -> Node:
        return self._inner.pick(key)

    def rank(self, key: bytes, n: int, /) -> Any:  # Any: as above
        return self._inner.rank(key, n)


class WithoutTheLast(Wrapped):
    @property
    @override
    def nodes(self) -> Any:
        return self._inner.nodes[:-1]


class WithAList(Wrapped):
    @property
    @override
    def nodes(self) -> Any:
        return list(self._inner.nodes)


class PickingTheSecond(Wrapped):
    @override
    def pick(self, key: bytes, /) -> Node:
        return self._inner.rank(key, 2)[-1]


class Repeating(Wrapped):
    @override
    def rank(self, key: bytes, n: int, /) -> Any:
        return self._inner.rank(key, 1) * n


class Shuffling(Wrapped):
    """Only the first of a rank is fixed."""

    @override
    def rank(self, key: bytes, n: int, /) -> Any:
        first, *rest = self._inner.rank(key, n)
        return (first, *random.sample(rest, len(rest)))


class Forgetful(Wrapped):
    """Picks the nodes in turn."""

    turn = 0

    @override
    def pick(self, key: bytes, /) -> Node:
        self.turn += 1
        return self._inner.nodes[self.turn % len(self._inner.nodes)]


class ByPosition(Wrapped):
    """The order of the nodes matters, and one node less moves nearly all keys."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__(nodes)
        self._given = [node for node in nodes if node.weight]

    @override
    def pick(self, key: bytes, /) -> Node:
        return self._given[sum(key) % len(self._given)]


class ByHash(Wrapped):
    """Each process hashes with its own seed."""

    @override
    def pick(self, key: bytes, /) -> Node:
        return self._inner.nodes[hash(key) % len(self._inner.nodes)]


class FirstOnly(Wrapped):
    @override
    def pick(self, key: bytes, /) -> Node:
        return self._inner.nodes[0]


class SplittingWrongly(Wrapped):
    def split(self, keys: Sequence[bytes], /) -> dict[str, list[int]]:
        return {self._inner.nodes[0].name: list(range(len(keys)))}


class ServingADrainedNode(Wrapped):
    """It ignores the weights."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__([Node(node.address, name=node.name) for node in nodes])
        self._given = tuple(nodes)

    @property
    @override
    def nodes(self) -> Any:
        return self._given


class HashingRouter(RouterContract):
    @override
    def router(self, nodes: Sequence[Node]) -> Router:
        return ByHash(nodes)


def router_contract(kind: type[Wrapped]) -> RouterContract:
    class Contract(RouterContract):
        @override
        def router(self, nodes: Sequence[Node]) -> Router:
            return kind(nodes)

    return Contract()


ROUTERS: Final[list[tuple[RouterContract, str]]] = [
    (router_contract(WithoutTheLast), "test_a_router_knows_its_nodes"),
    (router_contract(WithAList), "test_a_router_knows_its_nodes"),
    (router_contract(PickingTheSecond), "test_pick_is_the_first_of_rank"),
    (router_contract(Repeating), "test_rank_returns_different_nodes_in_a_fixed_order"),
    (router_contract(Shuffling), "test_rank_returns_different_nodes_in_a_fixed_order"),
    (router_contract(Forgetful), "test_the_same_key_has_the_same_owner"),
    (router_contract(ByPosition), "test_the_same_key_has_the_same_owner"),
    (HashingRouter(), "test_owners_are_the_same_in_another_process"),
    (router_contract(FirstOnly), "test_each_node_owns_keys"),
    (router_contract(ServingADrainedNode), "test_a_node_of_weight_0_serves_no_keys"),
    (router_contract(SplittingWrongly), "test_a_batch_is_split_as_single_keys_are_picked"),
    (router_contract(ByPosition), "test_removing_a_node_moves_only_its_keys"),
]
ROUTER_CHECKS: Final = [name for name in vars(RouterContract) if name.startswith("test_")]


@pytest.mark.parametrize(("contract", "check"), ROUTERS)
def test_the_contract_fails_for_a_broken_router(contract: RouterContract, check: str) -> None:
    with pytest.raises(AssertionError):
        getattr(contract, check)()


@pytest.mark.parametrize("check", ROUTER_CHECKS)
def test_each_check_of_routers_has_a_broken_router(check: str) -> None:
    assert check in {name for _, name in ROUTERS}


@pytest.mark.parametrize("check", [name for name in ROUTER_CHECKS if "process" not in name])
def test_the_contract_holds_for_a_correct_router(check: str) -> None:
    getattr(router_contract(Wrapped), check)()


def test_a_router_that_promises_less_may_move_more_keys() -> None:
    class Contract(RouterContract):
        moves_few_keys: ClassVar[bool] = False

        @override
        def router(self, nodes: Sequence[Node]) -> Router:
            return ByPosition(nodes)

    Contract().test_removing_a_node_moves_only_its_keys()


# --- sources ---------------------------------------------------------------------------------------------------------

NODES: Final = (Node("10.0.0.1", name="a"), Node("10.0.0.2", name="b"))


class Fixed:
    """A correct source. The broken ones below differ from it in one thing."""

    def poll(self) -> Any:  # Any: a broken one returns other types
        return NODES


class OfStrings(Fixed):
    @override
    def poll(self) -> Any:
        return ["10.0.0.1:11211"]


class OfASet(Fixed):
    @override
    def poll(self) -> Any:
        return set(NODES)


class WithOneNameTwice(Fixed):
    @override
    def poll(self) -> Any:
        return [Node("10.0.0.1", name="a"), Node("10.0.0.2", name="a")]


class WithOthers(Fixed):
    @override
    def poll(self) -> Any:
        return NODES[:1]


class Renaming(Fixed):
    polls = 0

    @override
    def poll(self) -> Any:
        self.polls += 1
        return [Node("10.0.0.1", name=f"a{self.polls}")]


class ReusingItsList(Fixed):
    def __init__(self) -> None:
        self.found: list[Node] = []

    @override
    def poll(self) -> Any:
        self.found.extend(NODES)
        return self.found


class OfOneThread(Fixed):
    def __init__(self) -> None:
        self.local = threading.local()
        self.local.nodes = NODES

    @override
    def poll(self) -> Any:
        return self.local.nodes


class Connecting(Fixed):
    def __init__(self) -> None:
        socket.getaddrinfo("localhost", 80)


class Empty(Fixed):
    @override
    def poll(self) -> Any:
        return []


class RaisingKeyError(Fixed):
    @override
    def poll(self) -> Any:
        raise KeyError("nodes")


class RaisingOnce(Fixed):
    polls = 0

    @override
    def poll(self) -> Any:
        self.polls += 1
        if self.polls == 1:
            raise MetacacheError("no nodes")
        return []


class RaisingOSError(Fixed):
    @override
    def poll(self) -> Any:
        raise OSError("no nodes")


def source_contract(kind: type[Fixed], failing_kind: type[Fixed] = RaisingOSError) -> NodeSourceContract:
    class Contract(NodeSourceContract):
        @override
        def source(self) -> NodeSource:
            return kind()

        @override
        def expected(self) -> Sequence[Node]:
            return NODES[::-1]

        @override
        def failing(self) -> NodeSource | None:
            return failing_kind()

    return Contract()


FAILURE: Final = "test_a_failure_is_a_metacache_error_or_an_oserror"
SOURCES: Final[list[tuple[NodeSourceContract, str]]] = [
    (source_contract(OfStrings), "test_a_poll_returns_the_nodes"),
    (source_contract(OfASet), "test_a_poll_returns_the_nodes"),
    (source_contract(WithOneNameTwice), "test_a_poll_returns_the_nodes"),
    (source_contract(WithOthers), "test_a_poll_returns_the_nodes"),
    (source_contract(Renaming), "test_nodes_keep_their_identity"),
    (source_contract(ReusingItsList), "test_a_caller_may_keep_the_answer"),
    (source_contract(OfOneThread), "test_polls_may_come_from_different_threads"),
    (source_contract(Connecting), "test_making_a_source_connects_nowhere"),
    (source_contract(Fixed, Empty), FAILURE),
    (source_contract(Fixed, RaisingKeyError), FAILURE),
    (source_contract(Fixed, RaisingOnce), FAILURE),
]
SOURCE_CHECKS: Final = [name for name in vars(NodeSourceContract) if name.startswith("test_")]


@pytest.mark.parametrize(("contract", "check"), SOURCES)
def test_the_contract_fails_for_a_broken_source(contract: NodeSourceContract, check: str) -> None:
    with pytest.raises(AssertionError):
        getattr(contract, check)()


@pytest.mark.parametrize("check", SOURCE_CHECKS)
def test_each_check_of_sources_has_a_broken_source(check: str) -> None:
    assert check in {name for _, name in SOURCES}


@pytest.mark.parametrize("check", SOURCE_CHECKS)
def test_the_contract_holds_for_a_correct_source(check: str) -> None:
    getattr(source_contract(Fixed), check)()
