"""What `get_or_compute_item` does in each state of an item, on a real memcached and on the fake.

Raw requests set the state up. A row says what the call returns or raises, how often the factory ran, and what remains
on the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import attrs
import pytest

from metacache import BusyError, DecodeError, SerializationError, Source, Stampede
from metacache.testing import FakeServer
from tests.caching.rig import Rig

OLD: Final = "old"
NEW: Final = "new"


NO_JITTER: Final = Stampede(jitter=0.0)


class Stop(BaseException):
    """An exception that is not an Exception, as KeyboardInterrupt."""


class Absent(LookupError):
    """A failure of a factory."""


@attrs.frozen(kw_only=True)
class Row:
    """One state, and what becomes of it.

    ``before``: raw requests, where K is the key. ``during``: raw requests which the factory sends. ``stored``: the TTL
    with which OLD is set first; 0: it is not; None: without one. ``life``: the TTL of the item while the factory runs.
    """

    before: tuple[str, ...] = ()
    stored: int | None = 0
    during: tuple[str, ...] = ()
    made: object = NEW
    policy: Stampede = NO_JITTER
    ttl: int | None = 100
    should_cache: Callable[[str], bool] | None = None
    strict: bool = False
    # what is expected
    source: Source | None = None
    raises: type[BaseException] | None = None
    value: str = NEW
    runs: int = 1
    life: range | None = None
    remains: str | None = NEW
    marks: str = ""
    ttl_after: range | None = None


def quick(
    *,
    lease: int = 10,
    wait: float = 0.0,
    ahead: int = 0,
    stale: int = 0,
    raises: bool = False,
    stale_on: tuple[type[Exception], ...] = (Exception,),
) -> Stampede:
    return Stampede(
        lease=lease,
        wait=wait,
        refresh_ahead=timedelta(seconds=ahead),
        serve_stale=stale,
        jitter=0.0,
        on_busy="raise" if raises else "compute",
        stale_on=stale_on,
    )


FOREIGN: Final = "ms K 3 F12345 T500\r\nabc"  # client flags of another program
HOUR: Final = range(3590, 3601)

ROWS: Final[dict[str, Row]] = {
    "no flags: a hit": Row(stored=100, source=Source.HIT, value=OLD, runs=0, remains=OLD, ttl_after=range(95, 101)),
    "no flags, without a TTL": Row(stored=None, ttl=None, source=Source.HIT, value=OLD, runs=0, remains=OLD),
    "Z of a stale item": Row(
        stored=100, before=("md K I T90", "mg K v"), source=Source.STALE, value=OLD, runs=0, remains=OLD, marks="XZ"
    ),
    "Z of a stale item without a TTL": Row(
        stored=None, before=("md K I", "mg K v"), source=Source.STALE, value=OLD, runs=0, remains=OLD, marks="XZ"
    ),
    "Z within the fresh life": Row(
        stored=100, before=("mg K R500 v",), source=Source.HIT, value=OLD, runs=0, remains=OLD, marks="Z"
    ),
    "Z after the fresh life": Row(
        stored=50,
        before=("mg K R500 v",),
        policy=quick(stale=90),
        source=Source.STALE,
        value=OLD,
        runs=0,
        remains=OLD,
        marks="Z",
    ),
    "W ahead of the end": Row(
        stored=40, policy=quick(ahead=50), source=Source.COMPUTED, life=range(35, 41), ttl_after=range(95, 101)
    ),
    "W is not given too early": Row(
        stored=90, policy=quick(ahead=50), source=Source.HIT, value=OLD, runs=0, remains=OLD
    ),
    "W after the fresh life": Row(
        stored=70,
        policy=quick(stale=90),
        source=Source.COMPUTED,
        life=range(5, 11),
        ttl_after=range(185, 191),
    ),
    "W ahead, and an old value is kept long": Row(
        stored=930, policy=quick(ahead=50, stale=900), source=Source.COMPUTED, life=range(25, 31)
    ),
    "X W with a long life is shortened": Row(
        stored=3600, before=("md K I",), source=Source.COMPUTED, life=range(5, 11), ttl_after=range(95, 101)
    ),
    "X W without a TTL is shortened": Row(stored=None, before=("md K I",), source=Source.COMPUTED, life=range(5, 11)),
    "X W with a short life": Row(stored=100, before=("md K I T8",), source=Source.COMPUTED, life=range(4, 9)),
    "a miss": Row(source=Source.COMPUTED, life=range(5, 11), ttl_after=range(95, 101)),
    "a miss, without a TTL": Row(ttl=None, source=Source.COMPUTED, ttl_after=range(-1, 0)),
    "X W of a placeholder": Row(before=("mg K N3000 v", "md K I"), source=Source.COMPUTED, life=range(5, 11)),
    "an empty value of this client is a hit": Row(
        before=("ms K 0 F2952790032\r\n",), source=Source.HIT, value="", runs=0, remains=""
    ),
    "the wait is over: raise": Row(
        before=("mg K N30 v",), policy=quick(raises=True), raises=BusyError, runs=0, remains="", marks="Z"
    ),
    "the wait is over: compute": Row(before=("mg K N30 v",), policy=quick(), source=Source.COMPUTED),
    "the wait is over: compute, and fail": Row(
        before=("mg K N30 v",), policy=quick(), made=Absent("no"), raises=Absent, remains="", marks="Z"
    ),
    "undecodable": Row(before=(FOREIGN,), source=Source.COMPUTED, ttl_after=range(95, 101)),
    "undecodable, X W": Row(before=(FOREIGN, "md K I"), source=Source.COMPUTED),
    "undecodable, X Z": Row(before=(FOREIGN, "md K I", "mg K v"), source=Source.COMPUTED),
    "undecodable, strict": Row(
        before=(FOREIGN,), strict=True, raises=DecodeError, runs=0, remains="abc", ttl_after=range(495, 501)
    ),
    "undecodable, X W, strict": Row(
        before=(FOREIGN, "md K I"), strict=True, raises=DecodeError, runs=0, remains="abc", marks="XW"
    ),
    "NF": Row(during=("md K",), source=Source.UNSTORED, remains=None),
    "EX": Row(during=("ms K 5 F2952790032\r\nother",), source=Source.UNSTORED, remains="other"),
    "EX after a delete and another win": Row(
        during=("md K", "mg K N30 v"), source=Source.UNSTORED, remains="", marks="Z"
    ),
    "EX of an old value": Row(
        stored=40,
        policy=quick(ahead=50),
        during=("ms K 5 F2952790032\r\nother",),
        source=Source.UNSTORED,
        remains="other",
    ),
    "should_cache is false": Row(should_cache=lambda value: value != NEW, source=Source.UNSTORED, remains=None),
    "should_cache is true": Row(should_cache=lambda value: value == NEW, source=Source.COMPUTED),
    "should_cache is false, and there is an old value": Row(
        stored=40, policy=quick(ahead=50), should_cache=lambda _: False, source=Source.UNSTORED, remains=None
    ),
    "the factory fails": Row(made=Absent("no"), raises=Absent, remains=None),
    "the factory fails, and the key was set": Row(
        made=Absent("no"), during=("ms K 5 F2952790032\r\nother",), raises=Absent, remains="other"
    ),
    "the factory exits": Row(made=SystemExit(3), raises=SystemExit, remains=None),
    "the serializer fails": Row(made=12, raises=SerializationError, remains=None),
    "the factory fails, X W": Row(
        stored=3600,
        before=("md K I",),
        made=Absent("no"),
        source=Source.STALE,
        value=OLD,
        life=range(5, 11),
        remains=OLD,
        marks="XW",
        ttl_after=HOUR,
    ),
    "the factory fails, X W without a TTL": Row(
        stored=None,
        before=("md K I",),
        made=Absent("no"),
        source=Source.STALE,
        value=OLD,
        remains=OLD,
        marks="XW",
        ttl_after=range(-1, 0),
    ),
    "the factory fails, W ahead": Row(
        stored=40,
        policy=quick(ahead=50),
        made=Absent("no"),
        source=Source.STALE,
        value=OLD,
        remains=OLD,
        marks="XW",
        ttl_after=range(35, 41),
    ),
    "the factory fails, and the old value does not cover that": Row(
        stored=3600,
        before=("md K I",),
        policy=quick(stale_on=(OSError,)),
        made=Absent("no"),
        raises=Absent,
        remains=OLD,
        marks="XW",
        ttl_after=HOUR,
    ),
    "the factory exits, X W": Row(
        stored=3600, before=("md K I",), made=Stop(), raises=Stop, remains=OLD, marks="XW", ttl_after=HOUR
    ),
    "the serializer fails, X W": Row(
        stored=3600,
        before=("md K I",),
        made=12,
        source=Source.STALE,
        value=OLD,
        remains=OLD,
        marks="XW",
        ttl_after=HOUR,
    ),
}


def send(rig: Rig, key: str, request: str) -> None:
    reply = rig.wire(request.replace("K", key, 1).encode() + b"\r\n")
    assert reply.startswith((b"HD", b"VA")), reply


async def set_up(rig: Rig, key: str, row: Row) -> None:
    if row.stored != 0:
        await rig.texts().set(key, OLD, ttl=row.stored)
    for request in row.before:
        send(rig, key, request)


@pytest.mark.parametrize("name", ROWS)
async def test_each_state_leads_to_its_result(both: Rig, key: str, name: str) -> None:
    row, runs, lives = ROWS[name], list[str](), list[int]()
    await set_up(both, key, row)

    async def make() -> str:
        runs.append(name)
        if row.life is not None:
            lives.append(both.remaining(key)[2])
        for request in row.during:
            send(both, key, request)
        if isinstance(row.made, BaseException):
            raise row.made
        return row.made  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # one row has a wrong type

    client = both.texts(on_undecodable="raise" if row.strict else "miss")
    asked = client.get_or_compute_item(
        key, both.factory(make), ttl=row.ttl, policy=row.policy, should_cache=row.should_cache
    )
    if row.raises is None:
        found = await asked
        assert (found.value, found.source) == (row.value, row.source)
    else:
        with pytest.raises(row.raises) as caught:
            await asked
        assert not isinstance(row.made, BaseException) or caught.value is row.made
    assert len(runs) == row.runs
    for life in lives:
        assert row.life is not None
        assert life in row.life
    value, marks, ttl = both.remaining(key)
    assert (value, marks) == (None if row.remains is None else row.remains.encode(), row.marks)
    assert row.ttl_after is None or ttl in row.ttl_after


async def test_a_waiter_gets_the_value_that_another_program_stores(both: Rig, key: str) -> None:
    send(both, key, "mg K N30 v")
    seen: list[str] = []

    def hook(number: int, head: str) -> None:
        seen.append(head)
        if number == 3:
            send(both, key, "ms K 5 F2952790032\r\nother")

    both.transport.hook = hook
    found = await both.texts().get_or_compute_item(key, both.factory(never))
    assert (found.value, found.source) == ("other", Source.WAITED)
    assert all(head.startswith("mg ") for head in seen)


async def never() -> str:
    raise AssertionError("the factory of this test must not run")


async def test_a_waiter_computes_when_the_winner_gives_up(both: Rig, key: str) -> None:
    send(both, key, "mg K N30 v")
    both.transport.hook = lambda number, _: send(both, key, "md K") if number == 2 else None
    found = await both.texts().get_or_compute_item(key, both.factory(make_new))
    assert found.source is Source.COMPUTED
    assert both.remaining(key)[0] == b"new"


async def make_new() -> str:
    return NEW


@pytest.mark.parametrize(("meanwhile", "value", "source"), [("ms K 5 F2952790032\r\nother", "other", Source.HIT)])
async def test_an_item_that_was_replaced_before_it_is_shortened_is_asked_for_again(
    both: Rig, key: str, meanwhile: str, value: str, source: Source
) -> None:
    await both.texts().set(key, OLD, ttl=3600)
    send(both, key, "md K I")
    both.transport.hook = lambda number, _: send(both, key, meanwhile) if number == 2 else None
    found = await both.texts().get_or_compute_item(key, both.factory(never), policy=quick())
    assert (found.value, found.source) == (value, source)


async def test_an_item_that_was_deleted_before_it_is_shortened_is_asked_for_again(both: Rig, key: str) -> None:
    await both.texts().set(key, OLD, ttl=3600)
    send(both, key, "md K I")
    both.transport.hook = lambda number, _: send(both, key, "md K") if number == 2 else None
    found = await both.texts().get_or_compute_item(key, both.factory(make_new), policy=quick())
    assert (found.value, found.source) == (NEW, Source.COMPUTED)


async def test_a_failed_shortening_gives_the_win_back(both: Rig, key: str) -> None:
    await both.texts().set(key, OLD, ttl=3600)
    send(both, key, "md K I")

    def hook(number: int, _: str) -> None:
        if number == 2:
            raise Stop

    both.transport.hook = hook
    with pytest.raises(Stop):
        await both.texts().get_or_compute_item(key, both.factory(never), policy=quick())
    both.transport.hook = None
    assert both.remaining(key)[:2] == (b"old", "XW")


async def test_a_factory_that_asks_for_its_own_key_is_refused_immediately(both: Rig, key: str) -> None:
    client = both.texts()
    causes: list[BusyError] = []

    async def nested() -> str:
        for ask in (
            client.get_or_compute(key, both.factory(never)),
            client.get_or_compute_many([key], both.many_factory(never_many)),
            client.with_options(on_error="miss").get_or_compute(key, both.factory(never)),
        ):
            with pytest.raises(BusyError) as caught:
                await ask
            causes.append(caught.value)
        return await client.get_or_compute(key + "b", both.factory(make_new))

    assert await client.get_or_compute(key, both.factory(nested)) == NEW
    assert [cause.key for cause in causes] == [key, key, key]
    assert both.remaining(key)[:2] == (b"new", "")


async def never_many(_: object) -> dict[str, str]:
    raise AssertionError("the factory of this test must not run")


async def test_a_task_that_outlives_the_factory_which_started_it_may_ask_for_the_key() -> None:
    rig = Rig("asyncio", FakeServer())
    client = rig.texts()
    started: list[asyncio.Task[str]] = []
    gate = rig.gate()

    async def later() -> str:
        await gate.wait()
        return await client.get_or_compute("k", never)

    async def make() -> str:
        started.append(asyncio.get_running_loop().create_task(later()))
        return NEW

    assert await client.get_or_compute("k", make) == NEW
    gate.open()
    assert await started[0] == NEW


async def test_closing_the_coroutine_awaits_nothing() -> None:
    rig = Rig("asyncio", FakeServer())
    gate = rig.gate()
    runs: list[str] = []

    async def make() -> str:
        runs.append("began")
        await gate.wait()
        return NEW

    call = rig.texts().get_or_compute("k", make)
    while not runs:
        call.send(None)
    call.close()  # raises RuntimeError if the coroutine awaits
    assert rig.remaining("k")[:2] == (b"", "Z")


async def test_a_factory_that_is_not_callable_is_refused_before_the_ask(both: Rig, key: str) -> None:
    with pytest.raises(TypeError, match="factory is a function"):
        await both.texts().get_or_compute(key, "value")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert both.transport.count == 0
