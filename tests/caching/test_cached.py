"""Cached functions: their keys, their forms, and what is refused when decorating."""

from __future__ import annotations

import asyncio
import enum
import inspect
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest

from metacache import (
    AsyncClient,
    Client,
    DeleteResult,
    InvalidArgumentError,
    InvalidTypeError,
    Key,
    Source,
    Stampede,
)
from metacache.caching.templates import KeyTemplate
from metacache.serializers import StrSerializer
from metacache.testing import AsyncFakeTransport, FakeServer, FakeTransport
from tests.caching.rig import Rig


class Color(enum.Enum):
    RED = 1
    T = 2


class Shade(enum.Enum):
    RED = 1


class Mode(enum.Flag):
    A = 1
    B = 2


class Word(str, enum.Enum):  # noqa: UP042 - the older form
    RED = "red"


class Name(str):
    __slots__ = ()


def two(a: object, b: object) -> None: ...


ALPHABET: Final = ("a", "1", ":", "/", "%", "{", "}", " ", "\0", "\n", "é", "-", "N", "T", "B", "E", "=", ".")
TEXTS: Final = ("", *ALPHABET, *map("".join, itertools.product(ALPHABET, repeat=2)), "%3A", "%25", "%N", "%E", "True")
OTHERS: Final = (
    *(0, 1, -1, 42, 10**20, None, True, False),
    *(b"", b"a", b"1", b":", b"%", b"\xff", b"%3A"),
    *(Color.RED, Color.T, Shade.RED, Word.RED, Mode.A, Mode.A | Mode.B, Mode(0)),
    uuid.UUID(int=5),
)


def same(one: object, other: object) -> bool:
    """Return whether two values are documented to share a key: a number or a UUID and its text."""
    kinds = (int, uuid.UUID)
    texts = [str(each) if type(each) in kinds else each for each in (one, other)]
    return type(texts[0]) is type(texts[1]) and texts[0] == texts[1]


@pytest.mark.parametrize("template", ["{a}:{b}", "x{a}/y{b}z", "{a}::{b}", "{b}a:{a}"])
def test_different_arguments_have_different_keys(template: str) -> None:
    fill = KeyTemplate(template, two, ()).fill
    values = [*TEXTS, *OTHERS]
    known: dict[str, tuple[object, object]] = {}
    short = [value for value in values if not isinstance(value, str) or len(value) < 2]
    for one, other in itertools.chain(itertools.product(short, repeat=2), ((value, "") for value in values)):
        key = fill((one, other), {})
        before = known.setdefault(key, (one, other))
        assert same(before[0], one), (key, before, one, other)
        assert same(before[1], other), (key, before, one, other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("zoë/:", "zo%C3%AB%2F%3A"),
        (42, "42"),
        ("42", "42"),
        (Name("x:y"), "x%3Ay"),
        (None, "%N"),
        (True, "%T"),
        (False, "%F"),
        (b"a:", "%Ba%3A"),
        (Color.RED, "%EColor%.RED"),
        (Word.RED, "%EWord%.RED"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_a_value_has_its_text(value: object, text: str) -> None:
    assert KeyTemplate("{a}:{b}", two, ()).fill((value, 1), {}) == f"{text}:1"


@pytest.mark.parametrize("value", [1.5, (1,), [1], {1: 2}, object(), 1j])
def test_a_value_without_a_text_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="a is a str, int"):
        KeyTemplate("{a}:{b}", two, ()).fill((value, 1), {})


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="surrogate"):
        KeyTemplate("{a}:{b}", two, ()).fill(("\ud800", 1), {})


# --- templates that do not fit ----------------------------------------------------------------------------------------


def some(a: int, /, b: int, *, c: int = 3) -> str: ...  # type: ignore[empty-body]
def starred(a: int, *more: int, **named: int) -> str: ...  # type: ignore[empty-body]


WRONG: Final = [
    (some, "{a}:{b}:{c}:{d}", (), "no parameter d"),
    (some, "{a}:{b}:{c}", ("d",), "no parameter d"),
    (some, "{a}:{b}", (), "differ in c"),
    (some, "k", (), "differ in a, b, c"),
    (some, "{a}:{b}:{c}:{a}", (), "once"),
    (some, "{a}:{b}:{c}", ("c",), "once"),
    (some, "{a}{b}:{c}", (), "separator"),
    (some, "{a}x{b}:{c}", (), "separator"),
    (some, "{a}-{b}:{c}", (), "separator"),
    (some, "{a}%{b}:{c}", (), "separator"),
    (some, "{a}:{b}:{c!r}", (), "bare name"),
    (some, "{a}:{b}:{c:>3}", (), "bare name"),
    (some, "{a}:{b.real}:{c}", (), "bare name"),
    (some, "{a}:{b[0]}:{c}", (), "bare name"),
    (some, "{}:{b}:{c}", (), "bare name"),
    (some, "{0}:{b}:{c}", (), "bare name"),
    (some, "{a}:{b}:{c", (), "format string"),
    (some, "{a}:{b}:c}", (), "format string"),
    (starred, "{a}:{more}", ("named",), "cannot hold"),
    (starred, "{a}", (), "differ in more, named"),
]


