"""Find the first part of a value that is not of its type, at any depth.

A finder never converts: True is not an int, and 1 is a float only on request. A finder leaves no generator unfinished,
because Python swallows an exception that a signal handler raises while a generator is closed.
"""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias, final

from metacache.serializers.forms import Form

__all__ = ["Finder", "Mismatch", "Value", "accept_anything", "find_non_json", "finder", "float_holds", "outer_classes"]

# Any: values that are not yet checked.
Value: TypeAlias = Any


@final
class Mismatch(Exception):
    """A wrong part of a value: the path to it, and the problem. Names types, never a value.

    A finder returns it. `Comparer` raises it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self._steps: list[str] = []

    def within(self, step: str) -> Mismatch:
        """Add one step to the front of the path, and return this mismatch."""
        self._steps.append(step)
        return self

    @property
    def text(self) -> str:
        """The path and the problem: ``$.addrs[1].zip: expected str, got int``."""
        return f"${''.join(reversed(self._steps))}: {self.problem}"


Finder: TypeAlias = Callable[[Value], Mismatch | None]


def expected(name: str, value: Value) -> Mismatch:
    """Return the mismatch for *value*, which should be of the type *name*."""
    return Mismatch(f"expected {name}, got {type(value).__name__}")


def float_holds(number: int) -> bool:
    """Return whether a float holds *number* exactly."""
    try:
        return float(number) == number
    except OverflowError:
        return False


def accept_anything(_: Value) -> None:
    """Accept every value."""


def find_non_json(value: Value) -> Mismatch | None:
    """Find the first part that is not None, bool, int, float, str, a list, or a dict with str keys."""
    class_ = type(value)
    if class_ is list:
        return _first_mismatch(enumerate(value), find_non_json, "[{}]")
    if class_ is not dict:
        return None if class_ in _JSON_CLASSES else expected("a JSON value", value)
    for index, key in enumerate(value):
        if type(key) is not str:
            return expected("str", key).within(f".keys()[{index}]")
    return _first_mismatch(enumerate(value.values()), find_non_json, ".values()[{}]")


_JSON_CLASSES: Final = frozenset((type(None), bool, int, float, str))


def _first_mismatch(parts: Iterable[tuple[object, Value]], find: Finder, step: str) -> Mismatch | None:
    for name, part in parts:
        found = find(part)
        if found is not None:
            return found.within(step.format(name))
    return None


def finder(form: Form, *, widen: bool = False, untyped: Finder = accept_anything) -> Finder:
    """Return a function that finds the first part of a value that is not of *form*.

    Args:
        form: the type.
        widen: accept an int where the type says float, if a float holds the int exactly.
        untyped: checks the parts whose type is Any.
    """
    return _FinderBuilder(widen, untyped).of(form)


def outer_classes(form: Form, *, widen: bool = False) -> frozenset[type] | None:
    """Return the classes that values of *form* may have; None for any class."""
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
class _FinderBuilder:
    def __init__(self, widen: bool, untyped: Finder) -> None:
        self._widen = widen
        self._untyped = untyped
        self._built: dict[int, Finder] = {}

    def of(self, form: Form) -> Finder:
        key = id(form)
        if key not in self._built:
            self._built[key] = lambda value: self._built[key](value)  # a recursive type calls itself through this entry
            self._built[key] = _BUILDERS.get(form.kind, _exact)(self, form)
        return self._built[key]

    def untyped(self, _: Form) -> Finder:
        return self._untyped

    def key(self, form: Form) -> Finder:
        """Return the finder for the keys of a dict. In JSON the keys of a bare dict are str."""
        is_text = self._untyped is find_non_json and "bare" in form.labels
        return _exact(self, Form("str", "str", str)) if is_text else self.of(form)

    def float(self, form: Form) -> Finder:
        def find(value: Value) -> Mismatch | None:
            if type(value) is float:
                return None
            if type(value) is not int:
                return expected("float", value)
            return None if float_holds(value) else Mismatch("expected float, got an int that no float holds exactly")

        return find if self._widen else _exact(self, form)

    def union(self, form: Form) -> Finder:
        members = [(outer_classes(part, widen=self._widen), self.of(part)) for part in form.parts]

        def find(value: Value) -> Mismatch | None:
            class_ = type(value)
            found = [member(value) for classes, member in members if classes is None or class_ in classes]
            if None in found:
                return None
            # If exactly one member has this class, its mismatch names the wrong part. Else name the whole union.
            return found[0] if len(found) == 1 else expected(form.name, value)

        return find


def _exact(_: _FinderBuilder, form: Form) -> Finder:
    class_, name = form.class_, form.name
    return lambda value: None if type(value) is class_ else expected(name, value)


def _literal(_: _FinderBuilder, form: Form) -> Finder:
    # Any: the values of a Literal have several classes.
    choices: set[tuple[type[Any], Any]] = {(type(label), label) for label in form.labels}
    classes = frozenset(map(type, form.labels))  # check the class first: a value of another class may be unhashable

    def find(value: Value) -> Mismatch | None:
        is_one = type(value) in classes and (type(value), value) in choices
        return None if is_one else Mismatch(f"expected {form.name}, got another {type(value).__name__}")

    return find


def _list(builder: _FinderBuilder, form: Form) -> Finder:
    class_, part = form.class_, builder.of(form.parts[0])
    step = "[*]" if issubclass(class_, set | frozenset) else "[{}]"  # a set has no positions

    def find(value: Value) -> Mismatch | None:
        if type(value) is not class_:
            return expected(class_.__name__, value)
        return _first_mismatch(enumerate(value), part, step) if any(map(part, value)) else None

    return find


def _row(builder: _FinderBuilder, form: Form) -> Finder:
    class_, parts = form.class_, [builder.of(part) for part in form.parts]
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


def _dict(builder: _FinderBuilder, form: Form) -> Finder:
    class_ = form.class_
    key, part = builder.key(form.parts[0]), builder.of(form.parts[1])

    def find(value: Value) -> Mismatch | None:
        if type(value) is not class_:
            return expected(class_.__name__, value)
        if not any(map(key, value)) and not any(map(part, value.values())):
            return None
        # A key may be a secret, so the path has its position.
        return _first_mismatch(enumerate(value), key, ".keys()[{}]") or _first_mismatch(
            enumerate(value.values()), part, ".values()[{}]"
        )

    return find


def _typed_dict(builder: _FinderBuilder, form: Form) -> Finder:
    fields: dict[str, Finder] = dict(zip(form.labels, map(builder.of, form.parts), strict=True))
    required = form.required

    def find(value: Value) -> Mismatch | None:
        if type(value) is not dict:
            return expected(form.name, value)
        held: dict[str, Value] = value
        if not required <= held.keys():
            missing = [name for name in fields if name in required and name not in held]
            return Mismatch(f"expected {form.name}, got a dict without the key {missing[0]}")
        if not held.keys() <= fields.keys():
            return Mismatch(f"expected {form.name}, got a dict with unknown keys")
        for name, part in held.items():
            found = fields[name](part)
            if found is not None:
                return found.within(f".{name}")
        return None

    return find


def _record(builder: _FinderBuilder, form: Form) -> Finder:
    class_ = form.class_
    fields = [(name, builder.of(part)) for name, part in zip(form.labels, form.parts, strict=True)]

    def find(value: Value) -> Mismatch | None:
        if type(value) is not class_:
            return expected(form.name, value)
        for name, part in fields:
            # An attribute that was never set is not a mismatch: it has no value to check.
            found = part(getattr(value, name)) if hasattr(value, name) else None
            if found is not None:
                return found.within(f".{name}")
        return None

    return find


_BUILDERS: Final[dict[str, Callable[[_FinderBuilder, Form], Finder]]] = {
    "any": _FinderBuilder.untyped,
    "unknown": _FinderBuilder.untyped,
    "float": _FinderBuilder.float,
    "literal": _literal,
    "union": _FinderBuilder.union,
    "alias": lambda builder, form: builder.of(form.parts[0]),
    "list": _list,
    "vartuple": _list,
    "tuple": _row,
    "namedtuple": _row,
    "dict": _dict,
    "typeddict": _typed_dict,
    "struct": _record,
    "attrs": _record,
    "dataclass": _record,
    "model": _record,
}
