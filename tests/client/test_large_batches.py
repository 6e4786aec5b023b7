"""A batch of large values that contain line ends: all are read whole, with little additional memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from typing import Final

import pytest

from metacache import Settings
from metacache.protocol.commands import MG_VALUE
from metacache.protocol.connection import ProtocolConnection
from metacache.protocol.windows import LONGEST_SPLIT, Window
from metacache.testing import Memcached
from tests.client.rig import KINDS, Clients
from tests.conftest import start
from tests.protocol.wire import LIMIT, cut, opaques_in

SIZE: Final = 4 * 2**20
COUNT: Final = 4
PIECES: Final = (b"\r\n", b"a\r\n", b"ab\r\n", b"abcde\r\n", b"EN\r\n", b"VA 1\r\nx\r\n", b"x" * 50_000 + b"\r\n")


@pytest.fixture(scope="module")
def roomy() -> Iterator[Memcached]:
    with start("-m", "512", "-I", "8m") as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: ascii(piece[:10]))
async def test_a_batch_of_large_values_needs_little_additional_memory(
    roomy: Memcached, kind: str, piece: bytes
) -> None:
    values = {f"{kind}:{number}": b"%d" % number + piece * (SIZE // len(piece)) for number in range(COUNT)}
    clients = Clients(kind, roomy.node, Settings(timeout=60.0))
    client = clients.blobs()
    assert all((await client.set_many(values)).values())
    tracemalloc.start()
    try:
        found = await client.get_many(values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == values
    # The parts of one value, the joined value, and the data after it.
    assert peak < (COUNT + 2.5) * SIZE, f"{peak / SIZE:.1f} times one of {COUNT} values"
    await clients.aclose()


@pytest.mark.parametrize("seed", range(20))
def test_values_too_large_to_split_are_parsed_like_others(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [chance.choice((0, 7, 3000, LONGEST_SPLIT - 40, LONGEST_SPLIT, LONGEST_SPLIT + 9)) for _ in range(12)]
    values = [(piece * (size // len(piece) + 1))[:size] for size in sizes for piece in [chance.choice(PIECES)]]

    # One window; only its first and last reply have an opaque.
    connection = ProtocolConnection(max_reply_size=LIMIT + 2 * LONGEST_SPLIT)
    sent, _ = connection.send_window(MG_VALUE, [b"mg k v"] * 12, None)
    first, last = opaques_in(sent)
    marks = [b" " + first, *[b""] * 10, b" " + last]
    data = b"".join(b"VA %d%b\r\n%b\r\n" % (len(value), mark, value) for value, mark in zip(values, marks, strict=True))
    finished = [each for chunk in pieces_of(chance, data) for each in connection.receive(chunk)]
    (window,) = finished
    assert isinstance(window, Window)
    assert window.replies.values == values

    # The same values as single requests, like those of many tasks.
    connection = ProtocolConnection(max_reply_size=LIMIT + 2 * LONGEST_SPLIT)
    sent = b"".join(connection.send_plain(MG_VALUE, b"mg k v", None) for _ in values)
    marked = zip(values, opaques_in(sent), strict=True)
    data = b"".join(b"VA %d %b\r\n%b\r\n" % (len(value), opaque, value) for value, opaque in marked)
    answers = [each for chunk in pieces_of(chance, data) for each in connection.answers(chunk)]
    assert [each[1] for each in answers if isinstance(each, tuple)] == values
    assert not connection.must_close


def pieces_of(chance: random.Random, data: bytes) -> list[bytes]:
    """Return *data* in one to ten pieces."""
    return cut(data, [chance.randrange(len(data)) for _ in range(chance.randrange(10))])
