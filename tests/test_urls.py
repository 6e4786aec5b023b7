"""URLs: parsing, and errors that name the invalid part without quoting a credential."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metacache import (
    AsyncCluster,
    Cluster,
    InvalidArgumentError,
    InvalidTypeError,
    Node,
    Settings,
    connect,
    connect_async,
)
from metacache.urls import SourceLocation, parse_url

PLAIN = Settings()


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("memcached://a", (Node("a"),)),
        ("memcached://a:1/", (Node("a:1"),)),
        ("memcached://[::1]:5", (Node("[::1]:5"),)),
        ("memcached://[FE80::1%25eth0]:5", (Node("[fe80::1%eth0]:5"),)),
        ("memcached://[fe80::1%eth0]", (Node("[fe80::1%eth0]"),)),
        ("memcached://[fe80::1%252]", (Node("[fe80::1%2]"),)),
        ("memcached+unix:///run/m.sock", (Node("unix:/run/m.sock"),)),
        ("memcached+unix:///run/m%20%C3%A4.sock", (Node("unix:/run/m ä.sock"),)),
        ("memcached://a:1,b:2/?weights=2,1", (Node("a:1", weight=2.0), Node("b:2", weight=1.0))),
        ("memcached+dns://a:1", SourceLocation("dns", "a", 1)),
        ("memcached+elasticache://a:1/", SourceLocation("elasticache", "a", 1)),
    ],
)
def test_every_form_of_url_is_parsed(url: str, places: object) -> None:
    assert parse_url(url, PLAIN) == (places, PLAIN)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://a", "scheme"),
        ("memcached://", "no host"),
        ("memcached://a/path", "path"),
        ("memcached://a:1,b:x", "host number 2 of the URL has a port that is not a number"),
        ("memcached://a:99999", "host number 1 of the URL has a port that is not between 1 and 65535"),
        ("memcached://[::1]:0", "host number 1 of the URL has a port that is not between 1 and 65535"),
        ("memcached://a:", "a port that is not a number"),
        ("memcached://[zz]:1", "is not host:port"),
        ("memcached://[1:2]:1", "is not host:port"),
        ("memcached://a,,b", "host number 2 of the URL is empty"),
        ("memcached://::1", "write an IPv6 address in brackets"),
        ("memcached://a,b/?weights=1", "1 weights for 2 hosts"),
        ("memcached://a/?color=1", "unknown key 'color'"),
        ("memcached://a/?timeout=1&timeout=2", "'timeout' twice"),
        ("memcached://a/?timeout=1_0", "timeout is a number, not '1_0'"),
        ("memcached://a/?pool_size=1.5", "pool_size is a whole number, not '1.5'"),
        ("memcached://a/?prefix=p", "'prefix'; it is a keyword of connect"),
        ("memcached://a/?default_ttl=60", "'default_ttl'; it is a keyword of connect"),
        ("memcached://a/?serializer=json", "'serializer'; it is a keyword of connect"),
        ("memcached://a/?tls=1", "'tls'; write memcacheds://"),
        ("memcached://a/?password=p", "'password'; write memcached://user:password@host"),
        ("memcached://a/?timeout=1#part", "has a #"),
        ("MEMCACHED://a", "lower case, not 'MEMCACHED'"),
        ("a:11211", "no scheme: its form is scheme://.*, for example memcached://localhost:11211"),
        ("localhost", "no scheme.*for example memcached://localhost:11211"),
        ("memcached:a", "no scheme.*for example memcached://localhost:11211"),
        ("//a:11211", "no scheme.*for example memcached://localhost:11211"),
        ("://a:11211", "the form of a URL is scheme://.*, for example memcached://localhost:11211"),
        ("memcached://a/?on_node_down=wait", "on_node_down is 'fail' or 'next'"),
        ("memcached://[fe80::1%25]", "is not host:port"),
        ("memcached://[fe80::1%25a%2Fb]", "is not host:port"),
        ("memcached+dns://a/?weights=1", "dns URL has no weights"),
        ("memcached+unix:///" + "x" * 107, "108 bytes is too long"),
        ("memcached+unix:///%C3%A4" + "x" * 105, "108 bytes is too long"),
        ("memcached://a\udc80", "lone surrogate"),
        ("memcached+unix:///run/\udcff", "lone surrogate"),
        ("memcached+file:///x", "no node source is called 'file'"),
        ("memcached+dns:///x", "path must be empty or /"),
        ("memcached+dns://", "has no host"),
        ("memcached+dns://a,b", "has one host"),
        ("memcached+unix://a/path", "has no host"),
    ],
)
def test_the_error_names_the_invalid_part(url: str, named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=named):
        parse_url(url, PLAIN)


@pytest.mark.parametrize(
    "rest",
    [
        "root:se/cret@a",
        "root:se?cret@a",
        "root:se#cret@a",
        "root:secret",
        "root:99999999",
        "root:9secret",
        "root:se:cret",
        "root:[secret",
        "root@secret@",
        "root:secret@a:b:c,[root",
    ],
)
def test_credentials_are_never_quoted(rest: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_url(f"memcached://{rest}", PLAIN)
    assert "root" not in str(caught.value)
    assert "cret" not in str(caught.value)


def test_the_url_has_priority_over_the_settings() -> None:
    _, settings = parse_url("memcached://a/?timeout=0.5", Settings(timeout=3.0, pool_size=7))
    assert (settings.timeout, settings.pool_size) == (0.5, 7)


@pytest.mark.parametrize("make", [connect, connect_async, Cluster.from_url, AsyncCluster.from_url])
@pytest.mark.parametrize("settings", [{"timeout": 1}, 5, "timeout=1"])
def test_wrong_settings_are_a_typed_error(make: Callable[..., object], settings: object) -> None:
    with pytest.raises(InvalidTypeError, match="settings is a Settings"):
        make("memcached://a", settings=settings)


@pytest.mark.parametrize(
    "url", ["memcached://u%zz:p@a", "memcached://u:p%@a", "memcached://u:%4@a", "memcached+unix:///%g0"]
)
def test_a_broken_percent_escape_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError, match="two hexadecimal digits"):
        parse_url(url, PLAIN)
