"""Large data blocks: any split of the stream and any use of `room` gives the same replies, with one copy of a value."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from types import FrameType
from typing import Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacache.protocol import commands
from metacache.protocol.blocks import LARGE_BLOCK, DroppedBlock, ReceivedBlock
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.replies import OPAQUES
from tests.protocol.test_streams import TRAPS
from tests.protocol.wire import Outcome, cut, feed, outcomes, waiting_for

LIMIT: Final = 1 << 30
SIZES: Final = (0, 1, 100, LARGE_BLOCK - 2, LARGE_BLOCK - 1, LARGE_BLOCK, LARGE_BLOCK + 1, 65_536, 70_000)


def value_of(size: int, seed: int) -> bytes:
    """Return *size* bytes full of what looks like protocol."""
    chosen = random.Random(seed)
    pieces = b"".join(chosen.choice(TRAPS) or b"." for _ in range(size // 2 + 1))
    return (pieces * (size // max(len(pieces), 1) + 1))[:size]


def poured(connection: ProtocolConnection, data: bytes, chosen: random.Random) -> Iterator[Outcome]:
    """Yield the replies in *data* as a transport gets them: straight into the room of a block while there is one."""
    pos = 0
    while pos < len(data) and not connection.must_close:
        room = connection.room
        if room is None:
            count = chosen.choice((1, 7, 100, 1024, 65_536))
            yield from outcomes(connection.receive(data[pos : pos + count]))
            pos = min(pos + count, len(data))
            continue
        assert len(room) > 0
        count = min(chosen.choice((1, 2, 5000, len(room) - 1, len(room))) or 1, len(room), len(data) - pos)
        room[:count] = data[pos : pos + count]
        yield from outcomes(connection.fill(count))
        pos += count


def replies(values: list[bytes], opaques: list[bytes]) -> bytes:
    return b"".join(
        b"VA %d f0%b\r\n%b\r\n" % (len(value), b" " + opaque if opaque else b"", value)
        for value, opaque in zip(values, opaques, strict=True)
    )


def window(values: list[bytes]) -> tuple[ProtocolConnection, bytes]:
    """Return a connection that waits for a window of *values*, and the bytes of its replies."""
    connection = ProtocolConnection(max_reply_size=LIMIT)
    connection.send_window(commands.MG_VALUE, [b"mg k v f"] * len(values), None)
    marks = [b""] * len(values)
    marks[0], marks[-1] = OPAQUES[0][1], OPAQUES[1][1]
    return connection, replies(values, marks if len(values) > 1 else [OPAQUES[1][1]])


@given(st.lists(st.sampled_from(SIZES), min_size=1, max_size=6), st.integers(0, 2**32), st.lists(st.integers(0)))
@settings(max_examples=60)
def test_any_split_of_a_window_of_large_values_gives_the_same_replies(
    sizes: list[int], seed: int, places: list[int]
) -> None:
    values = [value_of(size, seed + index) for index, size in enumerate(sizes)]
    connection, data = window(values)
    headers = tuple([b"VA %d f0" % len(value) for value in values])
    for found in (
        feed(connection, cut(data, places)),
        list(poured(window(values)[0], data, random.Random(seed))),
    ):
        assert [outcome[:2] for outcome in found] == [(headers, tuple(values))]
    assert not connection.must_close


@pytest.mark.parametrize("size", SIZES)
def test_replies_before_and_behind_a_large_value_keep_their_places(size: int) -> None:
    for seed in range(20):
        connection = ProtocolConnection(max_reply_size=LIMIT)
        value = value_of(size, seed)
        for opaque in OPAQUES[:3]:
            connection.expect(commands.MG_VALUE, opaque)
        data = replies([b"a", value, b"c"], [opaque[1] for opaque in OPAQUES[:3]])
        found = list(poured(connection, data, random.Random(seed)))
        assert [outcome[1] for outcome in found] == [b"a", value, b"c"]
        assert not connection.must_close


def test_the_value_is_bytes_and_its_memory_is_allocated_once() -> None:
    size = 20_000_000
    connection = waiting_for(commands.MG_VALUE, limit=LIMIT)
    tracemalloc.start()
    try:
        connection.receive(b"VA %d f0 O7\r\n" % size + bytes(1000))
        found: list[Outcome] = []
        while (room := connection.room) is not None:
            count = min(len(room), 65_536)
            room[:count] = bytes(count - 2) + b"\r\n"
            del room
            found += outcomes(connection.fill(count))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (_, value), *others = found
    assert type(value) is bytes
    assert len(value) == size
    assert others == []
    assert peak < 1.05 * size


def test_a_room_that_is_still_in_use_at_the_end_costs_a_copy_and_no_failure() -> None:
    block = ReceivedBlock(LARGE_BLOCK + 2, memoryview(b"a" * LARGE_BLOCK))
    room = block.room
    room[:] = b"\r\n"
    holder = memoryview(room)  # as uvloop does, it exports the room
    block.advance(2)
    assert block.end(b"\r\n") == b"a" * LARGE_BLOCK
    assert bytes(holder) == b"\r\n"


def test_an_incomplete_value_is_collected_without_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", messages.append)
    kept: list[object] = [ReceivedBlock(100_000, memoryview(b"start"))]
    kept.append(kept)  # a cycle, as the traceback of an error makes one
    del kept
    gc.collect()
    assert messages == []


@pytest.mark.parametrize("closing", [b"xx", b"\r\r", b"\n\n", b"\n\r"])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_large_value_without_crlf_behind_it_breaks_the_connection(closing: bytes, *, dropped: bool) -> None:
    size = 5 * LARGE_BLOCK
    connection = waiting_for(commands.MG_VALUE, limit=LIMIT)
    assert connection.receive(b"VA %d f0 O7\r\n" % size) == []
    if dropped:
        connection.drop()
    assert connection.receive(bytes(size) + closing) == []
    assert connection.must_close
    assert "not followed by CRLF" in str(connection.failure)


def test_a_value_above_the_limit_is_refused_before_it_gets_memory() -> None:
    connection = waiting_for(commands.MG_VALUE, limit=LARGE_BLOCK)
    connection.receive(b"VA %d f0 O7\r\n" % (LARGE_BLOCK + 1))
    assert connection.block is None
    assert "max_reply_size" in str(connection.failure)


def test_a_value_for_which_there_is_no_memory_breaks_the_connection() -> None:
    program = """if True:
        import resource
        from metacache.protocol import commands
        from tests.protocol.wire import failure
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        print(failure(commands.MG_VALUE, [b"VA 4000000000 f0 O7\\r\\n"], limit=1 << 33))
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "has no memory" in ran.stdout


