"""Find the addresses of a node, set socket options, and describe failed dials. Both dialers use it.

Each lookup by the system's resolver runs in a thread of its own, because `getaddrinfo` has no timeout.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, Final, TypeAlias, final

from metacache.errors import ConnectError
from metacache.interrupts import ignoring, is_own
from metacache.nodes import Node, TcpAddress, UnixAddress
from metacache.settings import Settings

__all__ = ["Lookup", "Resolver", "Target", "is_tls_refusal", "set_tcp_options", "share_of", "tls_refused"]

# The arguments of connect(): (family, address). Any: addresses differ between families, and typeshed says the same.
Target: TypeAlias = tuple[int, "tuple[Any, ...] | str"]

KEEP_ADDRESSES: Final = 60.0  # seconds for which addresses are used without another lookup

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
# Errors of this machine, which say nothing about the node.
_LOCAL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)


@final
class Resolver:
    """Finds the addresses of one node.

    It keeps the addresses that a lookup found. They are used for a minute, and longer while further lookups fail. When
    no address accepts a connection, they are forgotten.
    """

    __slots__ = ("_kept", "_kept_at", "_lookup", "_node")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lookup: Lookup | None = None
        self._kept: Sequence[Target] = ()
        self._kept_at = 0.0

    def reset_after_fork(self) -> None:
        """In a forked child: drop a lookup, because its thread runs in the parent only."""
        self._lookup = None

    def known(self) -> Sequence[Target] | None:
        """Return the addresses if they need no lookup; else None."""
        address = self._node.address
        if isinstance(address, UnixAddress):
            return ((socket.AF_UNIX, address.path),)
        assert isinstance(address, TcpAddress)  # a memory address needs no resolver
        literal = _literal(address.host, address.port)
        if literal is not None:
            return (literal,)
        if self._lookup is not None and self._lookup.answered:
            self._keep(self._lookup)  # its callers had timed out; if it failed, a later lookup may succeed
        return self._kept if self._kept and monotonic() - self._kept_at < KEEP_ADDRESSES else None

    def start_lookup(self) -> Lookup:
        """Return the lookup that is running, or start one."""
        assert isinstance(self._node.address, TcpAddress)  # `known` returns the address of a unix socket
        if self._lookup is None:
            self._lookup = Lookup(self._node.address.host, self._node.address.port)
        return self._lookup

    def seconds_to_wait(self, left: float) -> float:
        """Return how many of the *left* seconds to wait for a lookup: half, when old addresses can be tried after it.

        Raises ConnectError when no time is left.
        """
        if left <= 0.0:
            raise self._dial_error(())
        return left / 2 if self._kept else left

    def addresses_after(self, lookup: Lookup) -> Sequence[Target]:
        """Return the addresses that *lookup* found, or else those kept from an earlier one.

        Raises ConnectError when there are none.
        """
        if lookup.answered:
            self._keep(lookup)
        if self._kept:
            return self._kept
        if lookup.error is not None and lookup.error.errno in _LOCAL:
            raise self._dial_error((lookup.error,))
        why = "could not be resolved" if lookup.answered else "was not resolved within the time to connect"
        hint = "; is there such a network interface here?" if "%" in lookup.host else ""
        raise ConnectError(f"the name {lookup.host!r} {why}{hint}", node=self._node.name) from lookup.error

    def dial_error(self, failures: Sequence[OSError]) -> ConnectError:
        """Return the error for a dial in which each address failed with one of *failures*; forget the addresses.

        Without *failures* there was no time to try an address. Then, and if this machine is to blame, the addresses are
        kept.
        """
        failed = self._dial_error(failures)
        if not failed.is_local:
            self._kept = ()
        return failed

    def _dial_error(self, failures: Sequence[OSError]) -> ConnectError:
        # Lists, no generators or map: these would swallow or replace a signal handler's StopIteration.
        reasons = [_reason_of(error) for error in failures]
        failed = ConnectError("; ".join(dict.fromkeys(reasons)) or "no time was left to connect", node=self._node.name)
        failed.is_local = not [error for error in failures if error.errno not in _LOCAL]
        failed.__cause__ = failures[-1] if failures else None
        return failed

    def _keep(self, lookup: Lookup) -> None:
        self._lookup = None
        if lookup.targets:
            self._kept, self._kept_at = lookup.targets, lookup.answered_at


@final
class Lookup:
    """One lookup by the system's resolver, in a thread of its own, because `getaddrinfo` has no timeout.

    When it is ``answered``, ``targets`` are the addresses that it found at ``answered_at``, or ``error`` is the reason
    why it found none.
    """

    __slots__ = ("_callback", "_running", "answered", "answered_at", "error", "host", "targets")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.targets: Sequence[Target] = ()
        self.error: OSError | None = None
        self.answered = False
        self.answered_at = 0.0
        self._callback: Callable[[], object] | None = None
        # A bare lock, held while the lookup runs. Not an Event: a signal can make its Condition lose its lock.
        self._running = threading.Lock()
        self._running.acquire()
        try:
            threading.Thread(target=self._run, args=(host, port), name="metacache-resolve", daemon=True).start()
        except RuntimeError as error:  # this process can start no more threads
            if not is_own(error, threading.Thread.start.__module__):
                raise
            self.error = OSError(errno.ENOMEM, str(error))
            self.answered = True
            self._running.release()

    def _run(self, host: str, port: int) -> None:
        try:
            self.targets = _addresses(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that IDNA refuses
            self.error = _socket_error() or (error if isinstance(error, OSError) else OSError(str(error)))
        finally:
            self.answered_at = monotonic()
            self.answered = True
            self._running.release()
            if self._callback is not None:
                self._callback()

    def wait(self, seconds: float) -> None:
        """Wait for the answer, *seconds* at most."""
        if not self.answered and self._running.acquire(timeout=max(seconds, 0.0)):
            self._running.release()

    def on_answer(self, callback: Callable[[], object]) -> None:
        """Call *callback* when the lookup has its answer, in this thread or in the lookup's thread; perhaps twice."""
        # Set, then check: if the answer arrives in between, both threads call it. In the other order, neither might.
        self._callback = callback
        if self.answered:
            callback()


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
        if hasattr(socket, name):  # the names differ between platforms
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def share_of(seconds: float, count: int) -> float:
    """Return how many of the *seconds* left the next of *count* addresses gets.

    Equal shares, so that a dead address does not use up the time of those behind it.
    """
    return seconds / count


