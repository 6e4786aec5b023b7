"""The signatures: what is accepted, that nothing else is unpickled, and what is logged."""

from __future__ import annotations

import hmac
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st
from metacache_django import backend
from metacache_django.sealing import FORMAT, SEALED, Sealer, Unreadable
from typing_extensions import override

from metacache import Client, available_serializers, connect
from metacache.testing import Memcached
from tests.django.conftest import Caller

KEY = ":1:session"


@pytest.fixture
def stored(shared_memcached: Memcached) -> Iterator[Client[bytes]]:
    """Reads and writes the stored bytes, as an attacker who can reach memcached."""
    with connect(shared_memcached.url, bytes, serializer=SEALED) as client:
        yield client


class Trap:
    """Runs code when it is unpickled."""

    @override
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return spring, ("sprung",)


sprung: list[str] = []


def spring(word: str) -> None:
    sprung.append(word)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.binary(), st.lists), st.text(min_size=1))
def test_a_sealed_value_comes_back(value: object, key: str) -> None:
    key = key.encode(errors="replace").decode()
    found = Sealer("secret").unseal(key, Sealer(b"secret").seal(key, value))
    assert found == value
    assert type(found) is type(value)


@given(st.binary() | st.binary().map(lambda data: FORMAT + data))
def test_bytes_that_nobody_signed_are_unreadable_or_a_number(data: bytes) -> None:
    found = Sealer("secret").unseal(KEY, data)
    assert isinstance(found, Unreadable) or (type(found) is int and data.strip(b" ").isdigit())


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(Sealer("secret").seal(KEY, ["a value"]))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    assert isinstance(Sealer("secret").unseal(KEY, bytes(sealed)), Unreadable)


def test_a_value_of_another_key_or_secret_is_unreadable() -> None:
    sealed = Sealer("secret").seal(KEY, {"user": 1})
    assert Sealer("secret").unseal(":1:other", sealed) is Unreadable.SIGNATURE
    assert Sealer("new").unseal(KEY, sealed) is Unreadable.SIGNATURE
    assert Sealer("new", ["older", "secret"]).unseal(KEY, sealed) == {"user": 1}
    assert Sealer("secret").unseal(KEY, Sealer("new", ["secret"]).seal(KEY, {})) is Unreadable.SIGNATURE


def test_the_end_of_a_key_cannot_become_the_begin_of_a_pickle() -> None:
    sealed = Sealer("secret").seal("a" + "b", [1])
    moved = sealed[:33] + b"b" + sealed[33:]
    assert Sealer("secret").unseal("a", moved) is Unreadable.SIGNATURE


def test_the_secret_key_itself_is_not_the_key_of_the_signature() -> None:
    pickled = pickle.dumps(Trap())
    signature = hmac.digest(b"secret", b"%d:%b%b" % (len(KEY), KEY.encode(), pickled), "sha256")
    assert Sealer("secret").unseal(KEY, FORMAT + signature + pickled) is Unreadable.SIGNATURE


def test_a_pickle_without_a_valid_signature_is_never_loaded(cache: Caller, stored: Client[bytes]) -> None:
    pickled = pickle.dumps(Trap())
    key = cache.cache.make_key("k")
    for data in (pickled, FORMAT + pickled, FORMAT + bytes(32) + pickled, Sealer("another").seal(key, Trap())):
        stored.set(key, data)
        assert cache.get("k", "a miss") == "a miss"
        assert cache.get_many(["k"]) == {}
        assert cache.has_key("k") is False
    assert sprung == []
    stored.set(key, Sealer("a key for tests").seal(key, Trap()))
    cache.get("k")
    assert sprung.pop() == "sprung"


def test_a_copied_value_is_a_miss(cache: Caller, stored: Client[bytes]) -> None:
    cache.set("admin", {"user": "admin"})
    sealed = stored.get(cache.cache.make_key("admin"))
    assert sealed is not None
    stored.set(cache.cache.make_key("mine"), sealed)
    assert cache.get_many(["admin", "mine"]) == {"admin": {"user": "admin"}}


def test_a_new_secret_key_accepts_the_fallbacks(cache: Caller) -> None:
    cache.set("k", "old")
    with override_settings(SECRET_KEY="new"):
        assert cache.get("k") is None
        cache.set("other", "new")
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["older", "a key for tests"]):
        assert cache.get_many(["k", "other"]) == {"k": "old", "other": "new"}
    assert cache.get_many(["k", "other"]) == {"k": "old"}


def test_values_of_other_clients_are_misses(cache: Caller, shared_memcached: Memcached) -> None:
    with connect(shared_memcached.url) as plain:
        plain.set(cache.cache.make_key("k"), b"1")
    assert cache.get("k") is None


def gone() -> None:
    """Stands for a function that the next release of a site removes."""


def test_a_pickle_of_something_that_is_gone_is_a_miss_and_logged_once(
    cache: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backend, "_reported", set[Unreadable]())
    cache.set_many({"k": gone, "other": 1})
    monkeypatch.delattr(sys.modules[__name__], "gone")
    with caplog.at_level(logging.WARNING):
        assert cache.get("k", "a miss") == "a miss"
        assert cache.get_many(["k", "other"]) == {"other": 1}
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("metacache_django", f"unreadable value, which is a miss: {Unreadable.PICKLE.value}")
    ]


def test_what_a_signal_handler_raises_while_a_pickle_is_loaded_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = Sealer("secret").seal(KEY, [1])
    real, calls = pickle.loads, [TimeoutError("of a signal handler")]

    def interrupted(data: bytes) -> Any:  # Any: as pickle.loads
        if calls:
            raise calls.pop()
        return real(data)

    monkeypatch.setattr(pickle, "loads", interrupted)
    with pytest.raises(TimeoutError, match="of a signal handler"):
        Sealer("secret").unseal(KEY, sealed)
    assert Sealer("secret").unseal(KEY, sealed) == [1]


def test_the_format_is_no_serializer_that_connect_finds() -> None:
    assert "django" not in [info.name for info in available_serializers()]
    assert "metacache-django" not in [info.distribution for info in available_serializers()]


def test_another_client_does_not_unpickle_our_values(cache: Caller, shared_memcached: Memcached) -> None:
    """PyMemcacheCache on the same keys reads bytes."""
    cache.set("k", Trap())
    program = """if True:
        import sys
        from pymemcache.client.hash import HashClient
        from pymemcache.serde import pickle_serde
        print(type(HashClient([sys.argv[1]], serde=pickle_serde).get(sys.argv[2])).__name__)
    """
    arguments = [str(shared_memcached.node.address), cache.cache.make_key("k")]
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert ran.stdout == "bytes\n"
