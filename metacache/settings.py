"""`Settings`: the frozen settings of a transport, checked when they are made. Also checks that other modules use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final, get_args

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.nodes import has_surrogate

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = [
    "LONGEST_WAIT",
    "OnNodeDown",
    "Settings",
    "between",
    "check_seconds",
    "check_settings",
    "check_whole",
    "number_text",
]

GIB: Final = 1 << 30

# The limit of a timeout in seconds: poll() takes at most 2**31-1 milliseconds, under 25 days.
LONGEST_WAIT: Final = 1_000_000
# The limit of an interval in seconds: 31 years. It can be added to the time of every clock and timer.
LONGEST_AGE: Final = 1_000_000_000
# tcp(7), TCP_KEEPIDLE: the limit of Linux, in seconds.
MOST_KEEPALIVE: Final = 32767

# An error message does not write out an int with more bits.
MOST_BITS: Final = 128

OnNodeDown: TypeAlias = Literal["fail", "next"]


def _wrong_type(field: str, wanted: str, value: object) -> InvalidTypeError:
    return InvalidTypeError(f"Settings.{field} is {wanted}, not {type(value).__name__}")


def number_text(number: float) -> str:
    """Return *number* as text for an error message. Python refuses to write out a number of thousands of digits."""
    if isinstance(number, int) and number.bit_length() > MOST_BITS:
        return f"a number of {number.bit_length()} bits"
    return str(number)


def check_seconds(name: str, value: object, longest: int, *, may_be_zero: bool = False) -> None:
    """Raise InvalidArgumentError that names *name* unless *value* is above 0 (or 0) and at most *longest* seconds.

    Raises InvalidTypeError if it is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidTypeError(f"{name} is a number of seconds, not {type(value).__name__}")
    # Compare without float(): an int may be too large for a float. NaN fails both comparisons.
    if not (0 < value <= longest or (may_be_zero and value == 0)):
        least = "at least" if may_be_zero else "above"
        raise InvalidArgumentError(f"{name} is {least} 0 and at most {longest} seconds, not {number_text(value)}")


def _seconds(longest: int, *, may_be_zero: bool = False) -> attrs._ValidatorType[float]:
    def check(_: Settings, field: attrs.Attribute[float], value: object) -> None:
        check_seconds(f"Settings.{field.name}", value, longest, may_be_zero=may_be_zero)

    return check


def check_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise InvalidArgumentError that names *name* unless *value* is an int from *low* to *high*.

    Raises InvalidTypeError if it is not an int.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} is a whole number, not {type(value).__name__}")
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"{low} to {high}"
        raise InvalidArgumentError(f"{name} is {wanted}, not {number_text(value)}")


def between(low: int, high: int | None = None) -> attrs._ValidatorType[int]:
    """Return a validator for an attrs field that holds an int from *low* to *high*."""

    def check(owner: object, field: attrs.Attribute[int], value: object) -> None:
        check_whole(f"{type(owner).__name__}.{field.name}", value, low, high)

    return check


def _on_node_down(_: Settings, field: attrs.Attribute[OnNodeDown], value: object) -> None:
    if value not in get_args(OnNodeDown):
        raise InvalidArgumentError(f"Settings.{field.name} is 'fail' or 'next', not {value!r}")


_optional_whole: attrs._ValidatorType[int | None] = attrs.validators.optional(between(1))
_optional_age: attrs._ValidatorType[float | None] = attrs.validators.optional(_seconds(LONGEST_AGE))
_optional_wait: attrs._ValidatorType[float | None] = attrs.validators.optional(_seconds(LONGEST_WAIT, may_be_zero=True))
_optional_keepalive: attrs._ValidatorType[int | None] = attrs.validators.optional(between(1, MOST_KEEPALIVE))


def _context(_: Settings, field: attrs.Attribute[SSLContext | None], value: object) -> None:
    if value is None:
        return
    from ssl import SSLContext  # late: settings without TLS do not load it

    if not isinstance(value, SSLContext):
        raise _wrong_type(field.name, "an ssl.SSLContext", value)


def _credential(forbidden: str, named: str) -> attrs._ValidatorType[str | None]:
    """Return a validator whose errors do not show the value.

    It refuses a lone surrogate, because encoding it later would raise an error that contains the credential.
    """

    def check(_: Settings, field: attrs.Attribute[str | None], value: object) -> None:
        if value is None:
            return
        if not isinstance(value, str):
            raise _wrong_type(field.name, "a str", value)
        if not value or re.search(forbidden, value):
            raise InvalidArgumentError(
                f"Settings.{field.name} is empty or contains {named}; the server cannot read that"
            )
        if has_surrogate(value):
            raise InvalidArgumentError(
                f"Settings.{field.name} contains a lone surrogate: it was read from bytes that are not UTF-8"
            )

    return check


