"""Targets of what people and other servers write: URLs, the replies of ElastiCache, and keys from templates."""

from __future__ import annotations

import ssl
import uuid
from typing import Final, TypeAlias

from fuzzing.cursor import Cursor
from metacache.caching.templates import KeyTemplate
from metacache.discovery.elasticache_answers import parse_config
from metacache.errors import InvalidArgumentError, ProtocolError
from metacache.nodes import Node, TcpAddress, UnixAddress
from metacache.settings import Settings
from metacache.urls import parse_url

PASSWORD: Final = "Kq9-secret-Zw4"  # stands in no URL by chance
SCHEMES: Final = ("memcached", "memcacheds", "memcached+unix", "memory", "memcached+dns", "memcached+elasticache")
# With a context, so that no URL loads the certificates of the machine.
SETTINGS: Final = Settings(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
Argument: TypeAlias = str | int | bool | bytes | uuid.UUID | None
TEMPLATES: Final = ("{a}:{b}", "u/{a}/{b}", "{a}|{b}|", "x{a} {b}y", "{b}é{a}")


def parse_urls(data: bytes) -> None:
    """Parse *data* as a URL, alone, and behind a scheme with credentials. No error and no repr has the password."""
    cursor = Cursor(data)
    scheme, is_whole, text = cursor.choice(SCHEMES), cursor.number() & 1, cursor.rest().decode("utf-8", "replace")
    url = text if is_whole else f"{scheme}://user:{PASSWORD}@{text}"
    try:
        place, settings = parse_url(url, SETTINGS)
    except InvalidArgumentError as error:
        if PASSWORD in str(error):
            raise AssertionError("an error quotes the password") from None
        return
    assert PASSWORD not in repr(settings), "the repr of the settings has the password"
    assert PASSWORD not in repr(place), "the place of the nodes has the password"
    for node in place if isinstance(place, tuple) else ():
        if isinstance(node.address, TcpAddress | UnixAddress):
            assert Node(str(node.address)).address == node.address, "an address differs when it is read again"


def parse_elasticache(data: bytes) -> None:
    """Parse *data* as the reply to ``config get cluster``. Each accepted list can be written and read again."""
    cursor = Cursor(data)
    name = "cache.example.com" if cursor.number() & 1 else None
    block = cursor.rest()
    try:
        config = parse_config(block, server_hostname=name)
    except ProtocolError as error:
        if len(str(error)) > 200:
            raise AssertionError("the error may quote the reply") from None
        return
    assert config.nodes, "a cluster without nodes was accepted"
    hosts = " ".join(_entry(node) for node in config.nodes)
    again = parse_config(f"{config.version}\n{hosts}\n".encode(), server_hostname=name)
    assert [node.name for node in again.nodes] == [node.name for node in config.nodes]
    assert [str(node.address) for node in again.nodes] == [str(node.address) for node in config.nodes]


def _entry(node: Node) -> str:
    """Return *node* as the reply writes it."""
    address = node.address
    assert isinstance(address, TcpAddress), "ElastiCache has no other nodes"
    named, port = node.name.rsplit(":", 1)
    return f"{named.strip('[]')}|{address.host if address.host != named else ''}|{port}"


def fill_templates(data: bytes) -> None:
    """Fill one template with two calls. Equal keys mean equal arguments."""
    cursor = Cursor(data)
    template = KeyTemplate(cursor.choice(TEMPLATES), _cached, ())
    first, second = [(_argument(cursor), _argument(cursor)) for _ in range(2)]
    try:
        keys = template.fill(first, {}), template.fill(second, {})
    except InvalidArgumentError:
        return
    same = [_text(each) for each in first] == [_text(each) for each in second]
    assert (keys[0] == keys[1]) is same, "two calls share a key, or one call has two"
    assert keys[0].isascii() or "é" in keys[0], "a value is not encoded"


def _cached(a: object, b: object) -> None:
    """Stand for a cached function of two arguments."""


def _argument(cursor: Cursor) -> Argument:
    match cursor.number() % 6:
        case 0:
            return cursor.text()
        case 1:
            return cursor.number(9) - 2**63
        case 2:
            return cursor.piece()
        case 3:
            return (None, True, False)[cursor.number() % 3]
        case 4:
            return uuid.UUID(int=cursor.number(16))
        case _:
            return cursor.text().strip("\0")


def _text(argument: Argument) -> object:
    """Return what the key of *argument* may depend on: 42 and "42" share a key, and so do a UUID and its text."""
    return argument if argument is None or isinstance(argument, bool | bytes) else str(argument)