# --- callers that gave up --------------------------------------------------------------------------------------------


def test_a_dropped_value_needs_no_memory_and_keeps_the_place_in_the_stream() -> None:
    size = 20_000_000
    connection = waiting_for(commands.MG_VALUE, limit=LIMIT)
    connection.expect(commands.MG_VALUE, OPAQUES[8])
    connection.receive(b"VA %d f0 O7\r\n" % size)
    connection.drop()
    connection.drop()  # idempotent
    tracemalloc.start()
    try:
        chunk = bytes(50_000)
        for _ in range(size // len(chunk)):
            assert connection.receive(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    rest = b"\r\nVA 5 f0 O8\r\nright\r\n"
    assert [outcome[1] for outcome in feed(connection, [rest])] == [b"", b"right"]
    assert not connection.must_close


def test_a_dropped_window_keeps_no_large_value() -> None:
    values = [value_of(3 * LARGE_BLOCK, seed) for seed in range(20)]
    connection, data = window(values)
    connection.expect(commands.MG_VALUE, OPAQUES[8])
    found: list[Outcome] = []
    for chunk in cut(data + b"VA 5 f0 O8\r\nright\r\n", range(0, len(data), 10_007)):
        found += outcomes(connection.receive(chunk))
        if connection.block is not None:
            connection.drop()
    first, second = found
    kept = cast("tuple[bytes | None, ...]", first[1])  # cast: the values of a window
    assert len(kept) == len(values)
    assert sum(len(value or b"") for value in kept) <= 3 * LARGE_BLOCK
    assert second[1] == b"right"
    assert not connection.must_close


def test_a_block_that_is_nearly_complete_is_not_dropped() -> None:
    connection = waiting_for(commands.MG_VALUE, limit=LIMIT)
    connection.receive(b"VA %d f0 O7\r\n" % LARGE_BLOCK + bytes(LARGE_BLOCK) + b"\r")
    connection.drop()
    assert not isinstance(connection.block, DroppedBlock)
    assert [outcome[1] for outcome in feed(connection, [b"\n"])] == [bytes(LARGE_BLOCK)]


def test_no_python_code_runs_when_a_block_is_freed() -> None:
    """A signal handler runs between two steps of Python code. What it raises while Python frees an object is lost."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and str(frame.f_globals["__name__"]).startswith("metacache."):
            calls.append(frame.f_code.co_qualname)

    def make_cycle() -> None:
        cycle: list[object] = [ReceivedBlock(LARGE_BLOCK, memoryview(b"start"))]
        cycle.append(cycle)

    finished = ReceivedBlock(LARGE_BLOCK, memoryview(b""))
    finished.advance(LARGE_BLOCK)
    assert finished.end(b"\0\0") == bytes(LARGE_BLOCK - 2)
    blocks = [finished, ReceivedBlock(LARGE_BLOCK, memoryview(b"start"))]
    del finished
    gc.disable()
    try:
        make_cycle()
        sys.setprofile(note)
        blocks.clear()
        gc.collect()
    finally:
        sys.setprofile(None)
        gc.enable()
    assert calls == []
