"""Is a value of a type, exactly and at every depth? If not, where is the first part that is not?

Knows values and forms; knows no bytes. A finder never converts: True is no int here, and 1 a float only on request. It
runs no generator that may stay unfinished: what a signal handler raises while one is closed would be swallowed.
"""

# The class of a value is what this module looks at, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, final

from metacache.serializers.forms import Form

__all__ = ["Finder", "Mismatch", "Value", "anything", "finder", "holds", "json_value", "outer_classes"]

# Any: values that still have to be checked.
Value: TypeAlias = Any


@final
class Mismatch(Exception):
    """One part of a value that is wrong: the way to it, and what is wrong with it. Names types, and no value.

    A finder returns it. What compares values raises it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self._steps: list[str] = []

    def within(self, step: str) -> Mismatch:
        """Add one step to the front of the way; return self."""
        self._steps.append(step)
        return self

    @property
    def text(self) -> str:
        """The way and the problem: ``$.addrs[1].zip: expected str, got int``."""
        return f"${''.join(reversed(self._steps))}: {self.problem}"


Finder: TypeAlias = Callable[[Value], Mismatch | None]


def expected(name: str, value: Value) -> Mismatch:
    """Return the mismatch of *value*, which should be of the type *name*."""
    return Mismatch(f"expected {name}, got {type(value).__name__}")


def holds(number: int) -> bool:
    """Return whether a float holds *number* exactly."""
    try:
        return float(number) == number
    except OverflowError:
        return False


def anything(_: Value) -> None:
    """Find nothing wrong with any value."""


def json_value(value: Value) -> Mismatch | None:
    """Find what is not None, bool, int, float, str, a list, or a dict with str keys."""
    class_ = type(value)
    if class_ is list:
        return _first(enumerate(value), json_value, "[{}]")
    if class_ is not dict:
        return None if class_ in _JSON else expected("a JSON value", value)
    for index, key in enumerate(value):
        if type(key) is not str:
            return expected("str", key).within(f".keys()[{index}]")
    return _first(enumerate(value.values()), json_value, ".values()[{}]")


_JSON: Final = frozenset((type(None), bool, int, float, str))


def _first(parts: Iterable[tuple[object, Value]], find: Finder, step: str) -> Mismatch | None:
    for name, part in parts:
        found = find(part)
        if found is not None:
            return found.within(step.format(name))
    return None


def finder(form: Form, *, widen: bool = False, untyped: Finder = anything) -> Finder:
    """Return what finds the first part of a value that is not of *form*.

    Args:
        form: the type.
        widen: an int in the place of a float is right if a float holds it exactly.
        untyped: judges the parts whose type is Any.
    """
    return _Maker(widen, untyped).of(form)


def outer_classes(form: Form, *, widen: bool = False) -> frozenset[type] | None:
    """Return the classes of the values of *form*; None if a value may have any class."""
    if form.kind in ("any", "unknown"):
        return None
    if form.kind == "literal":
        return frozenset(map(type, form.labels))
    if form.kind == "float" and widen:
        return frozenset((int, float))
    if form.kind not in ("union", "alias"):
        return frozenset((form.class_,))
    inner = [outer_classes(part, widen=widen) for part in form.parts]
    known = [classes for classes in inner if classes is not None]
    return frozenset[type]().union(*known) if len(known) == len(inner) else None


@final
class _Maker:
    def __init__(self, widen: bool, untyped: Finder) -> None:
        self._widen = widen
        self._untyped = untyped
        self._made: dict[int, Finder] = {}

    def of(self, form: Form) -> Finder:
        key = id(form)
        if key not in self._made:
            self._made[key] = lambda value: self._made[key](value)  # a type within itself goes through this one
            self._made[key] = _MAKERS.get(form.kind, _exact)(self, form)
        return self._made[key]

    def untyped(self, _: Form) -> Finder:
        return self._untyped

    def key(self, form: Form) -> Finder:
        """Return the finder of a dict's keys. JSON has str keys where the type says nothing."""
        is_text = self._untyped is json_value and "bare" in form.labels
        return _exact(self, Form("str", "str", str)) if is_text else self.of(form)

    def float(self, form: Form) -> Finder:
        def find(value: Value) -> Mismatch | None:
            if type(value) is float:
                return None
            if type(value) is not int:
                return expected("float", value)
            return None if holds(value) else Mismatch("expected float, got an int that no float holds exactly")

        return find if self._widen else _exact(self, form)

    def union(self, form: Form) -> Finder:
        members = [(outer_classes(part, widen=self._widen), self.of(part)) for part in form.parts]

        def find(value: Value) -> Mismatch | None:
            class_ = type(value)
            found = [member(value) for classes, member in members if classes is None or class_ in classes]
            if None in found:
                return None
            # One member has the class: the fault is within. None or several: the union says what was expected.
            return found[0] if len(found) == 1 else expected(form.name, value)

        return find


