"""Compute the shape of a type expression: kinds, field names and constraints, without the names of classes with fields.

The fingerprint is a hash of the shape. The shape of a type is the same on every Python from 3.11 on. A part without a
shape raises `UnknownShape`.
"""

from __future__ import annotations

import collections.abc
import datetime
import decimal
import enum
import sys
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, final

import typing_extensions

from metacache.serializers.defaults import default_text
from metacache.serializers.graphs import ALIAS, Graph, Shape, UnknownShape, make_union, quoted, reference, unknown
from metacache.serializers.literals import constraints, literal_text
from metacache.serializers.models import generic_parts, is_model, url_kind
from metacache.serializers.names import class_name, is_standard, library_name, type_name
from metacache.serializers.records import NO_DEFAULT, Field, Record, hints_of, original_bases, record_of

__all__ = ["UnknownShape", "graph_of"]

# Any: a type expression is any object; typing gives no type for it that all its forms satisfy.
_Type: TypeAlias = Any

# The shapes of the type variables, and of Self, in one class or alias.
_Scope: TypeAlias = Mapping[object, Shape]

_SCALARS: Final[dict[object, str]] = {
    None: "none",
    type(None): "none",
    bool: "bool",
    int: "int",
    float: "float",
    complex: "complex",
    str: "str",
    bytes: "bytes",
    bytearray: "bytearray",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "timedelta",
    uuid.UUID: "uuid",
    decimal.Decimal: "decimal",
    Any: "any",
    typing.LiteralString: "str",  # a str at run time
    typing.Never: "never",
    typing.NoReturn: "never",
}

_CONTAINERS: Final[dict[object, str]] = {
    list: "list",
    set: "set",
    frozenset: "frozenset",
    dict: "dict",
    collections.deque: "deque",
    collections.OrderedDict: "ordereddict",
    collections.abc.Sequence: "sequence",
    collections.abc.MutableSequence: "mutablesequence",
    collections.abc.Collection: "collection",
    collections.abc.Iterable: "iterable",
    collections.abc.Set: "abstractset",
    collections.abc.MutableSet: "mutableset",
    collections.abc.Mapping: "mapping",
    collections.abc.MutableMapping: "mutablemapping",
}
_MAPPINGS: Final = frozenset(("dict", "ordereddict", "mapping", "mutablemapping"))

# A bound on time and memory: a generic class may contain ever larger types of itself.
MAX_NODES: Final = 100_000

_ANY: Final = Shape("any")


def graph_of(type_: object) -> Graph:
    """Return the shape of *type_* as a graph. Raises UnknownShape."""
    try:
        return _Walk().graph(type_)
    except UnknownShape:
        raise
    except RecursionError:
        raise UnknownShape("a type that is nested too deep") from None
    except Exception as error:  # the metaclass of a user may raise any exception
        raise unknown(error, "a class that cannot be inspected") from None


