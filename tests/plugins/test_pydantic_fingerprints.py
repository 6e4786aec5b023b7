"""Fingerprints of models: golden values for every version of pydantic, and what changes a fingerprint."""

from __future__ import annotations

import datetime
import json
from typing import Annotated, Any, Final

import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field

from metacache.serializers import fingerprint
from tests.plugins.golden_models import GOLDEN, TYPES, found


def test_fingerprints_are_the_same_on_every_version_of_pydantic() -> None:
    """A changed fingerprint makes all stored values of the type misses: never change the file for an old name."""
    assert found() == json.loads(GOLDEN.read_text())


def test_different_golden_types_have_different_fingerprints() -> None:
    shared: dict[int, set[str]] = {}
    for name, type_ in TYPES.items():
        shared.setdefault(fingerprint(type_), set()).add(name)
    assert [names for names in shared.values() if len(names) > 1] == [
        {"plain", "documented", "private and computed"},
        {"union", "discriminated union"},
    ]


# Any, here and below: types of fields, and their defaults.
def made(config: ConfigDict | None = None, **fields: Any) -> int:
    """Return the fingerprint of a model with *fields*."""
    return fingerprint(pydantic.create_model("Made", __config__=config, **fields))


PLAIN: Final = made(whole=(int, 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"whole": (int, 2)},
        {"whole": (int, ...)},
        {"other": (int, 1)},
        {"whole": (int, 1), "more": (int, 1)},
        {"whole": (float, 1)},
        {"whole": (int | None, 1)},
        {"whole": (int, Field(default=1, alias="Whole"))},
        {"whole": (int, Field(default=1, validation_alias="Whole"))},
        {"whole": (int, Field(default=1, serialization_alias="Whole"))},
        {"whole": (int, Field(default=1, gt=0))},
        {"whole": (Annotated[int, Field(gt=0)], 1)},
        {"whole": (int, Field(default_factory=int))},
        {"whole": (pydantic.Json[int], 1)},
    ],
    ids=str,
)
def test_a_change_of_a_field_changes_it(fields: dict[str, Any]) -> None:
    assert made(**fields) != PLAIN


@pytest.mark.parametrize(
    "config",
    [
        ConfigDict(extra="allow"),
        ConfigDict(extra="forbid"),
        ConfigDict(ser_json_timedelta="float"),
        ConfigDict(ser_json_bytes="base64"),
        ConfigDict(ser_json_inf_nan="constants"),
        ConfigDict(use_enum_values=True),
        ConfigDict(str_to_lower=True),
        ConfigDict(str_max_length=3),
    ],
    ids=str,
)
def test_a_setting_that_changes_the_json_changes_it(config: ConfigDict) -> None:
    assert made(config, whole=(int, 1)) != PLAIN


@pytest.mark.parametrize(
    "field",
    [
        Field(default=1, title="Whole"),
        Field(default=1, description="A number", examples=[1, 2]),
        Field(default=1, json_schema_extra={"x": 1}),
        Field(default=1, repr=False),
    ],
    ids=str,
)
def test_documentation_does_not_change_it(field: Any) -> None:
    config = ConfigDict(title="Made", extra="ignore", frozen=True, json_schema_extra={"examples": [{"whole": 1}]})
    assert made(config, whole=(int, field)) == PLAIN


def test_two_ways_to_write_a_constraint_are_equal() -> None:
    assert made(whole=(Annotated[int, Field(gt=0)], 1)) == made(whole=(int, Field(default=1, gt=0)))


def test_an_aware_datetime_is_not_a_datetime() -> None:
    assert fingerprint(pydantic.AwareDatetime) != fingerprint(datetime.datetime)


def test_the_name_of_a_model_does_not_change_it() -> None:
    class One(BaseModel):
        whole: int = 1

    assert fingerprint(One) == PLAIN
