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
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from metacache.memory.server import MemoryServer, MemorySession
from metacache.nodes import UnixAddress
from metacache.sessions import Ending
from metacache.testing import Memcached, MemcachedNotFound
from metacache.testing.memcached import VARIABLE

PROGRAMS: Final = [name for name in os.environ.get("METACACHE_DIFFERENTIAL", "").split(os.pathsep) if name] or [""]
EXAMPLES: Final = int(os.environ.get("METACACHE_DIFFERENTIAL_EXAMPLES", "30"))

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
        # In two parts: the short paths take only plain gets and plain sets.
        parts = [self.session.receive(data), self.session.receive(SENTINEL)]
        replied = b"".join([part for part in parts if isinstance(part, bytes)])
        assert replied.endswith(LAST)
        return replied.replace(b"EN O_first\r\n", b"").removesuffix(LAST)

    def compare(self, request: bytes) -> None:
        """Send *request* to both, and compare the replies.

        ``<cas>`` stands for the last CAS number, ``<cas+>`` for a larger one.
        """
        self.commands += 1
        sent = [self._fill(request, side) for side in (0, 1)]
        real, embedded = self._real(sent[0]), self._embedded(sent[1])
        seen = self._normalised(real, 0), self._normalised(embedded, 1)
        both = f"{request[:200]!r}\nmemcached: {real[:500]!r}\nembedded:  {embedded[:500]!r}"
        assert _is_same(*seen), both

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
                if clock[1] == b"exp=" and number != -1 and side == 0 and self.release >= (1, 6, 24):
                    number = -number  # before 1.6.24, `me` shows the seconds to live as a negative number
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


