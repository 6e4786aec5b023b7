"""The types of structured-object caching: what the checkers infer, and what they refuse. The calls run too.

Each ignore comment is an assertion, as in `test_refused`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, assert_type

import msgspec
import pytest

from metacache import (
    AsyncCached,
    AsyncClient,
    Cached,
    Client,
    Computed,
    DeleteResult,
    InvalidTypeError,
    Key,
    MetacacheError,
    Source,
    Stampede,
    load_serializer,
)
from metacache.serializers import StrSerializer
from metacache.testing import AsyncFakeTransport, FakeTransport


class User(msgspec.Struct):
    name: str


ZOE: Final = User("Zoë")
USERS: Final = Client(FakeTransport(), load_serializer("msgspec", User))
TEXTS: Final = Client(FakeTransport(), StrSerializer())
MAYBE: Final = Client(FakeTransport(), load_serializer("msgspec", User | None))
ASYNC: Final = AsyncClient(AsyncFakeTransport(), load_serializer("msgspec", User))


def make() -> User:
    return ZOE


def make_none() -> User | None:
    return None


async def make_later() -> User:
    return ZOE


def make_users(keys: Sequence[str]) -> Mapping[str, User]:
    return dict.fromkeys(keys, ZOE)


async def make_users_later(keys: Sequence[str]) -> Mapping[str, User]:
    return dict.fromkeys(keys, ZOE)


def test_a_computed_value_has_the_type_of_the_client() -> None:
    assert_type(USERS.get_or_compute("k", make), User)
    assert_type(USERS.get_or_compute_item("k", make), Computed[User])
    assert_type(USERS.get_or_compute_item("k", make).value, User)
    assert_type(USERS.get_or_compute_item("k", make).source, Source)
    assert_type(USERS.get_or_compute_many(["a"], make_users), dict[str, User])
    assert_type(USERS.get_or_compute(b"k", lambda: ZOE, ttl=5, policy=Stampede(lease=5)), User)
    assert_type(USERS.get_or_compute("k", make, should_cache=lambda user: user.name != ""), User)
    assert_type(USERS.namespace("n"), Client[User])
    assert_type(USERS.statistics.computations[Source.COMPUTED], int)
    # Negative caching: None is a value of the client.
    assert_type(MAYBE.get_or_compute("k", make_none), User | None)
    assert_type(MAYBE.get_or_compute_item("m", make_none), Computed[User | None])


async def test_an_awaited_value_has_the_type_of_the_client() -> None:
    assert_type(await ASYNC.get_or_compute("k", make_later), User)
    assert_type(await ASYNC.get_or_compute_item("k", make_later), Computed[User])
    assert_type(await ASYNC.get_or_compute_many(["a"], make_users_later), dict[str, User])
    assert_type(await ASYNC.namespace("n"), AsyncClient[User])


def test_a_factory_of_another_type_is_refused() -> None:
    with pytest.raises(MetacacheError):
        TEXTS.get_or_compute("k1", lambda: 5)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    with pytest.raises(MetacacheError):
        TEXTS.get_or_compute("k2", make_none)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError):
        USERS.get_or_compute("k3", ZOE)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        USERS.get_or_compute("k4", lambda key: ZOE)  # type: ignore[misc, arg-type]  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]  # noqa: ARG005
    with pytest.raises(TypeError):
        USERS.get_or_compute_many(["k5"], make)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError):
        USERS.get_or_compute("k6", make, policy=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        USERS.get_or_compute("k7", make, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_a_factory_that_is_not_awaited_is_refused() -> None:
    with pytest.raises(TypeError):
        await ASYNC.get_or_compute("k8", make)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- cached functions -------------------------------------------------------------------------------------------------


@USERS.cached("user:{id}:{active}")
def load(id: int, *, active: bool = True) -> User:  # noqa: A002 - as users write it
    return User(f"{id} {active}")


@ASYNC.cached("user:{id}")
async def load_later(id: int) -> User:  # noqa: A002 - as users write it
    return User(str(id))


def key_of(id: int, *, active: bool = True) -> str:  # noqa: A002 - as users write it
    return f"{id}/{active}"


@USERS.cached(key_of)
def load_keyed(id: int, *, active: bool = True) -> User:  # noqa: A002 - as users write it
    return User(f"{id} {active}")


class Store:
    @USERS.cached("store:{id}", ignore=("self",))
    def user(self, id: int) -> User:  # noqa: A002 - as users write it
        return User(str(id))

    @ASYNC.cached("store:{id}", ignore=("self",))
    async def user_later(self, id: int) -> User:  # noqa: A002 - as users write it
        return User(str(id))


def test_a_cached_function_keeps_its_parameters() -> None:
    assert_type(load(1), User)
    assert_type(load(1, active=False), User)
    assert_type(load.refresh(1, active=False), User)
    assert_type(load.delete(1), DeleteResult)
    assert_type(load.key_for(id=1), Key)
    assert_type(load.__wrapped__(1), User)
    assert_type(load_keyed(1, active=False), User)


def test_a_cached_method_is_bound_to_its_instance() -> None:
    store = Store()
    assert_type(store.user(1), User)
    assert_type(store.user.refresh(id=1), User)
    assert_type(store.user.delete(1), DeleteResult)
    assert_type(store.user.key_for(1), Key)
    bound: Cached[[int], User] = store.user
    assert bound(1) == User("1")


async def test_an_async_cached_function_keeps_its_parameters() -> None:
    store = Store()
    assert_type(await load_later(1), User)
    assert_type(await load_later.refresh(id=1), User)
    assert_type(await load_later.delete(1), DeleteResult)
    assert_type(load_later.key_for(1), Key)
    assert_type(await store.user_later(1), User)
    assert_type(await store.user_later.refresh(1), User)
    assert isinstance(load_later, AsyncCached)


def test_wrong_arguments_of_a_cached_function_are_refused() -> None:
    store = Store()
    with pytest.raises(TypeError):
        load()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        load(1, False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # noqa: FBT003
    with pytest.raises(TypeError):
        load(1, name="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        load.refresh()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        load.delete(1, name="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(InvalidTypeError):
        load.key_for(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        store.user()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_wrong_functions_and_keys_are_refused_when_decorating() -> None:
    with pytest.raises(InvalidTypeError):
        USERS.cached("k")(make_later)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidTypeError):
        USERS.cached(5)(make)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    # The key function has other parameters than the function.
    wrong: Any = USERS.cached(key_of)(make)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # Any: refused
    with pytest.raises(TypeError):
        wrong()
