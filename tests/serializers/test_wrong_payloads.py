"""For each serializer, more than 200 payloads of other types. Each is a DecodeError, and none a coerced value."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from metacache import Client, DecodeError, Serializer
from metacache.serializers.builtin import BytesSerializer, IntSerializer, StrSerializer
from metacache.serializers.frame import Frame
from metacache.testing import FakeServer, FakeTransport
from tests.serializers.orders import CASES, ORDER, Case, wrong_orders

T = TypeVar("T")


def store(server: FakeServer, flags: int, data: bytes) -> None:
    """Store *data* under the key k, as another client could."""
    assert server.answer(b"ms k %d F%d\r\n%b\r\n" % (len(data), flags, data)) == b"HD\r\n"


def check_all_undecodable(serializer: Serializer[T], payloads: list[tuple[int, bytes]]) -> None:
    server = FakeServer()
    client = Client(FakeTransport(server), serializer, on_undecodable="raise")
    taken: list[tuple[int, bytes]] = []
    count = len(payloads)
    for flags, data in payloads:
        store(server, flags, data)
        try:
            client.get("k")
        except DecodeError:
            continue
        taken.append((flags, data))
    assert taken == []
    assert count >= 200
    assert sum(client.undecodable.values()) == count


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_payload_of_another_shape_becomes_an_order(case: Case[Any]) -> None:
    flags = Frame(case.serializer).flags
    check_all_undecodable(case.serializer, [(flags, data) for data in wrong_orders(case.encode, case.other)])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_unchanged_order_is_read(case: Case[Any]) -> None:
    assert case.serializer.loads(case.encode(ORDER)) == case.value
    assert case.serializer.loads(case.serializer.dumps(case.value)) == case.value


def test_bytes_that_are_not_utf_8_do_not_become_a_str() -> None:
    flags = Frame(StrSerializer()).flags
    broken = [bytes((first,)) for first in range(0x80, 0x100)]
    surrogates = [b"\xed%c\x80" % second for second in range(0xA0, 0xC0)]
    cut = ["Zoë, 東京, 🎉".encode()[:size] for size in (3, 7, 8, 10, 11, 15, 16, 17)]
    beyond = [b"a" * size + b"\xf5\x80\x80\x80" for size in range(40)]
    check_all_undecodable(StrSerializer(), [(flags, data) for data in (*broken, *surrogates, *cut, *beyond)])


def test_text_that_is_not_decimal_does_not_become_an_int() -> None:
    flags = Frame(IntSerializer()).flags
    # int() also accepts digits of other scripts and widths.
    lenient = [
        "",
        " ",
        "+1",
        " 1",
        "1_000",
        "1.0",
        "1e3",
        "0x10",
        "--1",
        "- 1",
        "1 2",
        "1\n",
        "1\t",
        "\n1",
        "٣",
        "²",
        "\uff11",
        "NaN",
        "True",
    ]
    around = [f"{text}{number}" for number in range(80) for text in ("a", "0b")] + [
        f"{number}." for number in range(40)
    ]
    payloads = [text.encode() for text in lenient + around]
    check_all_undecodable(IntSerializer(), [(flags, data) for data in payloads])


def test_bytes_accept_any_data_but_no_foreign_flags() -> None:
    own = Frame(BytesSerializer()).flags
    others = [own ^ bit for bit in (1 << shift for shift in range(32)) if not 1 << 12 <= bit < 1 << 28]
    wire_ids = [own ^ 32 | wire_id for wire_id in range(256) if wire_id != 32]
    check_all_undecodable(BytesSerializer(), [(flags, b"any") for flags in (*others, *wire_ids)])
