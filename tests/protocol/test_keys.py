"""Keys: which travel unchanged, as base64 or as a hash, and which are refused. No key ever ends its line."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacache.errors import InvalidArgumentError, InvalidKeyError, InvalidKeyTypeError, InvalidTypeError
from metacache.protocol.keys import MAX_BASE64_KEY, MAX_KEY, Key, KeyEncoder, WireKey


def encoded(key: Key, prefix: Key = b"", *, hash_long: bool = False) -> WireKey:
    return KeyEncoder(prefix, hash_long=hash_long).encode(key)


PLAIN: Final[tuple[tuple[Key, bytes], ...]] = (
    ("k", b"k"),
    (b"k", b"k"),
    ("user:1", b"user:1"),
    ("é", b"\xc3\xa9"),
    ("\xa0", b"\xc2\xa0"),  # a space for a reader, not for the server
    ("\u2028", b"\xe2\x80\xa8"),
    (b"\x80\xff", b"\x80\xff"),
    ("x" * MAX_KEY, b"x" * MAX_KEY),
    ("é" * 125, b"\xc3\xa9" * 125),
    ("!~", b"!~"),
)


@pytest.mark.parametrize(("key", "raw"), PLAIN)
def test_a_key_without_space_or_control_byte_travels_unchanged(key: Key, raw: bytes) -> None:
    assert encoded(key) == (raw, raw, b"")


BASE64: Final[tuple[Key, ...]] = (
    "a b",
    " ",
    "k\r\nflush_all",
    "a v\r\nflush_all\r\n",
    "\t",
    "\n",
    "\0",
    "\x7f",
    b"\x1f",
    "é x",
    "x" * (MAX_BASE64_KEY - 1) + " ",
    *(bytes([byte]) for byte in (*range(0x21), 0x7F)),
)


@pytest.mark.parametrize("key", BASE64)
def test_a_key_with_space_or_control_byte_travels_as_padded_standard_base64(key: Key) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    assert encoded(key) == (raw, b64encode(raw), b" b")
    assert len(b64encode(raw)) <= MAX_KEY


REFUSED: Final[tuple[tuple[Key, str], ...]] = (
    ("", "the key is empty"),
    (b"", "the key is empty"),
    ("x" * 251, "251 bytes with the prefix, the limit is 250"),
    ("é" * 250, "500 bytes with the prefix, the limit is 250"),
    (" " * 187, "187 bytes with the prefix, the limit is 186"),
    ("\ud800", "lone surrogate"),
    ("k\udfff", "lone surrogate"),
)


@pytest.mark.parametrize(("key", "why"), REFUSED)
def test_a_key_that_cannot_travel_is_refused_with_its_length_and_the_limit(key: Key, why: str) -> None:
    with pytest.raises(InvalidKeyError, match=why) as refused:
        encoded(key)
    assert refused.value.key == key
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize("key", [None, 1, True, 1.5, bytearray(b"k"), memoryview(b"k"), ("k",)])
def test_a_key_of_another_type_is_refused(key: Key) -> None:
    with pytest.raises(InvalidKeyTypeError, match="a key is str or bytes") as refused:
        encoded(key)
    assert isinstance(refused.value, TypeError)
    assert KeyEncoder().plain(key) is None
    assert KeyEncoder().plain_many([key]) is None


def test_the_prefix_counts_and_routes_with_the_key() -> None:
    assert encoded("k", "app:") == (b"app:k", b"app:k", b"")
    assert encoded(b"k", b"app:") == (b"app:k", b"app:k", b"")
    assert encoded("k", "a b:") == (b"a b:k", b64encode(b"a b:k"), b" b")
    with pytest.raises(InvalidKeyError, match="251 bytes with the prefix"):
        encoded("x" * 247, "app:")


def test_a_bad_prefix_is_refused_when_it_is_given() -> None:
    with pytest.raises(InvalidArgumentError, match="lone surrogate"):
        KeyEncoder("\ud800")
    with pytest.raises(InvalidTypeError, match="prefix is str or bytes"):
        KeyEncoder(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a wrong type is the point


@pytest.mark.parametrize(("longest", "limit"), [("x" * 249, 250), (" " + "x" * 184, 186)])
def test_a_prefix_that_leaves_no_room_for_a_key_is_refused_when_it_is_given(longest: str, limit: int) -> None:
    assert len(KeyEncoder(longest).encode("k")[0]) == limit
    for prefix in (longest + "x", longest.encode() + b"x", longest + "x" * 100):
        with pytest.raises(InvalidArgumentError, match=rf"prefix has {len(prefix)} bytes, .* has {limit} at most"):
            KeyEncoder(prefix)
        assert KeyEncoder(prefix, hash_long=True).encode("k")[2] == b" b"


@pytest.mark.parametrize("key", ["x" * 251, " " * 187, "é" * 250, "\0h", b"\0hx", "\0h" + "x" * 300])
def test_a_key_too_long_for_the_wire_is_hashed_if_asked(key: Key) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    routing, token, base64 = encoded(key, "p:" if not raw.startswith(b"\0h") else b"", hash_long=True)
    assert routing.endswith(raw)
    assert base64 == b" b"
    assert b64decode(token, validate=True) == b"\0h" + sha256(routing).digest()
    assert KeyEncoder(hash_long=True).plain(key) is None


def test_a_key_that_equals_the_hash_of_another_is_hashed_too() -> None:
    _, token, _ = encoded("x" * 300, hash_long=True)
    wire_key = b64decode(token)
    assert encoded(wire_key, hash_long=True)[1] != token


@pytest.mark.parametrize("key", ["k", "x" * 250, "a b", " " * 186])
def test_a_key_that_fits_is_not_hashed(key: Key) -> None:
    assert encoded(key, hash_long=True) == encoded(key)


# --- the shortcuts agree with encode -------------------------------------------------------------------------------

# Characters that the rules treat differently, and any others.
_letters = st.one_of(st.sampled_from("a:é \t\r\n\0\x7f\xa0\u2028\ud800\U0001f600"), st.characters())
texts = st.one_of(
    st.text(_letters, max_size=6),
    st.integers(244, 252).map("x".__mul__),
    st.integers(120, 127).map("é".__mul__),
)
raws = st.one_of(st.binary(max_size=6), st.integers(244, 252).map(b"x".__mul__))
keys = st.one_of(texts, raws)
prefixes = st.one_of(st.just(""), st.just("app:"), st.text(_letters, max_size=3), st.binary(max_size=3))


def encoder(prefix: Key, *, hash_long: bool) -> KeyEncoder:
    try:
        return KeyEncoder(prefix, hash_long=hash_long)
    except InvalidArgumentError:
        return KeyEncoder(hash_long=hash_long)


@given(key=keys, prefix=prefixes, hash_long=st.booleans())
def test_plain_agrees_with_encode(key: Key, prefix: Key, hash_long: bool) -> None:
    some = encoder(prefix, hash_long=hash_long)
    raw = some.plain(key)
    if raw is not None:
        assert some.encode(key) == (raw, raw, b"")


@given(
    given_keys=st.lists(st.one_of(texts, texts, keys), min_size=1, max_size=6), prefix=prefixes, hash_long=st.booleans()
)
def test_plain_many_agrees_with_encode(given_keys: list[Key], prefix: Key, hash_long: bool) -> None:
    some = encoder(prefix, hash_long=hash_long)
    raws = some.plain_many(given_keys)
    if raws is not None:
        assert [some.encode(key) for key in given_keys] == [(raw, raw, b"") for raw in raws]


@given(given_keys=st.lists(st.text("ab:é", min_size=1, max_size=6), min_size=1, max_size=6))
def test_ordinary_keys_take_the_shortcuts(given_keys: list[str]) -> None:
    some = KeyEncoder("app:")
    expected = [b"app:" + key.encode() for key in given_keys]
    assert some.plain_many(given_keys) == [some.plain(key) for key in given_keys] == expected
    raw_keys = [key.encode() for key in given_keys]
    assert some.plain_many(raw_keys) == [some.plain(key) for key in raw_keys] == expected


@pytest.mark.parametrize("last", ["a b", "a\nb", "a\0", "\x7f", "", "\ud800", b"raw", bytearray(b"raw"), 7, None])
def test_one_unusual_key_takes_the_whole_batch_off_the_shortcut(last: object) -> None:
    keys_of_one_batch: list[Any] = ["first", "second", last]  # Any: keys of wrong types too
    assert KeyEncoder().plain_many(keys_of_one_batch) is None


@pytest.mark.parametrize(
    "last", [b"a b", b"a\nb", b"\x00", b"\x7f", b"", "text", bytearray(b"raw"), memoryview(b"raw")]
)
def test_one_unusual_key_takes_a_batch_of_bytes_off_the_shortcut(last: object) -> None:
    keys_of_one_batch: list[Any] = [b"first", b"second", last]  # Any: as above
    assert KeyEncoder().plain_many(keys_of_one_batch) is None


@given(lengths=st.lists(st.integers(1, 252), min_size=1, max_size=8))
def test_plain_many_finds_each_key_that_is_too_long(lengths: list[int]) -> None:
    raws = KeyEncoder().plain_many(["x" * length for length in lengths])
    assert (raws is not None) == (max(lengths) <= MAX_KEY)


@given(key=keys, prefix=prefixes, hash_long=st.booleans())
def test_the_token_of_any_key_is_one_word_that_fits_the_line(key: Key, prefix: Key, hash_long: bool) -> None:
    try:
        _, token, base64 = encoder(prefix, hash_long=hash_long).encode(key)
    except InvalidKeyError:
        return
    assert re.fullmatch(rb"[^\x00-\x20\x7f]{1,250}", token)
    assert base64 in (b"", b" b")
