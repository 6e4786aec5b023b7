"""A server whose certificate is not valid gets no request and no credential, from either client."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
import trustme

from metacache import ConnectError, Node, Settings, connect, connect_async
from tests.certificates import authority, serving, trusting
from tests.scripted import Peer, ScriptedServer, answering

NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
PLACE: Final = "127.0.0.1"


def issued(
    host: str = PLACE, *, by: trustme.CA | None = None, begin: datetime | None = None, end: datetime | None = None
) -> ssl.SSLContext:
    """Return the context of a server whose certificate has these properties."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = (by or authority()).issue_cert(host, not_before=begin, not_after=end)
    leaf.configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # types of pyOpenSSL, as in `trust`
    return context


# The certificate, and a part of the reason in the error.
REFUSED: Final[dict[str, tuple[Callable[[], ssl.SSLContext], str]]] = {
    "another name": (lambda: issued("other.invalid"), "IP address mismatch"),
    "another address": (lambda: issued("127.0.0.2"), "IP address mismatch"),
    "a name that resolves to the address": (lambda: issued("localhost"), "IP address mismatch"),
    "expired": (lambda: issued(begin=NOW - 2 * DAY, end=NOW - DAY), "certificate has expired"),
    "not yet valid": (lambda: issued(begin=NOW + DAY, end=NOW + 2 * DAY), "certificate is not yet valid"),
    "untrusted": (lambda: issued(by=trustme.CA()), "unable to get local issuer certificate"),
    "untrusted and expired": (lambda: issued(by=trustme.CA(), begin=NOW - 2 * DAY, end=NOW - DAY), ""),
}
BOTH: Final = pytest.mark.parametrize("blocking", [True, False])


async def store(node: Node, settings: Settings, *, blocking: bool) -> None:
    url = f"memcacheds://user:secret@{node.name}"
    if blocking:
        with connect(url, settings=settings) as client:
            client.set("key", b"value")
    else:
        async with connect_async(url, settings=settings) as client:
            await client.set("key", b"value")


@BOTH
@pytest.mark.parametrize("way", REFUSED)
async def test_a_server_with_an_invalid_certificate_gets_nothing(way: str, *, blocking: bool) -> None:
    make, reason = REFUSED[way]
    received: list[bytes] = []

    def recording(peer: Peer) -> None:
        received.append(peer.sock.recv(65536))  # after the handshake, which fails

    server = ScriptedServer(recording, tls=make())
    with pytest.raises(ConnectError, match=f"its certificate was not accepted: .*{reason}") as caught:
        await store(server.node, Settings(tls=trusting(), timeout=5.0, connect_timeout=5.0), blocking=blocking)
    with contextlib.suppress(ssl.SSLError, OSError):  # from the view of the server
        server.__exit__(None, None, None)
    assert not caught.value.maybe_applied
    assert [data for data in received if data] == []


@BOTH
async def test_a_server_with_a_valid_certificate_is_used(*, blocking: bool) -> None:
    for context in (serving(PLACE), issued(begin=NOW - DAY, end=NOW + DAY)):
        with ScriptedServer(answering((b"STORED", None), (b"HD", None)), tls=context) as server:
            await store(server.node, Settings(tls=trusting(), timeout=5.0, connect_timeout=5.0), blocking=blocking)


@BOTH
async def test_a_memcacheds_url_trusts_only_the_authorities_of_the_system(*, blocking: bool) -> None:
    server = ScriptedServer(Peer.expect_end, tls=serving(PLACE))
    with pytest.raises(ConnectError, match="its certificate was not accepted"):
        await store(server.node, Settings(timeout=5.0, connect_timeout=5.0), blocking=blocking)
    with contextlib.suppress(ssl.SSLError, OSError):  # from the view of the server
        server.__exit__(None, None, None)
