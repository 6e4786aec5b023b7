"""Resolve a type expression to a form: type variables replaced, aliases followed, recursive types as cycles.

A form keeps the classes and says which values are of the type. A shape (`shapes`) drops the classes and says what is
stored.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import sys
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias, final

import attrs
import typing_extensions

from metacache.serializers.graphs import UnknownShape
from metacache.serializers.models import fields_of, is_model
from metacache.serializers.records import hints_of, original_bases, required_keys

__all__ = ["RECORDS", "UNPACKED", "Form", "Type", "resolve", "walk"]

# Any: a type expression is any object; typing gives no type that all its forms satisfy.
Type: TypeAlias = Any


@final
@attrs.define(eq=False)
class Form:
    """One type within a type expression. A recursive type is a cycle, which `resolve` completes before it returns.

    Attributes:
        kind: "int", "list", "dataclass", ...; "unknown" for a type that has no form.
        name: the name of the type in messages.
        class_: the class of its values; None for several classes or any class. For an unknown type the type itself.
        parts: the forms of elements, of fields, or of the members of a union.
        labels: the names of fields, or the values of a Literal; "bare" for the keys of a dict without arguments.
        required: the keys that a TypedDict must have.
        reason: why the type has no form.
    """

    kind: str
    name: str
    class_: Type = None
    parts: tuple[Form, ...] = ()
    labels: tuple[Any, ...] = ()  # Any: a Literal's values have several classes
    required: frozenset[str] = frozenset()
    reason: str = ""


_Scope: TypeAlias = Mapping[object, Form]

_SCALARS: Final[dict[object, str]] = {
    type(None): "none",
    **{class_: class_.__name__ for class_ in (bool, int, float, complex, str, bytes, bytearray, memoryview)},
    **{class_: class_.__name__ for class_ in (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)},
    uuid.UUID: "uuid",
    decimal.Decimal: "decimal",
}

# The class of the values that are read for an abstract collection.
_ABSTRACT: Final[Mapping[Type, type]] = {
    **dict.fromkeys((collections.abc.Sequence, collections.abc.MutableSequence), list),
    **dict.fromkeys((collections.abc.Collection, collections.abc.Iterable), list),
    **dict.fromkeys((collections.abc.Set, collections.abc.MutableSet), set),
    **dict.fromkeys((collections.abc.Mapping, collections.abc.MutableMapping), dict),
}
_CONTAINERS: Final[Mapping[Type, type]] = {
    **{class_: class_ for class_ in (list, set, frozenset, collections.deque, dict, collections.OrderedDict)},
    **_ABSTRACT,
}
RECORDS: Final = frozenset(("typeddict", "namedtuple", "struct", "attrs", "dataclass", "model"))
"""The kinds of forms with fields."""

_UNIONS: Final = (typing.Union, types.UnionType)
_LITERALS: Final = (typing.Literal, typing_extensions.Literal)
_UNPACK: Final = (typing.Unpack, typing_extensions.Unpack)
UNPACKED: Final = "it contains an unpacked tuple"
"""The reason of an unknown form for an unpacked type, such as ``*tuple[int, ...]``."""

# Qualifiers of a field or a name, which do not change its values.
_TRANSPARENT: Final = (typing.Final, typing.ClassVar, typing.Required, typing.NotRequired, typing_extensions.ReadOnly)


def resolve(type_: Type) -> Form:
    """Return the form of *type_*. A part without a form has the kind "unknown" and a reason."""
    try:
        form = _Resolver().of(type_, {})
    except RecursionError:
        return _unknown(type_, "the type is nested too deeply")
    for _, each in walk(form):
        if each.kind == "alias" and _stands_for_itself(each):
            each.kind, each.reason = "unknown", f"the alias {each.name} stands for itself"
    return form


def walk(form: Form) -> Iterator[tuple[str, Form]]:
    """Yield *form* and every form within it once, each with the field that contains it: ("Order.lines", ...)."""
    found = {id(form)}
    ahead = [("", form)]
    while ahead:
        where, each = ahead.pop()
        yield where, each
        steps = [f"{each.name}.{label}" for label in each.labels] if each.kind in RECORDS else [where] * len(each.parts)
        inner = [(step, part) for step, part in zip(steps, each.parts, strict=False) if id(part) not in found]
        found.update(id(part) for _, part in inner)
        ahead.extend(reversed(inner))


def _stands_for_itself(alias: Form) -> bool:
    """Return whether *alias* leads back to itself through unions and aliases only, so that no value can be of it."""
    seen: set[int] = set()
    ahead = list(alias.parts)
    while ahead:
        each = ahead.pop()
        if each is alias:
            return True
        if each.kind in ("union", "alias") and id(each) not in seen:
            seen.add(id(each))
            ahead.extend(each.parts)
    return False


def _unknown(type_: Type, reason: str) -> Form:
    return Form("unknown", getattr(type_, "__name__", type(type_).__name__), type_, reason=reason)


@final
class _Resolver:
    """One walk over a type expression. Equal types share one form, so the walk of a recursive type ends."""

    def __init__(self) -> None:
        self._known: dict[object, Form] = {}

    def of(self, type_: Type, scope: _Scope) -> Form:
        """Return the form of *type_*. *scope* maps type variables and Self to their forms."""
        if isinstance(type_, typing.TypeVar):
            return scope[type_] if type_ in scope else self._of_unbound(type_, scope)
        if type_ is Any:
            return self._shared(Form("any", "Any"))
        if type_ is typing.Self and type_ in scope:
            return scope[type_]
        if getattr(type_, "__unpacked__", False):
            return _unknown(type_, UNPACKED)
        origin: Type = typing.get_origin(type_)
        if origin is None:
            return self._named(type_, (), scope)
        return self._generic(type_, origin, typing.get_args(type_), scope)

    def _generic(self, type_: Type, origin: Type, arguments: tuple[Type, ...], scope: _Scope) -> Form:
        if origin in _UNIONS:
            return self._union(arguments, scope)
        if origin in _LITERALS:
            name = f"Literal[{', '.join(sorted(map(repr, arguments)))}]"
            return self._shared(Form("literal", name, labels=arguments))
        if origin is typing.Annotated:
            return self.of(type_.__origin__, scope)
        if origin in _UNPACK:
            return _unknown(type_, UNPACKED)
        if origin in _TRANSPARENT:
            return self.of(arguments[0], scope)
        if origin is tuple:
            return self._tuple((Any, ...) if type_ is typing.Tuple else arguments, scope)  # noqa: UP006
        return self._named(origin, tuple(self.of(argument, scope) for argument in arguments), scope)

    def _shared(self, form: Form) -> Form:
        labels: list[tuple[type[Any], Any]] = [(type(label), label) for label in form.labels]  # Any: as in Form
        return self._known.setdefault(
            (form.kind, form.class_, form.name, tuple(map(id, form.parts)), tuple(labels)), form
        )

    def _of_unbound(self, variable: typing.TypeVar, scope: _Scope) -> Form:
        """Return the form for a type variable without an argument: its default, constraints or bound."""
        default = getattr(variable, "__default__", None)
        if default is not None and default is not typing_extensions.NoDefault:
            return self.of(default, scope)
        if variable.__constraints__:
            return self._union(variable.__constraints__, scope)
        if variable.__bound__ is not None:
            return self.of(variable.__bound__, scope)
        return _unknown(variable, f"the type variable {variable.__name__} has no type")

    def _union(self, members: tuple[Type, ...], scope: _Scope) -> Form:
        forms = [self.of(member, scope) for member in members]
        flat = [part for form in forms for part in (form.parts if form.kind == "union" else (form,))]
        unique = tuple({id(part): part for part in flat}.values())
        name = " | ".join(part.name for part in unique)
        return unique[0] if len(unique) == 1 else self._shared(Form("union", name, parts=unique))

    def _tuple(self, arguments: tuple[Type, ...], scope: _Scope) -> Form:
        is_open = arguments[1:] == (Ellipsis,)
        parts = tuple(self.of(argument, scope) for argument in (arguments[:1] if is_open else arguments))
        names = [part.name for part in parts] + ["..."] * is_open
        return self._shared(
            Form("vartuple" if is_open else "tuple", f"tuple[{', '.join(names) or '()'}]", tuple, parts)
        )

    def _named(self, type_: Type, arguments: tuple[Form, ...], scope: _Scope) -> Form:
        """Return the form of a class, an alias or a NewType."""
        class_ = type(None) if type_ is None else type_
        if isinstance(class_, type) and class_ in _SCALARS:
            return self._shared(Form(_SCALARS[class_], "None" if class_ is type(None) else class_.__name__, class_))
        if type_ in (tuple, typing.Tuple):  # noqa: UP006 - the old spelling is also valid
            return self._tuple((Any, ...), scope)
        if isinstance(type_, collections.abc.Hashable) and type_ in _CONTAINERS:
            return self._container(type_, arguments)
        if isinstance(type_, typing.NewType):
            return self.of(type_.__supertype__, scope)
        if type(type_).__name__ == "TypeAliasType":  # the class of typing or of typing_extensions
            return self._alias(type_, arguments)
        if isinstance(type_, type) and issubclass(type_, enum.Enum):
            return self._shared(Form("enum", type_.__name__, type_))
        kind = next((kind for kind, is_one in _RECORDS if is_one(type_)), None)
        return _unknown(type_, "") if kind is None else self._record(kind, type_, arguments)

    def _container(self, type_: Type, arguments: tuple[Form, ...]) -> Form:
        class_ = _CONTAINERS[type_]
        wanted = 2 if issubclass(class_, dict) else 1
        parts = arguments or (self._shared(Form("any", "Any", labels=("bare",))), self.of(Any, {}))[-wanted:]
        if len(parts) != wanted:
            return _unknown(type_, f"{type_.__name__} takes {wanted} types, not {len(parts)}")
        kind = "dict" if wanted == 2 else "list"
        name = f"{type_.__name__}[{', '.join(part.name for part in parts)}]" if arguments else type_.__name__
        return self._shared(Form(kind, name, class_, parts))

    def _alias(self, alias: Type, arguments: tuple[Form, ...]) -> Form:
        key = (alias, tuple(map(id, arguments)))
        if key in self._known:
            return self._known[key]
        form = self._known[key] = Form("alias", alias.__name__)
        try:
            value = _value(alias)
        except Exception as error:  # annotations are code, and may raise any exception
            return _unknown(alias, f"its value cannot be read ({type(error).__name__})")
        inner = self.of(value, self._bind(alias.__type_params__, arguments))
        form.parts = (inner,)
        self._known[key] = inner  # other uses need no alias form; recursive uses already hold it
        return inner

    # --- records -----------------------------------------------------------------------------------------------------

    def _record(self, kind: str, class_: Type, arguments: tuple[Form, ...]) -> Form:
        key = (class_, tuple(map(id, arguments)))
        if key in self._known:
            return self._known[key]
        shown = f"[{', '.join(each.name for each in arguments)}]" if arguments else ""
        form = self._known[key] = Form(kind, class_.__name__ + shown, dict if kind == "typeddict" else class_)
        scopes = self._scopes(class_, arguments, form)
        try:
            # The fields of a model have types without type variables.
            hints = {} if kind == "model" else hints_of(class_, scopes)
        except UnknownShape as error:
            form.kind, form.reason = "unknown", f"it contains {error}"
            return form
        form.labels = _field_names(kind, class_, hints)
        form.parts = tuple(self._field(class_, name, hints, scopes) for name in form.labels)
        if kind == "typeddict":
            form.required = required_keys(class_)
        return form

    def _field(
        self, class_: Type, name: str, hints: Mapping[str, tuple[Type, Type]], scopes: Mapping[Type, _Scope]
    ) -> Form:
        """Return the form of the field *name*. Its type is resolved in the class that annotates it."""
        owner, hint = hints.get(name, (class_, _declared_type(class_, name)))
        if hint is None and name not in hints:
            return _unknown(class_, f"the field {name} has no type")
        return self.of(hint, scopes[owner])

    def _scopes(self, class_: Type, arguments: tuple[Form, ...], this: Form) -> dict[Type, _Scope]:
        """Return, for *class_* and each of its bases, the forms of its type variables."""
        own: dict[object, Form] = {typing.Self: this}
        scopes: dict[Type, _Scope] = {class_: {**own, **self._bind(_parameters(class_), arguments)}}
        pending = [class_]
        for owner in pending:  # the list grows during the loop
            for base in original_bases(owner):
                generic: Type = typing.get_origin(base)
                origin = base if generic is None else generic
                if isinstance(origin, type) and origin not in scopes:
                    given = tuple(self.of(argument, scopes[owner]) for argument in typing.get_args(base))
                    scopes[origin] = {**own, **self._bind(_parameters(origin), given)}
                    pending.append(origin)
        return scopes

    def _bind(self, parameters: Iterable[Type], arguments: tuple[Form, ...]) -> dict[object, Form]:
        """Return the forms of the type *parameters*: first from *arguments*, then from their defaults."""
        bound: dict[object, Form] = {}
        for index, parameter in enumerate(parameters):
            if index < len(arguments):
                bound[parameter] = arguments[index]
            elif isinstance(parameter, typing.TypeVar):
                bound[parameter] = self._of_unbound(parameter, bound)
        return bound


def _parameters(class_: Type) -> tuple[Type, ...]:
    parameters: tuple[Type, ...] = getattr(class_, "__parameters__", ())
    return parameters


def _declared_type(class_: Type, name: str) -> Type:
    """Return the type of a field of a model, or that ``attr.ib(type=int)`` gives to a field without an annotation."""
    if is_model(class_):
        return fields_of(class_)[name].annotation
    fields: Iterable[Any] = getattr(class_, "__attrs_attrs__", ())  # Any: attrs itself types its attributes so
    return next((field.type for field in fields if field.name == name), None)


def _value(alias: Type) -> Type:
    """Return the value of *alias*. Names in quotes are resolved in the module of the alias."""
    holder = types.SimpleNamespace(__annotations__={"value": alias.__value__})
    names = vars(sys.modules[alias.__module__]) if alias.__module__ in sys.modules else {}
    return typing_extensions.get_type_hints(holder, globalns=names, include_extras=True)["value"]


def _field_names(kind: str, class_: Type, hints: Iterable[str]) -> tuple[str, ...]:
    if kind == "typeddict":
        return tuple(hints)
    if kind == "namedtuple":
        names: tuple[str, ...] = class_._fields
        return names
    if kind == "struct":
        fields: tuple[str, ...] = class_.__struct_fields__
        return fields
    if kind == "model":
        return tuple(fields_of(class_))
    found: Iterable[Any] = attrs.fields(class_) if kind == "attrs" else dataclasses.fields(class_)  # Any: as above
    return tuple(field.name for field in found)


def _is_class_with(type_: Type, attribute: str) -> bool:
    return isinstance(type_, type) and hasattr(type_, attribute)


_RECORDS: Final[tuple[tuple[str, Callable[[Type], bool]], ...]] = (
    ("typeddict", typing_extensions.is_typeddict),
    ("namedtuple", lambda type_: _is_class_with(type_, "_fields") and issubclass(type_, tuple)),
    ("struct", lambda type_: _is_class_with(type_, "__struct_fields__")),
    ("attrs", lambda type_: _is_class_with(type_, "__attrs_attrs__")),
    ("model", is_model),
    ("dataclass", lambda type_: _is_class_with(type_, "__dataclass_fields__")),
)
