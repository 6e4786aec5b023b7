"""The embedded server answers like memcached: both get the same random requests, and every byte is compared.

CAS numbers are compared by their order of appearance, and times within a second. By default the memcached on PATH is
compared. METACACHE_DIFFERENTIAL may list other programs, separated by colons; METACACHE_DIFFERENTIAL_EXAMPLES is the
number of sequences.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from typing import Final, final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from metacache.memory.server import MemoryServer, MemorySession
from metacache.nodes import UnixAddress
from metacache.testing import Memcached, MemcachedNotFound
from metacache.testing.memcached import VARIABLE

PROGRAMS: Final = [name for name in os.environ.get("METACACHE_DIFFERENTIAL", "").split(os.pathsep) if name] or [""]
EXAMPLES: Final = int(os.environ.get("METACACHE_DIFFERENTIAL_EXAMPLES", "60"))

# Without the LRU thread: it holds items that were read for a moment, and then `ma` makes a new item, which loses T and
# the mark of a read item. So the replies of a server with that thread depend on time.
OPTIONS: Final = ("-o", "no_lru_maintainer")

# Two sentinels: a wrong data block may swallow a part of the first one.
SENTINEL: Final = b"mg zz O_first\r\nmg zz O_last\r\n"
# Seconds. The clock of memcached counts whole seconds, and lags on a busy machine.
CLOCK: Final = 2
LAST: Final = b"EN O_last\r\n"


@final
class Pair:
    """A real memcached and an embedded server that get the same requests.

    ``commands`` is the number of requests that were compared.
    """

    def __init__(self, server: Memcached) -> None:
        self.server = server
        address = server.node.address
        assert isinstance(address, UnixAddress)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(address.path)
        self.commands = 0
        self._real(b"ms warm 0\r\n\r\n")  # takes the CAS number 1, which is lower than all others
        self.release = tuple(map(int, re.findall(r"\d+", self._real(b"version\r\n").decode())[:3]))
        self.reset()

    def reset(self) -> None:
        """Start again with empty servers."""
        assert self._real(b"flush_all\r\n") == b"OK\r\n"
        self.session: MemorySession = MemoryServer().open()
        self._embedded(b"ms warm 0\r\n\r\nmd warm\r\n")
        self.cas: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.last_cas = [0, 0]

    def close(self) -> None:
        self.socket.close()

    def _real(self, data: bytes) -> bytes:
        self.socket.sendall(data + SENTINEL)
        received = b""
        while not received.endswith(LAST):
            received += self.socket.recv(1 << 20)
        return received.replace(b"EN O_first\r\n", b"").removesuffix(LAST)

    def _embedded(self, data: bytes) -> bytes:
        replied = self.session.receive(data + SENTINEL)
        assert isinstance(replied, bytes)
        assert replied.endswith(LAST)
        return replied.replace(b"EN O_first\r\n", b"").removesuffix(LAST)

    def compare(self, request: bytes) -> None:
        """Send *request* to both, and compare the replies. ``<cas>`` stands for the last CAS number, ``<cas+>`` for a larger one."""
        self.commands += 1
        sent = [self._fill(request, side) for side in (0, 1)]
        real, embedded = self._real(sent[0]), self._embedded(sent[1])
        seen = self._normalised(real, 0), self._normalised(embedded, 1)
        assert _is_same(*seen), (
            f"{request[:200]!r}\nmemcached answered {real[:500]!r}\nembedded answered {embedded[:500]!r}"
        )

    def _fill(self, request: bytes, side: int) -> bytes:
        cas = self.last_cas[side]
        return request.replace(b"<cas>", b"%d" % cas).replace(b"<cas+>", b"%d" % (cas + 1_000_000))

    def _normalised(self, reply: bytes, side: int) -> list[bytes | float]:
        """Return the pieces of *reply*: text, and numbers for CAS numbers and times."""
        pieces: list[bytes | float] = []
        for word in re.split(rb"( |\r\n)", reply):
            found = re.fullmatch(rb"(c|cas=)(\d+)", word)
            clock = re.fullmatch(rb"(t|l|exp=|la=)(-?\d+)", word)
            if found:
                number = int(found[2])
                self.last_cas[side] = number or self.last_cas[side]
                known = self.cas[side]
                pieces += [found[1], b"%d" % (known.setdefault(number, len(known) + 1) if number else 0)]
            elif clock:
                number = int(clock[2])
                pieces += [clock[1], float("inf") if number >= 2**31 else float(number)]
            else:
                pieces.append(word)
        return pieces


def _is_same(one: list[bytes | float], other: list[bytes | float]) -> bool:
    return len(one) == len(other) and all(
        a == b
        or (isinstance(a, float) and isinstance(b, float) and a >= 0 and b >= 0 and abs(a - b) <= CLOCK)
        or (isinstance(a, float) and isinstance(b, float) and a < -1 and b < -1 and abs(a - b) <= CLOCK)
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda name: name or "memcached")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    before = os.environ.get(VARIABLE)
    if request.param:
        os.environ[VARIABLE] = str(request.param)
    try:
        server = Memcached(OPTIONS, unix=True)
    except MemcachedNotFound as missing:
        pytest.skip(str(missing))
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
    with server:
        pair = Pair(server)
        yield pair
        pair.close()


# --- requests --------------------------------------------------------------------------------------------------------

KEYS: Final = st.sampled_from([b"k", b"n", b"a", b"q" * 250, b"\xc3\xa9", b"t\tb"])
BINARY: Final = st.sampled_from([b"aw==", b"bg==", b"YQ==", b"Zm9vYmFy", b"a-w==", b"====", b"a===", b"Zm9", b"AA=="])
# No TTL that is near the R of another request: memcached counts whole seconds, and the embedded server does not.
TTLS: Final = st.sampled_from(
    [b"0", b"-1", b"100", b"5000", b"1000000", b"2592001", b"4000000000", b"2147483647", b"+70", b"-2147483648"]
)
RECACHES: Final = st.sampled_from([b"0", b"-1", b"50", b"3000", b"2000000", b"2592001"])
NUMBERS: Final = st.sampled_from(
    [b"0", b"1", b"9", b"91", b"18446744073709551615", b"9223372036854775808", b"+5", b"-1"]
)
FLAGS32: Final = st.sampled_from([b"0", b"1", b"4294967295", b"4294967296", b"77"])
CASES: Final = st.sampled_from([b"<cas>", b"<cas>", b"<cas>", b"1", b"<cas+>", b"0"])
OPAQUES: Final = st.sampled_from([b"", b"1", b"abc", b"12345", b"x" * 31, b"x" * 32, b"9" * 31])
WRONG: Final = st.sampled_from(
    [
        b"Tx",
        b"T",
        b"N1.5",
        b"Cx",
        b"C-",
        b"Jx",
        b"D-",
        b"Fx",
        b"M",
        b"MSS",
        b"MX",
        b"Z",
        b"!",
        b"\x80",
        b"T99999999999999999999",
    ]
)
MODES_MS: Final = st.sampled_from([b"E", b"A", b"P", b"R", b"S", b"e"])
MODES_MA: Final = st.sampled_from([b"I", b"D", b"+", b"-", b"N"])
BODIES: Final = st.one_of(
    st.sampled_from(
        [b"", b"0", b"9", b"10", b" 7", b"-0", b"5 6", b"0x10", b"18446744073709551615", b"1\0", b"\r\n", b"abc"]
    ),
    st.binary(max_size=40),
    st.integers(0, 2**64 - 1).map(lambda number: b"%d" % number),
)


def flag(letter: bytes, token: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[bytes]:
    return st.just(letter) if token is None else token.map(lambda text: letter + text)


COMMON: Final = (flag(b"k"), flag(b"O", OPAQUES), flag(b"q"), flag(b"P", OPAQUES), flag(b"L", OPAQUES), flag(b"c"))
MG: Final = (
    flag(b"v"),
    flag(b"v"),
    *map(flag, (b"s", b"t", b"f", b"h", b"l", b"u")),
    flag(b"T", TTLS),
    flag(b"N", TTLS),
    flag(b"R", RECACHES),
)
MS: Final = (flag(b"T", TTLS), flag(b"F", FLAGS32), flag(b"C", CASES), flag(b"I"), flag(b"M", MODES_MS))
MD: Final = (flag(b"T", TTLS), flag(b"C", CASES), flag(b"I"))
MA: Final = (
    flag(b"v"),
    flag(b"t"),
    flag(b"N", TTLS),
    flag(b"T", TTLS),
    flag(b"J", NUMBERS),
    flag(b"D", NUMBERS),
    flag(b"C", CASES),
    flag(b"M", MODES_MA),
)
# What 1.6.18 refuses or ignores and later releases execute.
NEW_MS: Final = (flag(b"s"), flag(b"N", TTLS), flag(b"E", NUMBERS))
NEW_MD: Final = (flag(b"x"), flag(b"E", NUMBERS), flag(b"F", FLAGS32))


def flags_of(own: tuple[st.SearchStrategy[bytes], ...]) -> st.SearchStrategy[bytes]:
    """Return flags, mostly valid ones without duplicates; sometimes a wrong one."""
    good = st.lists(st.one_of(*own, *COMMON), max_size=7, unique_by=lambda token: token[:1])
    spoiled = st.tuples(good, st.one_of(WRONG, *own)).map(lambda parts: [*parts[0], parts[1]])
    return st.one_of(good, good, good, spoiled).map(lambda tokens: b"".join(b" " + token for token in tokens))


def keyed(own: tuple[st.SearchStrategy[bytes], ...]) -> st.SearchStrategy[tuple[bytes, bytes]]:
    """Return a key and flags; sometimes a base64 key with its flag."""
    plain = st.tuples(KEYS, flags_of(own))
    binary = st.tuples(BINARY, flags_of(own)).map(lambda both: (both[0], b" b" + both[1]))
    return st.one_of(plain, plain, plain, binary)


BROKEN: Final = st.one_of(
    st.sampled_from(
        [
            b"mg",
            b"mg ",
            b"ms",
            b"ms k",
            b"ms k x",
            b"ms k -1",
            b"ms k 2147483647",
            b"md",
            b"ma",
            b"me",
            b"mx k",
            b"m",
            b"",
            b"\r",
        ]
        + [
            b"mg " + b"k" * 251 + b" v",
            b"ms " + b"k" * 251 + b" 2",
            b"me " + b"k" * 251,
            b"MG k v",
            b"mg\tk v",
            b"  mg k v",
            b"mg   k    v  ",
        ]
        + [
            b"mg k v\0 f",
            b"mn a b c",
            b"mnx",
            b"mg k " + b" ".join([b"P"] * 30),
            b"md k" + b" 1" * 17,
            b"verbosity 1",
            b"verbosity",
            b"verbosity x",
        ]
        + [
            b"mg k b c f h k l O q s t v u P L T1 N1",
            b"ms k 1 b c f h k l O q s t v u P L T1",
            b"flush_all",
            b"flush_all x",
            b"flush_all noreply",
        ]
        + [
            b"flush_all 0 noreply x",
            b"cache_memlimit",
            b"cache_memlimit 4",
            b"cache_memlimit x",
            b"cache_memlimit 64 noreply",
            b"stats nothing",
        ]
        + [
            b"lru_crawler",
            b"incr",
            b"shutdown",
            b"stats detail",
            b"stats detail on",
            b"stats detail off",
            b"stats sizes",
            b"bogus thing",
        ]
    ),
    st.lists(
        st.sampled_from([b"mg", b"md", b"ma", b"k", b"v", b"T", b"5", b"b", b"q", b"O1", b"\x7f"]), max_size=6
    ).map(b" ".join),
)


class Sequences(RuleBasedStateMachine):
    """Random sequences of requests."""

    pair: Pair

    @initialize()
    def empty(self) -> None:
        self.pair.reset()

    @rule(keyed=keyed(MG))
    def mg(self, keyed: tuple[bytes, bytes]) -> None:
        self.pair.compare(b"mg " + keyed[0] + keyed[1] + b"\r\n")

    @rule(keyed=keyed(MS), body=BODIES, extra=st.sampled_from([0] * 12 + [1, -1, 3]))
    def ms(self, keyed: tuple[bytes, bytes], body: bytes, extra: int) -> None:
        size = max(len(body) + extra, 0)
        self.pair.compare(b"ms %b %d%b\r\n%b\r\n" % (keyed[0], size, keyed[1], body))

    @rule(keyed=keyed(MD))
    def md(self, keyed: tuple[bytes, bytes]) -> None:
        self.pair.compare(b"md " + keyed[0] + keyed[1] + b"\r\n")

    @rule(keyed=keyed(MA))
    def ma(self, keyed: tuple[bytes, bytes]) -> None:
        self.pair.compare(b"ma " + keyed[0] + keyed[1] + b"\r\n")

    @rule(key=KEYS)
    def look(self, key: bytes) -> None:
        self.pair.compare(b"mg " + key + b" s v t f c h O7\r\n")

    @rule(key=st.one_of(KEYS.map(lambda key: b"me " + key), BINARY.map(lambda key: b"me " + key + b" b")))
    def me(self, key: bytes) -> None:
        self.pair.compare(key + b"\r\n")

    @rule(line=BROKEN, end=st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    def broken(self, line: bytes, end: bytes) -> None:
        self.pair.compare(line + end)


def test_random_sequences_get_the_same_replies(pair: Pair) -> None:
    Sequences.pair = pair
    chosen = settings(
        max_examples=EXAMPLES, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Sequences, settings=chosen)
    assert pair.commands > EXAMPLES
    print(f"\n{pair.commands} commands compared with memcached {'.'.join(map(str, pair.release))}")