def is_tls_refusal(error: BaseException) -> bool:
    """Return whether *error* may come from a TLS context that cannot be used for a node.

    For example, the context checks host names and a unix socket has none. That is a ValueError. A refused certificate
    is a ValueError and an OSError, and is not meant here.
    """
    return isinstance(error, ValueError) and not isinstance(error, OSError)


def tls_refused(error: BaseException) -> OSError:
    """Return the error of a dial for *error*, which `is_tls_refusal`."""
    return OSError(f"TLS is not possible here: {error}")


def _socket_error() -> OSError | None:
    """Return why this process can open no socket; None if it can.

    Without free descriptors, a resolver reports that it does not know the name.
    """
    try:
        socket.socket().close()
    except OSError as error:
        return error
    return None


@lru_cache(maxsize=256)
def _literal(host: str, port: int) -> Target | None:
    """Return the address if *host* is one; None when it is a name or has a zone.

    Not with `getaddrinfo`: its codec for names wraps an exception of a signal handler into another one.
    """
    import ipaddress  # late: only a dial over TCP needs it

    with ignoring(ValueError):
        ip = ipaddress.ip_address(host)
        if ip.version == 4:
            return socket.AF_INET, (host, port)
        return (socket.AF_INET6, (host, port, 0, 0)) if ip.scope_id is None else None
    return None


def _addresses(host: str, port: int) -> Sequence[Target]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _reason_of(error: OSError) -> str:
    if type(error).__module__ == "ssl":
        return _tls_reason_of(error)
    if isinstance(error, TimeoutError):
        return "no answer within the time to connect"
    return _ADVICE.get(error.errno or 0) or str(error.strerror or error)


def _tls_reason_of(error: OSError) -> str:
    import ssl  # late: a client without TLS does not load it

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return f"the TLS handshake failed ({reason or 'no reason given'}); does this port speak TLS?"