@final
@attrs.frozen(kw_only=True)
class Settings:
    """The settings of a transport. Frozen; ``attrs.evolve(settings, timeout=0.1)`` returns a changed copy.

    Args:
        timeout: seconds for a whole operation: name resolution, connect, I/O and retry together.
        connect_timeout: seconds for name resolution, dial, TLS handshake and authentication; ``timeout`` bounds it too.
        pool_size: the maximal number of open connections of a pool.
        pool_min_idle: the number of idle connections that a pool does not close.
        pool_max_idle_time: seconds without use after which the next use of the pool closes a connection; None: never.
        pool_wait: seconds that a caller waits for a connection of a full pool; 0: no wait, None: until the deadline.
        max_lifetime: seconds after which the next use of the pool closes an idle connection; None: never.
        max_pipeline: requests in flight on one connection before a pool opens another one (asyncio).
        max_in_flight: the maximal number of requests in flight on one connection; others wait until their deadlines
            (asyncio).
        on_node_down: how a cluster serves the keys of a node that is down. "fail": NodeDownError. "next": the
            next-ranked node serves them, as long as at most half of the weight is down.
        poll_interval: seconds between two polls of a source of nodes; a random part makes it up to a fifth longer or
            shorter.
        change_interval: the minimal number of seconds between two changes of the nodes.
        tls: use TLS with this context. ``ssl.create_default_context()`` makes one that verifies certificates.
        username, password: ASCII authentication (``memcached -Y``). They are not in the repr or in errors. They are in
            a pickle of the settings, so protect a pickle like the password.
        keepalive: idle seconds before the first TCP keepalive probe; None: no probes.
        max_value_size: a larger encoded value (in bytes) raises ValueTooLargeError; None: the server decides.
        max_reply_size: a reply that announces a larger value (in bytes) raises ProtocolError before memory is
            allocated. A longer reply to ``stats`` raises it too.

    ``timeout``, ``connect_timeout`` and ``pool_wait`` are at most 1,000,000 seconds, ``keepalive`` at most 32,767, the
    other times at most 1,000,000,000. Raises InvalidArgumentError (InvalidTypeError for a wrong type) that names the
    field.
    """

    timeout: float = attrs.field(default=1.0, validator=_seconds(LONGEST_WAIT))
    connect_timeout: float = attrs.field(default=1.0, validator=_seconds(LONGEST_WAIT))
    pool_size: int = attrs.field(default=8, validator=between(1))
    pool_min_idle: int = attrs.field(default=0, validator=between(0))
    pool_max_idle_time: float | None = attrs.field(default=None, validator=_optional_age)
    pool_wait: float | None = attrs.field(default=None, validator=_optional_wait)
    max_lifetime: float | None = attrs.field(default=None, validator=_optional_age)
    max_pipeline: int = attrs.field(default=16, validator=between(1))
    max_in_flight: int = attrs.field(default=1000, validator=between(1, 2000))
    on_node_down: OnNodeDown = attrs.field(default="fail", validator=_on_node_down)
    poll_interval: float = attrs.field(default=30.0, validator=_seconds(LONGEST_AGE))
    change_interval: float = attrs.field(default=5.0, validator=_seconds(LONGEST_AGE, may_be_zero=True))
    tls: SSLContext | None = attrs.field(default=None, validator=_context)
    # protocol.txt, "Authentication": the body of a `set` has the line "user pass", and the file of the server has lines
    # "user:pass". So a user name cannot contain a space or a colon.
    username: str | None = attrs.field(
        default=None, repr=False, validator=_credential(r"[\s:\x00-\x20\x7f]", "a space, colon or control byte")
    )
    password: str | None = attrs.field(
        default=None, repr=False, validator=_credential(r"[\x00-\x1f\x7f]", "a control byte")
    )
    keepalive: int | None = attrs.field(default=None, validator=_optional_keepalive)
    max_value_size: int | None = attrs.field(default=None, validator=_optional_whole)
    max_reply_size: int = attrs.field(default=GIB, validator=between(1))

    def __attrs_post_init__(self) -> None:
        if (self.username is None) != (self.password is None):
            raise InvalidArgumentError("Settings.username and Settings.password belong together: pass both or neither")


def check_settings(settings: object) -> None:
    """Raise InvalidTypeError unless *settings* is a Settings."""
    if not isinstance(settings, Settings):
        raise InvalidTypeError(
            f"settings is a Settings, not {type(settings).__name__}; Settings(timeout=0.5) makes one"
        )
