"""Dates and times: all serializers keep the same ones exactly and refuse the others. None alters a value."""

from __future__ import annotations

import dataclasses
import datetime
import zoneinfo
from datetime import UTC, timedelta, timezone
from typing import Any, Final

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from metacache import SerializationError, Serializer, load_serializer
from metacache.serializers import difference
from tests.ids import stable


class Own(datetime.tzinfo):
    """A user-defined time zone, two hours ahead of UTC."""

    @override
    def utcoffset(self, dt: datetime.datetime | None, /) -> timedelta:
        return timedelta(hours=2)

    @override
    def dst(self, dt: datetime.datetime | None, /) -> None:
        return None

    @override
    def tzname(self, dt: datetime.datetime | None, /) -> str:
        return "UTC+02:00"


@dataclasses.dataclass
class Dated:
    at: datetime.datetime | None = None
    clock: datetime.time | None = None
    log: dict[str, list[datetime.datetime]] = dataclasses.field(default_factory=dict)


@attrs.define
class Marked:
    at: datetime.datetime | None = None
    clock: datetime.time | None = None
    log: dict[str, list[datetime.datetime]] = attrs.field(factory=dict)


class Stamped(msgspec.Struct):
    at: datetime.datetime | None = None
    clock: datetime.time | None = None
    log: dict[str, list[datetime.datetime]] = {}


CLASSES: Final[dict[str, list[type]]] = {
    "msgspec": [Stamped, Dated, Marked],
    "msgspec-json": [Stamped, Dated, Marked],
    "orjson": [Dated, Marked],
    "attrs": [Marked],
}
CASES: Final = [(name, class_) for name, classes in CLASSES.items() for class_ in classes]

BERLIN: Final = zoneinfo.ZoneInfo("Europe/Berlin")
REPEATED: Final = datetime.datetime(2026, 10, 25, 2, 30)  # in the hour that occurs twice in Berlin
NAMED: Final = timezone(timedelta(hours=1), "CET")
SECONDS: Final = timezone(timedelta(hours=1, seconds=30))

KEPT_ZONES: Final[list[timezone | None]] = [
    None, UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-5, minutes=-30)),
    timezone(timedelta(hours=23, minutes=59)), timezone(timedelta(0)), timezone(timedelta(0), "UTC"),
]  # fmt: skip
REFUSED_ZONES: Final = [BERLIN, zoneinfo.ZoneInfo("UTC"), NAMED, SECONDS, timezone(timedelta(microseconds=1)), Own()]
MOMENTS: Final = [
    REPEATED,
    datetime.datetime.min,
    datetime.datetime.max,
    datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999),
]


def serializer_of(name: str, class_: type) -> Serializer[Any]:  # Any: a serializer of one of the classes
    return load_serializer(name, class_)


def check_kept(serializer: Serializer[Any], value: Any) -> None:
    again = serializer.loads(serializer.dumps(value))
    assert repr(again) == repr(value).replace("timezone(datetime.timedelta(0), 'UTC')", "timezone.utc")
    assert difference(value, again) is None


def check_refused(serializer: Serializer[Any], value: Any, where: str, message: str) -> None:
    with pytest.raises(SerializationError, match=rf"^\$\.{where}: .*{message}"):
        serializer.dumps(value)


@pytest.mark.parametrize(("name", "class_"), CASES)
@pytest.mark.parametrize("zone", KEPT_ZONES, ids=repr)
def test_naive_times_utc_and_fixed_offsets_are_kept(name: str, class_: Any, zone: datetime.tzinfo | None) -> None:
    serializer = serializer_of(name, class_)
    for moment in MOMENTS:
        at = moment.replace(tzinfo=zone)
        check_kept(serializer, class_(at=at, clock=at.timetz(), log={"a": [at, REPEATED]}))


