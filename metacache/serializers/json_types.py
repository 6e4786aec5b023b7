"""Decide whether a type consists of types that JSON has, and turn ints into floats where such a type says float.

Works on forms and values, never on bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

from metacache.errors import InvalidTypeError
from metacache.serializers.forms import Form, Type, resolve, walk
from metacache.serializers.mismatches import Value, finder

__all__ = ["Widener", "float_widener", "json_form"]

Widener: TypeAlias = Callable[[Value], Value]

_KINDS: Final = frozenset(("any", "none", "bool", "int", "float", "str", "typeddict", "union", "alias"))
_LITERALS: Final = frozenset((type(None), bool, int, str))


def json_form(type_: Type) -> Form:
    """Return the form of *type_*, which must consist of types that JSON has.

    These are None, bool, int, float, str, list, dict[str, …], Literal, TypedDict, Any, unions and aliases.

    Raises InvalidTypeError, which names the first part of another type.
    """
    form = resolve(type_)
    for where, each in walk(form):
        problem = _why_not_json(each)
        if problem is not None:
            raise InvalidTypeError(f"{where}: {problem}" if where else problem)
    return form


def _why_not_json(form: Form) -> str | None:
    if form.kind == "dict" and form.class_ is dict:
        key = form.parts[0]
        is_text = key.kind == "str" or "bare" in key.labels
        return None if is_text else f"JSON has no dict with keys of {key.name}"
    if form.kind == "literal":
        return None if _LITERALS.issuperset(map(type, form.labels)) else f"JSON has no {form.name}"
    if form.kind in _KINDS or form.class_ is list:
        return None
    return f"JSON has no {form.name}" + (f": {form.reason}" if form.reason else "")


def float_widener(form: Form) -> Widener:
    """Return a function that turns ints into floats where *form* says float. Its argument must fit *form* otherwise."""
    return _WidenerBuilder().of(form)


@final
class _WidenerBuilder:
    def __init__(self) -> None:
        self._built: dict[int, Widener] = {}

    def of(self, form: Form) -> Widener:
        key = id(form)
        if key not in self._built:
            self._built[key] = lambda value: self._built[key](value)  # a recursive type calls itself through this entry
            self._built[key] = _BUILDERS.get(form.kind, _same)(self, form)
        return self._built[key]


def _same(_: _WidenerBuilder, __: Form) -> Widener:
    return lambda value: value


def _list(builder: _WidenerBuilder, form: Form) -> Widener:
    part = builder.of(form.parts[0])
    return lambda value: list(map(part, value))


def _dict(builder: _WidenerBuilder, form: Form) -> Widener:
    part = builder.of(form.parts[1])
    return lambda value: {key: part(held) for key, held in value.items()}


def _typed_dict(builder: _WidenerBuilder, form: Form) -> Widener:
    fields = dict(zip(form.labels, map(builder.of, form.parts), strict=True))
    return lambda value: {name: fields[name](held) for name, held in value.items()}


def _union(builder: _WidenerBuilder, form: Form) -> Widener:
    # Members that accept the value unchanged come first: 1 stays an int in `int | float`.
    unchanged = [(finder(part), _same(builder, part)) for part in form.parts]
    widened = [(finder(part, widen=True), builder.of(part)) for part in form.parts]

    def widen(value: Value) -> Value:
        for find, widen in (*unchanged, *widened):
            if find(value) is None:
                return widen(value)
        raise AssertionError("the caller has checked the value before")

    return widen


_BUILDERS: Final[dict[str, Callable[[_WidenerBuilder, Form], Widener]]] = {
    "float": lambda _, __: float,
    "list": _list,
    "dict": _dict,
    "typeddict": _typed_dict,
    "union": _union,
    "alias": lambda builder, form: builder.of(form.parts[0]),
}
