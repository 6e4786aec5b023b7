"""Find the addresses of a node, and describe a dial that failed. Shared by both kinds of connection.

A question to the system's resolver runs in a thread of its own, because `getaddrinfo` has no timeout. Both dialers set
their sockets' options here too.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, TypeAlias, final

from metacache.errors import ConnectError
from metacache.interrupts import ignoring, is_own
from metacache.nodes import Node, UnixAddress
from metacache.settings import Settings

__all__ = ["Lookup", "Resolver", "Target", "dial_failed", "set_tcp_options"]

# What connect() takes: (family, address). Any: an address differs from family to family, and typeshed says so too.
Target: TypeAlias = tuple[int, "tuple[Any, ...] | str"]

KEEP_ANSWER: Final = 60.0  # seconds an answer of the resolver is used without asking again

_ADVICE: Final = {
    errno.ECONNREFUSED: "the connection was refused; is memcached listening there?",
    errno.ENOENT: "there is no such socket; is memcached running with -s?",
    errno.EACCES: "permission denied; memcached -a sets the mode of its unix socket",
    errno.EHOSTUNREACH: "there is no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.ECONNRESET: "the connection was reset; has the server free connections (-c)?",
    errno.EMFILE: "Too many open files in this process (ulimit -n)",
    errno.ENFILE: "Too many open files on this machine",
    errno.EADDRNOTAVAIL: "no local port or address is left to connect from",
}
# What this machine lacked, whatever the node is like.
_LOCAL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)


@final
class Resolver:
    """Finds the addresses of one node.

    Keeps what the system's resolver answered: it is used for a minute, and after that for as long as that fails.
    """

    __slots__ = ("_asked", "_kept", "_kept_at", "_node")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._asked: Lookup | None = None
        self._kept: Sequence[Target] = ()
        self._kept_at = 0.0

    def forget(self) -> None:
        """Drop a lookup whose thread a fork left behind."""
        self._asked = None

    def drop(self) -> None:
        """Ask anew next time: nothing answered at any of the addresses."""
        self._kept = ()

    def known(self) -> Sequence[Target] | None:
        """Return the addresses if nobody has to be asked for them."""
        address = self._node.address
        if isinstance(address, UnixAddress):
            return ((socket.AF_UNIX, address.path),)
        literal = _literal(address.host, address.port)
        if literal is not None:
            return (literal,)
        if self._asked is not None and self._asked.answered:
            self._take_in(self._asked)  # everybody had left; that it failed then tells nothing now
        return self._kept if self._kept and monotonic() - self._kept_at < KEEP_ANSWER else None

    def ask(self) -> Lookup:
        """Return the question that is under way, or a new one."""
        assert not isinstance(self._node.address, UnixAddress)  # `known` has told
        if self._asked is None:
            self._asked = Lookup(self._node.address.host, self._node.address.port)
        return self._asked

    def patience(self, seconds: float) -> float:
        """Return how many of the *seconds* left to wait for an answer; half when the one kept is still to be tried.

        Raises ConnectError when none are left.
        """
        if seconds <= 0.0:
            raise dial_failed(self._node, ())
        return seconds / 2 if self._kept else seconds

    def learn(self, asked: Lookup) -> Sequence[Target]:
        """Return what was answered, or what is still kept from before. Raises ConnectError when it is nothing."""
        if asked.answered:
            self._take_in(asked)
        if self._kept:
            return self._kept
        if asked.error is not None and asked.error.errno in _LOCAL:
            raise dial_failed(self._node, (asked.error,)) from asked.error
        why = "could not be resolved" if asked.answered else "was not resolved within the time to connect"
        hint = "; is there such a network interface here?" if "%" in asked.host else ""
        raise ConnectError(f"the name {asked.host!r} {why}{hint}", node=self._node.name) from asked.error

    def _take_in(self, asked: Lookup) -> None:
        self._asked = None
        if asked.targets:
            self._kept, self._kept_at = asked.targets, asked.answered_at


@final
class Lookup:
    """One question to the system's resolver, asked in a thread of its own, for getaddrinfo knows no timeout."""

    __slots__ = ("_running", "_tell", "answered", "answered_at", "error", "host", "targets")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.targets: Sequence[Target] = ()
        self.error: OSError | None = None
        self.answered = False
        self.answered_at = 0.0
        self._tell: Callable[[], object] | None = None
        # A bare lock held while the question is open: an Event's Condition can lose its lock to a signal.
        self._running = threading.Lock()
        self._running.acquire()
        try:
            threading.Thread(target=self._ask, args=(host, port), name="metacache-resolve", daemon=True).start()
        except RuntimeError as error:  # there is no thread left
            if not is_own(error, threading.Thread.start.__module__):
                raise
            self.error = OSError(errno.ENOMEM, str(error))
            self.answered = True
            self._running.release()

    def _ask(self, host: str, port: int) -> None:
        try:
            self.targets = _addresses(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that IDNA refuses
            self.error = _lack() or (error if isinstance(error, OSError) else OSError(str(error)))
        finally:
            self.answered_at = monotonic()
            self.answered = True
            self._running.release()
            if self._tell is not None:
                self._tell()

    def wait(self, seconds: float) -> None:
        """Wait for the answer."""
        if not self.answered and self._running.acquire(timeout=max(seconds, 0.0)):
            self._running.release()

    def tell(self, told: Callable[[], object]) -> None:
        """Have *told* called, by whichever thread, when the answer is there; it may be called twice."""
        self._tell = told
        if self.answered:
            told()


def set_tcp_options(sock: socket.socket, settings: Settings) -> None:
    """Set TCP_NODELAY and the keepalive that *settings* asks for; nothing on a unix socket."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    idle = settings.keepalive
    if idle is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": idle, "TCP_KEEPINTVL": max(1, idle // 3), "TCP_KEEPCNT": 3}
    for name, value in options.items():
        if hasattr(socket, name):  # not on every platform
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def dial_failed(node: Node, failures: Sequence[OSError]) -> ConnectError:
    """Return the error for a *node* of which no address answered; without *failures* there was no time to ask any."""
    told = "; ".join(dict.fromkeys(_told(error) for error in failures)) or "no time was left to connect"
    failed = ConnectError(told, node=node.name)
    failed.is_local = all(error.errno in _LOCAL for error in failures)
    return failed


def _lack() -> OSError | None:
    """Return why this process can open no socket, if so: a resolver then says that it does not know the name."""
    try:
        socket.socket().close()
    except OSError as error:
        return error
    return None


def _literal(host: str, port: int) -> Target | None:
    """Return the address that *host* is, None when it is a name or has a zone.

    Not by getaddrinfo: its codec for names wraps an exception of a signal handler into another one.
    """
    with ignoring(ValueError):
        ip = ipaddress.ip_address(host)
        if ip.version == 4:
            return socket.AF_INET, (host, port)
        return (socket.AF_INET6, (host, port, 0, 0)) if ip.scope_id is None else None
    return None


def _addresses(host: str, port: int) -> Sequence[Target]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _told(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"the TLS handshake failed ({error.reason or 'no reason given'}); does this port speak TLS?"
    if isinstance(error, TimeoutError):
        return "no answer within the time to connect"
    return _ADVICE.get(error.errno or 0) or str(error.strerror or error)
