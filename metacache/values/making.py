"""Makes frozen value classes as attrs makes them, without attrs. Knows the options of attrs that this package uses.

A class is ready at once: only its ``__init__`` is compiled, and only when it is first used. Its other methods are
functions that all classes share. attrs knows the classes as its own: `attrs.fields`, `attrs.evolve` and `attrs.asdict`
read ``__attrs_attrs__``, and the first to read it loads attrs.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, NoReturn, TypeAlias, final

from metacache.marks import override

__all__ = ["Factory", "evolve", "field", "frozen", "optional"]


Value: TypeAlias = Any  # Any: a field may have any type, and so may what has the field
Class: TypeAlias = Any  # Any: no type says that a class has the attributes that are made here
Validator: TypeAlias = Callable[[Value, "_Field", Value], None]
"""Checks a value that an object has in a field."""


class _Default(enum.Enum):
    NOTHING = enum.auto()

    @override
    def __repr__(self) -> str:
        return self.name  # in the signature of a class


NOTHING: Final = _Default.NOTHING


@final
class Factory:
    """Makes the default value of a field; *takes_self*: from the object, whose earlier fields are set."""

    __slots__ = ("factory", "takes_self")

    def __init__(self, factory: Callable[..., Value], takes_self: bool = False) -> None:
        self.factory = factory
        self.takes_self = takes_self


@final
class _Field:
    """One field of a class, made of arguments of `attrs.field`. A validator gets it instead of an `attrs.Attribute`."""

    __slots__ = ("converter", "default", "eq", "init", "kw_only", "name", "repr", "type", "validator")

    def __init__(
        self,
        *,
        default: Value = NOTHING,
        factory: Callable[[], Value] | None = None,
        validator: Validator | None = None,
        converter: Callable[[Value], Value] | None = None,
        init: bool = True,
        repr: bool = True,  # noqa: A002 - as in attrs
        eq: bool = True,
    ) -> None:
        self.default: Value = default if factory is None else Factory(factory)
        self.validator = validator
        self.converter = converter
        self.init = init
        self.repr = repr
        self.eq = eq

    def bind(self, name: str, type_: object, *, kw_only: bool) -> None:
        """Set what the class knows about the field."""
        self.name = name
        self.type = type_
        self.kw_only = kw_only

    @property
    def alias(self) -> str:
        """The name of the argument."""
        return self.name.lstrip("_")


field: Final = _Field


def optional(validator: Validator) -> Validator:
    """Return *validator* for a field that may be None, as `attrs.validators.optional` does."""

    def check(owner: Class, field: Value, value: Value) -> None:
        if value is not None:
            validator(owner, field, value)

    return check


def evolve(instance: Value, /, **changes: Value) -> Value:
    """Return a copy of *instance* with *changes*, as `attrs.evolve` does."""
    for each in instance.__value_fields__:
        if each.init and each.alias not in changes:
            changes[each.alias] = getattr(instance, each.name)
    return type(instance)(**changes)


# --- a class ---------------------------------------------------------------------------------------------------------


# What a class without slots has for its objects.
_MADE_BY_PYTHON: Final = ("__dict__", "__weakref__")


def frozen(
    class_: Class = None,
    *,
    eq: bool = True,
    repr: bool = True,  # noqa: A002 - as in attrs
    init: bool = True,
    kw_only: bool = False,
) -> Value:
    """Make a class whose objects have slots and never change, as `attrs.frozen` does. A decorator."""

    def make(class_: Class) -> Value:
        body: dict[str, Value] = {name: each for name, each in class_.__dict__.items() if name not in _MADE_BY_PYTHON}
        fields = _fields(class_.__annotations__, body, kw_only=kw_only)
        body |= _methods(fields)
        body["__init__" if init else "__attrs_init__"] = _Initializer()
        body["__qualname__"] = class_.__qualname__
        if repr:
            body.setdefault("__repr__", _repr)
        if eq:
            body["__eq__"], body["__hash__"] = _comparison([each.name for each in fields if each.eq])
        return type(class_)(class_.__name__, class_.__bases__, body)

    return make if class_ is None else make(class_)


def _fields(annotations: dict[str, Value], body: dict[str, Value], *, kw_only: bool) -> tuple[_Field, ...]:
    """Return the fields of a class, and take their defaults out of its *body*, where their slots come."""
    fields: list[_Field] = []
    for name, type_ in annotations.items():
        given = body.pop(name, NOTHING)
        each = given if isinstance(given, _Field) else _Field(default=given)
        each.bind(name, type_, kw_only=kw_only)
        fields.append(each)
    return tuple(fields)


def _methods(fields: tuple[_Field, ...]) -> dict[str, Value]:
    return {
        "__slots__": (*[each.name for each in fields], "__weakref__"),
        "__match_args__": tuple(each.name for each in fields if each.init and not each.kw_only),
        "__value_fields__": fields,
        "__attrs_attrs__": _Attributes(),
        "__setattr__": _refuse_change,
        "__delattr__": _refuse_change,
        "__getstate__": _state,
        "__setstate__": _set_state,
        "__replace__": evolve,
    }


def _comparison(names: Iterable[str]) -> tuple[Callable[[Value, Value], Value], Callable[[Value], int]]:
    """Return the ``__eq__`` and the ``__hash__`` of a class that is compared by the fields called *names*."""
    key = attrgetter(*names)

    def is_equal(self: Value, other: Value) -> Value:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def hash_of(self: Value) -> int:
        return hash(key(self))

    return is_equal, hash_of


def _repr(self: Value) -> str:
    shown = [f"{each.name}={getattr(self, each.name)!r}" for each in self.__value_fields__ if each.repr]
    return f"{type(self).__qualname__.rpartition('>.')[2]}({', '.join(shown)})"


def _refuse_change(_: Value, *__: Value) -> NoReturn:
    from attrs.exceptions import FrozenInstanceError  # late: only this error needs it

    raise FrozenInstanceError


def _state(self: Value) -> dict[str, Value]:
    return {each.name: getattr(self, each.name) for each in self.__value_fields__}


def _set_state(self: Value, state: dict[str, Value]) -> None:
    for name, value in state.items():
        object.__setattr__(self, name, value)


# --- what is made late -----------------------------------------------------------------------------------------------


@final
class _Attributes:
    """The fields of a class, as attrs describes them. The first look-up loads attrs, and puts them in this place."""

    __slots__ = ()

    def __get__(self, _: object, owner: Class) -> Value:
        import attrs  # late: see `values`

        fields = {each.name: attrs.field(**_options(each)) for each in owner.__value_fields__}
        owner.__attrs_attrs__ = attrs.fields(attrs.make_class(owner.__name__, fields))
        return owner.__attrs_attrs__


def _options(each: _Field) -> dict[str, Value]:
    """Return the arguments of `attrs.field` for the field."""
    import attrs  # late: see `values`

    options = {name: getattr(each, name) for name in _Field.__slots__ if name != "name"}
    if isinstance(each.default, Factory):
        make = each.default.factory
        options["default"] = attrs.Factory(make, takes_self=True) if each.default.takes_self else attrs.Factory(make)
    elif each.default is NOTHING:
        del options["default"]
    return options


@final
class _Initializer:
    """Compiles the ``__init__`` of a class when it is first looked up, and puts it in its own place.

    Threads that look it up at the same time compile equal functions.
    """

    __slots__ = ("_name",)

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: Class) -> Value:
        made = _compiled(owner, self._name, owner.__value_fields__)
        setattr(owner, self._name, made)
        return made if instance is None else made.__get__(instance)


def _compiled(owner: Class, name: str, fields: Sequence[_Field]) -> Value:
    """Return the function called *name* that sets the *fields* of a new object of *owner*."""
    # With the names of the module, so that `typing.get_type_hints` finds those of the annotations.
    scope: dict[str, Value] = {**vars(sys.modules[owner.__module__]), "_NOTHING": NOTHING}
    for each in fields:
        scope |= {f"_field_{each.name}": each, f"_set_{each.name}": getattr(owner, each.name).__set__}
    exec(_source(name, fields, has_hook=hasattr(owner, "__attrs_post_init__")), scope)
    made = scope[name]
    made.__qualname__ = f"{owner.__qualname__}.{name}"
    made.__module__ = owner.__module__
    made.__annotations__ = {each.alias: each.type for each in fields if each.init and each.converter is None}
    made.__annotations__["return"] = None
    return made


def _source(name: str, fields: Iterable[_Field], *, has_hook: bool) -> str:
    """Return the text of the function. No name in it can be that of an argument, because these begin with a letter."""
    given = [each for each in fields if each.init]
    keywords = [_parameter(each) for each in given if each.kw_only]
    parameters = [
        "self",
        *[_parameter(each) for each in given if not each.kw_only],
        *(["*", *keywords] if keywords else []),
    ]
    lines = [f"_set_{each.name}(self, {_value(each)})" for each in fields]
    lines += [
        f"_field_{each.name}.validator(self, _field_{each.name}, self.{each.name})" for each in fields if each.validator
    ]
    if has_hook:
        lines.append("self.__attrs_post_init__()")
    return f"def {name}({', '.join(parameters)}):\n" + "".join([f" {line}\n" for line in lines])


def _parameter(each: _Field) -> str:
    if each.default is NOTHING:
        return each.alias
    return f"{each.alias}=" + ("_NOTHING" if isinstance(each.default, Factory) else f"_field_{each.name}.default")


def _value(each: _Field) -> str:
    """Return the expression of the value of a field."""
    value = each.alias if each.init else f"_field_{each.name}.default"
    if isinstance(each.default, Factory):
        made = f"_field_{each.name}.default.factory({'self' if each.default.takes_self else ''})"
        value = f"{made} if {each.alias} is _NOTHING else {each.alias}" if each.init else made
    return value if each.converter is None else f"_field_{each.name}.converter({value})"
