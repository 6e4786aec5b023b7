"""The OPTIONS and the LOCATION of a cache in Django's settings, checked. Opens no connection.

Every mistake is an ImproperlyConfigured that names the option.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Literal, TypeAlias, final, get_args

import attrs
from django.core.exceptions import ImproperlyConfigured

from metacache import AsyncCluster, Cluster, Compressor, InvalidArgumentError, Node, Settings
from metacache.nodes import nodes_of
from metacache.urls import parse_url

__all__ = ["Configuration", "Location", "configuration"]

Location: TypeAlias = str | Iterable[str]
OnError: TypeAlias = Literal["raise", "miss", "ignore"]

# The options of a metacache client that make sense here. Django's TIMEOUT, KEY_PREFIX and VERSION replace the others.
_OF_CLIENTS: Final = ("on_error", "compressor")
_NAMES: Final = (*(field.name for field in attrs.fields(Settings)), *_OF_CLIENTS)

# A number has up to 20 digits. It is never compressed, because the server could not count with it.
LEAST_COMPRESSED: Final = 21

# What OPTIONS of other backends mean here.
_OTHERS: Final = {
    **dict.fromkeys(("ignore_exc", "ignore_errors"), "the option here is 'on_error': 'raise', 'miss' or 'ignore'"),
    **dict.fromkeys(("use_pooling", "max_pool_size"), "connections are always pooled; 'pool_size' limits them"),
    **dict.fromkeys(("no_delay", "allow_unicode_keys", "default_noreply"), "it is always as you would wish: remove it"),
    **dict.fromkeys(("serde", "pickle_version", "serializer", "deserializer"), "values are signed pickles: remove it"),
    **dict.fromkeys(("behaviors", "binary"), "it is for pylibmc: remove it"),
    **dict.fromkeys(("MAX_ENTRIES", "CULL_FREQUENCY"), "memcached limits its memory itself (memcached -m): remove it"),
    **dict.fromkeys(("default_ttl", "prefix"), "Django has TIMEOUT and KEY_PREFIX beside OPTIONS"),
}


@final
@attrs.frozen
class Configuration:
    """What a cache alias needs to open its clients.

    Attributes:
        name: the servers, for reprs.
        settings: the settings of the clusters, complete.
        on_error: of the clients: "raise", "miss" or "ignore".
        compressor: of the values; None: they are not compressed.
        open: makes a cluster for threads.
        open_async: makes a cluster for one event loop.
    """

    name: str
    settings: Settings
    on_error: OnError
    compressor: Compressor | None
    open: Callable[[], Cluster]
    open_async: Callable[[], AsyncCluster]


def configuration(location: Location, options: Mapping[str, Any]) -> Configuration:  # Any: values of every type
    """Return the checked configuration. Raises ImproperlyConfigured that names the invalid part."""
    _refuse_unknown(options)
    given = {name: value for name, value in options.items() if name not in _OF_CLIENTS}
    try:
        settings = Settings(**given)
    except InvalidArgumentError as error:
        raise ImproperlyConfigured(f"OPTIONS of a MetaCache: {error.message}") from None
    servers = _at(location, settings)
    return Configuration(
        name=servers.name,
        settings=servers.settings,
        on_error=_on_error(options.get("on_error", "raise")),
        compressor=_compressor(options.get("compressor")),
        open=servers.open,
        open_async=servers.open_async,
    )


def _refuse_unknown(options: Mapping[str, object]) -> None:
    for name in options:
        if name not in _NAMES:
            close = difflib.get_close_matches(str(name), _NAMES, 1)
            hint = _OTHERS.get(name) or (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(_NAMES)}")
            raise ImproperlyConfigured(f"OPTIONS of a MetaCache has no {name!r}: {hint}")


def _on_error(given: OnError) -> OnError:
    if given not in get_args(OnError):
        raise ImproperlyConfigured(f"OPTIONS of a MetaCache: on_error is 'raise', 'miss' or 'ignore', not {given!r}")
    return given


def _compressor(given: Compressor | None) -> Compressor | None:
    if given is not None and not all(hasattr(given, name) for name in ("min_size", "compress", "decompress")):
        raise ImproperlyConfigured("OPTIONS of a MetaCache: compressor is a Compressor, such as metacache.Zlib()")
    if given is not None and given.min_size < LEAST_COMPRESSED:
        raise ImproperlyConfigured(
            f"OPTIONS of a MetaCache: the min_size of the compressor is at least {LEAST_COMPRESSED}, "
            "because the server cannot count with a compressed number"
        )
    return given


@final
@attrs.frozen
class _Servers:
    """What a LOCATION says: the name of the servers, the complete settings, and functions that make clusters."""

    name: str
    settings: Settings
    open: Callable[[], Cluster]
    open_async: Callable[[], AsyncCluster]


def _at(location: Location, settings: Settings) -> _Servers:
    places = _places(location)
    try:
        if any("://" in place for place in places):
            return _at_url(places, settings)
        nodes = nodes_of([Node(f"unix:{place}" if place.startswith("/") else place) for place in places])
    except InvalidArgumentError as error:
        raise ImproperlyConfigured(f"LOCATION of a MetaCache: {error.message}") from None
    name = ", ".join(node.name for node in nodes)
    return _Servers(
        name, settings, partial(Cluster, nodes, settings=settings), partial(AsyncCluster, nodes, settings=settings)
    )


def _at_url(places: list[str], settings: Settings) -> _Servers:
    if len(places) > 1:
        raise ImproperlyConfigured("LOCATION of a MetaCache has one URL: memcached://host:port,host:port names several")
    (url,) = places
    _, complete = parse_url(url, settings)
    # The name is not the URL, because that may contain a password.
    return _Servers(
        "the servers of a URL",
        complete,
        partial(Cluster.from_url, url, settings=settings),
        partial(AsyncCluster.from_url, url, settings=settings),
    )


def _places(location: Location) -> list[str]:
    if isinstance(location, str):
        places = [location] if "://" in location else re.split("[;,]", location)
    else:
        places = list(location)
    if not all(isinstance(place, str) for place in places):
        raise ImproperlyConfigured("LOCATION of a MetaCache is a str, or a list of str like 'cache-1:11211'")
    stripped = [place.strip() for place in places if place.strip()]
    if not stripped:
        raise ImproperlyConfigured("LOCATION of a MetaCache is empty: write 'host:port' or 'memcached://host:port'")
    return stripped
