"""Value classes behave like those of attrs, with which each test here compares them."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import threading
import typing
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

import attrs
import pytest
from typing_extensions import override

from metacache import PoolStatistics, Settings
from metacache.transports.counters import CloseReason
from metacache.values import making

T = TypeVar("T")


def refuse_negative(_: object, field: Any, value: int) -> None:  # Any: an Attribute of attrs, or a field of `making`
    if value < 0:
        raise ValueError(f"{field.name} is negative")


def double_of(made: Any) -> int:  # Any: as above
    return 2 * int(made.value)


def interrupted(*_: object, **__: object) -> str:
    raise KeyboardInterrupt


def classes(make: Any) -> dict[str, Any]:  # Any: attrs or `making`, and their classes
    """Return classes with every option that the package uses, made by attrs or by `making`."""
    optional = attrs.validators.optional if make is attrs else make.optional

    @make.frozen
    class Plain:
        """A docstring."""

        one: int
        two: str = "two"

        def total(self) -> str:
            return f"{self.one} {self.two}"

    @make.frozen(kw_only=True)
    class Keywords:
        checked: int = make.field(default=1, validator=refuse_negative)
        perhaps: int | None = make.field(default=None, validator=optional(refuse_negative))
        converted: int = make.field(default="7", converter=int)
        secret: str = make.field(default="secret", repr=False)
        listed: list[int] = make.field(factory=list)
        given: list[int] = make.Factory(list)

        def __attrs_post_init__(self) -> None:
            if self.checked == 13:
                raise ValueError("13")

    @make.frozen(eq=False)
    class Identity(Generic[T]):
        value: T
        double: int = make.field(init=False, default=make.Factory(double_of, takes_self=True))
        fixed: int = make.field(init=False, default=3)

        @override
        def __repr__(self) -> str:
            return "own"

    @make.frozen(init=False)
    class Own:
        _value: int
        other: int = make.field(eq=False)

        def __init__(self, value: int) -> None:
            getattr(self, "__attrs_init__")(value, 2 * value)  # noqa: B009 - no type checker knows it

    return {each.__name__: each for each in (Plain, Keywords, Identity, Own)}


THEIRS: Final = classes(attrs)
OURS: Final = classes(making)
NAMES: Final = tuple(THEIRS)
CALLS: Final[dict[str, tuple[str, tuple[object, ...], dict[str, object]]]] = {
    "all by position": ("Plain", (1, "x"), {}),
    "a default": ("Plain", (1,), {}),
    "by name": ("Plain", (), {"two": "x", "one": 1}),
    "one is missing": ("Plain", (), {}),
    "too many": ("Plain", (1, 2, 3), {}),
    "an unknown name": ("Plain", (1,), {"three": 3}),
    "defaults": ("Keywords", (), {}),
    "by position": ("Keywords", (1,), {}),
    "refused": ("Keywords", (), {"checked": -1}),
    "refused, optional": ("Keywords", (), {"perhaps": -1}),
    "converted": ("Keywords", (), {"converted": "8", "listed": [1]}),
    "refused at last": ("Keywords", (), {"checked": 13}),
    "computed": ("Identity", (2,), {}),
    "not an argument": ("Identity", (2,), {"fixed": 4}),
    "an initializer of its own": ("Own", (2,), {}),
}


def outcome(made: dict[str, Any], name: str, arguments: tuple[object, ...], named: dict[str, object]) -> object:
    """Return what a call gives: the object as text with its fields, or the error as text."""  # Any: as above
    try:
        found = made[name](*arguments, **named)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return repr(found), attrs.asdict(found), [hasattr(found, each) for each in ("__dict__", "__attrs_attrs__")]


@pytest.mark.parametrize("case", CALLS)
def test_a_call_has_the_same_outcome(case: str) -> None:
    assert outcome(OURS, *CALLS[case]) == outcome(THEIRS, *CALLS[case])


@pytest.mark.parametrize("name", NAMES)
def test_a_class_has_the_same_description(name: str) -> None:
    ours, theirs = OURS[name], THEIRS[name]
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__match_args__", "__annotations__"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    kept = ("name", "repr", "eq", "init", "kw_only", "type", "alias", "inherited")
    described, wanted = (
        [[getattr(field, each) for each in kept] for field in attrs.fields(made)] for made in (ours, theirs)
    )
    assert described == wanted


@pytest.mark.parametrize("made", [OURS, THEIRS], ids=["making", "attrs"])
def test_objects_are_values(made: dict[str, Any]) -> None:  # Any: as above
    plain, keywords, identity, own = (made[name] for name in NAMES)
    assert plain(1) == plain(1) != plain(2)
    assert hash(plain(1)) == hash(plain(1))
    assert plain(1).__eq__((1, "two")) is NotImplemented
    assert len({identity(1), identity(1)}) == 2
    assert own(1) == own(1)
    assert (own(1)._value, own(1).other) == (1, 2)
    assert copy.copy(plain(1)) == plain(1) == copy.deepcopy(plain(1))
    assert attrs.evolve(plain(1), two="x") == plain(1, "x")
    assert attrs.evolve(keywords(), checked=2).checked == 2
    assert keywords().listed is not keywords().listed
    kept = plain(1)
    assert weakref.ref(kept)() is kept
    for change in (partial(setattr, kept, "one", 2), partial(setattr, kept, "x", 2), partial(delattr, kept, "one")):
        with pytest.raises(attrs.exceptions.FrozenInstanceError, match="can't set attribute"):
            change()


def test_evolve_is_that_of_attrs() -> None:
    for name, changes in (("Plain", {"two": "x"}), ("Keywords", {"checked": 5})):
        before = OURS[name](**({"one": 1} if name == "Plain" else {}))
        assert making.evolve(before, **changes) == attrs.evolve(before, **changes) == before.__replace__(**changes)
    with pytest.raises(TypeError, match="unexpected keyword argument 'three'"):
        making.evolve(OURS["Plain"](1), three=3)


def test_a_pickle_has_the_state_that_attrs_would_give_it() -> None:
    settings = Settings(timeout=2.0)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.__getstate__() == {each.name: getattr(settings, each.name) for each in attrs.fields(Settings)}


def test_the_types_of_the_arguments_are_found() -> None:
    hints = typing.get_type_hints(PoolStatistics.__init__)
    assert hints["wait_seconds"] is float
    assert hints["discarded"] == Mapping[CloseReason, int]


def test_threads_that_make_the_first_objects_of_a_class_at_the_same_time_succeed() -> None:
    for _ in range(20):
        made: list[Any] = []  # Any: as above
        class_ = classes(making)["Keywords"]
        barrier = threading.Barrier(4)

        def first(class_: Any = class_, made: list[Any] = made, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()  # Any: as above
            made.append(class_(checked=4))

        threads = [threading.Thread(target=first) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [each.checked for each in made] == [4, 4, 4, 4]


def test_an_interrupted_first_use_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    class_ = classes(making)["Plain"]
    with monkeypatch.context() as patch:
        patch.setattr(making, "_source", interrupted)
        with pytest.raises(KeyboardInterrupt):
            class_(1)
    assert class_(1).total() == "1 two"


def test_only_a_look_at_the_fields_loads_attrs() -> None:
    program = """if True:
        import sys
        from metacache import Node, Settings
        print(Node("a"), Settings(timeout=2.0) == Settings(), hash(Settings()), "attrs" in sys.modules)
        import attrs
        print(attrs.has(Settings), attrs.evolve(Settings(), timeout=2.0).timeout)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.split()[-1] == "False"
    assert second == "True 2.0"
