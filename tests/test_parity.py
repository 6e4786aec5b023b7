"""The two halves of the house: what the blocking and the asyncio classes have in common is equal, and all is in both.

Names, signatures and docstrings are compared; what only one of the two has is named here, and nothing else may differ.
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

# What one of the two has and the other not, for the reason beside it.
ONLY: Final = {
    "close",  # aclose
    "reset_after_fork",  # a loop does not survive a fork
    "waiting",  # many tasks wait on one AsyncConnection
    "load",
    "age",
    "discard",
    "drop",  # a loop may be gone, or not run, when its connections are to be closed
    "reap",  # called by clusters' threads; a loop's pool looks round by itself
}
TWINS: Final = {"aclose": "close"}

# Moving bytes is what the two do differently, and their docstrings say how.
OWN_WORDS: Final = {"run", "run_batch", "close"}


def public(class_: type) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(class_).items()
        if (not name.startswith("_") and inspect.isroutine(value)) or isinstance(value, property)
    }


def signature(found: object) -> str:
    """Return a signature in the words of the blocking half."""
    function = getattr(found, "__func__", getattr(found, "fget", None) or found)
    assert callable(function)
    return blocking(str(inspect.signature(function)))


def blocking(text: str) -> str:
    return re.sub(r"Async(?=[A-Z])|async_|Awaitable\[(\w+)\]", r"\1", text)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].__name__)
def test_both_halves_have_the_same_names(pair: tuple[type, type]) -> None:
    one, other = (set(public(class_)) for class_ in pair)
    missing = (one ^ other) - ONLY - set(TWINS)
    assert not missing, f"only one of the two has {sorted(missing)}"


@pytest.mark.parametrize("name", sorted(public(Client).keys() & public(AsyncClient).keys()))
def test_a_verb_is_the_same_in_both_clients(name: str) -> None:
    one, other = getattr(Client, name), getattr(AsyncClient, name)
    assert signature(one) == signature(other)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    if not isinstance(one, property) and name != "with_options":
        assert inspect.iscoroutinefunction(other)


@pytest.mark.parametrize("pair", PAIRS[1:], ids=lambda pair: pair[0].__name__)
def test_transports_agree_in_what_both_have(pair: tuple[type, type]) -> None:
    one, other = map(public, pair)
    for name in one.keys() & other.keys():
        ours, theirs = signature(one[name]), signature(other[name])
        if name != "run":  # the loop's may return any awaitable
            assert ours == theirs, name
        if name not in OWN_WORDS:
            assert blocking(inspect.getdoc(one[name]) or "") == blocking(inspect.getdoc(other[name]) or ""), name


def test_both_ways_to_connect_take_the_same() -> None:
    assert signature(metacache.connect) == signature(metacache.connect_async)
