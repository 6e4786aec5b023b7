"""The fake server returns the same replies as a real memcached: for arithmetic, and for random sequences of requests.

`test_fake_against_memcached` compares the results of clients; this module compares the replies.
"""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacache import Connection, MetacacheError, Transport
from metacache.operations.requests import operation
from metacache.protocol.commands import Request
from metacache.protocol.flags import Token
from metacache.protocol.replies import Reply
from metacache.testing import FakeTransport, Memcached
from metacache.transports.base import Verb
from tests import raw_requests
from tests.client.rig import PATIENT
from tests.releases import release_of

Flags: TypeAlias = Mapping[str, Token]


class Step(NamedTuple):
    """A request without its key and without the CAS that it compares.

    ``which``: the index of a CAS in earlier replies (-1: the last one); without any, the request has a CAS of no item.
    """

    command: Callable[[bytes, Flags], Request]
    flags: Flags
    which: int | None = None

    def request(self, key: bytes, known: Sequence[int]) -> Request:
        if self.which is None:
            return self.command(key, self.flags)
        cas = known[self.which % len(known)] if known else 2**63
        return self.command(key, {**self.flags, "compare_cas": cas})


U64: Final = 2**64
_runs = itertools.count(1)


def seen(transport: Transport, request: Request, known: list[int]) -> object:
    """Return the reply, or the parts of an error that do not depend on the node."""

    def read(reply: Reply) -> object:
        return plain(reply[0], known), reply[1]

    op = operation(Verb("ask", request.command), None, b"", request.head, request.body, read)
    try:
        return transport.run(op, deadline=None)
    except MetacacheError as error:
        return type(error), error.message


def replies(transport: Transport, key: bytes, steps: Sequence[Step]) -> list[object]:
    """Run *steps*; return their results, with each CAS replaced by the order in which it was first seen."""
    known: list[int] = []
    return [seen(transport, step.request(key, known), known) for step in steps]


def plain(tokens: list[bytes], known: list[int]) -> list[bytes]:
    """Return *tokens* without the opaque and the exact TTL, and with positions instead of CAS numbers."""
    return [plain_token(token, known) for token in tokens if token[:1] != b"O"]


def plain_token(token: bytes, known: list[int]) -> bytes:
    if token[:1] == b"c":
        number = int(token[1:])
        known.extend([] if number in known else [number])
        return b"c #%d" % known.index(number)
    return b"t some" if token[:1] == b"t" and token != b"t-1" else token


# --- numbers ----------------------------------------------------------------------------------------------------------

