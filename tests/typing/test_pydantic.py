"""The types that type checkers infer for models of pydantic, and the calls that they refuse.

Each ignore comment is an assertion: the checkers report one that ignores nothing.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar, assert_type

import pydantic
import pytest

from metacache import AsyncClient, Client, InvalidTypeError, SerializationError, connect, connect_async, load_serializer
from metacache.testing import AsyncFakeTransport, FakeTransport

T = TypeVar("T")


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


class Box(pydantic.BaseModel, Generic[T]):
    held: T


def test_a_client_of_models_returns_models() -> None:
    cats = Client(FakeTransport(), load_serializer("pydantic", Cat))
    assert_type(cats, Client[Cat])
    assert_type(cats.get("k"), Cat | None)
    assert_type(cats.get_or_compute("k", Cat), Cat)
    assert_type(connect("memcached://127.0.0.1:1", Cat, serializer="pydantic"), Client[Cat])
    assert_type(connect_async("memcached://127.0.0.1:1", Cat, serializer="pydantic"), AsyncClient[Cat])


def test_a_client_of_a_union_returns_its_members() -> None:
    pets = Client(FakeTransport(), load_serializer("pydantic", Cat | Dog))
    assert_type(pets, Client[Cat | Dog])
    assert_type(pets.get("k"), Cat | Dog | None)
    pets.set("k", Dog(name="Rex"))
    assert pets.get("k") == Dog(name="Rex")
    tagged = load_serializer("pydantic", Annotated[Cat | Dog, pydantic.Field(discriminator="kind")])
    assert_type(Client(FakeTransport(), tagged), Client[Cat | Dog])
    assert_type(connect("memcached://127.0.0.1:1", Cat | Dog, serializer="pydantic"), Client[Cat | Dog])


def test_a_generic_model_keeps_its_argument() -> None:
    boxes = Client(FakeTransport(), load_serializer("pydantic", Box[int]))
    assert_type(boxes, Client[Box[int]])
    boxes.set("k", Box[int](held=1))
    assert_type(boxes.get("k"), Box[int] | None)
    assert boxes.get("k") == Box[int](held=1)


async def test_an_asyncio_client_of_a_union_returns_its_members() -> None:
    pets = AsyncClient(AsyncFakeTransport(), load_serializer("pydantic", Cat | Dog))
    assert_type(pets, AsyncClient[Cat | Dog])
    assert_type(await pets.get("k"), Cat | Dog | None)


def test_a_value_of_another_model_is_refused() -> None:
    cats = Client(FakeTransport(), load_serializer("pydantic", Cat))
    pets = Client(FakeTransport(), load_serializer("pydantic", Cat | Dog))
    boxes = Client(FakeTransport(), load_serializer("pydantic", Box[int]))
    with pytest.raises(SerializationError):
        cats.set("k", Dog())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(SerializationError):
        pets.set("k", "Rex")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(SerializationError):
        boxes.set("k", Box[str](held="a"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_model_needs_a_serializer() -> None:
    with pytest.raises(InvalidTypeError, match="give serializer='pydantic'"):
        connect("memcached://127.0.0.1:1", Cat)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