def words(text: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from(text.encode().split(b" "))


KEYS: Final = st.sampled_from([b"k", b"n", b"a", b"q" * 250, "é".encode(), b"t\tb"])
BINARY: Final = words("aw== bg== YQ== Zm9vYmFy a-w== ==== a=== Zm9 AA==")
# No TTL that is near the R of another request: memcached counts whole seconds, and the embedded server does not.
TTLS: Final = words("0 -1 100 5000 1000000 2592001 4000000000 2147483647 +70 -2147483648")
RECACHES: Final = words("0 -1 50 3000 2000000 2592001")
NUMBERS: Final = words("0 1 9 91 18446744073709551615 9223372036854775808 +5 -1")
FLAGS32: Final = words("0 1 4294967295 4294967296 77")
CASES: Final = words("<cas> <cas> <cas> 1 <cas+> 0")
OPAQUES: Final = st.sampled_from([b"", b"1", b"abc", b"12345", b"x" * 31, b"x" * 32, b"9" * 31])
WRONG: Final = words("Tx T N1.5 Cx C- Jx D- Fx M MSS MX Z ! T99999999999999999999")
MODES_MS: Final = words("E A P R S e")
MODES_MA: Final = words("I D + - N")
# No value of white space only: memcached looks for a number behind its end, in old memory.
BODIES: Final = st.one_of(
    st.sampled_from([b"", b"0", b"9", b"10", b" 7", b"-0", b"5 6", b"0x10", b"18446744073709551615", b"1\0", b"abc"]),
    st.binary(max_size=40).filter(lambda body: not body or bool(body.strip())),
    st.integers(0, 2**64 - 1).map(lambda number: b"%d" % number),
)


def flag(letter: str, token: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[bytes]:
    return st.just(letter.encode()) if token is None else token.map(lambda text: letter.encode() + text)


COMMON: Final = (*map(flag, "kqc"), flag("O", OPAQUES), flag("P", OPAQUES), flag("L", OPAQUES))
MG: Final = (*map(flag, "vvstfhlu"), flag("T", TTLS), flag("N", TTLS), flag("R", RECACHES))
MS: Final = (flag("T", TTLS), flag("F", FLAGS32), flag("C", CASES), flag("I"), flag("M", MODES_MS))
MD: Final = (flag("T", TTLS), flag("C", CASES), flag("I"))
MA: Final = (
    *(*map(flag, "vt"), flag("N", TTLS), flag("T", TTLS)),
    *(flag("J", NUMBERS), flag("D", NUMBERS), flag("C", CASES), flag("M", MODES_MA)),
)


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


LINES: Final = """\
mg;mg ;ms;ms k;ms k x;ms k -1;ms k 2147483647;md;ma;me;mx k;m;;MG k v;mg\tk v;  mg k v;mg   k    v  ;mn a b c;mnx
verbosity 1;verbosity;verbosity x;flush_all;flush_all x;flush_all noreply;flush_all 0 noreply x;shutdown;bogus thing
cache_memlimit;cache_memlimit 4;cache_memlimit x;cache_memlimit 64 noreply;stats nothing;lru_crawler;incr;stats sizes
stats detail;stats detail on;stats detail off;mg k b c f h k l O q s t v u P L T1 N1;mg k v\0 f
ms k 1 b c f h k l O q s t v u P L T1"""
BROKEN: Final = st.one_of(
    st.sampled_from(
        [line.encode() for line in LINES.replace("\n", ";").split(";")]
        + [b"\r", b"mg k \x80", b"mg k " + b" ".join([b"P"] * 30), b"md k" + b" 1" * 17]
        + [b"mg " + b"k" * 251 + b" v", b"ms " + b"k" * 251 + b" 2", b"me " + b"k" * 251]
    ),
    st.lists(words("mg md ma k v T 5 b q O1 \x7f"), max_size=6).map(b" ".join),
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

    @rule(key=KEYS, asked=words("v v:f f:v v:c:s:f"))
    def get(self, key: bytes, asked: bytes) -> None:
        for _ in range(2):  # the second one gets a kept reply
            self.pair.compare(b"mg " + key + b" " + asked.replace(b":", b" ") + b" O7\r\n")

    @rule(key=KEYS, flags=st.lists(st.one_of(flag("T", TTLS), flag("F", FLAGS32)), max_size=2), body=BODIES)
    def set(self, key: bytes, flags: list[bytes], body: bytes) -> None:
        line = b" ".join((b"ms", key, b"%d" % len(body), *flags, b"O7"))
        self.pair.compare(line + b"\r\n" + body + b"\r\n")

    @rule(line=st.one_of(KEYS.map(lambda key: b"me " + key), BINARY.map(lambda key: b"me " + key + b" b")))
    def me(self, line: bytes) -> None:
        self.pair.compare(line + b"\r\n")

    @rule(line=BROKEN, end=st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    def broken(self, line: bytes, end: bytes) -> None:
        self.pair.compare(line + end)


def test_random_sequences_get_the_same_replies(pair: Pair) -> None:
    Sequences.pair = pair
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # to make a failing sequence shorter would take minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(Sequences, settings=chosen)
    assert pair.commands > EXAMPLES


# --- a moved clock ---------------------------------------------------------------------------------------------------

STORED: Final = """\
ms short 1 T1|a;ms long 1 T100|a;ms stale 1 T100|a;md stale I T1;ms kept 1 T100|a;md kept I;mg lease v N1
mg lease v N30;ma count N1 J5 v;ms touched 1 T1|a;mg touched T100 t;ms recached 1 T50|a"""
LATER: Final = """\
me long;mg short v t h;mg long v t h;mg stale v t h;mg kept v t h;mg kept v t h;mg count v t h;mg touched v t h
mg lease v N30 t;mg lease v N30;mg recached R49 t;mg recached R49;ma count v;ms short 1 ME|b;md stale"""


def requests_of(text: str) -> list[bytes]:
    return [line.replace("|", "\r\n").encode() + b"\r\n" for line in text.replace("\n", ";").split(";")]


def test_items_expire_alike_when_the_clock_of_the_embedded_server_is_moved(pair: Pair) -> None:
    pair.reset()
    moved = [time.time()]
    pair.session = MemoryServer(lambda: moved[0]).open()
    for request in requests_of(STORED):
        pair.compare(request)
    time.sleep(3.1)
    moved[0] += 3.1
    for request in requests_of(LATER):
        pair.compare(request)


@pytest.mark.parametrize("size", [1_048_000, 1_048_516, 1_048_517, 2_000_000])
def test_the_limit_of_an_item_is_the_same(pair: Pair, size: int) -> None:
    pair.reset()
    pair.compare(b"ms k 3\r\nold\r\n")
    pair.compare(b"ms k %d\r\n%b\r\n" % (size, b"x" * size))
    pair.compare(b"mg k s\r\n")
    pair.compare(b"ms k 3 MA\r\nnew\r\n")
    pair.compare(b"ma k\r\n")


@pytest.mark.parametrize("data", [b"quit\r\nmn\r\n", b"x" * 3000, b"GET / HTTP/1.1\r\n"])
def test_both_close_the_connection(pair: Pair, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(pair.server.path))
        sock.sendall(data)
        assert sock.recv(100) == b""
    session = MemoryServer().open()
    assert session.receive(data) == [Ending.CLOSE]
    assert session.receive(b"mn\r\n") == b""