@final
class _Walk:
    """One walk over a type expression.

    Each class with fields, and each alias, becomes a definition in a queue. So the walk of a recursive type ends, and a
    long chain of classes does not nest calls.
    """

    def __init__(self) -> None:
        self._nodes = 0
        self._indexes: dict[object, int] = {}
        self._definitions: list[Callable[[], Shape]] = []

    def graph(self, type_: _Type) -> Graph:
        root = self.of(type_, {})
        return Graph(root, [define() for define in self._definitions])  # the list grows during the loop

    def _defined(self, key: object, define: Callable[[Shape], Shape]) -> Shape:
        """Return a reference to the definition *key*. If it is new, enqueue *define*, which makes it."""
        index = self._indexes.get(key)
        if index is not None:
            return reference(index)
        index = self._indexes[key] = len(self._definitions)
        self._definitions.append(lambda: define(reference(index)))
        return reference(index)

    def of(self, type_: _Type, scope: _Scope) -> Shape:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnknownShape(f"a type of more than {MAX_NODES:,} parts")
        origin: _Type = typing.get_origin(type_)
        if origin is not None and origin is not type_:  # Generic is its own origin
            return _FORMS.get(origin, _Walk.of_generic)(self, type_, scope)
        if isinstance(type_, typing.NewType):
            return self.of(type_.__supertype__, scope)
        return self._of_name(type_, scope)

    def _of_name(self, type_: _Type, scope: _Scope) -> Shape:
        """Return the shape of a type without arguments."""
        if isinstance(type_, str | typing.ForwardRef):
            raise UnknownShape("a type in quotes, which cannot be resolved here")
        if not _is_hashable(type_):
            raise UnknownShape(type_name(type_))
        if type_ in scope:
            return scope[type_]
        if type_ in _SCALARS:
            return Shape(_SCALARS[type_])
        if type_ in (tuple, typing.Tuple):  # noqa: UP006 - tuple[()] has no arguments either
            return Shape("vartuple", parts=(_ANY,))
        if _is_alias(type_):
            return self._of_alias(type_, None)
        if is_model(type_):
            return self._of_model(type_, scope)
        if isinstance(type_, type):
            return self._of_class(type_, None)
        if isinstance(type_, _VARIABLES):
            raise UnknownShape(f"the type variable {type_.__name__}, which is not bound here")
        raise UnknownShape(type_name(type_))

    # --- type variables ----------------------------------------------------------------------------------------------

    def _scope(self, parameters: Iterable[_Type], arguments: tuple[Shape, ...] | None) -> dict[object, Shape]:
        """Return the shapes of *parameters*: from *arguments*, else from their defaults, constraints or bounds."""
        scope: dict[object, Shape] = {}
        given = list(arguments or ())
        rest = list(parameters)
        while rest:
            parameter = rest.pop(0)
            if arguments is not None and isinstance(parameter, _VARIADIC):
                count = max(0, len(given) - len(rest))
                scope[parameter] = Shape("unpack", parts=tuple(given[:count]))
                del given[:count]
            else:
                scope[parameter] = given.pop(0) if given else self._of_unbound(parameter, scope)
        return scope

    def _of_unbound(self, variable: _Type, scope: _Scope) -> Shape:
        default = getattr(variable, "__default__", typing_extensions.NoDefault)
        scope = {**scope, variable: _ANY}  # its bound may refer to it
        if default is not typing_extensions.NoDefault:
            return self.of(default, scope)
        if isinstance(variable, _VARIADIC):
            return Shape("unpack", parts=(Shape("unpacked", parts=(Shape("vartuple", parts=(_ANY,)),)),))
        if not isinstance(variable, typing.TypeVar):
            return Shape("...")
        if variable.__constraints__:
            return make_union(self.of(each, scope) for each in variable.__constraints__)
        return _ANY if variable.__bound__ is None else self.of(_evaluated(variable.__bound__, variable), scope)

    def _parts(self, arguments: Iterable[_Type], scope: _Scope) -> tuple[Shape, ...]:
        """Return the shapes of *arguments*. A TypeVarTuple is replaced by the shapes of its types."""
        shapes = [self._of_argument(argument, scope) for argument in arguments]
        return tuple(part for shape in shapes for part in (shape.parts if shape.kind == "unpack" else (shape,)))

    def _of_argument(self, argument: _Type, scope: _Scope) -> Shape:
        if argument is Ellipsis:
            return Shape("...")
        if type(argument) in (list, tuple):  # the parameters of a Callable, or of a ParamSpec
            return Shape("parameters", parts=self._parts(argument, scope))
        return self.of(argument, scope)

    # --- forms of typing ---------------------------------------------------------------------------------------------

    def of_union(self, type_: _Type, scope: _Scope) -> Shape:
        return make_union(self.of(member, scope) for member in typing.get_args(type_))

    def of_literal(self, type_: _Type, _: _Scope) -> Shape:
        values = typing.get_args(type_)
        plain = sorted({literal_text(value) for value in values if type(value) in _PLAIN})
        others = (Shape("member", (literal_text(value),)) for value in values if type(value) not in _PLAIN)
        return make_union((*((Shape("literal", tuple(plain)),) if plain else ()), *others))

    def of_annotated(self, type_: _Type, scope: _Scope) -> Shape:
        inner = self.of(type_.__origin__, scope)
        labels: set[str] = set()
        for meta in type_.__metadata__:
            try:
                labels.update(constraints(meta))
            except (UnknownShape, RecursionError):
                raise
            except Exception as error:  # the iterator of grouped metadata is code of the user
                raise unknown(error, f"metadata of class {type(meta).__qualname__} that cannot be read") from None
        return Shape("constrained", tuple(sorted(labels)), (inner,)) if labels else inner

    def of_wrapped(self, type_: _Type, scope: _Scope) -> Shape:
        return self.of(typing.get_args(type_)[0], scope)

    def of_unpacked(self, type_: _Type, scope: _Scope) -> Shape:
        inner = self.of_wrapped(type_, scope)
        return inner if inner.kind == "unpack" else Shape("unpacked", parts=(inner,))

    def of_tuple(self, type_: _Type, scope: _Scope) -> Shape:
        if type_ is typing.Tuple:  # noqa: UP006 - the old name, which has an origin but no arguments
            return self._of_name(type_, scope)
        arguments = typing.get_args(type_)
        is_open = arguments[-1:] == (Ellipsis,)
        parts = self._parts(arguments[:-1] if is_open else arguments, scope)
        shape = Shape("vartuple" if is_open else "tuple", parts=parts)
        return Shape("unpacked", parts=(shape,)) if getattr(type_, "__unpacked__", False) else shape

    def of_generic(self, type_: _Type, scope: _Scope) -> Shape:
        origin: _Type = typing.get_origin(type_)
        # typing.List without arguments also has an origin.
        arguments = self._parts(typing.get_args(type_), scope) if typing.get_args(type_) else None
        if _is_alias(origin):
            return self._of_alias(origin, arguments)
        if isinstance(origin, type):
            return self._of_class(origin, arguments)
        raise UnknownShape(f"{type_name(origin)}, which is not a type of values")

    def _of_alias(self, alias: _Type, arguments: tuple[Shape, ...] | None) -> Shape:
        def define(_: Shape) -> Shape:
            scope = self._scope(alias.__type_params__, arguments)
            return Shape(ALIAS, parts=(self.of(_value_of(alias), scope),))

        return self._defined((alias, arguments), define)

    # --- classes -----------------------------------------------------------------------------------------------------

    def _of_class(self, class_: _Type, arguments: tuple[Shape, ...] | None) -> Shape:
        kind = _CONTAINERS.get(class_)
        if kind is not None:
            # A container without arguments has parts of Any.
            return Shape(kind, parts=arguments or ((_ANY, _ANY) if kind in _MAPPINGS else (_ANY,)))
        kind = library_name(class_)
        if kind is not None:
            return Shape(kind, parts=arguments or ())
        url = url_kind(class_)
        if url is not None:
            name, labels = url
            return Shape("constrained", labels, (Shape(name),)) if labels else Shape(name)
        if is_standard(class_):
            raise UnknownShape(f"class {type_name(class_)} of the standard library, which metacache does not support")
        if issubclass(class_, enum.Enum):
            return _of_enum(class_)
        record = record_of(class_)
        if record is None:
            return Shape("class", (quoted(class_name(class_)),), arguments or ())
        return self._defined((class_, arguments), lambda this: self._record_shape(class_, record, arguments, this))

    def _of_model(self, class_: _Type, scope: _Scope) -> Shape:
        """Return the shape of a model. A generic one within itself stands for itself with its own type arguments."""
        origin, arguments = generic_parts(class_)
        if origin is class_ and not scope.keys() >= set(arguments):
            arguments = ()
        return self._of_class(origin, self._parts(arguments, scope) if arguments else None)

    def _record_shape(self, class_: _Type, record: Record, arguments: tuple[Shape, ...] | None, this: Shape) -> Shape:
        scopes = self._scopes_of_bases(class_, arguments, this)
        hints = hints_of(class_, scopes)

        def part(field: Field) -> Shape:
            owner, hint = hints.get(field.name, (class_, field.type_))
            return self.of(hint, scopes.get(owner) or {typing.Self: this})

        labels = (*record.labels, *map(_label, record.fields))
        return Shape(record.kind, labels, tuple(map(part, record.fields)))

    def _scopes_of_bases(
        self, class_: _Type, arguments: tuple[Shape, ...] | None, this: Shape
    ) -> dict[_Type, dict[object, Shape]]:
        """Return, for *class_* and each of its bases, the shapes of its type variables."""
        scopes = {class_: self._scope(_parameters(class_), arguments) | {typing.Self: this}}
        pending = [class_]
        for owner in pending:  # the list grows during the loop
            for base in original_bases(owner):
                origin, arguments = generic_parts(base)
                if origin in scopes or not isinstance(origin, type):
                    continue
                is_bare = origin is base
                given = self._parts(arguments, scopes[owner]) if arguments and not is_bare else None
                scopes[origin] = self._scope(_parameters(origin), given) | {typing.Self: this}
                pending.append(origin)
        return scopes


