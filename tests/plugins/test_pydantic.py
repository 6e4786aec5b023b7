"""What the pydantic serializer writes comes back the same. It refuses other values, and the error names only types."""

from __future__ import annotations

import collections
import datetime
import decimal
import math
import pathlib
import uuid
import zoneinfo
from typing import Annotated, Any, Final

import pydantic
import pytest
import sqlalchemy.orm
import sqlmodel

from metacache import Client, InvalidTypeError, Pool, SerializationError, load_serializer
from metacache.serializers import difference
from metacache.testing import Memcached, check_serializer
from tests.plugins import models
from tests.plugins.models import SECRET, Address, Box, Cat, Dog, Event, Log, Tree, User, changed

# Any: the tests use wrong values of these classes.
M: Final[Any] = models

UTC: Final = datetime.UTC
UUID: Final = uuid.UUID("f9875026-eb56-11f1-81ec-02fc00000001")
PYDANTIC_ZONE: Final = pydantic.TypeAdapter(datetime.datetime).validate_json('"2020-01-01T00:00:00+02:00"')


def user(**parts: Any) -> User:  # Any: values of wrong types
    """Return a user with *parts* set without validation."""
    return changed(User(name="a"), **parts)  # type: ignore[no-any-return]


KEPT: Final[list[tuple[Any, Any]]] = [
    (User, User(name="a")),
    (User, user(age=4, ratio=2.5, tags={"a", "b", "c"}, pairs=frozenset({(1, 2), (3, 4)}))),
    (User, user(addresses=[Address(street="a"), Address(street="b", zip="c")], friend=User(name="b"))),
    (User, user(moment=datetime.datetime(2020, 1, 1, tzinfo=UTC))),
    (User, user(moment=datetime.datetime(2020, 1, 1))),
    (User, user(moment=PYDANTIC_ZONE, hour=datetime.time(1, 2, 3, 4, tzinfo=UTC))),
    (User, user(span=datetime.timedelta(days=-1, microseconds=1))),
    (User, user(anything={"a": [1, 1.5, None, True, "b"]})),
    (
        User,
        user(home=pathlib.Path("/tmp"), site=pydantic.TypeAdapter(pydantic.HttpUrl).validate_python("http://a.b/c")),
    ),
    (User, user(raw=b"text", paid=decimal.Decimal("1E+5"), either="text", shade=models.Shade.DARK)),
    (User, user(either=UUID, table={1: "a", 2: "b"}, queue=collections.deque([1, 2]), age=2**70)),
    (Event, Event()),
    (Event, Event(id=UUID)),
    (Event, Event(id=UUID, at=datetime.datetime(2020, 1, 1, tzinfo=UTC), name="a")),
    (Log, Log(events=[Event(), Event(name="a"), Event(id=UUID)], last={"a": Event()})),
    (list[Event], [Event(), Event()]),
    (M.Counted, M.Counted(name="a")),
    (M.PostInit, M.PostInit(size=2)),
    (M.Hidden, M.Hidden(shown=1)),
    (Box[int], Box[int](held=1)),
    (Box[list[Box[str]]], Box[list[Box[str]]](held=[Box[str](held="a")])),
    (Tree[int], Tree[int](held=1, children=[Tree[int](held=2)])),
    (Cat | Dog, Dog(name="Rex")),
    (Cat | Dog, Dog(kind="dog")),
    (Cat | Dog, Dog()),
    (Annotated[Cat | Dog, pydantic.Field(discriminator="kind")], Cat()),
    (M.Tags, M.Tags(["a", "b"])),
    (M.Camel, M.Camel(firstName="a", another=1)),
    (M.Open, M.Open(whole=1, more=[1, {"a": None}])),
    (M.Assigned, M.Assigned(whole=1)),
    (M.Computing, M.Computing(size=3)),
    (M.Doubled, M.Doubled(size=0)),
    (M.Rounded, M.Rounded(real=2.0)),
    (M.Revealed, M.Revealed(password=SECRET)),
    (M.Point, M.Point(x=1)),
    (M.Point, M.Point(x=1, y=[Address(street="a")])),
    (M.OpenPoint, M.OpenPoint()),
    (M.Row, {"whole": 1}),
    (M.Row, {"whole": 1, "address": Address(street="a")}),
    (Annotated[int, pydantic.Field(gt=3)], 4),
    (User | None, None),
]

