"""LOCATION and OPTIONS: what is accepted, and what an error names."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from metacache_django import MetaCache
from metacache_django.options import configuration

from metacache import Node, Settings, Zlib
from metacache.testing import Memcached


@pytest.mark.parametrize(
    ("location", "addresses"),
    [
        ("cache-1", ["cache-1:11211"]),
        ("cache-1:11212", ["cache-1:11212"]),
        ("cache-1,cache-2:11212", ["cache-1:11211", "cache-2:11212"]),
        ("cache-1; cache-2:11212;", ["cache-1:11211", "cache-2:11212"]),
        (["cache-1", "cache-2:11212"], ["cache-1:11211", "cache-2:11212"]),
        (("cache-1", "unix:/run/m.sock"), ["cache-1:11211", "unix:/run/m.sock"]),
        ("unix:/run/m.sock", ["unix:/run/m.sock"]),
        ("/run/m.sock", ["unix:/run/m.sock"]),
        ("[::1]:11212", ["[::1]:11212"]),
        ("memcached://cache-1:11212,cache-2", ["cache-1:11212", "cache-2:11211"]),
        (["memcached://cache-1"], ["cache-1:11211"]),
        ("memcached+unix:///run/m.sock", ["unix:/run/m.sock"]),
    ],
)
async def test_a_location_names_servers(location: str | list[str], addresses: list[str]) -> None:
    configured = configuration(location, {})
    nodes = tuple(Node(address) for address in addresses)
    with configured.open() as cluster:
        assert cluster.nodes == nodes
    async with configured.open_async() as other:
        assert other.nodes == nodes


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("", "is empty"),
        ([], "is empty"),
        (" ; ", "is empty"),
        ("cache-1:port", "'cache-1:port' is not host:port"),
        ("cache-1,cache-1:11211", "two nodes have the name"),
        ([("cache-1", 11211)], "a list of str"),
        (["memcached://cache-1", "memcached://cache-2"], "one URL"),
        ("memcached://cache-1/?timeuot=1", "unknown key 'timeuot'"),
        ("redis://cache-1", "scheme"),
    ],
)
def test_a_mistake_in_the_location_is_named(location: Any, reason: str) -> None:  # Any: wrong types too
    with pytest.raises(ImproperlyConfigured, match=f"LOCATION of a MetaCache.*{reason}"):
        configuration(location, {})


def test_an_error_and_a_repr_show_no_password() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        configuration("memcached://user:hidden@cache-1:port", {})
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "hidden" not in configuration("memcached://user:hidden@cache-1", {}).name


def test_options_become_settings_and_client_options() -> None:
    context, zlib = ssl.create_default_context(), Zlib()
    options = {
        "timeout": 0.25,
        "pool_size": 3,
        "on_node_down": "next",
        "tls": context,
        "username": "a",
        "password": "b",
    }
    configured = configuration("cache-1", {**options, "on_error": "miss", "compressor": zlib})
    assert configured.settings == Settings(
        timeout=0.25, pool_size=3, on_node_down="next", tls=context, username="a", password="b"
    )
    assert (configured.on_error, configured.compressor) == ("miss", zlib)
    assert configuration("memcached://cache-1/?timeout=2", {"timeout": 0.25}).settings.timeout == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeuot": 1}, "no 'timeuot': did you mean 'timeout'"),
        ({"ignore_exc": True}, "no 'ignore_exc'.*'on_error'"),
        ({"use_pooling": True}, "no 'use_pooling'.*'pool_size'"),
        ({"MAX_ENTRIES": 30}, "no 'MAX_ENTRIES'"),
        ({"something": 30}, "no 'something': it has timeout"),
        ({"pool_size": 0}, "pool_size is at least 1"),
        ({"timeout": "1"}, "timeout is a number of seconds"),
        ({"timeout": [1]}, "timeout is a number of seconds"),
        ({"password": "only"}, "belong together"),
        ({"on_error": "pass"}, "on_error is 'raise', 'miss' or 'ignore', not 'pass'"),
        ({"on_error": ["pass"]}, "on_error is"),
        ({"compressor": 5}, "compressor is a Compressor"),
        ({"compressor": Zlib(min_size=20)}, "min_size of the compressor"),
    ],
)
def test_a_mistake_in_the_options_is_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"OPTIONS of a MetaCache.*{reason}"):
        configuration("cache-1", options)


def test_a_unix_socket_and_a_url_work() -> None:
    with Memcached(unix=True) as server:
        for location in (f"unix:{server.path}", str(server.path), server.url):
            cache = MetaCache(location, {})
            cache.set("k", location)
            assert cache.get("k") == location
            cache._shared.close()
