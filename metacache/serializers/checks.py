"""The types that JSON has by itself, and their values. Knows values and forms; knows no bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

from metacache.errors import InvalidTypeError
from metacache.serializers.fits import Value, finder
from metacache.serializers.forms import Form, Type, resolve, walk

__all__ = ["Widen", "json_form", "widener"]

Widen: TypeAlias = Callable[[Value], Value]

_KINDS: Final = frozenset(("any", "none", "bool", "int", "float", "str", "typeddict", "union", "alias"))
_LITERALS: Final = frozenset((type(None), bool, int, str))


def json_form(type_: Type) -> Form:
    """Return the form of *type_*.

    It may be made of None, bool, int, float, str, list, dict[str, …], Literal, TypedDict, Any, unions and aliases.

    Raises InvalidTypeError, which says which part is anything else.
    """
    form = resolve(type_)
    for where, each in walk(form):
        problem = _problem(each)
        if problem is not None:
            raise InvalidTypeError(f"{where}: {problem}" if where else problem)
    return form


def _problem(form: Form) -> str | None:
    if form.kind == "dict" and form.class_ is dict:
        key = form.parts[0]
        is_text = key.kind == "str" or "bare" in key.labels
        return None if is_text else f"JSON has no dict with keys of {key.name}"
    if form.kind == "literal":
        return None if _LITERALS.issuperset(map(type, form.labels)) else f"JSON has no {form.name}"
    if form.kind in _KINDS or form.class_ is list:
        return None
    return f"JSON has no {form.name}" + (f": {form.reason}" if form.reason else "")


def widener(form: Form) -> Widen:
    """Return what makes floats of the ints of a value that stand where *form* says float. The value fits otherwise."""
    return _Maker().of(form)


@final
class _Maker:
    def __init__(self) -> None:
        self._made: dict[int, Widen] = {}

    def of(self, form: Form) -> Widen:
        key = id(form)
        if key not in self._made:
            self._made[key] = lambda value: self._made[key](value)  # a type within itself goes through this one
            self._made[key] = _MAKERS.get(form.kind, _same)(self, form)
        return self._made[key]


def _same(_: _Maker, __: Form) -> Widen:
    return lambda value: value


def _list(maker: _Maker, form: Form) -> Widen:
    part = maker.of(form.parts[0])
    return lambda value: list(map(part, value))


def _dict(maker: _Maker, form: Form) -> Widen:
    part = maker.of(form.parts[1])
    return lambda value: {key: part(held) for key, held in value.items()}


def _typed_dict(maker: _Maker, form: Form) -> Widen:
    fields = dict(zip(form.labels, map(maker.of, form.parts), strict=True))
    return lambda value: {name: fields[name](held) for name, held in value.items()}


def _union(maker: _Maker, form: Form) -> Widen:
    # As it is, if a member takes it so: 1 stays an int in `int | float`.
    as_it_is = [(finder(part), _same(maker, part)) for part in form.parts]
    widened = [(finder(part, widen=True), maker.of(part)) for part in form.parts]

    def widen(value: Value) -> Value:
        for find, widen in (*as_it_is, *widened):
            if find(value) is None:
                return widen(value)
        raise AssertionError("the value was looked at before")

    return widen


_MAKERS: Final[dict[str, Callable[[_Maker, Form], Widen]]] = {
    "float": lambda _, __: float,
    "list": _list,
    "dict": _dict,
    "typeddict": _typed_dict,
    "union": _union,
    "alias": lambda maker, form: maker.of(form.parts[0]),
}
