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
    "begin",  # run_batch: a batch is driven by its caller, or by the loop
    "begin_lent",  # a loop's pool lends no connection: tasks share them
    "reset_after_fork",  # a loop does not survive a fork
    "waiting",  # many tasks wait on one AsyncConnection
    # A cluster's batch waits in the lines of several pools at once.
    *("try_begin", "join", "leave", "wait_until", "failed", "closed"),
    "load",
    "is_connected",  # a loop's pool is told when a dial failed
    "dialled",  # threads dial at the same time, and all of their failures are one event
    "drop",  # a loop may be gone, or not run, when its connections are to be closed
    "reap",  # called by clusters' threads; a loop's pool looks round by itself
}
TWINS: Final = {"aclose": "close", "run_batch": "begin"}

# Moving bytes is what the two do differently, and their docstrings say how.
OWN_WORDS: Final = {"run", "discard", "close"}


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
    return re.sub(r"Async(?=[A-Z])|async_|Awaitable\b", "", text)


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
    if not isinstance(one, property) and name != "with_options":
        assert inspect.iscoroutinefunction(other)


@pytest.mark.parametrize("pair", PAIRS[1:], ids=lambda pair: pair[0].__name__)
def test_both_transports_have_the_same_signatures_and_docstrings(pair: tuple[type, type]) -> None:
    one, other = map(public, pair)
    for name in one.keys() & other.keys():
        ours, theirs = signature(one[name]), signature(other[name])
        if name != "run":  # the loop's may return any awaitable
            assert ours == theirs, name
        if name not in OWN_WORDS:
            assert blocking(inspect.getdoc(one[name]) or "") == blocking(inspect.getdoc(other[name]) or ""), name


def test_connect_and_connect_async_have_the_same_signature() -> None:
    assert signature(metacache.connect) == signature(metacache.connect_async)
