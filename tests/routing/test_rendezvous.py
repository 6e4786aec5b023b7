"""The owner of a key follows the formula and is the same forever and in every process."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from unittest.mock import patch

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from metacache import InvalidArgumentError, Node
from metacache.errors import InvalidKeyError, InvalidKeyTypeError, InvalidTypeError
from metacache.routing import RendezvousRouter, Router, rendezvous, split
from metacache.routing.rendezvous import cost, winner, winners
from tests.routing.reference import GOLDEN, KEYS, TOPOLOGIES, nodes, owner

WEIGHTS = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(1e-200, 1e200), st.floats(0.01, 100))
TOPOLOGY = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), WEIGHTS, min_size=1, max_size=12).filter(
    lambda weights: any(weights.values())
)
ANY_KEYS = st.lists(st.binary(max_size=300), max_size=20)

THREE = [Node("a"), Node("b"), Node("c", weight=2)]


def owners(router: Router, keys: Sequence[bytes]) -> list[str]:
    return [router.pick(key).name for key in keys]


def pure_router(nodes: Iterable[Node]) -> RendezvousRouter:
    """Return a router that uses no compiled code, and so remembers owners."""
    with patch.object(rendezvous, "make_owners", return_value=None):
        return RendezvousRouter(nodes)


def split_owners(router: Router, keys: Sequence[bytes]) -> list[str]:
    shares = split(router, keys)
    return [name for _, name in sorted((index, name) for name, indices in shares.items() for index in indices)]


# --- the formula ----------------------------------------------------------------------------------------------------


def test_the_hash_is_the_published_xxh3() -> None:
    assert xxh3_64_intdigest(b"") == 0x2D06800538D394C2


@pytest.mark.parametrize(
    ("h", "weight", "expected"),
    [
        (0, 1.0, 53 * math.log(2)),
        (0xFFF, 2.0, 53 * math.log(2) / 2),
        (0x1000, 1.0, 53 * math.log(2) - math.log(3)),
        (2**64 - 1, 4.0, 2.0**-53 / 4),
    ],
)
def test_the_cost_is_the_logarithm_divided_by_the_weight(h: int, weight: float, expected: float) -> None:
    assert cost(h, weight) == pytest.approx(expected, rel=1e-14)


@given(TOPOLOGY, ANY_KEYS)
def test_pick_split_and_rank_follow_the_formula(weights: dict[str, float], keys: list[bytes]) -> None:
    router = RendezvousRouter(nodes(weights))
    expected = [owner(weights, key) for key in keys]
    assert owners(router, keys) == expected
    assert split_owners(RendezvousRouter(nodes(weights)), keys) == expected  # a new one: a router remembers owners
    assert [router.rank(key, 1)[0].name for key in keys] == expected


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_thousand_keys_have_the_owners_of_the_golden_file(topology: str) -> None:
    with GOLDEN.open(newline="", encoding="utf-8") as file:
        golden = [row[topology] for row in csv.DictReader(file)]
    router = RendezvousRouter(nodes(TOPOLOGIES[topology]))
    assert len(golden) == len(set(KEYS)) == 1000
    assert owners(router, KEYS) == golden
    assert split_owners(RendezvousRouter(router.nodes), KEYS) == golden
    assert [owner(TOPOLOGIES[topology], key) for key in KEYS] == golden


def test_another_process_with_another_hash_seed_agrees() -> None:
    program = (
        "import json; from tests.routing.reference import *; from metacache.routing import RendezvousRouter;"
        "print(json.dumps({name: [RendezvousRouter(set(nodes(weights))).pick(key).name for key in KEYS]"
        " for name, weights in TOPOLOGIES.items()}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(GOLDEN.parents[2])},
        capture_output=True,
        check=True,
    ).stdout
    assert json.loads(output) == {
        name: owners(RendezvousRouter(nodes(weights)), KEYS) for name, weights in TOPOLOGIES.items()
    }


@given(st.permutations(THREE))
def test_the_order_in_which_nodes_are_given_does_not_matter(shuffled: list[Node]) -> None:
    router = RendezvousRouter(shuffled)
    assert router == RendezvousRouter(THREE)
    assert hash(router) == hash(RendezvousRouter(THREE))
    assert router.nodes == tuple(THREE)
    assert owners(router, KEYS[:50]) == owners(RendezvousRouter(THREE), KEYS[:50])


def test_the_name_is_hashed_and_not_the_address() -> None:
    here = RendezvousRouter([Node("10.0.0.1", name="a"), Node("10.0.0.2", name="b")])
    there = RendezvousRouter([Node("10.9.9.9", name="a"), Node("unix:/b", name="b")])
    assert owners(here, KEYS) == owners(there, KEYS)


def columns(tables: Iterable[Iterable[int]]) -> Iterator[bytes]:
    """Return the digests of all keys, joined, for each node."""
    return (b"".join(h.to_bytes(8) for h in hashes) for hashes in tables)


# --- ties -----------------------------------------------------------------------------------------------------------

HASHES = st.one_of(st.integers(0, 2**64 - 1), st.integers(2**63, 2**63 + 8192), st.integers(2**64 - 8192, 2**64 - 1))


def grouped(weights: Sequence[float]) -> list[tuple[float, list[int]]]:
    groups: dict[float, list[int]] = {}
    for place, weight in enumerate(weights):
        groups.setdefault(weight, []).append(place)
    return list(groups.items())


@given(st.lists(st.tuples(st.sampled_from([1.0, 2.0, 3.7]), HASHES), min_size=1, max_size=6))
def test_forced_hashes_choose_the_least_cost_and_then_the_least_position(nodes: list[tuple[float, int]]) -> None:
    groups = grouped([weight for weight, _ in nodes])
    hashes = [nodes[place][1] for _, places in groups for place in places]
    expected = min((cost(h, weight), place) for place, (weight, h) in enumerate(nodes))[1]
    assert winner(iter(hashes), groups) == expected
    assert list(winners(columns([h, h] for h in hashes), groups, 2)) == [expected, expected]


@pytest.mark.parametrize(
    ("weights", "hashes", "owner"),
    [
        # one weight: the low 12 bits do not count, and the thirteenth decides
        ([1.0, 1.0], [0xABC000, 0xABCFFF], 0),
        ([1.0, 1.0], [0xABCFFF, 0xABC000], 0),
        ([1.0, 1.0], [0xABCFFF, 0xABD000], 1),
        ([1.0, 1.0, 1.0], [0, 0xABC001, 0xABC000], 1),
        ([1.0, 1.0], [0, 0], 0),
    ],
)
def test_equal_costs_go_to_the_first_in_order_of_names(weights: list[float], hashes: list[int], owner: int) -> None:
    groups = grouped(weights)
    assert winner(iter(hashes), groups) == owner
    assert list(winners(columns([h] for h in hashes), groups, 1)) == [owner]


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_equal_costs_of_different_weights_go_to_the_first_in_order_of_names(first: int, second: int) -> None:
    weights = (1.9, math.nextafter(1.9, 2))
    h = next(h for h in range(1 << 61, 1 << 62, 1 << 50) if cost(h, weights[0]) == cost(h, weights[1]))
    groups = [(weights[place], [place]) for place in (first, second)]
    assert winner(iter([h, h]), groups) == 0
    assert list(winners(columns([[h], [h]]), groups, 1)) == [0]


# Hashes that are equal but for the bits that do not count, or that differ in the lowest bit that counts.
NEAR = st.one_of([st.integers(top << 12, (top << 12) + 4095) for top in (0, 1, 2**51, 2**52 - 1)])


@given(st.lists(st.one_of(NEAR, HASHES), min_size=2, max_size=40))
def test_pick_among_equal_weights_follows_the_definition_for_equal_and_near_hashes(hashes: list[int]) -> None:
    # Compiled code would compute the hashes itself.
    router = pure_router([Node(f"node-{number:02}") for number in range(len(hashes))])
    forced = dict(zip(router._seeds, hashes, strict=True))
    expected = min((cost(h, 1.0), place) for place, h in enumerate(hashes))[1]

    def forced_hash(_: bytes, seed: int) -> int:
        return forced[seed]

    with patch.object(rendezvous, "xxh3", forced_hash):
        assert router.pick(b"key") is router.nodes[expected]


@given(st.integers(1, 300), st.integers(1, 8), st.data())
def test_many_keys_with_equal_or_near_hashes_have_the_owners_of_the_definition(
    nodes: int, keys: int, data: st.DataObject
) -> None:
    column = st.lists(st.one_of(NEAR, HASHES), min_size=keys, max_size=keys)
    tables = data.draw(st.lists(column, min_size=1, max_size=6))
    tables = [tables[number % len(tables)] for number in range(nodes)]
    expected = [min((cost(hashes[key], 1.0), place) for place, hashes in enumerate(tables))[1] for key in range(keys)]
    assert list(winners(columns(tables), grouped([1.0] * nodes), keys)) == expected


ODD_KEYS = st.one_of(
    st.binary(max_size=300), st.text(max_size=20), st.sampled_from([b"", b"k", "k", "\0", b"\xff" * 250])
)


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 1.0, 1.0, 2.0, 3.7]), min_size=1, max_size=30),
    is_equal=st.booleans(),
    is_compiled=st.booleans(),
    keys=st.lists(ODD_KEYS, max_size=40),
)
def test_a_batch_routes_each_key_as_a_single_pick(
    weights: list[float], is_equal: bool, is_compiled: bool, keys: list[bytes | str]
) -> None:
    named = {f"node-{number}": 1.0 if is_equal else weight for number, weight in enumerate(weights)}
    router, other = RendezvousRouter(nodes(named)), RendezvousRouter(nodes(named))
    if not is_compiled:
        router, other = pure_router(nodes(named)), pure_router(nodes(named))
    shares = router.split(keys)
    assert list(shares) == sorted(shares)
    assert all(indices == sorted(indices) for indices in shares.values())
    placed = {index: name for name, indices in shares.items() for index in indices}
    assert placed == {index: other.pick(key).name for index, key in enumerate(keys)}
    assert sum(map(len, shares.values())) == len(keys)


@given(st.integers(0, 2**52 - 2), st.floats(1e-200, 1e200))
def test_neighbouring_hashes_never_have_the_same_cost(number: int, weight: float) -> None:
    assert cost(number << 12, weight) > cost((number + 1) << 12, weight) > 0


# --- moves ----------------------------------------------------------------------------------------------------------


@given(TOPOLOGY, st.floats(0.01, 100), st.data())
def test_only_a_changed_node_loses_or_gains_keys(weights: dict[str, float], weight: float, data: st.DataObject) -> None:
    keys = KEYS[:100]
    changed = data.draw(st.sampled_from(sorted(weights)))
    others = {name: own for name, own in weights.items() if name != changed}
    if not any(others.values()):
        return
    low, high = sorted([weights[changed], weight])
    without, with_low, with_high = (
        split_owners(RendezvousRouter(nodes(topology)), keys)
        for topology in (others, {**others, changed: low}, {**others, changed: high})
    )
    # Forwards, each step adds a node or raises its weight, so keys move only to it. Backwards, only from it.
    for before, after in [(without, with_low), (with_low, with_high), (without, with_high)]:
        assert {new for old, new in zip(before, after, strict=True) if old != new} <= {changed}


def test_moved_reports_lost_and_gained_shares() -> None:
    router = RendezvousRouter(nodes({"a": 1, "b": 1, "c": 2}))
    moves = router.moved(RendezvousRouter(nodes({"a": 1, "b": 1, "d": 2})), samples=2000)
    assert moves.lost["c"] == pytest.approx(0.5, abs=0.04)
    assert moves.gained["d"] == pytest.approx(0.5, abs=0.04)
    assert moves.samples == 2000
    assert moves.total == pytest.approx(sum(moves.lost.values())) == pytest.approx(sum(moves.gained.values()))
    assert moves.total < 0.8
    assert moves == router.moved(RendezvousRouter(nodes({"a": 1, "b": 1, "d": 2})), samples=2000)


def test_draining_a_node_loses_exactly_its_keys() -> None:
    router = RendezvousRouter(nodes({"a": 1, "b": 1, "c": 2}))
    keys = [b"%d" % number for number in range(1000)]
    moves = router.moved(RendezvousRouter(nodes({"a": 1, "b": 1, "c": 0})), samples=1000)
    assert dict(moves.lost) == {"c": len(router.split(keys)["c"]) / 1000}
    assert moves.gained.keys() == {"a", "b"}


def test_nothing_moves_when_only_addresses_change() -> None:
    moves = RendezvousRouter([Node("h1", name="a"), Node("h2", name="b")]).moved(
        RendezvousRouter([Node("h3", name="b"), Node("h4", name="a")]), samples=500
    )
    assert (moves.total, dict(moves.lost), dict(moves.gained)) == (0.0, {}, {})


@pytest.mark.parametrize(("samples", "error"), [(0, InvalidArgumentError), (-1, InvalidArgumentError)])
def test_moved_refuses_a_wrong_number_of_samples(samples: int, error: type[Exception]) -> None:
    router = RendezvousRouter(THREE)
    with pytest.raises(error, match="samples"):
        router.moved(router, samples=samples)
    with pytest.raises(InvalidTypeError, match="samples"):
        router.moved(router, samples=1.5)  # type: ignore[arg-type]  # the mistake under test  # pyright: ignore[reportArgumentType]


# --- rank and explain -----------------------------------------------------------------------------------------------


@given(TOPOLOGY, st.binary(max_size=40), st.integers(0, 14))
def test_rank_is_the_sequence_of_owners_as_owners_are_removed(weights: dict[str, float], key: bytes, n: int) -> None:
    left, expected = dict(weights), list[str]()
    while len(expected) < n and any(left.values()):
        expected.append(owner(left, key))
        del left[expected[-1]]
    assert [node.name for node in RendezvousRouter(nodes(weights)).rank(key, n)] == expected


def test_rank_refuses_a_wrong_count() -> None:
    router = RendezvousRouter(THREE)
    assert router.rank(b"k", 0) == ()
    with pytest.raises(InvalidArgumentError, match="-1"):
        router.rank(b"k", -1)
    with pytest.raises(InvalidTypeError, match="bool"):
        router.rank(b"k", True)  # noqa: FBT003  # the mistake under test


@given(TOPOLOGY, st.binary(max_size=40))
def test_explain_reports_hash_cost_and_rank_of_every_node(weights: dict[str, float], key: bytes) -> None:
    router = RendezvousRouter(nodes(weights))
    scores = router.explain(key)
    active = [score for score in scores if score.weight]
    assert [score.name for score in active] == [node.name for node in router.rank(key, len(weights))]
    assert [score.rank for score in scores] == [*range(1, len(active) + 1), *[None] * (len(scores) - len(active))]
    assert sorted((score.name, score.weight) for score in scores) == sorted(weights.items())
    for score in scores:
        assert score.hash == xxh3_64_intdigest(key, xxh3_64_intdigest(score.name.encode()))
        assert score.cost == (cost(score.hash, score.weight) if score.weight else float("inf"))


# --- owners that are remembered ---------------------------------------------------------------------------------------

FEW_KEYS: Final = [b"", *(b"key-%d" % number for number in range(12))]


@given(
    weights=st.lists(st.sampled_from([1.0, 2.0]), min_size=2, max_size=6),
    most=st.integers(0, 8),
    batches=st.lists(st.lists(st.sampled_from(FEW_KEYS), max_size=12), max_size=12),
)
def test_a_router_that_remembers_some_owners_finds_the_same_ones(
    weights: list[float], most: int, batches: list[list[bytes]]
) -> None:
    named = {f"node-{number}": weight for number, weight in enumerate(weights)}
    router = pure_router(nodes(named))
    with patch.object(rendezvous, "MOST_KNOWN", most):
        for number, keys in enumerate(batches):
            found = owners(router, keys) if number % 2 else split_owners(router, keys)
            assert found == [owner(named, key) for key in keys]


def test_a_router_remembers_a_limited_number_of_owners() -> None:
    router = pure_router(THREE)
    most, batch = 60, 25
    with patch.object(rendezvous, "MOST_KNOWN", most):
        keys = [b"key-%d" % number for number in range(200)]
        for first in range(0, len(keys), batch):
            router.split(keys[first : first + batch])
            router.pick(b"single-%d" % first)
            assert 0 < len(router._known) <= most


def test_more_keys_than_a_router_may_remember_leave_what_it_remembers() -> None:
    router = pure_router(THREE)
    with patch.object(rendezvous, "MOST_KNOWN", 60):
        router.split([b"key-%d" % number for number in range(50)])
        router.split([b"other-%d" % number for number in range(61)])
        assert len(router._known) == 50


@pytest.mark.parametrize("size", [250, 251, 100_000])
def test_the_remembered_owners_take_less_than_three_megabytes(size: int) -> None:
    router = pure_router(THREE)
    count = 20_000 if size <= 250 else 300
    keys = [b"%d" % number for number in range(8)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            router.pick(b"%0*d" % (size, number))
            router.split([*keys, b"%0*d" % (size, -number)])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 3_000_000


def test_threads_that_share_a_router_find_the_owners_of_their_own_keys() -> None:
    router, expected = pure_router(THREE), owners(pure_router(THREE), KEYS)

    def route(first: int) -> bool:
        keys, wanted = KEYS[first:], expected[first:]
        return all(split_owners(router, keys) == wanted == owners(router, keys) for _ in range(10))

    with patch.object(rendezvous, "MOST_KNOWN", 700), ThreadPoolExecutor(8) as threads:
        assert all(threads.map(route, range(0, 800, 100)))


# --- keys -----------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8")))
def test_a_str_and_its_utf_8_bytes_are_one_key(text: str) -> None:
    router, raw = RendezvousRouter(THREE), text.encode()
    assert router.pick(text) is router.pick(raw)
    assert router.rank(text, 3) == router.rank(raw, 3)
    assert router.explain(text) == router.explain(raw)
    assert router.split([text, raw]) == {router.pick(raw).name: [0, 1]}


@pytest.mark.parametrize("nodes", [THREE, THREE[:1]], ids=["three", "one"])
def test_a_wrong_key_is_refused(nodes: list[Node]) -> None:
    router = RendezvousRouter(nodes)
    wrong_nodes: Iterable[str] = [5, None, bytearray(b"k")]  # type: ignore[list-item]  # the mistake under test  # pyright: ignore[reportAssignmentType]
    for key in wrong_nodes:
        with pytest.raises(InvalidKeyTypeError):
            router.pick(key)
        with pytest.raises(InvalidKeyTypeError):
            router.split([key])
    with pytest.raises(InvalidKeyError, match="surrogate") as caught:
        router.pick("\ud800")
    assert caught.value.key == "\ud800"


def test_a_single_node_owns_every_key() -> None:
    router = RendezvousRouter([Node("a"), Node("b", weight=0)])
    assert router.pick(b"k") == Node("a")
    assert split(router, [b"x", b"y"]) == {"a:11211": [0, 1]}
    assert split(router, []) == {}
    assert router.rank(b"k", 5) == (Node("a"),)


# --- user-defined routers ------------------------------------------------------------------------------------------


class FirstNodeRouter:
    """A user-defined router without inheritance and without split."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = tuple(nodes)

    def pick(self, key: bytes, /) -> Node:
        return self.nodes[-1 if key.startswith(b"hot:") else 0]

    def rank(self, key: bytes, n: int, /) -> tuple[Node, ...]:
        return (self.pick(key), *(node for node in self.nodes if node is not self.pick(key)))[:n]