REFUSED: Final[list[tuple[Any, Any, str]]] = [
    (User, user(age=True), "$.age: expected int, got bool"),
    (User, user(age="3"), "$.age: expected int, got str"),
    (User, user(age=-1), "$.age: pydantic does not read it back (greater_than)"),
    (User, user(name=SECRET.encode()), "$.name: expected str, got bytes"),
    (User, user(name="\ud800"), "$.name: the str has a lone surrogate"),
    (User, user(ratio=math.nan), "$.ratio: the format cannot hold NaN or an infinity"),
    (User, user(ratio=math.inf), "$.ratio: the format cannot hold NaN or an infinity"),
    (User, user(paid=decimal.Decimal("NaN")), "$.paid: the format cannot hold NaN or an infinity"),
    (User, user(tags=["a"]), "$.tags: expected set, got list"),
    (User, user(row=[1, "a"]), "$.row: expected tuple, got list"),
    (User, user(addresses=[M.FullAddress(street="a")]), "$.addresses[0]: expected Address, got FullAddress"),
    (User, user(raw=b"\xff"), "$.raw: a bytes cannot be read back (PydanticSerializationError)"),
    (User, user(either=str(UUID)), "$.either: the str would come back as UUID"),
    (User, user(anything=(1, 2)), "$.anything: the tuple would come back as list"),
    (User, user(anything=SECRET.encode()), "$.anything: the bytes would come back as str"),
    (User, user(moment=datetime.datetime(2020, 1, 1, fold=1)), "$.moment: fold=1 cannot be stored; "),
    (
        User,
        user(moment=datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
        "$.moment: expected a datetime.timezone as tzinfo, got ZoneInfo; ",
    ),
    (User, user(home="/"), "$.home: the str would come back as PosixPath"),
    (User, user(friend=user(age=True)), "$.friend.age: expected int, got bool"),
    (User, models.cyclic(), "$: nested too deeply"),
    (User, User.model_construct(), "$.name: expected a value, but pydantic does not write this field"),
    (Address, M.FullAddress(street="a"), "$: expected Address, got FullAddress"),
    (pydantic.BaseModel, Address(street="a"), "$: the Address would come back as BaseModel"),
    (M.Locked, M.Locked(), "$._lock: a lock cannot be compared"),
    (M.Secret, M.Secret(password=SECRET), "$.password: the SecretStr would come back with another value"),
    (M.Hidden, M.Hidden(hidden=SECRET), "$.hidden: the str would come back with another value"),
    (M.Hidden, M.Hidden(hidden="usual"), "$.model_fields_set: the list would come back with another number of parts"),
    (M.HiddenAndRequired, M.HiddenAndRequired(hidden=SECRET), "$.hidden: expected a value, but pydantic does not"),
    (Box[int], Box(held=1), "$: expected Box[int], got Box"),
    (M.Open, M.Open(more=SECRET.encode()), "$.model_extra.values()[0]: the bytes would come back as str"),
    (M.Doubled, M.Doubled(size=1), "$.size: the int would come back with another value"),
    (M.Rounded, M.Rounded(real=1.4), "$.real: the float would come back with another value"),
    (M.Point, Address(street="a"), "$: expected Point, got Address"),
    (
        M.OpenPoint,
        pydantic.TypeAdapter(M.OpenPoint).validate_python({"x": 1, "more": SECRET}),
        "$.extra: the dict would come back with another number of parts",
    ),
    (M.Row, {"whole": SECRET}, "$.whole: expected int, got str"),
    (M.Row, {"whole": 1, SECRET: 1}, "$: expected Row, got a dict with unknown keys"),
    (Annotated[int, pydantic.Field(gt=3)], 2, "$: pydantic does not read it back (greater_than)"),
    (dict[str, User], {SECRET: user(age=True)}, "$.values()[0].age: expected int, got bool"),
    (dict[str, User], {SECRET: user(age=-1)}, "$.values()[0].age: pydantic does not read it back (greater_than)"),
]


# Not the values: some hold the time or a random UUID, and workers that share the tests compare their ids.
KEPT_IDS = [f"{number} {type(value).__name__}" for number, (_, value) in enumerate(KEPT)]


@pytest.mark.parametrize(("type_", "value"), KEPT, ids=KEPT_IDS)
def test_a_value_comes_back_the_same(type_: Any, value: Any) -> None:
    serializer = load_serializer("pydantic", type_)
    again = serializer.loads(serializer.dumps(value))
    assert difference(value, again) is None
    assert again == value
    assert type(again) is type(value)
    if isinstance(value, pydantic.BaseModel):
        assert isinstance(again, pydantic.BaseModel)
        assert again.model_fields_set == value.model_fields_set
        assert again.model_extra == value.model_extra


@pytest.mark.parametrize(("type_", "value", "message"), REFUSED, ids=[case[2] for case in REFUSED])
def test_a_value_that_would_not_come_back_the_same_is_refused(type_: Any, value: Any, message: str) -> None:
    serializer = load_serializer("pydantic", type_)
    with pytest.raises(SerializationError) as raised:
        serializer.dumps(value)
    assert str(raised.value).startswith(message)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_changed_private_attribute_is_refused() -> None:
    counted = models.Counted()
    counted._count = 7
    with pytest.raises(SerializationError, match=r"^\$\._count: the int would come back with another value$"):
        load_serializer("pydantic", models.Counted).dumps(counted)


def test_an_int_that_is_a_key_where_the_type_says_float_is_stored_as_the_float() -> None:
    serializer = load_serializer("pydantic", list[dict[float, float]])
    value: list[dict[float, float]] = [{0: 1, 2: 2.5}, {}]
    assert repr(serializer.loads(serializer.dumps(value))) == "[{0.0: 1.0, 2.0: 2.5}, {}]"


def test_an_int_in_a_field_of_floats_is_stored_as_the_float() -> None:
    serializer = load_serializer("pydantic", User)
    assert repr(serializer.loads(serializer.dumps(user(ratio=2))).ratio) == "2.0"
    with pytest.raises(SerializationError, match=r"^\$\.ratio: expected float, got an int that no float holds exactly"):
        serializer.dumps(user(ratio=2**53 + 1))


def test_an_unset_field_stays_unset_and_keeps_its_value() -> None:
    serializer = load_serializer("pydantic", Event)
    event = Event(name="a")
    data = serializer.dumps(event)
    again = serializer.loads(data)
    assert (again.id, again.at) == (event.id, event.at)
    assert again.model_fields_set == {"name"}
    assert data.startswith(b'\n[["at","id"]]\n{"id":')
    assert load_serializer("pydantic", Address).dumps(Address(street="a")) == b'{"street":"a"}'


def test_a_mutated_default_is_kept() -> None:
    serializer = load_serializer("pydantic", User)
    changed_user = User(name="a")
    changed_user.addresses.append(Address(street="b"))
    again = serializer.loads(serializer.dumps(changed_user))
    assert again.addresses == [Address(street="b")]
    assert again.model_fields_set == {"name"}


def test_fields_have_their_names_in_the_bytes_and_not_their_aliases() -> None:
    serializer = load_serializer("pydantic", models.Camel)
    assert serializer.dumps(models.Camel(first_name="a")) == b'{"first_name":"a"}'
    for other in (b'{"firstName":"a"}', b'{"first_name":"a","another":1}'):
        with pytest.raises(ValueError, match=r"first_name|coerced or dropped"):
            serializer.loads(other)


def test_the_order_of_a_set_does_not_matter_but_that_of_a_list_does() -> None:
    sets = load_serializer("pydantic", set[int])
    assert sets.loads(b"[1,2,1000]") == sets.loads(b"[1000,1,2]") == {1, 2, 1000}
    with pytest.raises(ValueError, match="coerced or dropped"):
        sets.loads(b"[1,1]")
    assert load_serializer("pydantic", list[int]).loads(b"[2,1]") == [2, 1]


@pytest.mark.parametrize(
    "data",
    [b'{"street":1}', b'{"street":"a","more":1}', b'{"zip":"a"}', b"{}", b"[]", b'{"street":"a"}\n', b"\n[]\n{}"]
    + [b'\n[["street"]]\n{"street":"a"}', b'\n[["zip"],["zip"]]\n{"street":"a","zip":""}', b'\n[]\n{"street":"a"}']
    + [b'\n[["zip"]]\n{"street":"a"}', b'\n{"street":"a"}', b"", b"\n", b"\n\n", b'\n[["zip"]]'],
)
def test_other_data_is_not_read(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        load_serializer("pydantic", Address).loads(data)


class Hero(sqlmodel.SQLModel, table=True):
    id: int | None = sqlmodel.Field(default=None, primary_key=True)
    name: str


class HeroWithoutTable(sqlmodel.SQLModel):
    name: str


class Base(sqlalchemy.orm.DeclarativeBase):
    pass


class Mapped(Base):
    __tablename__ = "mapped"
    id: sqlalchemy.orm.Mapped[int] = sqlalchemy.orm.mapped_column(primary_key=True)


class Team(pydantic.BaseModel):
    heroes: list[Hero] = []


class Unsupported:
    pass


@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        (Hero, "SQLAlchemy maps Hero to a table"),
        (list[Hero], "SQLAlchemy maps Hero to a table"),
        (Team, "Team.heroes: SQLAlchemy maps Hero to a table"),
        (Mapped, "SQLAlchemy maps Mapped to a table"),
        (Unsupported, "pydantic: Unable to generate pydantic-core schema"),
    ],
)
def test_a_type_whose_values_cannot_come_back_is_refused_at_connect(type_: Any, reason: str) -> None:
    with pytest.raises(InvalidTypeError, match=reason):
        load_serializer("pydantic", type_)


def test_a_sqlmodel_without_a_table_is_served() -> None:
    serializer = load_serializer("pydantic", HeroWithoutTable)
    assert serializer.loads(serializer.dumps(HeroWithoutTable(name="a"))) == HeroWithoutTable(name="a")


def test_the_serializer_passes_the_checks_for_plugins() -> None:
    check_serializer(
        load_serializer("pydantic", list[Address]),
        values=[[], [Address(street="a")], [Address(street="b", zip="c")]],
        refused_bytes=[b"{}", b'[{"street":1}]', b'[{"street":"a","more":1}]', b'[{"street":"a"}'],
        refused_values=[[Address.model_construct(street=1)], (Address(street="a"),), [models.FullAddress(street="a")]],
    )


def test_models_are_stored_in_memcached(shared_memcached: Memcached) -> None:
    with Client(Pool(shared_memcached.node), load_serializer("pydantic", Log), prefix="log:", owns=True) as client:
        log = Log(events=[Event(), Event(name="a")])
        client.set("k", log)
        assert client.get("k") == log
        with pytest.raises(SerializationError, match=r"^set 'k': \$\.events: expected list, got tuple$"):
            client.set("k", changed(Log(events=[]), events=(1,)))
        assert client.get("k") == log