@pytest.mark.parametrize(("function", "template", "ignore", "message"), WRONG)
def test_a_template_that_does_not_fit_is_refused_when_decorating(
    function: Callable[..., str], template: str, ignore: tuple[str, ...], message: str
) -> None:
    client = Client(FakeTransport(), StrSerializer())
    with pytest.raises(InvalidArgumentError, match=message):
        client.cached(template, ignore=ignore)(function)


def test_ignore_is_a_collection_of_names() -> None:
    client = Client(FakeTransport(), StrSerializer())
    with pytest.raises(InvalidTypeError, match="ignore"):
        client.cached("{a}:{b}", ignore="c")(some)


def test_braces_in_a_template_are_written_twice() -> None:
    assert KeyTemplate("{{{a}}}:{b}", two, ()).fill((1, 2), {}) == "{1}:2"


# --- arguments --------------------------------------------------------------------------------------------------------

CALLS: Final[list[tuple[tuple[int, ...], dict[str, int], str]]] = [
    ((1, 2), {}, "1:2:3"),
    ((1,), {"b": 2}, "1:2:3"),
    ((1,), {"b": 2, "c": 4}, "1:2:4"),
    ((1, 2), {"c": 4}, "1:2:4"),
]
WRONG_CALLS: Final[list[tuple[tuple[int, ...], dict[str, int]]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2, 3), {}),
    ((1, 2), {"b": 2}),
    ((), {"a": 1, "b": 2}),
    ((1, 2), {"d": 2}),
    ((1,), {"c": 2}),
]


@pytest.mark.parametrize(("args", "named", "key"), CALLS)
def test_positional_keyword_and_default_arguments_make_one_key(
    args: tuple[int, ...], named: dict[str, int], key: str
) -> None:
    assert KeyTemplate("{a}:{b}:{c}", some, ()).fill(args, named) == key


@pytest.mark.parametrize(("args", "named"), WRONG_CALLS)
def test_a_wrong_call_raises_what_the_function_would_raise(args: tuple[int, ...], named: dict[str, int]) -> None:
    cached = Client(FakeTransport(), StrSerializer()).cached("{a}:{b}:{c}")(some)
    wrong: Any = cached  # Any: the type checkers refuse these calls too
    with pytest.raises(TypeError):
        wrong(*args, **named)


# --- what is refused --------------------------------------------------------------------------------------------------


async def coroutine(a: int) -> str: ...  # type: ignore[empty-body]
def generator(a: int) -> Iterator[str]:
    yield str(a)


async def async_generator(a: int) -> AsyncIterator[str]:
    yield str(a)


class Making:
    """An object that is called, and whose call is a generator."""

    def __call__(self, a: int) -> Iterator[str]:
        yield str(a)


class Awaiting:
    """An object whose call is a coroutine."""

    async def __call__(self, a: int) -> bytes:
        return b"%d" % a


class Answering:
    """An object whose call returns a value."""

    def __call__(self, a: int) -> bytes:
        return b"%d" % a


def times(a: int, b: int) -> bytes:
    return b"%d" % (a * b)


async def test_objects_that_are_called_are_cached() -> None:
    transport = FakeTransport()
    assert Client(transport).cached("o:{a}")(Answering())(5) == b"5"
    assert Client(transport).get("o:5") == b"5"
    asyncio_client = AsyncClient(AsyncFakeTransport())
    assert await asyncio_client.cached("o:{a}")(Awaiting())(5) == b"5"
    assert Client(transport).cached("p:{b}")(partial(times, 3)).key_for(7) == "p:7"


@pytest.mark.parametrize("function", [generator, async_generator, Making(), partial(generator)])
def test_a_generator_is_refused(function: Callable[..., Any]) -> None:  # Any: a wrong function
    for client in (Client(FakeTransport()), AsyncClient(AsyncFakeTransport())):
        decorate: Any = client.cached("{a}")  # Any: the type checkers refuse it too
        with pytest.raises(InvalidTypeError, match="generator"):
            decorate(function)


def test_other_things_are_refused() -> None:
    decorate: Any = Client(FakeTransport()).cached("{a}")  # Any: the type checkers refuse these too
    wrongs: list[tuple[object, str]] = [
        (coroutine, "AsyncClient"),
        (staticmethod(generator), "not staticmethod; write @staticmethod"),
        (classmethod(two), "not classmethod; write"),
        (5, "decorates a function"),
        (Awaiting(), "AsyncClient"),
        (dict, "give key a function"),
    ]
    for wrong, message in wrongs:
        with pytest.raises(InvalidTypeError, match=message):
            decorate(wrong)


