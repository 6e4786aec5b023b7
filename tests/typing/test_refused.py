"""Calls that type checkers refuse and that also fail at run time.

Each ignore comment is an assertion: mypy (``warn_unused_ignores``) and pyright (``reportUnnecessaryTypeIgnoreComment``)
report an ignore comment that ignores nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import IntEnum, StrEnum
from typing import Final, Literal, NewType, assert_type

import msgspec
import pytest

from metacache import (
    DEFAULT,
    AsyncClient,
    AsyncCluster,
    Client,
    Cluster,
    Default,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidTypeError,
    MetacacheError,
    Node,
    SerializationError,
    Ttl,
    connect,
    connect_async,
    load_serializer,
)
from metacache.serializers import BytesSerializer, IntSerializer, StrSerializer
from metacache.testing import AsyncFakeTransport, FakeTransport

URL: Final = "memcached://127.0.0.1:1"


class User(msgspec.Struct):
    name: str


class Color(IntEnum):
    RED = 1


class Word(StrEnum):
    RED = "red"


UserId = NewType("UserId", int)
CLUSTER: Final = Cluster([Node("127.0.0.1:1")])
ASYNC_CLUSTER: Final = AsyncCluster([Node("127.0.0.1:1")])

NUMBERS: Final = Client(FakeTransport(), IntSerializer())
TEXTS: Final = Client(FakeTransport(), StrSerializer())
BLOBS: Final = Client(FakeTransport(), BytesSerializer())
USERS: Final = Client(FakeTransport(), load_serializer("msgspec", User))
OPTIONAL: Final = Client(FakeTransport(), load_serializer("msgspec", int | None))


def needs_a_serializer() -> AbstractContextManager[pytest.ExceptionInfo[InvalidTypeError]]:
    return pytest.raises(InvalidTypeError, match="serializer")


def refused() -> AbstractContextManager[pytest.ExceptionInfo[MetacacheError]]:
    return pytest.raises((InvalidArgumentError, SerializationError, InvalidKeyError))


def test_connect_needs_a_serializer_for_all_but_bytes_str_and_int() -> None:
    with needs_a_serializer():
        connect(URL, User)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, User | None)  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, list[int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, int | None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, float)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, dict[str, int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, Literal[1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, str | bytes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, object)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, tuple[int, ...])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, UserId)  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect(URL, User, serializer=None)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with needs_a_serializer():
        connect(URL, type_=User, default_ttl=5)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_connect_async_needs_a_serializer_for_all_but_bytes_str_and_int() -> None:
    with needs_a_serializer():
        connect_async(URL, User)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, User | None)  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, list[int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, int | None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, float)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, dict[str, int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, Literal[1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, str | bytes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, object)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, tuple[int, ...])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, UserId)  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        connect_async(URL, User, serializer=None)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with needs_a_serializer():
        connect_async(URL, type_=User, default_ttl=5)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_a_cluster_needs_a_serializer_for_all_but_bytes_str_and_int() -> None:
    with needs_a_serializer():
        CLUSTER.client(User)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(User | None)  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(list[int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(int | None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(float)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(dict[str, int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(Literal[1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(str | bytes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(object)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(tuple[int, ...])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(UserId)  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        CLUSTER.client(User, serializer=None)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with needs_a_serializer():
        CLUSTER.client(type_=User, prefix="user:")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_an_async_cluster_needs_a_serializer_for_all_but_bytes_str_and_int() -> None:
    with needs_a_serializer():
        ASYNC_CLUSTER.client(User)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(User | None)  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(list[int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(int | None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(float)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(dict[str, int])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(Literal[1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(str | bytes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(object)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(tuple[int, ...])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(UserId)  # pyright: ignore[reportArgumentType]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(User, serializer=None)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with needs_a_serializer():
        ASYNC_CLUSTER.client(type_=User, prefix="user:")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


def test_calls_with_a_builtin_type_or_a_serializer_are_accepted() -> None:
    assert_type(connect(URL), Client[bytes])
    assert_type(connect(URL, bytes), Client[bytes])
    assert_type(connect(URL, str, prefix="s:"), Client[str])
    assert_type(connect(URL, type_=int, serializer=None), Client[int])
    assert_type(connect(URL, bytes, serializer="msgspec"), Client[bytes])
    assert_type(connect(URL, User, serializer="msgspec"), Client[User])
    assert_type(connect(URL, User | None, serializer="msgspec"), Client[User | None])
    assert_type(connect(URL, User, serializer=load_serializer("msgspec", User)), Client[User])
    assert_type(connect_async(URL), AsyncClient[bytes])
    assert_type(connect_async(URL, int), AsyncClient[int])
    assert_type(connect_async(URL, list[int], serializer="json"), AsyncClient[list[int]])
    assert_type(CLUSTER.client(), Client[bytes])
    assert_type(CLUSTER.client(str), Client[str])
    assert_type(CLUSTER.client(int | str, serializer="json"), Client[int | str])
    assert_type(ASYNC_CLUSTER.client(), AsyncClient[bytes])
    assert_type(ASYNC_CLUSTER.client(int, prefix="n:"), AsyncClient[int])
    assert_type(ASYNC_CLUSTER.client(User, serializer="msgspec"), AsyncClient[User])


def test_a_subclass_needs_a_serializer_but_types_cannot_express_that() -> None:
    """For a type checker, a subclass of int is an int."""
    for subclass in (bool, Color):
        with needs_a_serializer():
            assert_type(connect(URL, subclass), Client[int])
        with needs_a_serializer():
            assert_type(ASYNC_CLUSTER.client(subclass), AsyncClient[int])
    with needs_a_serializer():
        assert_type(connect_async(URL, Word), AsyncClient[str])


def forward(numbers: Client[int], initial_ttl: Ttl | Default = DEFAULT, ttl: Ttl | Default = DEFAULT) -> int | None:
    """Increment a counter, as a function with an optional TTL does."""
    assert_type(numbers.increment("k", initial=1, initial_ttl=initial_ttl), int)
    assert_type(numbers.decrement("k", 2, initial=1, ttl=ttl), int)
    return numbers.increment("k", ttl=ttl)


def test_a_counter_takes_either_ttl_or_initial_ttl() -> None:
    assert forward(NUMBERS) == 1
    assert forward(NUMBERS, 5, None) == 1
    with refused():
        NUMBERS.increment("k", initial_ttl=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with refused():
        NUMBERS.decrement("k", initial_ttl=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with refused():
        NUMBERS.increment("k", 2, initial=1, initial_ttl=5, ttl=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with refused():
        NUMBERS.decrement("k", initial=1, initial_ttl=None, ttl=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with refused():
        NUMBERS.increment("k", initial=1, initial_ttl=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with refused():
        NUMBERS.increment("k", initial="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with refused():
        NUMBERS.decrement("k", 1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with refused():
        NUMBERS.increment("k", ttl="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def test_async_calls_are_refused_like_blocking_ones() -> None:
    numbers = AsyncClient(AsyncFakeTransport(), IntSerializer())
    assert_type(await numbers.increment("k", initial=1, initial_ttl=5), int)
    assert_type(await numbers.increment("k", initial=1, ttl=5), int)
    assert_type(await numbers.decrement("k"), int | None)
    with refused():
        await numbers.increment("k", initial_ttl=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with refused():
        await numbers.decrement("k", initial=1, initial_ttl=5, ttl=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with refused():
        await numbers.append("k", 1)  # type: ignore[call-overload, misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    texts = AsyncClient(AsyncFakeTransport(), StrSerializer())
    assert_type(await texts.exists("k"), bool)
    with refused():
        await texts.increment("k")  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with refused():
        await texts.prepend("k", b"v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_only_int_clients_count() -> None:
    with refused():
        TEXTS.increment("k")  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with refused():
        BLOBS.decrement("k", initial=1)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with refused():
        USERS.increment("k")  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with refused():
        OPTIONAL.increment("k")  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def test_only_str_and_bytes_clients_append() -> None:
    with refused():
        NUMBERS.append("k", 1)  # type: ignore[call-overload, misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with refused():
        USERS.prepend("k", User("Ada"))  # type: ignore[call-overload, misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with refused():
        OPTIONAL.append("k", 1)  # type: ignore[call-overload, misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    with refused():
        TEXTS.append("k", b"v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        BLOBS.prepend("k", "v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_arguments_of_wrong_types_are_refused() -> None:
    with refused():
        TEXTS.set("k", b"v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.set(5, "v")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.set("k", "v", ttl=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.exists(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.compare_and_set("k", "v", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.delete("k", cas="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.invalidate("k", stale_for=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.get_many(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        TEXTS.with_options(compressor=None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with refused():
        TEXTS.with_options(on_error="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with refused():
        Client(FakeTransport(), "msgspec")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    with refused():
        AsyncClient(FakeTransport())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