@pytest.mark.parametrize(("name", "class_"), CASES)
@pytest.mark.parametrize("zone", REFUSED_ZONES, ids=stable(repr))
def test_another_zone_is_refused_in_every_position(name: str, class_: Any, zone: datetime.tzinfo) -> None:
    serializer = serializer_of(name, class_)
    for fold in (0, 1):
        at = REPEATED.replace(tzinfo=zone, fold=fold)
        check_refused(serializer, class_(at=at), "at", r"use \.astimezone\(timezone\.utc\)$")
        check_refused(serializer, class_(clock=at.timetz()), "clock", "use a time in UTC$")
        check_refused(serializer, class_(log={"a": [REPEATED, at]}), r"log\.values\(\)\[0\]\[1\]", "timezone.utc")


@pytest.mark.parametrize(("name", "class_"), CASES)
@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=2))], ids=repr)
def test_fold_is_refused_and_not_dropped(name: str, class_: Any, zone: datetime.tzinfo | None) -> None:
    serializer = serializer_of(name, class_)
    at = REPEATED.replace(tzinfo=zone, fold=1)
    check_refused(serializer, class_(at=at), "at", "fold=1 cannot be stored")
    check_refused(serializer, class_(clock=at.timetz()), "clock", "fold=1 cannot be stored")


@pytest.mark.parametrize(("name", "class_"), CASES)
def test_the_advice_in_the_error_works(name: str, class_: Any) -> None:
    serializer = serializer_of(name, class_)
    for fold in (0, 1):
        check_kept(serializer, class_(at=REPEATED.replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)))


@pytest.mark.parametrize("name", ["msgspec", "msgspec-json", "orjson"])
def test_times_as_keys_and_elements_follow_the_same_rule(name: str) -> None:
    keyed: Serializer[Any] = load_serializer(name, dict[datetime.datetime, int])
    group: Serializer[Any] = load_serializer(name, set[datetime.time])
    for zone in KEPT_ZONES:
        check_kept(keyed, {REPEATED.replace(tzinfo=zone): 1})
        check_kept(group, {REPEATED.replace(tzinfo=zone).timetz()})
    for other in REFUSED_ZONES:
        with pytest.raises(SerializationError, match=r"^\$\.keys\(\)\[0\]: "):
            keyed.dumps({REPEATED.replace(tzinfo=other): 1})
        with pytest.raises(SerializationError, match=r"^\$\[\*\]: "):
            group.dumps({REPEATED.replace(tzinfo=other).timetz()})


@pytest.mark.parametrize("name", ["msgspec", "msgspec-json", "orjson"])
@given(delta=st.timedeltas(timedelta(days=-100_000_000), timedelta(days=100_000_000)), day=st.dates())
def test_timedeltas_and_dates_are_exact(name: str, delta: timedelta, day: datetime.date) -> None:
    durations, days = load_serializer(name, timedelta), load_serializer(name, datetime.date)
    assert durations.loads(durations.dumps(delta)) == delta
    assert days.loads(days.dumps(day)) == day


class Moment(datetime.datetime):
    pass


@pytest.mark.parametrize("name", ["msgspec", "msgspec-json", "orjson"])
@pytest.mark.parametrize("value", [Moment(2026, 1, 1), datetime.date(2026, 1, 1), "2026-01-01", 0, None], ids=repr)
def test_only_a_datetime_is_a_datetime(name: str, value: Any) -> None:
    serializer: Serializer[Any] = load_serializer(name, datetime.datetime)
    with pytest.raises(SerializationError, match=rf"^\$: expected datetime, got {type(value).__name__}$"):
        serializer.dumps(value)


def test_messagepack_with_a_coerced_datetime_is_undecodable() -> None:
    serializer = load_serializer("msgspec", list[datetime.datetime])
    written = serializer.dumps([REPEATED.replace(tzinfo=UTC), REPEATED.replace(tzinfo=timezone(timedelta(hours=2)))])
    assert len(serializer.loads(written)) == 2
    for document in ([1.5], [0], ["2026-10-25"], ["2026-10-25T02:30:00Z", 0]):
        with pytest.raises((ValueError, msgspec.ValidationError)):
            serializer.loads(msgspec.msgpack.encode(document))