BOUNDARIES: Final = (0, 9, 99, U64 // 2 - 1, U64 // 2, U64 // 2 + 1, U64 - 10, U64 - 1, U64, U64 + 1, 10**30)
WRITTEN: Final = (
    # With a NUL at the end: for a number in the upper half, 1.6.18 searches for a minus up to the next NUL. Without
    # this one, it would search in other memory.
    *(sign + b"%d" % number + tail for number in BOUNDARIES for sign in (b"", b"-") for tail in (b"\0", b" -\0-")),
    *(before + b"9" + after for before in (b" ", b"+", b"00", b"\t\n\v\f\r ") for after in (b"", b" ", b" 7", b"\0")),
    *(b"9" + after for after in (b"\t", b"\r\n", b"\v6", b"\0007", b" 7", b"   ", b"9 7", b"9 99999")),
    *(b"", b" ", b"\0", b"\x005", b"-", b"+", b"+-5", b"--5", b"- 5", b"5a", b"5-6", b"a5", b"0x10", b"1.5", b"1e3"),
    *(b"1_0", "٣".encode(), b"5\xa0", b"\xa05", b"5\x1c6", b"5\x1f", b"5\x85", b"0" * 5000 + b"7", b"7" * 5000),
    *(b"5".ljust(size) for size in (100, 500_000, 524_214, 524_215, 524_216, 524_300, 600_000)),
)
COUNTS: Final[Sequence[Flags]] = [
    {**mode, **delta, **more}
    for mode in ({}, {"mode": "D"}, {"mode": "-"}, {"mode": "I"})
    for delta in ({}, {"delta": 0}, {"delta": 1}, {"delta": U64 - 1})
    for more in ({"value": True}, {"value": True, "vivify": 100, "initial": 7, "return_cas": True}, {})
]


def storing(value: bytes) -> Callable[[bytes, Flags], Request]:
    return lambda key, flags: raw_requests.meta_set(key, value, flags)


READ: Final = Step(raw_requests.meta_get, {"value": True, "return_client_flags": True, "return_size": True})


@pytest.mark.parametrize("client_flags", [0, 0xB0000002])
def test_a_fake_accepts_the_same_numbers_as_a_memcached(shared_memcached: Memcached, client_flags: int) -> None:
    fake = FakeTransport()
    differences: list[object] = []
    with Connection(shared_memcached.node, settings=PATIENT) as real:
        # 1.6.22 no longer searches for a minus behind the number.
        is_fixed = release_of(shared_memcached.node) >= (1, 6, 22)
        written = [value for value in WRITTEN if not (is_fixed and value.endswith(b" -\0-"))]
        for number, value in enumerate(written):
            for count in COUNTS if len(value) < 100 else COUNTS[:1]:
                steps = [
                    Step(storing(value), {"client_flags": client_flags}),
                    Step(raw_requests.meta_arithmetic, count),
                    READ,
                ]
                key = b"count:%d:%d:%06d" % (client_flags, number, next(_runs))
                wanted, found = replies(real, key, steps), replies(fake, key, steps)
                if wanted != found:
                    differences.append((value[:40], len(value), count, wanted, found))
    assert differences == []


@given(
    value=st.from_regex(rb"[ \t\v\0+-]{0,2}0{0,2}([0-9]{0,3}|[0-9]{18})[ \0a-]{0,2}[0-9 -]{0,2}", fullmatch=True),
    count=st.sampled_from([{"value": True}, {"value": True, "mode": "D", "delta": 3}]),
)
@settings(max_examples=300, deadline=None)
def test_a_fake_does_arithmetic_on_any_value_like_a_memcached(
    shared_memcached: Memcached, value: bytes, count: Flags
) -> None:
    steps = [Step(storing(value), {}), Step(raw_requests.meta_arithmetic, count), READ]
    key = b"any:%d" % next(_runs)
    with Connection(shared_memcached.node, settings=PATIENT) as real:
        assert replies(FakeTransport(), key, steps) == replies(real, key, steps)


# --- sequences --------------------------------------------------------------------------------------------------------

RETURNED: Final = ("return_size", "return_client_flags", "return_cas", "return_ttl", "return_fetched")


@st.composite
def returned(draw: st.DrawFn) -> Flags:
    """Return flags in any order; at least one, because this client never sends mg without flags."""
    names = draw(st.lists(st.sampled_from((*RETURNED, "value")), min_size=1, unique=True))
    return dict.fromkeys(names, True)


def flags_of(*choices: Sequence[Flags]) -> st.SearchStrategy[Flags]:
    """Return a strategy that draws one of each of *choices* and joins them."""
    return st.tuples(*map(st.sampled_from, choices)).map(lambda drawn: dict(ChainMap(*map(dict, drawn))))


@st.composite
def gets(draw: st.DrawFn) -> Step:
    """A get with all flags in any order: the server executes them from left to right."""
    recaches: list[Flags] = [{}, {}, {"recache": 20}, {"recache": 500}, {"recache": 2_592_000}, {"recache": 2_592_001}]
    flags = draw(flags_of([{}, {"ttl": 0}, {"ttl": 1000}], [{}, {}, {"vivify": 30}], recaches))
    order = draw(st.permutations([*{**flags, **draw(returned())}.items()]))
    return Step(raw_requests.meta_get, dict(order))


GUARDS: Final = st.sampled_from([None, None, -1, -1, -2, 0])


@st.composite
def sets(draw: st.DrawFn) -> Step:
    value = draw(st.sampled_from([b"", b"9", b"x", b"99"]))
    modes: list[Flags] = [{"mode": each} for each in "SEAPR"]
    flags = draw(flags_of([{}, {"client_flags": 0xB0000002}], [{}, {"ttl": 1000}], modes))
    return Step(storing(value), flags, draw(GUARDS))


@st.composite
def deletes(draw: st.DrawFn) -> Step:
    flags = draw(flags_of([{}, {"invalidate": True}, {"invalidate": True, "stale_ttl": 30}]))
    return Step(raw_requests.meta_delete, flags, draw(GUARDS))


# No delta that could lead to a number in the upper half, see WRITTEN.
SMALL_COUNTS: Final = [count for count in COUNTS if count.get("delta", 1) != U64 - 1]
counts: Final = st.sampled_from(SMALL_COUNTS).map(partial(Step, raw_requests.meta_arithmetic))
STEPS: Final = st.one_of(gets(), gets(), sets(), sets(), deletes(), counts)


@given(steps=st.lists(STEPS, min_size=2, max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_sequence_of_requests_gets_the_same_replies_as_from_a_memcached(
    shared_memcached: Memcached, steps: list[Step]
) -> None:
    key = b"sequence:%d" % next(_runs)
    with Connection(shared_memcached.node, settings=PATIENT) as real:
        wanted = replies(real, key, steps)
    assert replies(FakeTransport(), key, steps) == wanted
