"""Read the fields of a class: their order, their names in the bytes, and the defaults that a reader may fill in.

Handles TypedDict, NamedTuple, msgspec.Struct, attrs classes, dataclasses, and the models of pydantic.

If the bytes may lack a field, its default counts for the fingerprint, because the reader fills in its own default. That
is so in a Struct with ``omit_defaults``, for a default of UNSET, for ``init=False``, which converters leave out, and in
a model, because the bytes of a model lack the fields that were not set.
The bytes always have all other fields, so their defaults do not count.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, TypeAlias, final

import attrs
import typing_extensions

from metacache.serializers.graphs import quoted, unknown
from metacache.serializers.literals import literal_text
from metacache.serializers.models import config_labels, field_labels, field_types, fields_of, is_model, is_root_model

__all__ = ["NO_DEFAULT", "Factory", "Field", "Record", "hints_of", "original_bases", "record_of", "required_keys"]

# Any: a class with attributes that no type expresses.
_Class: TypeAlias = Any

# Any: a type expression is any object.
_Type: TypeAlias = Any

NO_DEFAULT: Final = object()
"""Marks a field without a default, or with one that does not count."""


@final
@attrs.frozen
class Factory:
    """A default that a call of *make* returns."""

    make: object


@final
@attrs.frozen
class Field:
    """One field of a class.

    Attributes:
        name: the name of the attribute.
        label: its name in the bytes, with "?" if the bytes may lack it and "!" if the constructor does not take it.
        default: its default if that counts, else NO_DEFAULT.
        type_: its type if the class does not annotate it.
    """

    name: str
    label: str
    default: object = NO_DEFAULT
    type_: object = Any


@final
@attrs.frozen
class Record:
    """A class with fields: its kind, its fields in order, and labels for further properties of its encoding."""

    kind: str
    fields: tuple[Field, ...]
    labels: tuple[str, ...] = ()


def record_of(class_: _Class) -> Record | None:
    """Return the record of *class_*, or None for a class without fields. Raises UnknownShape for unreadable fields."""
    try:
        return next((read(class_) for is_one, read in _RECORDS if is_one(class_)), None)
    except Exception as error:  # an annotation is code, and may raise any exception
        raise unknown(error, f"class {class_.__qualname__}, whose fields cannot be read") from None


def _typed_dict(class_: _Class) -> Record:
    required = required_keys(class_)
    names = _evaluated(class_)
    fields = (Field(name, quoted(name) + ("" if name in required else "?")) for name in names)
    return Record("typeddict", tuple(fields), config_labels(class_))


def required_keys(class_: _Class) -> frozenset[str]:
    """Return the required keys of a TypedDict."""
    hints = _evaluated(class_)
    return frozenset(name for name, hint in hints.items() if _is_required(hint, name in class_.__required_keys__))


def _is_required(hint: _Type, otherwise: bool) -> bool:
    """Decide by the annotation, because __required_keys__ misses a NotRequired in an annotation that is a string."""
    origin: _Type = typing.get_origin(hint)
    if origin in (typing.Required, typing.NotRequired):
        return origin is typing.Required
    if origin in (typing.Annotated, typing_extensions.ReadOnly):
        return _is_required(typing.get_args(hint)[0], otherwise)
    return otherwise


def _is_named_tuple(class_: _Class) -> bool:
    return hasattr(class_, "_fields") and isinstance(class_, type) and issubclass(class_, tuple)


def _named_tuple(class_: _Class) -> Record:
    return Record("namedtuple", tuple(Field(name, name) for name in class_._fields))


# --- msgspec -------------------------------------------------------------------------------------------------------

# Recognised by attributes and names, because metacache itself does not import msgspec.


def _is_struct(class_: _Class) -> bool:
    return hasattr(class_, "__struct_encode_fields__")


def _struct(class_: _Class) -> Record:
    config = class_.__struct_config__
    names, defaults = class_.__struct_fields__, class_.__struct_defaults__
    # `defaults` belong to the last fields. A Struct with array_like always has all its fields in the bytes.
    padded = (NO_DEFAULT,) * (len(names) - len(defaults)) + tuple(map(_struct_default, defaults))
    omits = config.omit_defaults and not config.array_like
    fields = (
        Field(name, quoted(label), default if omits or _is_unset(default) else NO_DEFAULT)
        for name, label, default in zip(names, class_.__struct_encode_fields__, padded, strict=True)
    )
    # The label of a field never starts with "?".
    tag = () if config.tag is None else (f"?{quoted(config.tag_field)}={literal_text(config.tag)}",)
    return Record("structarray" if config.array_like else "struct", tuple(fields), tag)


def _struct_default(default: Any) -> object:  # Any: msgspec has no public type for its markers
    kind = _msgspec_name(default)
    if kind == "NoDefaultType":
        return NO_DEFAULT
    return Factory(default.factory) if kind == "Factory" else default


def _is_unset(default: object) -> bool:
    return _msgspec_name(default) == "UnsetType"


def _msgspec_name(value: object) -> str:
    class_ = type(value)
    return class_.__name__ if class_.__module__.partition(".")[0] == "msgspec" else ""


# --- attrs and dataclasses -----------------------------------------------------------------------------------------


def _attrs(class_: _Class) -> Record:
    return Record("record", tuple(map(_attrs_field, attrs.fields(class_))))


def _attrs_field(field: Any) -> Field:  # Any: an attrs.Attribute of any type
    type_ = Any if field.type is None else field.type
    return _field(field.name, field.init, _attrs_default(field.default), type_)


def _attrs_default(default: Any) -> object:  # Any: a value of any class, NOTHING, or a Factory
    if default is attrs.NOTHING:
        return NO_DEFAULT
    return Factory(default.factory) if hasattr(default, "takes_self") else default


def _dataclass(class_: _Class) -> Record:
    fields = tuple(map(_dataclass_field, dataclasses.fields(class_)))
    infos = fields_of(class_)  # empty, except for a dataclass of pydantic
    labelled = (attrs.evolve(field, label=field.label + field_labels(infos.get(field.name))) for field in fields)
    return Record("record", tuple(labelled) if infos else fields, config_labels(class_))


def _dataclass_field(field: dataclasses.Field[Any]) -> Field:  # Any: a field of any type
    if field.default_factory is not dataclasses.MISSING:
        return _field(field.name, field.init, Factory(field.default_factory))
    return _field(field.name, field.init, NO_DEFAULT if field.default is dataclasses.MISSING else field.default)


def _field(name: str, is_given: bool, default: object, type_: object = Any) -> Field:
    if is_given:
        return Field(name, name, default if _is_unset(default) else NO_DEFAULT, type_)
    return Field(name, f"{name}!", default, type_)


# --- pydantic ------------------------------------------------------------------------------------------------------


def _model(class_: _Class) -> Record:
    fields = tuple(_model_field(name, info) for name, info in fields_of(class_).items())
    return Record("rootmodel" if is_root_model(class_) else "model", fields, config_labels(class_))


def _model_field(name: str, info: Any) -> Field:  # Any: a pydantic FieldInfo
    label = quoted(name) + field_labels(info)
    if info.is_required():
        return Field(name, label)
    default = info.default if info.default_factory is None else Factory(info.default_factory)
    return Field(name, f"{label}?", default)


_RECORDS: Final[tuple[tuple[Callable[[_Class], bool], Callable[[_Class], Record]], ...]] = (
    (typing_extensions.is_typeddict, _typed_dict),
    (_is_named_tuple, _named_tuple),
    (_is_struct, _struct),
    (attrs.has, _attrs),
    (is_model, _model),
    (dataclasses.is_dataclass, _dataclass),
)


# --- types of fields -----------------------------------------------------------------------------------------------


def original_bases(class_: _Class) -> tuple[_Class, ...]:
    """Return the bases of *class_* with their type arguments, as in the source."""
    attributes: dict[str, Any] = class_.__dict__  # Any: the attributes of a class
    bases: tuple[_Class, ...] = attributes.get("__orig_bases__", class_.__bases__)
    return bases


def hints_of(class_: _Class, owners: Iterable[_Class]) -> dict[str, tuple[_Class, _Type]]:
    """Return, for each annotated field, the class that annotates it and its type, in the type variables of that class.

    *owners* are *class_* and its original bases, *class_* first. Raises UnknownShape if a type cannot be resolved.
    """
    if is_model(class_):
        return field_types(class_)
    if not typing_extensions.is_typeddict(class_):
        owners = [owner for owner in reversed(class_.__mro__) if _annotated_here(owner)]
        return {name: (owner, hint) for owner in owners for name, hint in _own_hints(owner)}
    # At run time a TypedDict has no bases, and it has all keys of its bases. So the last owner of a key is its base.
    return {name: (owner, hint) for owner in owners for name, hint in _hints(owner).items()}


def _own_hints(class_: _Class) -> Iterator[tuple[str, _Type]]:
    own = _annotated_here(class_)
    return ((name, hint) for name, hint in _hints(class_).items() if name in own)


def _annotated_here(class_: _Class) -> Collection[str]:
    return typing_extensions.get_annotations(class_, format=typing_extensions.Format.FORWARDREF)


def _hints(class_: _Class) -> dict[str, _Type]:
    try:
        return _evaluated(class_)
    except Exception as error:  # an annotation is code, and may raise any exception
        raise unknown(error, f"a type in {class_.__qualname__} that cannot be resolved") from None


def _evaluated(class_: _Class) -> dict[str, _Type]:
    """Return the types of the fields of *class_* and its bases."""
    bases: tuple[_Class, ...] = class_.__mro__
    parameters: dict[str, _Class] = {
        parameter.__name__: parameter for base in reversed(bases) for parameter in getattr(base, "__type_params__", ())
    }
    # Python 3.12 does not find the T of ``class Box[T]`` in an annotation that is a string.
    # Any: objects of any class, by name.
    names: dict[str, Any] | None = {**vars(class_), **parameters} if parameters else None
    return typing_extensions.get_type_hints(class_, localns=names, include_extras=True)