def test_any_router_splits_and_compares() -> None:
    router: Router = FirstNodeRouter([Node("b"), Node("a")])
    assert list(split(router, [b"1", b"hot:2", b"3"]).items()) == [("a:11211", [1]), ("b:11211", [0, 2])]
    assert RendezvousRouter(router.nodes).moved(router, samples=100).gained.keys() == {"b:11211"}


class SplittingRouter(FirstNodeRouter):
    """A user-defined router with a split of its own, which returns a recognisable result."""

    def split(self, keys: Sequence[bytes], /) -> dict[str, list[int]]:
        return {self.nodes[0].name: list(range(len(keys)))}


def test_split_uses_the_split_of_the_router() -> None:
    router: Router = SplittingRouter([Node("b"), Node("a")])
    assert split(router, [b"hot:1", b"hot:2"]) == {"b:11211": [0, 1]}


# --- as a value -----------------------------------------------------------------------------------------------------


def test_a_router_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        RendezvousRouter(THREE).nodes = ()  # type: ignore[misc]  # the mistake under test  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_router_survives_pickle_and_copy(protocol: int) -> None:
    router = RendezvousRouter(THREE)
    for twin in (pickle.loads(pickle.dumps(router, protocol)), copy.deepcopy(router), copy.copy(router)):
        assert twin == router
        assert owners(twin, KEYS[:50]) == owners(router, KEYS[:50])


