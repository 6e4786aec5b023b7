"""Settings check numbers when they are made: seconds that no wait supports, and counts out of range."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from metacache import Client, InvalidArgumentError, InvalidTypeError, Node, Pool, Settings, connect, connect_async
from metacache.settings import LONGEST_AGE, LONGEST_WAIT, MOST_KEEPALIVE
from metacache.testing import Memcached
from metacache.urls import parse_url

WAITS: Final = ("timeout", "connect_timeout", "pool_wait")
AGES: Final = ("pool_max_idle_time", "max_lifetime", "poll_interval", "change_interval")
MAY_BE_ZERO: Final = ("pool_wait", "change_interval")
MOST: Final[dict[str, int]] = {
    **dict.fromkeys(WAITS, LONGEST_WAIT),
    **dict.fromkeys(AGES, LONGEST_AGE),
    "keepalive": MOST_KEEPALIVE,
}

# Any, here and below: wrong types and values for any setting.
HUGE: Final[dict[str, Any]] = {
    "1e300": 1e300,
    "infinity": math.inf,
    "NaN": math.nan,
    "10**400": 10**400,
    "10**5000": 10**5000,
    "-10**5000": -(10**5000),
}

WAYS: Final[dict[str, Callable[[Any], object]]] = {
    "Settings": lambda value: Settings(timeout=value),
    "Client": lambda value: Client(Pool(Node("127.0.0.1:1")), timeout=value),
    "with_options": lambda value: Client(Pool(Node("127.0.0.1:1"))).with_options(timeout=value),
    "connect": lambda value: connect("memcached://127.0.0.1:1", timeout=value),
    "connect_async": lambda value: connect_async("memcached://127.0.0.1:1", timeout=value),
}


def with_one(name: str, value: Any) -> Settings:
    return Settings(**{name: value})


@pytest.mark.parametrize("name", MOST)
def test_a_number_beyond_its_limit_is_refused_by_field_name(name: str) -> None:
    most = MOST[name]
    assert getattr(with_one(name, most), name) == most
    with pytest.raises(InvalidArgumentError, match=rf"^Settings\.{name} is .*{most}.*, not {most + 1}"):
        with_one(name, most + 1)


@pytest.mark.parametrize("name", [*WAITS, *AGES])
@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
def test_nan_infinity_and_huge_numbers_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^Settings\.{name} is .* seconds, not "):
        with_one(name, value)


@pytest.mark.parametrize("name", ["keepalive", "max_in_flight", "pool_size", "pool_min_idle", "max_reply_size"])
def test_an_int_too_long_to_print_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^Settings\.{name} is .*, not a number of 16610 bits"):
        with_one(name, -(10**5000))


@pytest.mark.parametrize("name", [*WAITS, *AGES])
def test_zero_seconds_are_allowed_only_for_some_settings(name: str) -> None:
    if name in MAY_BE_ZERO:
        assert getattr(with_one(name, 0), name) == 0
        with pytest.raises(InvalidArgumentError, match="is at least 0 and at most"):
            with_one(name, -0.5)
    else:
        with pytest.raises(InvalidArgumentError, match="is above 0 and at most"):
            with_one(name, 0)
    for wrong in (True, "1", b"1", [1]):
        with pytest.raises(InvalidTypeError, match=rf"Settings\.{name} is a number of seconds, not "):
            with_one(name, wrong)


@pytest.mark.parametrize("value", [*HUGE.values(), LONGEST_WAIT + 1, 3e6], ids=[*HUGE, "1,000,001", "3e6"])
@pytest.mark.parametrize("way", WAYS)
def test_no_timeout_exceeds_the_limit_of_poll(way: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"timeout is above 0 and at most 1000000 seconds, not "):
        WAYS[way](value)


QUERIES: Final = (
    "timeout=1e300",
    "timeout=3000000",
    f"timeout={'9' * 400}",
    "keepalive=99999999999",
    "keepalive=40000",
    "pool_wait=1e7",
)


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_a_url_has_the_same_limits(query: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(f"Settings.{query.split('=')[0]} is ")):
        parse_url(f"memcached://host/?{query}", Settings())


def test_every_method_works_with_the_largest_settings(memcached: Memcached) -> None:
    largest = "&".join(f"{name}={most}" for name, most in MOST.items())
    with connect(f"{memcached.url}/?{largest}", timeout=LONGEST_WAIT) as client:
        assert client.set("key", b"1")
        assert client.get("key") == b"1"
        assert client.get_many(["key"]) == {"key": b"1"}


async def test_every_asyncio_method_works_with_the_largest_settings(memcached: Memcached) -> None:
    largest = "&".join(f"{name}={most}" for name, most in MOST.items())
    async with connect_async(f"{memcached.url}/?{largest}", timeout=LONGEST_WAIT) as client:
        assert await client.set("key", b"1")
        assert await client.get("key") == b"1"
        assert await client.get_many(["key"]) == {"key": b"1"}
