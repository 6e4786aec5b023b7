"""Unknown options: the error says where each belongs, for every way to pass it. Nothing is opened before the check."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import pytest

from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncPool,
    Client,
    ClientOptions,
    Cluster,
    InvalidTypeError,
    Node,
    Pool,
    Settings,
    connect,
    connect_async,
)

URL: Final = "memcached://127.0.0.1:1"
NODE: Final = Node("127.0.0.1:1")

# Any, here and below: options that a type checker would refuse.
WAYS: Final[dict[str, Callable[..., Any]]] = {
    "connect": partial(connect, URL),
    "connect_async": partial(connect_async, URL),
    "Client": partial(Client, Pool(NODE)),
    "AsyncClient": partial(AsyncClient, AsyncPool(NODE)),
    "Cluster.client": Cluster([NODE]).client,
    "AsyncCluster.client": AsyncCluster([NODE]).client,
    "with_options": Client(Pool(NODE)).with_options,
    "AsyncClient.with_options": AsyncClient(AsyncPool(NODE)).with_options,
}
EVERY_WAY: Final = pytest.mark.parametrize("way", WAYS)

WHERE: Final[list[tuple[str, object, str]]] = [
    ("pool_size", 5, "it is a setting: `Settings(pool_size=5)` or `?pool_size=5` in the URL"),
    ("connect_timeout", 0.5, "it is a setting: `Settings(connect_timeout=0.5)` or `?connect_timeout=0.5` in the URL"),
    ("max_reply_size", 10**5000, "`Settings(max_reply_size=a number of 16610 bits)`"),
    ("on_node_down", "next", "it is a setting: `Settings(on_node_down=...)` or `?on_node_down=...` in the URL"),
    ("tls", True, "it is a setting: `Settings(tls=...)` or memcacheds:// in the URL"),
    ("password", "canary", "it is a setting: `Settings(username=..., password=...)` or memcached://user:password@host"),
    ("username", "canary", "it is a setting: `Settings(username=..., password=...)` or memcached://user:password@host"),
    ("ttl", 60, "the option is `default_ttl`"),
    ("expire", 60, "the option is `default_ttl`"),
    ("key_prefix", "p", "the option is `prefix`"),
    ("prefx", "p", "the option is `prefix`"),
    ("default_tll", 60, "the option is `default_ttl`"),
    ("longkeys", "hash", "the option is `long_keys`"),
    ("pool_sise", 5, "did you mean 'pool_size'? It is a setting: `Settings(pool_size=5)`"),
    ("max_connections", 5, "did you mean 'pool_size'? It is a setting: `Settings(pool_size=5)`"),
    ("ssl_context", None, "did you mean 'tls'? It is a setting: `Settings(tls=...)`"),
    ("serde", None, "did you mean 'serializer'? it is an argument of connect"),
    ("router", None, "it is an argument of Cluster"),
    ("colour", "canary", "the options are prefix, default_ttl, "),
]


@EVERY_WAY
@pytest.mark.parametrize(("name", "value", "words"), WHERE, ids=[name for name, _, _ in WHERE])
def test_an_unknown_option_is_refused_and_the_error_says_where_it_belongs(
    way: str, name: str, value: object, words: str
) -> None:
    with pytest.raises(InvalidTypeError, match=re.escape(f"there is no option {name!r}: ")) as refused:
        WAYS[way](**{name: value})
    assert words in str(refused.value)
    assert "canary" not in str(refused.value)


@EVERY_WAY
@pytest.mark.parametrize("name", sorted(attrs.fields_dict(Settings).keys() - ClientOptions.__annotations__.keys()))
def test_the_error_for_a_setting_as_an_option_names_settings(way: str, name: str) -> None:
    with pytest.raises(InvalidTypeError, match=rf"there is no option '{name}': it is a setting: `Settings\(.*{name}="):
        WAYS[way](**{name: 1})


@pytest.mark.parametrize("way", ["with_options", "AsyncClient.with_options"])
def test_an_option_that_a_view_cannot_change_is_named(way: str) -> None:
    with pytest.raises(InvalidTypeError, match=r"with_options changes .*, not long_keys; make another client for that"):
        WAYS[way](long_keys="hash")


@pytest.mark.parametrize("make", [connect, connect_async])
@pytest.mark.parametrize("wrong", [{"ttl": 5}, {"timeout": -1}, {"default_ttl": 0}, {"owns": True}], ids=str)
def test_nothing_is_opened_before_the_options_are_checked(make: Callable[..., Any], wrong: dict[str, Any]) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match=r"ttl|timeout|on_error|owns"):
        make("memcached+dns://localhost:1", **wrong)
    assert threading.active_count() == before, "a source of nodes is watched by a thread"
