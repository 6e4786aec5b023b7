"""One record of eight fields, one of them a record, as a class of each library with a serializer. Measures nothing."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any, Final

import attrs
import msgspec
import pydantic

__all__ = [
    "UserAttrs",
    "UserDataclass",
    "UserModel",
    "UserStruct",
    "attrs_record",
    "dataclass",
    "model",
    "plain",
    "struct",
]

FIELDS: Final[dict[str, Any]] = {  # Any: keyword arguments of every class below
    "name": "Ada Lovelace",
    "age": 36,
    "score": 12.5,
    "active": True,
    "joined": datetime.datetime(2026, 5, 1, 12, 30, tzinfo=datetime.UTC),
    "tags": ["new", "gift", "member"],
    "note": "leave it at the door",
}
ADDRESS: Final = {"street": "12 St James's Square", "zip": "SW1Y 4JH"}


class AddressStruct(msgspec.Struct):
    street: str
    zip: str


class UserStruct(msgspec.Struct):
    name: str
    age: int
    score: float
    active: bool
    joined: datetime.datetime
    tags: list[str]
    address: AddressStruct
    note: str | None = None


class AddressModel(pydantic.BaseModel):
    street: str
    zip: str


class UserModel(pydantic.BaseModel):
    name: str
    age: int
    score: float
    active: bool
    joined: datetime.datetime
    tags: list[str]
    address: AddressModel
    note: str | None = None


@attrs.define
class AddressAttrs:
    street: str
    zip: str


@attrs.define
class UserAttrs:
    name: str
    age: int
    score: float
    active: bool
    joined: datetime.datetime
    tags: list[str]
    address: AddressAttrs
    note: str | None = None


@dataclasses.dataclass
class AddressDataclass:
    street: str
    zip: str


@dataclasses.dataclass
class UserDataclass:
    name: str
    age: int
    score: float
    active: bool
    joined: datetime.datetime
    tags: list[str]
    address: AddressDataclass
    note: str | None = None


def struct() -> UserStruct:
    """Return the record for msgspec."""
    return UserStruct(**FIELDS, address=AddressStruct(**ADDRESS))


def model() -> UserModel:
    """Return the record for pydantic."""
    return UserModel(**FIELDS, address=AddressModel(**ADDRESS))


def attrs_record() -> UserAttrs:
    """Return the record for attrs."""
    return UserAttrs(**FIELDS, address=AddressAttrs(**ADDRESS))


def dataclass() -> UserDataclass:
    """Return the record as a plain dataclass, which pickles faster than the classes above."""
    return UserDataclass(**FIELDS, address=AddressDataclass(**ADDRESS))


def plain() -> dict[str, object]:
    """Return the record as JSON has it: a dict, with the time as text."""
    return {**FIELDS, "joined": FIELDS["joined"].isoformat(), "address": dict(ADDRESS)}
