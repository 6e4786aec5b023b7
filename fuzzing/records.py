"""The types that the targets of the serializers decode: many kinds of fields, containers and records in records."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid

import attrs

__all__ = ["Invoice", "InvoiceLine", "Order", "OrderLine", "State"]


class State(enum.Enum):
    """An enum of two strings."""

    OPEN = "open"
    PAID = "paid"


@dataclasses.dataclass(frozen=True)
class OrderLine:
    """A part of an Order."""

    name: str
    price: float
    tags: list[str]


@dataclasses.dataclass(frozen=True)
class Order:
    """A dataclass with fields of many kinds."""

    number: int
    lines: list[OrderLine]
    counts: dict[str, int]
    state: State
    id: uuid.UUID | None
    total: decimal.Decimal
    when: datetime.datetime
    raw: bytes = b""


@attrs.frozen
class InvoiceLine:
    """A part of an Invoice."""

    name: str
    price: float
    tags: list[str]


@attrs.frozen
class Invoice:
    """An attrs class with fields of many kinds."""

    number: int
    lines: list[InvoiceLine]
    counts: dict[str, int]
    state: State
    note: str | None
    when: datetime.datetime
