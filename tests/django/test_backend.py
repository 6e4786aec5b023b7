"""What Django's own tests of memcached backends do not ask: formats, failures, keys in bytes. Both kinds of methods."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache.backends.base import InvalidCacheKey
from django.utils.asyncio import async_unsafe
from metacache_django import MetaCache, writing
from metacache_django.sealing import SEALED
from typing_extensions import override

from metacache import (
    BatchError,
    Client,
    ConnectError,
    DeleteResult,
    MetacacheError,
    OperationTimeout,
    Outcomes,
    ServerError,
    StoreResult,
    ValueTooLargeError,
    Zlib,
    connect,
)
from metacache.testing import Memcached
from tests.django.conftest import Caller, Make

TOO_LARGE = "x" * (2**20 + 1)
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def stored(shared_memcached: Memcached) -> Iterator[Client[bytes]]:
    """Reads what the backend stored, as bytes."""
    with connect(shared_memcached.url, bytes, serializer=SEALED) as client:
        yield client


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 10, 2**64 - 1])
def test_an_int_that_the_server_can_count_with_is_decimal_text(
    cache: Caller, stored: Client[bytes], number: int
) -> None:
    cache.set("n", number)
    assert stored.get(cache.cache.make_key("n")) == b"%d" % number
    assert cache.get("n") == number


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        None,
        -1,
        2**64,
        10**5000,
        1.5,
        float("inf"),
        "1",
        b"1",
        b"",
        "",
        (1, [2]),
        datetime.date(2026, 1, 1),
    ],
    ids=lambda value: (
        f"{type(value).__name__} {str(value)[:10] if not isinstance(value, int) or value < 2**64 else ''}"
    ),
)
def test_every_other_value_comes_back_with_its_class(cache: Caller, value: object) -> None:
    cache.set_many({"one": value})
    assert cache.get("one", "a miss") == value
    assert type(cache.get_many(["one"])["one"]) is type(value)


def test_a_stored_none_is_a_hit(cache: Caller) -> None:
    cache.set("none", None)
    assert cache.get("none", "a miss") is None
    assert cache.get_many(["none", "absent"]) == {"none": None}
    assert cache.has_key("none")
    assert cache.get_or_set("none", "a default") is None
    assert cache.add("none", 1) is False


def test_a_value_that_pickle_refuses_raises_and_stores_nothing(cache: Caller) -> None:
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        cache.set("function", lambda: None)
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        cache.set_many({"other": 1, "function": lambda: None})
    assert cache.get_many(["other", "function"]) == {}


class QueriesOnce:
    """Like a QuerySet that was not evaluated yet: it queries the database when it is pickled."""

    @override
    @async_unsafe
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:  # Any: the form of pickle's protocol
        return sorted, ([2, 1],)


class QueriesWhenRead:
    """Queries the database when it is unpickled."""

    @override
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:  # Any: as above
        return query, ()


@async_unsafe
def query() -> str:
    return "a row"


def test_a_value_may_query_the_database_when_it_is_pickled_and_read(cache: Caller) -> None:
    cache.set("set", QueriesOnce())
    cache.set_many({"many": QueriesOnce(), "read": QueriesWhenRead()})
    assert cache.get_many(["set", "many", "read"]) == {"set": [1, 2], "many": [1, 2], "read": "a row"}
    assert cache.get("read") == "a row"
    assert cache.add("added", QueriesOnce()) is True
    assert cache.get("added") == [1, 2]


# --- counting --------------------------------------------------------------------------------------------------------


def test_counting_happens_on_the_server(cache: Caller, stored: Client[bytes]) -> None:
    cache.set("n", 9)
    assert cache.incr("n") == 10
    assert cache.decr("n", 2) == 8
    assert stored.get(cache.cache.make_key("n")) == b"8 "  # padded by the server
    assert cache.get("n") == 8
    assert cache.get_many(["n"]) == {"n": 8}
    assert cache.incr("n", -20) == 0


def test_an_absent_key_is_a_value_error(cache: Caller) -> None:
    with pytest.raises(ValueError, match="'absent' not found"):
        cache.incr("absent")
    with pytest.raises(ValueError, match="'absent' not found"):
        cache.decr("absent")
    with pytest.raises(ValueError, match="'absent' not found"):
        cache.incr_version("absent")


@pytest.mark.parametrize("value", [None, "5", True, 1.5, -1, 2**64, [1]])
def test_counting_with_another_value_is_a_type_error(cache: Caller, value: object) -> None:
    cache.set("n", value)
    with pytest.raises(TypeError, match="'n' is not an int from 0"):
        cache.incr("n")
    assert cache.get("n") == value


def test_a_delta_that_is_no_int_is_a_type_error(cache: Caller) -> None:
    cache.set("n", 1)
    with pytest.raises(TypeError):
        cache.incr("n", 1.5)


# --- timeouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "ttl"), [(None, None), (1000, 1000), (999.5, 1000), (60 * 60 * 24 * 40, 60 * 60 * 24 * 40)]
)
def test_a_timeout_becomes_whole_seconds(
    cache: Caller, stored: Client[bytes], timeout: float | None, ttl: int | None
) -> None:
    cache.set("set", 1, timeout)
    cache.add("add", 1, timeout)
    cache.set_many({"many": 1}, timeout)
    cache.set("touched", 1, 5)
    assert cache.touch("touched", timeout) is True
    for key in ("set", "add", "many", "touched"):
        item = stored.get_item(cache.cache.make_key(key))
        assert item is not None
        if ttl is None or item.ttl is None:
            assert item.ttl is ttl
        else:
            assert ttl - 2 <= item.ttl <= ttl + 1  # beyond 30 days the clock of the server counts


@pytest.mark.parametrize(("timeout", "seconds"), [(0.001, 1), (0.5, 1), (1, 1), (1.01, 2), (0, 0), (-0.5, 0), (-7, 0)])
def test_a_fraction_of_a_second_is_rounded_up(timeout: float, seconds: int) -> None:
    assert MetaCache(NOWHERE, {}).get_backend_timeout(timeout) == seconds


@pytest.mark.parametrize("timeout", [0, -1, -0.5, -(10**9)])
def test_a_timeout_of_0_or_less_expires_immediately(cache: Caller, timeout: float) -> None:
    cache.set_many({"set": 1, "many": 1, "add": 1, "touch": 1})
    cache.set("set", 2, timeout)
    assert cache.set_many({"many": 2}, timeout) == []
    assert cache.add("add", 2, timeout) is False
    assert cache.add("absent", 2, timeout) is True
    assert cache.touch("touch", timeout) is True
    assert cache.touch("absent", timeout) is False
    assert cache.get_many(["set", "many", "add", "touch", "absent"]) == {"add": 1}


@pytest.mark.parametrize(("default", "found"), [(None, {"a": 1}), (60, {"a": 1}), (0, {}), (-1, {})])
def test_the_timeout_of_the_settings_is_the_default(
    make: Make, location: str, default: int | None, found: dict[str, int]
) -> None:
    cache = make(location, TIMEOUT=default, KEY_PREFIX=uuid4().hex)
    cache.set("a", 1)
    assert cache.get_many(["a"]) == found


# --- keys ------------------------------------------------------------------------------------------------------------


def unchanged(key: str, _prefix: str, _version: int) -> str:
    """Return *key*: a KEY_FUNCTION."""
    return key


BAD_KEYS = [
    pytest.param("a b", "contains characters", id="a space"),
    pytest.param("a\n", "contains characters", id="a line end"),
    pytest.param("a\x7f", "contains characters", id="DEL"),
    pytest.param("a" * 251, "longer than 250", id="too long"),
    pytest.param("é" * 130, "more than 250", id="too long in UTF-8"),
    pytest.param("\ud800", "lone surrogate", id="a lone surrogate"),
    pytest.param("", "empty", id="empty"),
]


@pytest.mark.parametrize(("key", "reason"), BAD_KEYS)
def test_a_key_that_memcached_cannot_take_is_refused(make: Make, location: str, key: str, reason: str) -> None:
    cache = make(location, KEY_FUNCTION=unchanged)
    calls: list[Callable[[], object]] = [
        lambda: cache.get(key),
        lambda: cache.set(key, 1),
        lambda: cache.add(key, 1),
        lambda: cache.touch(key),
        lambda: cache.delete(key),
        lambda: cache.incr(key),
        lambda: cache.get_many(["a", key]),
        lambda: cache.set_many({"a": 1, key: 2}),
        lambda: cache.delete_many(["a", key]),
    ]
    for call in calls:
        with pytest.raises(InvalidCacheKey, match=reason):
            call()


def test_keys_of_all_letters_and_250_bytes_are_stored(make: Make, location: str) -> None:
    cache = make(location, KEY_FUNCTION=unchanged)
    keys = ["a" * 250, "é" * 125, "清", "a\u00a0b", "%s"]
    cache.set_many(dict.fromkeys(keys, 1))
    assert cache.get_many(keys) == dict.fromkeys(keys, 1)


def test_versions_and_prefixes_separate_values(make: Make, location: str, stored: Client[bytes]) -> None:
    one_prefix, other_prefix = uuid4().hex, uuid4().hex
    one, other = (
        make(location, KEY_PREFIX=prefix, VERSION=version) for prefix, version in ((one_prefix, 1), (other_prefix, 2))
    )
    one.set("k", "one")
    assert other.get("k") is None
    other.set("k", "other")
    assert stored.get(f"{one_prefix}:1:k") is not None
    assert stored.get(f"{other_prefix}:2:k") is not None
    assert one.incr_version("k") == 2
    assert (one.get("k"), one.get("k", version=2)) == (None, "one")
    one.delete_many(["k"], version=2)
    assert one.get("k", version=2) is None


# --- failing stores --------------------------------------------------------------------------------------------------


def test_a_value_that_the_server_refuses_leaves_no_old_value(cache: Caller) -> None:
    cache.set("k", "old")
    with pytest.raises(ServerError):
        cache.set("k", TOO_LARGE)
    assert cache.get("k") is None


def test_a_value_beyond_max_value_size_leaves_no_old_value(make: Make, location: str) -> None:
    cache = make(location, {"max_value_size": 1000}, KEY_PREFIX=uuid4().hex)
    cache.set_many({"k": "old", "many": "old"})
    with pytest.raises(ValueTooLargeError):
        cache.set("k", "x" * 1000)
    assert cache.set_many({"many": "x" * 1000, "small": 1}) == ["many"]
    assert cache.get_many(["k", "many", "small"]) == {"small": 1}


def test_set_many_returns_the_keys_that_failed_and_they_have_no_old_value(cache: Caller) -> None:
    cache.set_many({2: "old", "large": "old"})
    assert cache.set_many({1: "one", 2: TOO_LARGE, "large": TOO_LARGE}) == [2, "large"]
    assert cache.get_many([1, 2, "large"]) == {1: "one"}


class FailingVerbs:
    """A client whose stores fail, with an error or with FAILED. It notes the keys of deletes."""

    def __init__(self, error: MetacacheError | None) -> None:
        self._error = error
        self.deleted: list[str] = []

    async def set(self, _key: str, _value: bytes, *, ttl: int | None) -> StoreResult:
        assert ttl == 10
        if self._error is not None:
            raise self._error
        return StoreResult.FAILED

    async def add(self, _key: str, _value: bytes, *, ttl: int | None) -> StoreResult:
        raise AssertionError(ttl)

    async def exists(self, _key: str) -> bool:
        raise AssertionError

    async def touch(self, _key: str, ttl: int | None) -> bool:
        raise AssertionError(ttl)

    async def delete(self, _key: str) -> DeleteResult:
        raise AssertionError

    async def delete_many(self, _keys: Iterable[str]) -> Mapping[str, DeleteResult]:
        raise AssertionError

    async def set_many_outcomes(self, items: Mapping[str, bytes], *, ttl: int | None) -> Outcomes[str, StoreResult]:
        assert ttl == 10
        return Outcomes({}, dict.fromkeys(items, self._error or ServerError("no memory")))

    async def delete_many_outcomes(self, keys: Iterable[str]) -> Outcomes[str, DeleteResult]:
        self.deleted.extend(keys)
        raise OperationTimeout("too late")  # hides no error of the store


@pytest.mark.parametrize("error", [None, OperationTimeout("no reply"), ConnectError("refused")])
async def test_the_old_value_is_deleted_whatever_made_the_store_fail(error: MetacacheError | None) -> None:
    verbs = FailingVerbs(error)
    if error is None:
        assert await writing.set_one(verbs, "k", b"1", 10) is False
    else:
        with pytest.raises(type(error)) as caught:
            await writing.set_one(verbs, "k", b"1", 10)
        assert caught.value is error
    assert verbs.deleted == ["k"]


async def test_set_many_deletes_the_old_values_of_the_keys_that_failed() -> None:
    verbs = FailingVerbs(OperationTimeout("no reply"))
    assert await writing.set_many(verbs, {"a": b"1", "b": b"2"}, 10, ignores=True) == ["a", "b"]
    with pytest.raises(BatchError):
        await writing.set_many(verbs, {"c": b"1"}, 10, ignores=False)
    assert verbs.deleted == ["a", "b", "c"]


# --- a server that is down -------------------------------------------------------------------------------------------


def test_a_server_that_is_down_raises_by_default(make: Make) -> None:
    cache = make(NOWHERE)
    calls: list[Callable[[], object]] = [
        lambda: cache.get("k"),
        lambda: cache.set("k", 1),
        lambda: cache.add("k", 1),
        lambda: cache.touch("k"),
        lambda: cache.delete("k"),
        lambda: cache.incr("k"),
        lambda: cache.get_or_set("k", 1),
        lambda: cache.has_key("k"),
        lambda: cache.clear(),
    ]
    for call in calls:
        with pytest.raises(OSError, match=r"127\.0\.0\.1:1"):
            call()
    for call in (lambda: cache.get_many(["k"]), lambda: cache.set_many({"k": 1}), lambda: cache.delete_many(["k"])):
        with pytest.raises(BatchError, match=r"127\.0\.0\.1:1"):
            call()


def test_reads_miss_and_writes_do_nothing_when_errors_are_ignored(make: Make) -> None:
    cache = make(NOWHERE, {"on_error": "ignore"})
    assert cache.get("k", "a default") == "a default"
    assert cache.get_many(["k"]) == {}
    assert cache.has_key("k") is False
    assert cache.get_or_set("k", lambda: "made") == "made"
    assert cache.set("k", 1) is None
    assert cache.add("k", 1) is False
    assert cache.touch("k") is False
    assert cache.delete("k") is False
    assert cache.set_many({"k": 1, "m": 2}) == ["k", "m"]
    assert cache.delete_many(["k"]) is None
    assert cache.clear() is None
    with pytest.raises(ValueError, match="not found"):
        cache.incr("k")


def test_reads_miss_and_writes_raise_with_miss(make: Make) -> None:
    cache = make(NOWHERE, {"on_error": "miss"})
    assert cache.get("k", "a default") == "a default"
    assert cache.get_many(["k"]) == {}
    with pytest.raises(ConnectError):
        cache.set("k", 1)
    with pytest.raises(BatchError):
        cache.set_many({"k": 1})
    with pytest.raises(ConnectError):
        cache.clear()


def test_set_many_stores_on_the_servers_that_are_up(make: Make, memcached: Memcached) -> None:
    cache = make([str(memcached.node.address), NOWHERE], {"on_error": "ignore"})
    data = {f"k{number}": number for number in range(40)}
    failed = cache.set_many(data)
    assert 0 < len(failed) < 40
    assert cache.get_many(data) == {key: value for key, value in data.items() if key not in failed}
    raising = make([str(memcached.node.address), NOWHERE])
    with pytest.raises(BatchError) as caught:
        raising.set_many(data)
    assert len(caught.value.errors) == len(failed)


# --- the whole cache -------------------------------------------------------------------------------------------------


def test_clear_empties_every_server(make: Make, memcached: Memcached) -> None:
    with Memcached() as other:
        cache = make([str(memcached.node.address), str(other.node.address)])
        keys = [f"k{number}" for number in range(20)]
        cache.set_many(dict.fromkeys(keys, 1))
        assert len(cache.get_many(keys)) == 20
        cache.clear()
        assert cache.get_many(keys) == {}


def test_a_compressor_keeps_values_and_leaves_numbers_alone(make: Make, location: str, stored: Client[bytes]) -> None:
    cache = make(location, {"compressor": Zlib(min_size=100)}, KEY_PREFIX=uuid4().hex)
    cache.set_many({"text": "x" * 10_000, "n": 2**64 - 2})
    assert cache.get("text") == "x" * 10_000
    assert cache.incr("n") == 2**64 - 1
    item = stored.get_item(cache.cache.make_key("text"))
    assert item is not None
    assert item.size < 1000