def test_the_arguments_of_cached_are_checked_when_decorating() -> None:
    client: Any = Client(FakeTransport())  # Any: the type checkers refuse these too
    for named in ({"ttl": 0}, {"ttl": "5"}, {"policy": 5}, {"should_cache": 5}, {"policy": Stampede(background=True)}):
        with pytest.raises(InvalidArgumentError):
            client.cached("k", **named)(lambda: b"")
    with pytest.raises(InvalidTypeError, match="key is a template"):
        client.cached(5)(lambda: b"")
    with pytest.raises(InvalidArgumentError, match="ignore"):
        client.cached(str, ignore=("a",))(lambda: b"")


# --- forms ------------------------------------------------------------------------------------------------------------


def cached_of(rig: Rig, template: str | Callable[..., Key], make: Callable[..., Awaitable[str]], **named: Any) -> Any:
    """Return *make* as a cached function of *rig*. Any: its form depends on the client."""
    client: Any = rig.texts(**named)
    client = getattr(client, "_client", client)  # of the adapter, whose methods are all coroutines
    return client.cached(template)(sync_form(make) if rig.is_blocking else make)


def sync_form(make: Callable[..., Awaitable[str]]) -> Callable[..., str]:
    def call(a: int, b: int = 2) -> str:
        found = make(a, b).__await__()
        try:
            next(found)
        except StopIteration as done:
            return str(done.value)
        raise AssertionError("the function waited")

    return call


async def answer(rig: Rig, value: Any) -> Any:  # Any: as in cached_of
    return value if rig.is_blocking else await value


@pytest.fixture
def fake(kind: str) -> Rig:
    return Rig(kind, FakeServer())


async def test_a_cached_function_computes_refreshes_and_deletes(fake: Rig) -> None:
    runs: list[tuple[int, int]] = []

    async def make(a: int, b: int = 2) -> str:
        """Make it."""
        runs.append((a, b))
        return f"{a} {b} {len(runs)}"

    cached = cached_of(fake, "f:{a}:{b}", make, prefix="p:")
    assert [await answer(fake, cached(*args)) for args in ((1,), (1, 2), (2,), (1,))] == [
        "1 2 1",
        "1 2 1",
        "2 2 2",
        "1 2 1",
    ]
    assert runs == [(1, 2), (2, 2)]
    assert cached.key_for(1) == "f:1:2"
    assert await answer(fake, cached.refresh(1)) == "1 2 3"
    assert await answer(fake, cached(a=1)) == "1 2 3"
    assert await answer(fake, cached.delete(1)) is DeleteResult.DELETED
    assert await answer(fake, cached.delete(1)) is DeleteResult.NOT_FOUND
    assert await answer(fake, cached(1)) == "1 2 4"
    assert fake.remaining("p:f:1:2")[0] == b"1 2 4"
    assert len(runs) == 4


async def test_a_key_function_gets_the_arguments(fake: Rig) -> None:
    async def make(a: int, b: int = 2) -> str:
        return f"{a} {b}"

    def key(a: int, b: int = 2) -> str:
        return f"key {a} {b}"

    cached = cached_of(fake, key, make)
    assert await answer(fake, cached(1, b=5)) == "1 5"
    assert cached.key_for(1, b=5) == "key 1 5"


async def test_a_function_that_raises_raises_the_same_exception(fake: Rig) -> None:
    error = LookupError("no")

    async def make(*_: int) -> str:
        raise error

    cached = cached_of(fake, lambda *args: f"f:{args[0]}", make)
    for call in (cached, cached.refresh):
        with pytest.raises(LookupError) as caught:
            await answer(fake, call(1))
        assert caught.value is error
        assert fake.remaining("f:1")[0] is None


def test_the_wrapper_looks_like_the_function() -> None:
    client = Client(FakeTransport(), StrSerializer())

    @client.cached("f:{a}")
    def load(a: int) -> str:
        """Load it."""
        return str(a)

    assert getattr(load, "__name__") == "load"  # noqa: B009 - no type checker knows of it
    assert load.__doc__ == "Load it."
    assert str(inspect.signature(load)) == "(a: 'int') -> 'str'"
    assert load.__wrapped__(3) == "3"
    assert "load" in repr(load)


