"""Each primitive of batches gives what its function in Python gives, for arbitrary input.

METACACHE_EXAMPLES sets the number of examples of each test.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator, Sequence, Sized
from contextlib import ExitStack
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache import ClientOptions, MetacacheError
from metacache.acceleration import (
    count_lines,
    encode_items,
    encode_keys,
    found_values,
    join_window,
    place_items,
    take_items,
    total_size,
)
from metacache.client.core import Core
from metacache.cluster import parts
from metacache.operations import batches, readers
from metacache.operations.arguments import DEFAULT
from metacache.operations.batches import Batches, BatchOperation
from metacache.operations.options import options_of
from metacache.protocol import connection
from metacache.protocol.windows import Replies
from metacache.serializers import Serializer
from metacache.transports import batch_windows
from metacache.transports.base import Batch
from metacache.transports.batch_windows import Windows
from tests.acceleration.test_twins import KEYS, MANY, OPTIONS, PLAIN, PREFIXES, SERIALIZERS, VALUES

pytestmark = pytest.mark.usefixtures("primitives")

# The primitives that `use_python` replaces, by module.
SEAMS: Final = (
    (batches, "encode_keys"),
    (batches, "encode_items"),
    (readers, "found_values"),
    (parts, "take_items"),
    (parts, "place_items"),
    (batch_windows, "total_size"),
)


@contextlib.contextmanager
def use_python() -> Generator[None]:
    """Replace the primitives by None."""
    with ExitStack() as stack:
        for module, name in SEAMS:
            stack.enter_context(patch.object(module, name, None))
        yield


def in_both_ways(call: Callable[[], object]) -> object:
    """Return the outcome of *call*, which is the same with and without the primitives."""
    compiled = outcome(call)
    with use_python():
        assert outcome(call) == compiled
    return compiled


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except MetacacheError as error:
        return type(error), str(error), error.operation, error.key


# --- building ---------------------------------------------------------------------------------------------------------

PLAIN_KEYS: Final = st.one_of(PLAIN, st.from_regex(r"[a-z]{1,8}:[0-9]{1,4}", fullmatch=True), st.just("k" * 250))
BATCHES: Final = st.one_of(
    st.lists(PLAIN_KEYS, max_size=40),
    st.lists(PLAIN_KEYS.map(str.encode), max_size=40),
    st.lists(PLAIN_KEYS, max_size=9).map(lambda keys: [*keys, *keys]),
    st.lists(KEYS, max_size=6),
    st.tuples(st.lists(PLAIN_KEYS, max_size=9), KEYS).map(lambda pair: [*pair[0], pair[1]]),
)


def made(name: str, prefix: str | bytes, options: ClientOptions) -> Core[object]:
    """Return the core of a client with a clock that stands still."""
    given_options: dict[str, Any] = {**options, "prefix": prefix}  # Any: options of several types
    serializer: Serializer[object] = SERIALIZERS[name]
    # `Core.of` is generic, and the type of T is not known here.
    core: Core[object] = Core.of(serializer, options_of(given_options))  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    core.operations._clock = lambda: 1_000_000.0
    return core


def shown(operation: BatchOperation[Any, Any]) -> object:  # Any: keys and values of every type
    batch = operation.batch
    types = [[*map(type, batch.given)], [*map(type, batch.bodies or ())]]
    return batch.verb, list(batch.given), batch.keys, batch.heads, batch.bodies, operation._aliases, types


@MANY
@given(prefix=PREFIXES, keys=BATCHES, method=st.sampled_from(["get_many", "get_items", "delete_many"]))
def test_a_batch_of_keys_is_built_as_in_python(prefix: str | bytes, keys: list[Any], method: str) -> None:
    with contextlib.suppress(MetacacheError):  # the prefix is refused
        core = made("bytes", prefix, ClientOptions())
        in_both_ways(lambda: shown(getattr(core.batches, method)(keys)))


@MANY
@given(
    name=st.sampled_from(sorted(SERIALIZERS)),
    prefix=PREFIXES,
    options=st.sampled_from(OPTIONS),
    keys=BATCHES,
    values=st.lists(VALUES, min_size=1, max_size=3) | st.lists(st.binary(max_size=9), min_size=1, max_size=5),
    ttl=st.sampled_from([DEFAULT, DEFAULT, None, 7, 40 * 86400]),
)
def test_a_batch_of_items_is_built_as_in_python(
    name: str, prefix: str | bytes, options: ClientOptions, keys: list[Any], values: list[object], ttl: Any
) -> None:
    with contextlib.suppress(MetacacheError, TypeError):  # the prefix is refused, or a key cannot be hashed
        items = {key: values[index % len(values)] for index, key in enumerate(keys)}
        core = made(name, prefix, options)
        for _ in range(2):  # the second time, the ends of the sizes are known
            in_both_ways(lambda: shown(core.batches.set_many(items, ttl)))


def end_of(size: int) -> bytes:
    return b" <%d>" % size


def test_plain_batches_are_built_by_the_primitives() -> None:
    assert encode_keys is not None
    assert encode_keys(["a", "b"], b"p:", b"mg ", b" v") == ([b"p:a", b"p:b"], [b"mg p:a v", b"mg p:b v"])
    assert encode_keys(["a", "é"], b"", b"mg ", b" v") is None
    assert encode_keys(["a", "a"], b"", b"mg ", b" v") is None
    assert encode_keys(["a", b"a"], b"", b"mg ", b" v") is None
    assert encode_keys(["k" * 249], b"p:", b"mg ", b" v") is None
    assert encode_items is not None
    ends: list[bytes | None] = [None, b" 1"]
    encoded = encode_items({"a": b"x", "b": b""}, None, b"p:", b"ms ", ends, end_of, 9)
    assert encoded == (["a", "b"], [b"p:a", b"p:b"], [b"ms p:a 1", b"ms p:b <0>"], [b"x", b""])
    assert ends == [b" <0>", b" 1"]
    assert encode_items({"a": b"x" * 10}, None, b"", b"ms ", ends, end_of, 9) is None


def test_what_makes_an_end_may_raise() -> None:
    def refuse(_: int) -> bytes:
        raise ValueError("refused")

    assert encode_items is not None
    with pytest.raises(ValueError, match="refused"):
        encode_items({"a": b"x"}, None, b"", b"ms ", [], refuse, 9)
    with pytest.raises(TypeError, match="is bytes"):
        encode_items({"a": b"x"}, None, b"", b"ms ", [], str, 9)


def test_code_that_runs_meanwhile_does_not_find_lists_with_empty_places() -> None:
    count = 137  # no other list has this length
    found: list[int] = []

    def walk(size: int) -> bytes:  # as a profiler of the memory in another thread
        lists = [each for each in gc.get_objects() if type(each).__name__ == "list" and isinstance(each, Sized)]
        found.extend(id(each) for each in lists if len(each) == count)
        return end_of(size)

    assert encode_items is not None
    encoded = encode_items({str(size): b"x" * size for size in range(count)}, None, b"", b"ms ", [], walk, count)
    assert encoded is not None
    keys, raws, heads, bodies = encoded
    # To iterate over such a list would end the process.
    assert not {id(raws), id(heads)} & set(found)
    assert {id(keys), id(bodies)} <= set(found)
    assert gc.is_tracked(raws)
    assert gc.is_tracked(heads)


def test_a_batch_of_other_keys_or_values_is_handed_over_as_a_whole() -> None:
    core = made("bytes", b"", ClientOptions())
    built: Batches[Any] = core.batches  # Any: values of a wrong type
    with patch.object(batches, "encode_items", wraps=encode_items) as used:
        assert built.set_many({"a": b"x", "é": b"y"}, DEFAULT).batch.keys == [b"a", "é".encode()]
        with pytest.raises(MetacacheError, match="str"):
            built.set_many({"a": b"x", "b": "y"}, DEFAULT)
    assert used.call_count == 2


# --- the bytes of a window --------------------------------------------------------------------------------------------

HEADS: Final = st.lists(st.binary(max_size=20), min_size=1, max_size=12)
MARKS: Final = st.sampled_from([b" O1", b" O2047", b""])


@MANY
@given(heads=HEADS, has_bodies=st.booleans(), places=st.tuples(st.integers(0), st.integers(0)), first=MARKS, last=MARKS)
def test_a_window_is_joined_as_in_python(
    heads: list[bytes], has_bodies: bool, places: tuple[int, int], first: bytes, last: bytes
) -> None:
    start = places[0] % len(heads)
    stop = start + 1 + places[1] % (len(heads) - start)
    bodies = [head * 3 for head in heads] if has_bodies else None
    with patch.object(connection, "join_window", None):
        expected = connection.joined(heads, bodies, start, stop, first, last)
    assert join_window is not None
    assert join_window(heads, bodies, start, stop, first, last) == expected
    as_tuples = (tuple(heads), None if bodies is None else tuple(bodies))
    assert join_window(*as_tuples, start, stop, first, last) == expected


@MANY
@given(
    sizes=st.lists(st.integers(0, 400) | st.sampled_from([0, 60_000, 70_000]), min_size=1, max_size=300),
    bodies=st.none() | st.lists(st.sampled_from([0, 10, 100, 1000, 30_000, 70_000]), min_size=1, max_size=4),
    is_tls=st.booleans(),
)
def test_windows_are_cut_as_in_python(sizes: list[int], bodies: list[int] | None, is_tls: bool) -> None:
    heads = [b"h" * min(size, 320) for size in sizes]
    blocks = None if bodies is None else [b"v" * bodies[index % len(bodies)] for index in range(len(heads))]
    batch = Batch(batches.GET_MANY, [""] * len(heads), heads, heads, blocks)

    def cuts() -> list[tuple[int, int]]:
        windows = Windows(batch, is_tls=is_tls)
        found: list[tuple[int, int]] = []
        while not windows.is_done:
            found.append(windows.cut())
        return found

    in_both_ways(cuts)


STRANGE: Final[Any] = (None, 1, "xy", [1, 2], (b"x", None), [bytearray(b"y"), b"x"])  # Any: wrong types on purpose


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_other_types_are_left_to_python(strange: Any) -> None:  # Any: as above
    lists: list[Any] = [b"x", b"y"]
    assert join_window is not None
    assert found_values is not None
    assert count_lines is not None
    assert total_size is not None
    assert join_window(strange, lists, 0, 2, b"", b"") is None
    assert found_values(strange, lists, lists, {b"x", b"y"}) is None
    assert found_values(lists, strange, lists, set()) is None
    assert found_values(lists, lists, strange, {b"x", b"y"}) is None or strange == (b"x", None)
    assert total_size(strange, 0, 2) == -1
    assert count_lines(strange, b"x") == -1 or strange == (b"x", None)
    assert join_window(lists, strange, 0, 2, b"", b"") is None or strange is None


def test_positions_outside_are_left_to_python() -> None:
    lists: list[Any] = [b"x", b"y"]  # Any: as above
    assert join_window is not None
    assert take_items is not None
    assert place_items is not None
    assert total_size is not None
    for start, stop in ((0, 3), (-1, 1), (1, 1)):
        assert join_window(lists, lists, start, stop, b"", b"") is None
    assert join_window(lists, [b"x"], 0, 2, b"", b"") is None
    strange: Any  # as above
    for strange in ([2], [-1], [1 << 70], [-1 << 70], [None], "0", None):
        assert take_items(lists, strange) is None
        assert place_items(lists, strange, [b"z"]) is False
    assert take_items("xy", [0]) is None
    assert place_items((b"x",), [0], [b"z"]) is False
    assert place_items(lists, [0], [b"z", b"z"]) is False
    assert lists == [b"x", b"y"]
    assert total_size(lists, 0, 3) == -1
    assert total_size(lists, -1, 2) == -1


@pytest.mark.parametrize(
    "call", [join_window, take_items, place_items, found_values, count_lines, encode_keys, encode_items, total_size]
)
def test_a_wrong_number_of_arguments_raises(call: Any) -> None:  # Any: a wrong call on purpose
    with pytest.raises(TypeError):
        call()
    with pytest.raises(TypeError):
        call(*[None] * 9)


# --- parts ------------------------------------------------------------------------------------------------------------

ITEMS: Final = st.lists(st.binary(max_size=3), min_size=1, max_size=30)


@MANY
@given(items=ITEMS, places=st.sets(st.integers(0, 29)), as_tuple=st.booleans())
def test_parts_are_taken_and_filled_in_as_in_python(items: list[bytes], places: set[int], as_tuple: bool) -> None:
    indices = sorted(place for place in places if place < len(items))
    sequence: Sequence[bytes] = tuple(items) if as_tuple else items
    taken = in_both_ways(lambda: [*parts.take(sequence, indices)])
    assert taken == [items[index] for index in indices]

    def filled() -> object:
        whole, part = Replies(len(items)), Replies(len(indices))
        part.headers = [b"VA %d" % index for index in indices]
        part.values = [items[index] if index % 2 else None for index in indices]
        parts.fill_part(whole, indices, part)
        return whole.headers, whole.values, whole.errors

    in_both_ways(filled)


# --- results ----------------------------------------------------------------------------------------------------------

OWN: Final = "own"
LINES: Final = st.one_of(
    st.just((OWN, b"")),
    st.just((OWN, b"")),
    st.tuples(st.just(OWN), st.binary(max_size=5)),
    st.sampled_from([("EN", None), ("", None), ("VA 1 f0", b"1"), ("VA 0 f0 W", b""), ("VA 2 f9 X", b"22")]),
)


@MANY
@given(
    name=st.sampled_from(["bytes", "str", "int"]),
    lines=st.lists(LINES, max_size=12),
    strict=st.booleans(),
    as_bytes=st.booleans(),
    repeats=st.integers(1, 2),
)
def test_values_are_read_as_in_python(
    name: str, lines: list[tuple[str, bytes | None]], strict: bool, as_bytes: bool, repeats: int
) -> None:
    options = ClientOptions(on_undecodable="raise" if strict else "miss")

    def read(core: Core[object]) -> object:
        keys = [f"k{index}" for index in range(len(lines))]
        replies = Replies()
        own = b"f%d" % core.operations.frame.flags
        replies.headers = [
            b"VA %d %b" % (len(value), own) if line == OWN and value is not None else line.encode()
            for line, value in lines
        ]
        replies.values = [value for _, value in lines]
        errors: dict[Any, MetacacheError] = {}  # Any: keys of both types
        chosen: list[Any] = [key.encode() for key in keys] if as_bytes else keys  # Any: as above
        results = core.operations.reader.values(chosen, replies, errors)
        counted = core.statistics
        return results, {key: str(error) for key, error in errors.items()}, counted

    compiled, pure = made(name, "", options), made(name, "", options)
    for _ in range(repeats):
        found = read(compiled)
        with use_python():
            assert read(pure) == found


@MANY
@given(lines=st.lists(st.sampled_from([b"HD", b"NS", b"", b"HDx"]) | st.binary(max_size=3)), line=st.binary(max_size=2))
def test_lines_are_counted_as_in_python(lines: list[bytes], line: bytes) -> None:
    assert count_lines is not None
    shared = [b"HD" if each == b"HD" else each for each in lines]
    for each in (line, b"HD"):
        assert count_lines(shared, each) == shared.count(each)


@MANY
@given(items=st.lists(st.binary(max_size=30)), places=st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_sizes_are_added_up_as_in_python(items: list[bytes], places: tuple[int, int]) -> None:
    start, stop = places
    assert total_size is not None
    expected = len(b"".join(items[start:stop])) if stop <= len(items) else -1
    assert total_size(items, start, stop) == expected


def test_a_known_size_is_not_made_again() -> None:
    core = made("str", "", ClientOptions())
    core.batches.set_many({"a": "x"}, DEFAULT)
    with patch.object(type(core.operations), "tail", side_effect=AssertionError):
        core.batches.set_many({"a": "y", "b": "z"}, DEFAULT)
