"""The types that type checkers infer through plugins. The checkers check assert_type, and the calls run too."""

from __future__ import annotations

from typing import assert_type

import attrs
import metacache_attrs
import metacache_msgspec
import metacache_orjson
import metacache_pydantic
import msgspec
import pydantic

from metacache import Client, Serializer, SerializerPlugin, load_serializer
from metacache.testing import FakeTransport
from tests.plugins.example_plugin import metacache_plist


@attrs.frozen
class User:
    name: str


class Account(msgspec.Struct):
    name: str


class Person(pydantic.BaseModel):
    name: str


class Company(pydantic.BaseModel):
    title: str


def test_every_plugin_satisfies_the_protocol_without_inheriting() -> None:
    plugins: list[SerializerPlugin] = [
        metacache_attrs.PLUGIN,
        metacache_orjson.PLUGIN,
        metacache_msgspec.MSGPACK,
        metacache_msgspec.JSON,
        metacache_pydantic.PLUGIN,
        metacache_plist.PLUGIN,
    ]
    assert [plugin.wire_id for plugin in plugins] == [144, 112, 64, 80, 176, 224]
    assert {plugin.api_version for plugin in plugins} == {1}
    assert_type(plugins[0].build(User), Serializer[User])
    assert_type(plugins[0].build(User | None), Serializer[User | None])


def test_the_type_is_inferred_through_load_serializer() -> None:
    assert_type(load_serializer("attrs", User), Serializer[User])
    assert_type(load_serializer("attrs", User | None), Serializer[User | None])
    assert_type(load_serializer("orjson", list[User]), Serializer[list[User]])
    assert_type(load_serializer("orjson", dict[str, User | int]), Serializer[dict[str, User | int]])
    assert_type(load_serializer("msgspec", Account | None), Serializer[Account | None])
    assert_type(load_serializer("msgspec-json", tuple[Account, ...]), Serializer[tuple[Account, ...]])
    assert_type(load_serializer("pydantic", Person), Serializer[Person])
    assert_type(load_serializer("pydantic", Person | Company), Serializer[Person | Company])


def test_the_type_is_inferred_through_the_plugin() -> None:
    assert_type(metacache_attrs.PLUGIN.build(User | None), Serializer[User | None])
    assert_type(metacache_orjson.PLUGIN.build(list[User]), Serializer[list[User]])
    assert_type(metacache_msgspec.MSGPACK.build(Account), Serializer[Account])
    assert_type(metacache_msgspec.JSON.build(Account | None), Serializer[Account | None])
    assert_type(metacache_pydantic.PLUGIN.build(Person | Company), Serializer[Person | Company])
    assert_type(metacache_plist.PLUGIN.build(dict[str, int]), Serializer[dict[str, int]])


def test_a_client_has_the_type_of_its_serializer() -> None:
    client = Client(FakeTransport(), load_serializer("attrs", User))
    assert_type(client, Client[User])
    assert_type(client.get("k"), User | None)
    client.set("k", User("Zoë"))
    assert client.get("k") == User("Zoë")