def test_the_repr_shows_names_and_weights() -> None:
    router = RendezvousRouter([Node("h", name="b", weight=0.5), Node("[::1]")])
    assert repr(router) == "<RendezvousRouter [::1]:11211 (weight 1), b (weight 0.5)>"


def wrong_nodes(*values: object) -> list[Node]:
    """Return nodes that type checkers refuse."""
    return values  # type: ignore[return-value]  # the mistake under test  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no nodes"),
        ([Node("a", weight=0), Node("b", weight=-0.0)], "every node has weight 0"),
        ([Node("h1", name="a"), Node("h2", name="a"), Node("b")], "two nodes have the name 'a'"),
        ([Node("a"), Node("a:11211", weight=2)], "two nodes have the name 'a:11211'"),
        ([Node("a", weight=1e-201), Node("b")], "weight 1e-201"),
        ([Node("a", weight=1e201), Node("b")], r"weight 1e\+201"),
        ([Node("h", name="\ud800"), Node("b")], "surrogate"),
        (wrong_nodes("a:11211"), "it contains str"),
    ],
)
def test_wrong_nodes_are_refused(given: list[Node], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        RendezvousRouter(given)


def test_a_single_node_instead_of_an_iterable_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="iterable of Node, not Node"):
        RendezvousRouter(Node("a"))  # type: ignore[arg-type]  # the mistake under test  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("weight", [-1, -1e-300, float("nan"), float("inf"), float("-inf")])
def test_wrong_weights_are_refused(weight: float) -> None:
    with pytest.raises(InvalidArgumentError, match="weight"):
        RendezvousRouter([Node("a", weight=weight), Node("b")])
