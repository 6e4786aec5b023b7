"""The options of a client: one frozen value, checked when made. Knows what may be chosen; acts on none of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, TypedDict, final

import attrs

from metacache.arguments import Ttl, exptime
from metacache.errors import InvalidArgumentError
from metacache.protocol.keys import Key
from metacache.serializers.protocols import Compressor
from metacache.settings import LONGEST_WAIT, check_seconds

__all__ = ["ClientOptions", "Options", "ViewOptions"]


class ClientOptions(TypedDict, total=False):
    """The keyword options of `Client`, and of everything that makes one.

    prefix: put before every key. default_ttl: seconds or timedelta for writes without ``ttl=``, None: never expires.
    on_error: "raise", or "miss": errors of servers and network in reads are misses. on_undecodable: "miss", or "raise".
    long_keys: "error", or "hash": a key too long for the wire is replaced by its SHA-256. compressor: compresses
    values.
    timeout: seconds for a whole operation, at most 1,000,000; None: the transport's.
    """

    prefix: Key
    default_ttl: Ttl
    on_error: Literal["raise", "miss"]
    on_undecodable: Literal["miss", "raise"]
    long_keys: Literal["error", "hash"]
    compressor: Compressor | None
    timeout: float | None


class ViewOptions(TypedDict, total=False):
    """The options that a view of a client may change (`Client.with_options`); what is left out stays."""

    prefix: Key
    default_ttl: Ttl
    on_error: Literal["raise", "miss"]
    timeout: float | None


def _one_of(*choices: str) -> attrs._ValidatorType[str]:
    def check(_: Options, field: attrs.Attribute[str], value: object) -> None:
        if value not in choices:
            raise InvalidArgumentError(f"{field.name} is {' or '.join(map(repr, choices))}, not {value!r}")

    return check


def _timeout(_: Options, __: attrs.Attribute[float | None], value: object) -> None:
    if value is not None:
        check_seconds("timeout", value, LONGEST_WAIT)


def _default_ttl(_: Options, __: attrs.Attribute[Ttl], value: int | timedelta | None) -> None:
    exptime(value, 0.0, "default_ttl")


@final
@attrs.frozen(kw_only=True)
class Options:
    """See `ClientOptions`. Raises InvalidArgumentError (InvalidTypeError) that names the option."""

    prefix: Key = b""
    default_ttl: Ttl = attrs.field(default=None, validator=_default_ttl)
    on_error: str = attrs.field(default="raise", validator=_one_of("raise", "miss"))
    on_undecodable: str = attrs.field(default="miss", validator=_one_of("miss", "raise"))
    long_keys: str = attrs.field(default="error", validator=_one_of("error", "hash"))
    compressor: Compressor | None = None
    timeout: float | None = attrs.field(default=None, validator=_timeout)
