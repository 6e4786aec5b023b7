"""The options of a client: a frozen object that is checked when it is made, and hints for unknown option names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal, TypedDict, final

import attrs

from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.observe import Observer, Reporter, reporter_of
from metacache.operations.arguments import Ttl, exptime
from metacache.protocol.keys import Key
from metacache.serializers.interfaces import Compressor
from metacache.settings import LONGEST_WAIT, Settings, check_seconds, number_text

__all__ = ["ClientOptions", "Options", "ViewOptions", "options_of", "refuse_unknown"]


class ClientOptions(TypedDict, total=False):
    """The keyword options of `Client` and `AsyncClient`, and of the functions that make clients.

    Attributes:
        prefix: is put before every key.
        default_ttl: the TTL of a write without ``ttl=``: seconds or a timedelta; None: items never expire.
        on_error: which methods raise TransportError, PoolTimeout, ServerError and ProtocolError.
            "raise": all of them.
            "miss": `get`, `get_item`, `get_many`, `get_items`, `exists` and `inspect` return a miss instead.
            "ignore": as "miss", and writes do not raise either, though the server may have applied them. Stores return
            ``StoreResult.FAILED``, deletes ``DeleteResult.FAILED``, `touch` and `invalidate` False, `get_and_touch`
            None, `increment` and `decrement` *initial* or None. A batch has FAILED for the keys that failed.
            `update` always raises, and the ``*_outcomes`` methods always return every error.
        on_undecodable: "miss": a value that cannot be decoded is a miss; "raise": it raises DecodeError.
        long_keys: "error": a key that is too long for the protocol raises InvalidKeyError; "hash": its SHA-256 is sent.
        compressor: compresses values; None: values are not compressed.
        timeout: seconds for a whole operation, at most 1,000,000; None: the timeout of the transport.
        observer: is called with the events of the client; see `Observer`. None: the observer of the transport, if any.
    """

    prefix: Key
    default_ttl: Ttl
    on_error: Literal["raise", "miss", "ignore"]
    on_undecodable: Literal["miss", "raise"]
    long_keys: Literal["error", "hash"]
    compressor: Compressor | None
    timeout: float | None
    observer: Observer | None


class ViewOptions(TypedDict, total=False):
    """The options that a view of a client may change (`Client.with_options`). A view keeps the others."""

    prefix: Key
    default_ttl: Ttl
    on_error: Literal["raise", "miss", "ignore"]
    timeout: float | None


def _one_of(*choices: str) -> attrs._ValidatorType[str]:
    def check(_: Options, field: attrs.Attribute[str], value: object) -> None:
        if value not in choices:
            raise InvalidArgumentError(f"{field.name} is {' or '.join(map(repr, choices))}, not {value!r}")

    return check


def _timeout(_: Options, __: attrs.Attribute[float | None], value: object) -> None:
    if value is not None:
        check_seconds("timeout", value, LONGEST_WAIT)


# 2023-11-14, before this code was written. A default_ttl that ends after 2038 even when counted from this day, such as
# a timestamp, is an error of the option. Without this check, it would be an error of every write.
_IN_THE_PAST: Final = 1_700_000_000.0


def _default_ttl(_: Options, __: attrs.Attribute[Ttl], value: int | timedelta | None) -> None:
    exptime(value, _IN_THE_PAST, "default_ttl")


@final
@attrs.frozen(kw_only=True)
class Options:
    """The checked form of `ClientOptions`. Raises InvalidArgumentError (InvalidTypeError) that names the option."""

    prefix: Key = b""
    default_ttl: Ttl = attrs.field(default=None, validator=_default_ttl)
    on_error: str = attrs.field(default="raise", validator=_one_of("raise", "miss", "ignore"))
    on_undecodable: str = attrs.field(default="miss", validator=_one_of("miss", "raise"))
    long_keys: str = attrs.field(default="error", validator=_one_of("error", "hash"))
    compressor: Compressor | None = None
    timeout: float | None = attrs.field(default=None, validator=_timeout)
    observer: Reporter | None = attrs.field(default=None, converter=reporter_of)


def options_of(given: Mapping[str, Any]) -> Options:  # Any: values of every type; Options checks them
    """Return the Options of *given*. Raises as `refuse_unknown` and `Options` do."""
    if not given:
        return _DEFAULTS
    refuse_unknown(given)
    return Options(**given)


_DEFAULTS: Final = Options()


def refuse_unknown(given: Mapping[str, object]) -> None:
    """Raise InvalidTypeError for the first name in *given* that is not an option. The error says where it belongs."""
    for name, value in given.items():
        if name not in ClientOptions.__annotations__:
            raise InvalidTypeError(f"there is no option {name!r}: {_hint(name, value)}")


# Names that other clients use for these options.
_OTHER_NAMES: Final = {
    **dict.fromkeys(("ttl", "default_timeout", "expire", "expires", "expiry", "exptime", "expiration"), "default_ttl"),
    **dict.fromkeys(("key_prefix", "namespace"), "prefix"),
    **dict.fromkeys(("ignore_exc", "ignore_errors", "on_errors"), "on_error"),
    **dict.fromkeys(("compress", "compression"), "compressor"),
    **dict.fromkeys(("max_pool_size", "pool_maxsize", "max_connections", "connections"), "pool_size"),
    **dict.fromkeys(("tls_context", "ssl", "ssl_context"), "tls"),
    **dict.fromkeys(("serde", "codec", "pickler"), "serializer"),
    "user": "username",
}
_ARGUMENTS: Final = {
    "serializer": "it is an argument of connect, connect_async and Cluster.client; Client takes a Serializer",
    "settings": "it is an argument of connect, connect_async, Cluster, Pool and Connection",
    "on_state_change": "it is an argument of connect, connect_async and Cluster",
    "router": "it is an argument of Cluster",
    "owns": "it is an argument of Client",
}
_SPECIAL_SETTINGS: Final = {
    "tls": "`Settings(tls=...)` or memcacheds:// in the URL",
    **dict.fromkeys(
        ("username", "password"),
        "`Settings(username=..., password=...)` or memcached://user:password@host",
    ),
}


def _hint(name: str, value: object) -> str:
    """Return where the option *name* belongs, or which option is meant. Quotes *value* only if it is a number."""
    settings = attrs.fields_dict(Settings)
    if name in _ARGUMENTS:
        return _ARGUMENTS[name]
    if name in settings:
        return f"it is a setting: {_setting(name, value)}"
    known = (*ClientOptions.__annotations__, *settings, *_ARGUMENTS)
    import difflib  # late: only this error needs it

    meant = _OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), None)
    if meant in settings:
        return f"did you mean {meant!r}? It is a setting: {_setting(meant, value)}"
    if meant is not None:
        return f"the option is `{meant}`" if meant not in _ARGUMENTS else f"did you mean {meant!r}? {_ARGUMENTS[meant]}"
    return f"the options are {', '.join(ClientOptions.__annotations__)}"


def _setting(name: str, value: object) -> str:
    number = number_text(value) if isinstance(value, int | float) and not isinstance(value, bool) else "..."
    return _SPECIAL_SETTINGS.get(name) or f"`Settings({name}={number})` or `?{name}={number}` in the URL"
