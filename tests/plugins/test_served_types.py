"""A type is served, or refused when the serializer is made, with the unsupported part and the reason."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, Final

import attrs
import msgspec
import pytest

from metacache import InvalidTypeError, SerializationError, Serializer, load_serializer
from metacache.serializers import difference
from metacache.testing import check_serializer
from tests.ids import stable
from tests.serializers import records

# Any: right and wrong values of these classes.
R: Final[Any] = records


class Opaque:
    pass


class Odd(enum.Enum):
    PAIR = (1, 2)


@dataclasses.dataclass
class Holder:
    name: str
    thing: Opaque


@dataclasses.dataclass
class Outer:
    holders: list[Holder]


@dataclasses.dataclass
class Seeded:
    """A class whose constructor takes an argument that is not a field."""

    seed: dataclasses.InitVar[int]
    size: int = 0


@dataclasses.dataclass
class Lenient:
    """A class whose constructor takes an argument with a default that is not a field."""

    size: int
    seed: dataclasses.InitVar[int] = 0


@dataclasses.dataclass(init=False)
class Bare:
    """A class with its own constructor, which does not take the fields."""

    size: int

    def __init__(self, text: str) -> None:
        self.size = len(text)


@dataclasses.dataclass
class Named(str):
    """A class with contents beside its fields."""

    label: str = ""


@attrs.define
class Required:
    _size: int


@attrs.define
class Optional:
    size: int
    _cache: int = 0


@dataclasses.dataclass
class Under:
    _size: int


@dataclasses.dataclass
class Keyed:
    table: dict[tuple[int, int], int]


class Structural(msgspec.Struct):
    _size: int


REFUSED: Final[list[tuple[str, Any, str]]] = [
    ("orjson", Opaque, "JSON has no form for Opaque"),
    ("orjson", list[Opaque], "JSON has no form for Opaque"),
    ("orjson", Outer, "Outer.holders: Holder.thing: JSON has no form for Opaque"),
    ("orjson", dict[str, Outer], "Outer.holders: Holder.thing: JSON has no form for Opaque"),
    ("orjson", Odd, "Odd: expected a JSON value as the value of an Enum or Literal, got tuple"),
    ("orjson", complex, "JSON has no form for complex"),
    ("orjson", Seeded, r"Seeded: its constructor does not take its fields \(missing a required argument: 'seed'\)"),
    ("orjson", Bare, r"Bare: its constructor does not take its fields \(missing a required argument: 'text'\)"),
    ("orjson", Named, "Named has a builtin base class, so it holds more than its fields"),
    ("orjson", tuple[int, *tuple[str, ...]], "it contains an unpacked tuple"),
    ("attrs", list[R.Unequal | Opaque], "JSON has no form for Opaque"),
    ("attrs", R.Place, "it contains no attrs class"),
    ("attrs", int, "it contains no attrs class"),
    ("json", set[int], r"JSON has no set\[int\]"),
    ("json", dict[int, str], "JSON has no dict with keys of int"),
    ("json", list[R.Place], "JSON has no Place"),
    ("json", dict[str, bytes], "JSON has no bytes"),
    ("msgspec", Outer, "Holder.thing: msgspec needs hooks for Opaque"),
    ("msgspec", list[Opaque], "msgspec needs hooks for Opaque"),
    ("msgspec", Required, "msgspec omits the field _size of Required, because its name begins with _"),
    ("msgspec", list[Under], "msgspec omits the field _size of Under, because its name begins with _"),
    ("msgspec-json", dict[str, Required | None], "msgspec omits the field _size of Required"),
    ("msgspec", Named, "msgspec omits the fields of Named, because it has a builtin base class"),
    ("msgspec", Seeded, "dataclasses with `InitVar` fields are not supported"),
    ("msgspec", list[int] | set[int], "Type unions may not contain more than one array-like"),
    ("msgspec-json", Keyed, r"Keyed.table: JSON has no dict with keys of tuple\[int, int\]"),
    ("msgspec-json", dict[bool, int], "JSON has no dict with keys of bool"),
    ("msgspec-json", msgspec.msgpack.Ext, "JSON has no Ext, which belongs to MessagePack"),
]


@pytest.mark.parametrize(("name", "type_", "reason"), REFUSED, ids=str)
def test_the_error_names_the_part_and_the_reason(name: str, type_: Any, reason: str) -> None:
    with pytest.raises(InvalidTypeError, match=reason):
        load_serializer(name, type_)


SERVED: Final[list[tuple[str, Any, Any, Any]]] = [
    # A type, a value of it, and a wrong one.
    ("orjson", R.Perm, R.Perm(3), 3),
    ("orjson", R.Chosen, R.Chosen(0), 0),
    ("orjson", dict[R.Perm, int], {R.Perm(3): 1}, {3: 1}),
    ("attrs", list[R.Unequal | R.Perm], [R.Perm(3), R.Unequal(1)], [3]),
    ("attrs", Required, Required(1), Required("a")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("orjson", Lenient, Lenient(1), Lenient("a")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("msgspec", Optional, Optional(1), Optional(1, 2)),
    ("msgspec", Structural, Structural(1), Structural("a")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ("msgspec", dict[tuple[int, int], int], {(1, 2): 3}, {(1,): 3}),
    ("msgspec", msgspec.Raw, msgspec.Raw(b"\x01"), 1),
    ("msgspec", msgspec.msgpack.Ext, msgspec.msgpack.Ext(1, b"a"), b"a"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "type_", "value", "wrong"), SERVED, ids=stable(str))
def test_a_served_type_stores_its_values_and_refuses_others(name: str, type_: Any, value: Any, wrong: Any) -> None:
    serializer: Serializer[Any] = load_serializer(name, type_)
    again = serializer.loads(serializer.dumps(value))
    if not isinstance(value, msgspec.Raw | msgspec.msgpack.Ext):  # only the plugin knows its parts
        assert difference(value, again) is None
    with pytest.raises(SerializationError, match=r"^\$"):
        serializer.dumps(wrong)


@pytest.mark.parametrize("boundary", [enum.STRICT, enum.CONFORM, enum.EJECT, enum.KEEP])
def test_a_flag_of_any_boundary_comes_back_the_same_or_is_refused(boundary: enum.FlagBoundary) -> None:
    class Bits(enum.IntFlag, boundary=boundary):
        ONE = 1
        FOUR = 4

    Bits.__qualname__ = "Bits"
    serializer: Serializer[Any] = load_serializer("orjson", Bits)
    for bits in range(16):
        try:
            value = Bits(bits)
        except ValueError:
            continue
        if type(value) is Bits:
            assert serializer.loads(serializer.dumps(value)) is value
    for data in (b"true", b"1.0", b'"1"', b"null", b"[1]"):
        with pytest.raises((TypeError, ValueError)):
            serializer.loads(data)
    for bits in range(16):
        try:
            read = serializer.loads(b"%d" % bits)
        except ValueError:
            continue
        assert (type(read), int(read)) == (Bits, bits)


class Halving:
    """A wrong serializer that loses a part of the value or changes a class."""

    wire_id = 240
    fingerprint = 1

    def __init__(self, made: Any) -> None:
        self._made = made

    def dumps(self, _: Any, /) -> bytes:
        return b""

    def loads(self, _: bytes, /) -> Any:
        return self._made


@pytest.mark.parametrize(
    ("value", "made"),
    [(R.Liar("a"), R.Liar("b")), (1, True), ([1], (1,)), (0.0, -0.0), (R.Unequal(1), R.Unequal(2)), (1.0, 1)],
    ids=repr,
)
def test_check_serializer_compares_part_by_part(value: Any, made: Any) -> None:
    with pytest.raises(AssertionError, match=r"differs after dumps and loads at \$"):
        check_serializer(Halving(made), values=[value], refused_bytes=())


def test_check_serializer_accepts_values_with_identity_equality() -> None:
    check_serializer(Halving(R.Unequal(1)), values=[R.Unequal(1)], refused_bytes=())
    check_serializer(Halving(float("nan")), values=[float("nan")], refused_bytes=())