def _exact(_: _Maker, form: Form) -> Finder:
    class_, name = form.class_, form.name
    return lambda value: None if type(value) is class_ else expected(name, value)


def _literal(_: _Maker, form: Form) -> Finder:
    choices: set[tuple[type[Any], Any]] = {(type(label), label) for label in form.labels}  # Any: of several classes
    classes = frozenset(map(type, form.labels))  # a value of another class may have no hash

    def find(value: Value) -> Mismatch | None:
        is_one = type(value) in classes and (type(value), value) in choices
        return None if is_one else Mismatch(f"expected {form.name}, got another {type(value).__name__}")

    return find


def _list(maker: _Maker, form: Form) -> Finder:
    class_, part = form.class_, maker.of(form.parts[0])
    step = "[*]" if issubclass(class_, set | frozenset) else "[{}]"  # a set has no positions

    def find(value: Value) -> Mismatch | None:
        if type(value) is not class_:
            return expected(class_.__name__, value)
        return _first(enumerate(value), part, step) if any(map(part, value)) else None

    return find


def _row(maker: _Maker, form: Form) -> Finder:
    class_, parts = form.class_, [maker.of(part) for part in form.parts]
    steps = [f".{label}" for label in form.labels] or [f"[{index}]" for index in range(len(parts))]

    def find(value: Value) -> Mismatch | None:
        if type(value) is not class_:
            return expected(class_.__name__, value)
        if len(value) != len(parts):
            return Mismatch(f"expected {form.name}, got a tuple of {len(value)}")
        for step, part, each in zip(steps, parts, value, strict=True):
            found = part(each)
            if found is not None:
                return found.within(step)
        return None

    return find


def _dict(maker: _Maker, form: Form) -> Finder:
    class_ = form.class_
    key, part = maker.key(form.parts[0]), maker.of(form.parts[1])

    def find(value: Value) -> Mismatch | None:
        if type(value) is not class_:
            return expected(class_.__name__, value)
        if not any(map(key, value)) and not any(map(part, value.values())):
            return None
        # A key may be a secret, so the way has its position.
        return _first(enumerate(value), key, ".keys()[{}]") or _first(enumerate(value.values()), part, ".values()[{}]")

    return find


def _typed_dict(maker: _Maker, form: Form) -> Finder:
    fields: dict[str, Finder] = dict(zip(form.labels, map(maker.of, form.parts), strict=True))
    required = form.required

    def find(value: Value) -> Mismatch | None:
        if type(value) is not dict:
            return expected(form.name, value)
        held: dict[str, Value] = value
        if not required <= held.keys():
            missing = [name for name in fields if name in required and name not in held]
            return Mismatch(f"expected {form.name}, got a dict without the key {missing[0]}")
        if not held.keys() <= fields.keys():
            return Mismatch(f"expected {form.name}, got a dict with other keys")
        for name, part in held.items():
            found = fields[name](part)
            if found is not None:
                return found.within(f".{name}")
        return None

    return find


def _record(maker: _Maker, form: Form) -> Finder:
    class_ = form.class_
    fields = [(name, maker.of(part)) for name, part in zip(form.labels, form.parts, strict=True)]

    def find(value: Value) -> Mismatch | None:
        if type(value) is not class_:
            return expected(form.name, value)
        for name, part in fields:
            # A field that was never set is a fault only for those who need it.
            found = part(getattr(value, name)) if hasattr(value, name) else None
            if found is not None:
                return found.within(f".{name}")
        return None

    return find


_MAKERS: Final[dict[str, Callable[[_Maker, Form], Finder]]] = {
    "any": _Maker.untyped,
    "unknown": _Maker.untyped,
    "float": _Maker.float,
    "literal": _literal,
    "union": _Maker.union,
    "alias": lambda maker, form: maker.of(form.parts[0]),
    "list": _list,
    "vartuple": _list,
    "tuple": _row,
    "namedtuple": _row,
    "dict": _dict,
    "typeddict": _typed_dict,
    "struct": _record,
    "attrs": _record,
    "dataclass": _record,
}
