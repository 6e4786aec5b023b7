"""TLS for tests: one certificate authority, contexts for clients and servers, and options for memcached."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import trustme


@cache
def authority() -> trustme.CA:
    """Return the certificate authority of all servers of the test run."""
    return trustme.CA()


def trusting() -> ssl.SSLContext:
    """Return a new client context that trusts the authority."""
    context = ssl.create_default_context()
    trust(context)
    return context


def trust(context: ssl.SSLContext) -> None:
    """Make *context* trust the authority."""
    # trustme also accepts contexts of pyOpenSSL, whose types are not installed.
    authority().configure_trust(context)  # pyright: ignore[reportUnknownMemberType]


def serving(host: str = "127.0.0.1") -> ssl.SSLContext:
    """Return a new server context with a certificate for *host*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # as in `trust`
    return context


def options_of_a_server(where: Path) -> tuple[str, ...]:
    """Write key and certificate for 127.0.0.1 into *where*; return the options with which memcached uses TLS."""
    issued = authority().issue_cert("127.0.0.1")
    chain, key = where / "chain.pem", where / "key.pem"
    chain.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return "-Z", "-o", f"ssl_chain_cert={chain},ssl_key={key}"