def _label(field: Field) -> str:
    return field.label if field.default is NO_DEFAULT else f"{field.label}={default_text(field.default)}"


def _of_enum(class_: _Type) -> Shape:
    values = sorted(default_text(member.value) for member in class_)
    # The rule for bits that no member has. An Enum that is not a Flag has no boundary.
    boundary: enum.FlagBoundary | None = getattr(class_, "_boundary_", None)
    return Shape("enum", tuple(values)) if boundary is None else Shape("flag", (boundary.value, *values))


def _parameters(class_: _Type) -> tuple[_Type, ...]:
    parameters: tuple[_Type, ...] = getattr(class_, "__parameters__", ())
    return parameters


def _is_hashable(type_: object) -> bool:
    try:
        hash(type_)
    except TypeError:
        return False
    return True


def _is_alias(type_: object) -> bool:
    return isinstance(type_, typing_extensions.TypeAliasType) or type(type_).__name__ == "TypeAliasType"


def _value_of(alias: _Type) -> _Type:
    try:
        return _evaluated(alias.__value__, alias)
    except Exception as error:  # the value of an alias is lazy code, which runs now
        raise unknown(error, f"the alias {alias.__name__}, which cannot be evaluated") from None


def _evaluated(type_: _Type, holder: _Type) -> _Type:
    """Return *type_* with names in quotes resolved in the module of *holder*."""
    module = sys.modules.get(holder.__module__)
    namespace = types.SimpleNamespace(__annotations__={"value": type_})
    hints = typing_extensions.get_type_hints(namespace, {} if module is None else vars(module), include_extras=True)
    return hints["value"]


_PLAIN: Final = frozenset((type(None), bool, int, str))
_VARIADIC: Final = (typing.TypeVarTuple, typing_extensions.TypeVarTuple)
_VARIABLES: Final = (typing.TypeVar, typing.ParamSpec, typing_extensions.ParamSpec, *_VARIADIC)

# Final, Required, NotRequired and ReadOnly qualify a field and do not change its shape.
_FORMS: Final[dict[object, Callable[[_Walk, _Type, _Scope], Shape]]] = {
    **dict.fromkeys((typing.Union, types.UnionType), _Walk.of_union),
    **dict.fromkeys((typing.Literal, typing_extensions.Literal), _Walk.of_literal),
    **dict.fromkeys(
        (typing.Final, typing.Required, typing.NotRequired, typing_extensions.ReadOnly, typing_extensions.Required)
        + (typing_extensions.NotRequired,),
        _Walk.of_wrapped,
    ),
    **dict.fromkeys((typing.Unpack, typing_extensions.Unpack), _Walk.of_unpacked),
    typing.Annotated: _Walk.of_annotated,
    tuple: _Walk.of_tuple,
}
