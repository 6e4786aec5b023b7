"""No text contains a credential: errors, the errors that they refer to, reprs. Tests many URLs and settings."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import attrs
import pytest

from metacache import (
    AsyncCluster,
    AsyncConnection,
    Cluster,
    Connection,
    InvalidArgumentError,
    Node,
    Pool,
    Settings,
    connect,
    connect_async,
)
from metacache.protocol import commands
from metacache.urls import parse_url
from tests import raw_requests

HALVES: Final = ("canary", "yellow")  # lower case and digits, like settings and hosts, which makes it hard to recognise
PLAIN: Final = Settings()

# Text in the middle of a password that was not percent-encoded.
MIDDLES: Final = [
    *"/?#@:,;&=+%[]| \\\"'^`{}<>!$*()~",
    *("%ff", "%zz", "%", "%00", "%0a", "%20", "%25", "%C3", "%ed%b0%80"),
    *("://", "//", "/../", "/?", "?a=", "/?a=", "?timeout=", "/?timeout=", "@@", "@h@", ":1/?", "&weights=", "[::1]"),
    *"ä\udc80\ud800\x00\n\t\x7f",
]
SHAPES: Final = (
    "memcached://root:{}@host:11211",
    "memcached://{}:root@host",
    "memcached://{}@host",
    "memcached://:{}@host",
    "memcached://root:{}@",
    "memcached://root:{}@host:0",
    "memcached://root:{}@host/path",
    "memcached://root:{}@host/?timeout=x",
    "memcached://root:{}@host/?color=1",
    "memcached://root:{}@a,b/?weights=1",
    "memcached://root:{}@[fe80::1%25]",
    "memcached://root:{}",
    "memcached://root:{}/",
    "memcached://root:{}:11211",
    "memcached://{}",
    "memcached:root:{}@host",
    "memcached:/root:{}@host",
    "MEMCACHED://root:{}@host",
    "redis://root:{}@host",
    "{}://root:{}@host",
    "root:{}@host:11211",
    "{}@host",
    "{}",
    "memcacheds://root:{}@host:x",
    "memcached+unix://root:{}@host/path",
    "memcached+unix://root:{}@/" + "x" * 108,
    "memcached+dns://root:{}@a,b",
    "memcached+dns://root:{}",
    "memcached+nosuch://root:{}@a",
    "memcached://host/?password={}",
    "memcached://host/?timeout={}",
    "memcached://host/?pool_size={}",
    "memcached://host/?on_node_down={}",
    "memcached://host/?weights={}",
    "memcached://host:{}/",
    "memcached://[{}]/",
    "memcached://host/{}",
)
URLS: Final = [
    shape.replace("{}", HALVES[0] + middle + HALVES[1]) for shape, middle in itertools.product(SHAPES, ["", *MIDDLES])
]


def linked(error: BaseException) -> Iterator[BaseException]:
    """Return *error* and all errors that it refers to, suppressed ones too."""
    found, left = [error], [error]
    while left:
        here = left.pop()
        links = [link for link in (here.__cause__, here.__context__) if link is not None and link not in found]
        found += links
        left += links
    yield from found


def texts_of(error: BaseException) -> Iterator[str]:
    yield from traceback.format_exception(error)
    for each in linked(error):
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))


def reveals(text: str) -> bool:
    return any(half in text.lower() for half in HALVES)


def through_parse_url(url: str) -> object:
    place, settings = parse_url(url, PLAIN)
    # The parts that a repr may show: in such a URL, a part of a password has the form of a host or a path.
    return settings, attrs.asdict(settings).keys(), len(place) if isinstance(place, tuple) else place.port


def through_cluster(url: str) -> None:
    Cluster.from_url(url).close()


WAYS: Final[dict[str, Callable[[str], object]]] = {"parse_url": through_parse_url, "Cluster.from_url": through_cluster}


@pytest.mark.parametrize("way", WAYS)
def test_no_error_about_a_url_contains_its_password(way: str) -> None:
    """One test for all URLs: it lists failures by their position in the table, because a test report is a text too."""
    make, revealing, refused = WAYS[way], list[int](), 0
    for number, url in enumerate(URLS):
        if way == "Cluster.from_url" and "+dns" in url:
            continue  # a lookup by the resolver
        try:
            shown = [repr(make(url))]
        except InvalidArgumentError as error:
            refused += 1
            shown = list(texts_of(error))
        if any(map(reveals, shown)):
            revealing.append(number)
    assert [ascii(URLS[number]) for number in revealing] == []
    assert refused > 1000, "the table is one of malformed URLs"


def test_the_check_includes_suppressed_errors() -> None:
    def raising() -> None:
        try:
            raise ValueError(HALVES[0])
        except ValueError:
            raise InvalidArgumentError("nothing is seen here") from None

    with pytest.raises(InvalidArgumentError) as caught:
        raising()
    assert any(map(reveals, texts_of(caught.value)))


# --- settings ----------------------------------------------------------------------------------------------------

SURROGATES: Final = ("\ud800", "\udc80", "\udcff", "\udfff")


@pytest.mark.parametrize("name", ["username", "password"])
@pytest.mark.parametrize("bad", [*SURROGATES, "\x00", "\n", "\r", "\x7f"], ids=ascii)
def test_a_credential_that_cannot_be_sent_is_refused_and_never_shown(name: str, bad: str) -> None:
    for value in (f"{HALVES[0]}{bad}", f"{bad}{HALVES[0]}", f"{HALVES[0]}{bad}{HALVES[1]}"):
        given: dict[str, Any] = {"username": "root", "password": "pass", name: value}  # Any: a value of any setting
        for make in (Settings, partial(attrs.evolve, PLAIN)):
            with pytest.raises(InvalidArgumentError, match=rf"Settings\.{name} ") as caught:
                make(**given)
            assert not any(map(reveals, texts_of(caught.value)))


@pytest.mark.parametrize("name", ["username", "password"])
def test_credentials_with_a_lone_surrogate_are_refused_by_field_name(name: str) -> None:
    value = b"canary\xff".decode(errors="surrogateescape")  # like a value in `os.environ`
    given = {"username": "root", "password": "pass", name: value}
    with pytest.raises(InvalidArgumentError, match="it was read from bytes that are not UTF-8"):
        Settings(**given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # one name of many types


@pytest.mark.parametrize("part", ["the user", "the password", "the path", "the query", "host number 1"])
@pytest.mark.parametrize("escape", ["%ff", "%C3", "%c3%28", "%ed%b0%80", "a%80b"])
def test_an_escape_that_is_not_utf8_is_refused_and_never_replaced(part: str, escape: str) -> None:
    urls = {
        "the user": f"memcached://u{escape}:p@host",
        "the password": f"memcached://u:p{escape}@host",
        "the path": f"memcached+unix:///run/{escape}.sock",
        "the query": f"memcached://host/?{escape}=1",
        "host number 1": f"memcached://[fe80::1{escape}]",
    }
    with pytest.raises(InvalidArgumentError, match=f"{part} of the URL") as caught:
        parse_url(urls[part], PLAIN)
    assert all(each.__context__ is None for each in linked(caught.value))


def test_escapes_of_valid_utf8_are_decoded() -> None:
    _, settings = parse_url("memcached://%C3%A4:p%C3%B6%2F%3F%23%40%25@host", PLAIN)
    assert (settings.username, settings.password) == ("ä", "pö/?#@%")


# --- reprs -------------------------------------------------------------------------------------------------------


async def test_no_repr_shows_credentials() -> None:
    settings = Settings(username=HALVES[0], password=HALVES[1])
    url, node = f"memcached://{HALVES[0]}:{HALVES[1]}@host", Node("host")
    made: list[object] = [
        settings,
        connect(url),
        connect_async(url),
        Cluster([node], settings=settings),
        AsyncCluster([node], settings=settings),
        Pool(node, settings=settings),
        Connection(node, settings=settings),
        AsyncConnection(node, settings=settings),
        commands.authenticate(HALVES[0], HALVES[1]),
        raw_requests.meta_set(b"key", HALVES[0].encode(), {}),
    ]
    assert [each for each in made if reveals(repr(each)) or reveals(str(each))] == []


@pytest.mark.parametrize("text", ["memcached://root:{}@host", "root:{}@host:1", "memcached://root:{}", "@{}"])
def test_the_error_for_a_url_as_an_address_does_not_quote_it(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"connect\(url\) takes a URL") as caught:
        Node(text.replace("{}", HALVES[0]))
    assert not any(map(reveals, texts_of(caught.value)))