def test_methods_static_methods_and_class_methods_are_cached() -> None:
    client = Client(FakeTransport(), StrSerializer())

    class Store:
        def __init__(self, name: str) -> None:
            self.name = name

        @client.cached("m:{a}", ignore=("self",))
        def method(self, a: int) -> str:
            return f"{self.name} {a}"

        def key(self, a: int) -> str:
            return f"k:{self.name}:{a}"

        @client.cached(key)
        def keyed(self, a: int) -> str:
            return f"{self.name} {a}"

        @staticmethod
        @client.cached("s:{a}")
        def static(a: int) -> str:
            return f"static {a}"

        @classmethod
        @client.cached("c:{a}", ignore=("cls",))
        def of_class(cls, a: int) -> str:
            return f"{cls.__name__} {a}"

    store, other = Store("one"), Store("two")
    assert store.method(1) == other.method(1) == "one 1"
    assert (store.keyed(1), other.keyed(1)) == ("one 1", "two 1")
    assert store.method.key_for(1) == "m:1"
    assert other.method.refresh(1) == "two 1"
    assert store.method(a=1) == "two 1"
    assert store.method.delete(1) is DeleteResult.DELETED
    unbound: Any = Store.method  # Any: mypy takes the first parameter, self, for bound
    assert unbound(store, 1) == "one 1"
    of_instance: Any = store  # Any: type checkers take a cached static method of an instance for a method
    assert Store.static(1) == of_instance.static(1) == "static 1"
    assert Store.static.key_for(1) == "s:1"
    of_class: Any = Store.of_class  # Any: no type checker knows what a class method makes of it
    assert of_class(1) == "Store 1"


async def test_async_methods_are_cached() -> None:
    client = AsyncClient(AsyncFakeTransport(), StrSerializer())

    class Store:
        @client.cached("m:{a}", ignore=("self",))
        async def method(self, a: int) -> str:
            return f"method {a}"

    store = Store()
    assert await store.method(1) == "method 1"
    assert await store.method.refresh(a=1) == "method 1"
    assert store.method.key_for(1) == "m:1"
    assert await store.method.delete(1) is DeleteResult.DELETED


# --- refresh ----------------------------------------------------------------------------------------------------------


async def test_refresh_is_not_replaced_by_a_computation_that_began_before(fake: Rig) -> None:
    """A winner computes old data while a refresh begins and ends; the winner's store is refused."""
    gate, runs = fake.gate(), list[int]()

    async def make(*_: int) -> str:
        runs.append(1)
        if len(runs) == 1:
            await gate.wait()
            return "before"
        return "after"

    client = fake.texts()
    slow = fake.start(lambda: client.get_or_compute_item("f", fake.factory(lambda: make(1))))
    while not runs:
        await fake_pause()
    refreshed = cached_of(fake, lambda *_: "f", make)
    assert await answer(fake, refreshed.refresh(1)) == "after"
    gate.open()
    found = await slow
    assert (found.value, found.source) == ("before", Source.UNSTORED)
    assert fake.remaining("f")[0] == b"after"


async def test_a_computation_that_began_before_cannot_store_first(fake: Rig) -> None:
    """The winner of old data stores while the refresh computes: without the mark, its value would stay."""
    client = fake.texts()
    await client.set("f", "old", ttl=100)
    head = fake.wire(b"mg f c R500\r\n").split()
    assert head[-1] == b"W"
    before = head[1][1:].decode()

    async def make(*_: int) -> str:
        assert fake.wire(f"ms f 6 F2952790032 C{before}\r\nbefore\r\n".encode()).startswith(b"EX")
        return "after"

    refreshed = cached_of(fake, lambda *_: "f", make)
    assert await answer(fake, refreshed.refresh(1)) == "after"
    assert fake.remaining("f")[0] == b"after"


async def test_a_refresh_waits_for_another_refresh(fake: Rig) -> None:
    client = fake.texts()
    await client.set("f", "old", ttl=100)
    seen: list[str] = []

    def hook(number: int, head: str) -> None:
        seen.append(head)
        if number == 2:  # another caller wins between the mark and the ask
            fake.wire(b"mg f v\r\n")
        if number == 5:
            fake.wire(b"ms f 5 F2952790032 T100\r\nother\r\n")

    fake.transport.hook = hook

    async def make(*_: int) -> str:
        raise AssertionError("the other caller computes")

    refreshed = cached_of(fake, lambda *_: "f", make)
    assert await answer(fake, refreshed.refresh(1)) == "other"


async def test_a_failed_refresh_keeps_the_old_value(fake: Rig) -> None:
    await fake.texts().set("f", "old", ttl=3600)
    error = LookupError("no")

    async def make(*_: int) -> str:
        raise error

    refreshed = cached_of(fake, lambda *_: "f", make)
    with pytest.raises(LookupError):
        await answer(fake, refreshed.refresh(1))
    value, marks, ttl = fake.remaining("f")
    assert (value, marks) == (b"old", "XW")
    assert ttl in range(3590, 3601)


async def fake_pause() -> None:
    await asyncio.sleep(0.002)
