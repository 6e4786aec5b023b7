"""The TTL of a number after arithmetic, for every combination of initial, initial_ttl, ttl and default_ttl."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Final, TypeAlias

import pytest

from metacache import DEFAULT, AsyncClient, Default, InvalidArgumentError, InvalidTypeError, Ttl
from metacache.serializers import IntSerializer
from metacache.testing import Memcached
from tests.client.rig import store
from tests.client.watched import REAL, Watched, on_a_memcached

Lives: TypeAlias = tuple[int | None, Ttl | Default, Ttl | Default, Ttl]
"""initial, initial_ttl, ttl, default_ttl."""

OLD: Final = 700
LIVES: Final[list[Lives]] = list(
    itertools.product(
        (None, 5),
        (DEFAULT, None, 100, timedelta(days=40)),
        (DEFAULT, None, 200, timedelta(seconds=299.5)),
        (None, 400, timedelta(days=50)),
    )
)
_numbers = itertools.count(1)


def is_refused(lives: Lives) -> bool:
    initial, initial_ttl, ttl, _ = lives
    return initial_ttl is not DEFAULT and (initial is None or ttl is not DEFAULT)


def begun(lives: Lives) -> Ttl | Default:
    """Return the TTL of a created number: the first of the three that is given."""
    return next(life for life in lives[1:] if life is not DEFAULT)


async def left(counters: AsyncClient[int], key: str) -> object:
    """Return the number and its TTL in seconds."""
    item = await counters.get_item(key)
    return item and (item.value, item.ttl and pytest.approx(item.ttl, abs=10))


def seconds(ttl: Ttl | Default) -> object:
    return ttl.total_seconds() if isinstance(ttl, timedelta) else ttl


async def counted(watched: Watched, verb: str, key: str, lives: Lives) -> tuple[AsyncClient[int], object]:
    initial, initial_ttl, ttl, default_ttl = lives
    counters = watched.make(IntSerializer(), default_ttl=default_ttl)
    given = {} if initial is None else {"initial": initial}
    return counters, await getattr(counters, verb)(key, 2, **given, initial_ttl=initial_ttl, ttl=ttl)


@pytest.mark.parametrize("verb", ["increment", "decrement"])
@pytest.mark.parametrize("kind", REAL)
async def test_a_created_number_has_the_right_ttl(shared_memcached: Memcached, kind: str, verb: str) -> None:
    watched = on_a_memcached(kind, shared_memcached)
    wrong: list[object] = []
    for lives in itertools.filterfalse(is_refused, LIVES):
        initial, _, ttl, _ = lives
        absent, present = f"lives:{next(_numbers)}", f"lives:{next(_numbers)}"
        store(shared_memcached.node, present, b"9", ttl=OLD)
        watched.heads.clear()
        counters, created = await counted(watched, verb, absent, lives)
        _, changed = await counted(watched, verb, present, lives)
        counts = [head for head in watched.heads if head.startswith(b"ma ")]
        renewals = len(watched.heads) - len(counts)
        seen = (created, await left(counters, absent), changed, await left(counters, present), renewals)
        number = 11 if verb == "increment" else 7
        wanted = (
            initial,
            None if initial is None else (initial, seconds(begun(lives))),
            number,
            (number, OLD if ttl is DEFAULT else seconds(ttl)),
            0 if ttl is DEFAULT else 1 if initial is None else 2,
        )
        if seen != wanted or any(b" T" in head for head in counts):
            wrong.append((lives, seen, wanted, counts))
    assert wrong == []
    await watched.aclose()


@pytest.mark.parametrize("verb", ["increment", "decrement"])
@pytest.mark.parametrize("kind", REAL)
async def test_initial_ttl_without_initial_or_with_ttl_is_refused(
    shared_memcached: Memcached, kind: str, verb: str
) -> None:
    watched = on_a_memcached(kind, shared_memcached)
    for lives in filter(is_refused, LIVES):
        with pytest.raises(InvalidArgumentError, match="pass") as raised:
            await counted(watched, verb, "k", lives)
        assert (raised.value.operation, raised.value.key, raised.value.maybe_applied) == (verb, "k", False)
    assert watched.sent == []
    await watched.aclose()


@pytest.mark.parametrize("ttl", [0, -1, 2**31, True, 1.5, "5"])
@pytest.mark.parametrize("name", ["ttl", "initial_ttl"])
@pytest.mark.parametrize("kind", REAL)
async def test_an_invalid_ttl_is_refused_by_argument_name(
    shared_memcached: Memcached, kind: str, name: str, ttl: object
) -> None:
    watched = on_a_memcached(kind, shared_memcached)
    wanted = InvalidTypeError if isinstance(ttl, bool | float | str) else InvalidArgumentError
    with pytest.raises(wanted, match=f"increment 'k': {name} "):
        await watched.make(IntSerializer()).increment("k", initial=1, **{name: ttl})  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert watched.sent == []
    await watched.aclose()
