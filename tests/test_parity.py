"""The blocking and the asyncio classes have the same methods, with the same signatures and docstrings.

This file lists the methods that only one of the two has, with the reason. Nothing else may differ.
"""

from __future__ import annotations

import inspect
import re
from typing import Final

import pytest

import metacache
from metacache import (
    AsyncClient,
    AsyncCluster,
    AsyncConnection,
    AsyncPool,
    Client,
    Cluster,
    Connection,
    Pool,
)
from metacache.testing import AsyncFakeTransport, FakeTransport

PAIRS: Final = [
    (Client, AsyncClient),
    (Connection, AsyncConnection),
    (Pool, AsyncPool),
    (Cluster, AsyncCluster),
    (FakeTransport, AsyncFakeTransport),
]

# Names that only one of the two has, with the reason.
ONLY: Final = {
    "close",  # aclose
    "reset_after_fork",  # a loop does not survive a fork
    "waiting",  # many tasks wait on one AsyncConnection
    "load",
    "idle_times",
    "discard",
    "drop",  # a loop may be closed or stopped when its connections must be closed
    "reap",  # threads of a cluster call it; an asyncio pool does it at each use
}
# Methods that wait for nothing.
NOT_AWAITED: Final = {"with_options", "cached"}
TWINS: Final = {"aclose": "close"}

# The two do I/O differently, and the docstrings of these methods describe it.
OWN_WORDS: Final = {"run", "run_batch", "close"}


def public(class_: type) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(class_).items()
        if (not name.startswith("_") and inspect.isroutine(value)) or isinstance(value, property)
    }


def signature(found: object) -> str:
    """Return a signature with the names of the blocking class."""
    function = getattr(found, "__func__", getattr(found, "fget", None) or found)
    assert callable(function)
    return blocking(str(inspect.signature(function)))


def blocking(text: str) -> str:
    """Return *text* with the names of the blocking class, and with what is awaited in place of an awaitable."""
    text = re.sub(r"Async(?=[A-Z])|async_", "", text)
    while "Awaitable[" in text:
        before, _, rest = text.partition("Awaitable[")
        depth, end = 1, 0
        while depth:
            depth += {"[": 1, "]": -1}.get(rest[end], 0)
            end += 1
        text = before + rest[: end - 1] + rest[end:]
    return text


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_both_classes_have_the_same_names(pair: tuple[type, type]) -> None:
    one, other = (set(public(class_)) for class_ in pair)
    missing = (one ^ other) - ONLY - set(TWINS)
    assert not missing, f"only one of the two has {sorted(missing)}"


@pytest.mark.parametrize("name", sorted(public(Client).keys() & public(AsyncClient).keys()))
def test_a_method_has_the_same_signature_and_docstring_in_both_clients(name: str) -> None:
    one, other = getattr(Client, name), getattr(AsyncClient, name)
    assert signature(one) == signature(other)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    if not isinstance(one, property) and name not in NOT_AWAITED:
        assert inspect.iscoroutinefunction(other)


@pytest.mark.parametrize("pair", PAIRS[1:], ids=lambda pair: pair[0].__name__)
def test_both_transports_have_the_same_signatures_and_docstrings(pair: tuple[type, type]) -> None:
    one, other = map(public, pair)
    for name in one.keys() & other.keys():
        ours, theirs = signature(one[name]), signature(other[name])
        if name != "run":  # the asyncio one may return any awaitable
            assert ours == theirs, name
        if name not in OWN_WORDS:
            assert blocking(inspect.getdoc(one[name]) or "") == blocking(inspect.getdoc(other[name]) or ""), name


def test_connect_and_connect_async_have_the_same_signature() -> None:
    assert signature(metacache.connect) == signature(metacache.connect_async)
