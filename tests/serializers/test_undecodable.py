"""By default an undecodable value is a miss, which is counted and logged once. A strict client raises an error."""

from __future__ import annotations

import logging
from typing import Final

import pytest

from metacache import Client, DecodeError, Serializer, load_serializer
from metacache.serializers.builtin import BytesSerializer, IntSerializer, StrSerializer
from metacache.serializers.frame import Frame
from metacache.testing import FakeServer, FakeTransport
from tests.serializers.test_wrong_payloads import store

NUMBERS: Final[Serializer[list[int]]] = load_serializer("json", list[int])
NOTHING_MET: Final = dict.fromkeys(("foreign_flags", "wire_id", "fingerprint", "compressor", "decompress", "decode"), 0)


def test_an_undecodable_value_is_a_miss_and_counted_by_cause() -> None:
    server = FakeServer()
    client = Client(FakeTransport(server), NUMBERS)
    own = Frame(NUMBERS).flags
    assert client.undecodable == NOTHING_MET
    stored = [
        ("foreign_flags", 16, b"[1]"),
        ("wire_id", own + 1, b"[1]"),
        ("fingerprint", own ^ 1 << 12, b"[1]"),
        ("compressor", own | 0xF << 8, b"[1]"),
        ("decompress", own | 1 << 8, b"[1]"),
        ("decode", own, b'["a"]'),
        ("decode", own, b"["),
    ]
    for _, flags, data in stored:
        store(server, flags, data)
        assert client.get("k") is None
        assert client.get("k", "default") == "default"
    assert client.undecodable == {**dict.fromkeys(NOTHING_MET, 2), "decode": 4}


def test_batches_and_items_omit_undecodable_values() -> None:
    server = FakeServer()
    client = Client(FakeTransport(server), NUMBERS)
    client.set("good", [1])
    store(server, 16, b"x")
    assert client.get_many(["good", "k"]) == {"good": [1]}
    assert client.get_item("k") is None
    assert client.undecodable["foreign_flags"] == 2


def test_a_strict_client_raises_an_error_with_key_and_cause_but_no_value() -> None:
    server = FakeServer()
    client = Client(FakeTransport(server), NUMBERS, on_undecodable="raise")
    store(server, Frame(NUMBERS).flags, b'["secret"]')
    with pytest.raises(DecodeError) as raised:
        client.get("k")
    assert str(raised.value) == (
        "get 'k' on fake: the stored value cannot be decoded: its bytes cannot be decoded to the type"
    )
    assert client.undecodable["decode"] == 1
    client.set("k", [2])
    assert client.get("k") == [2]


def test_each_writer_is_logged_once_without_key_and_value(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    client = Client(FakeTransport(server), NUMBERS, prefix="hidden:")
    with caplog.at_level(logging.WARNING, "metacache"):
        for flags in (0xB0000001, 0xB0000001, 0xB1234020, 0xB1234020, 0xB0000001):
            assert server.answer(b"ms hidden:k 6 F%d\r\nsecret\r\n" % flags) == b"HD\r\n"
            assert client.get("k") is None
    assert [record.getMessage() for record in caplog.records] == [
        "undecodable value (wire_id 1, fingerprint 0): another serializer wrote it",
        "undecodable value (wire_id 32, fingerprint 4660): another serializer wrote it",
    ]
    assert {record.name for record in caplog.records} == {"metacache.serializers"}


def test_values_of_other_clients_are_read_as_bytes_text_and_numbers_only() -> None:
    server = FakeServer()
    store(server, 0, b"12")
    assert Client(FakeTransport(server)).get("k") == b"12"
    assert Client(FakeTransport(server), BytesSerializer()).get("k") == b"12"
    assert Client(FakeTransport(server), StrSerializer()).get("k") == "12"
    assert Client(FakeTransport(server), IntSerializer()).get("k") == 12
    for name in ("json", "msgspec", "msgspec-json", "orjson"):
        client = Client(FakeTransport(server), load_serializer(name, int))
        assert client.get("k") is None
        assert client.undecodable["foreign_flags"] == 1


def test_str_and_int_values_of_metacache_are_not_confused() -> None:
    transport = FakeTransport()
    Client(transport, StrSerializer()).set("k", "12")
    assert Client(transport, IntSerializer()).get("k") is None
    assert Client(transport).get("k") is None


def test_a_value_of_an_older_shape_is_a_miss_unless_fingerprints_are_off() -> None:
    transport = FakeTransport()
    Client(transport, load_serializer("json", list[int])).set("k", [])
    assert Client(transport, load_serializer("json", list[str])).get("k") is None
    assert Client(transport, load_serializer("json", list[str], fingerprint="off")).get("k") == []


def test_the_views_of_a_client_share_its_counters() -> None:
    server = FakeServer()
    client = Client(FakeTransport(server), NUMBERS)
    view = client.with_options(timeout=1.0)
    store(server, 16, b"x")
    assert view.get("k") is None
    assert client.undecodable["foreign_flags"] == view.undecodable["foreign_flags"] == 1
