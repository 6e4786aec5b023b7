"""Read the fields and the config of pydantic's classes, by attributes and names: metacache does not import pydantic.

`records`, `forms` and `layouts` use this module for models, and for dataclasses and TypedDicts with a config.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import typing_extensions

from metacache.serializers.literals import constraints, literal_text

__all__ = [
    "config_labels",
    "config_of",
    "field_labels",
    "field_types",
    "fields_of",
    "generic_parts",
    "is_fixed_zone",
    "is_model",
    "is_root_model",
    "private_names",
    "secret_value",
    "url_kind",
]

# Any: a class with attributes that no type expresses, or a type expression.
_Class: TypeAlias = Any


def is_model(class_: _Class) -> bool:
    """Return whether *class_* is a subclass of pydantic's BaseModel. BaseModel itself has no fields."""
    return isinstance(class_, type) and hasattr(class_, "__pydantic_generic_metadata__")


def is_root_model(class_: _Class) -> bool:
    """Return whether *class_* is a subclass of pydantic's RootModel."""
    return is_model(class_) and bool(class_.__pydantic_root_model__)


# Any: a pydantic FieldInfo.
def fields_of(class_: _Class) -> Mapping[str, Any]:
    """Return the fields of a model or of a pydantic dataclass, in order; of another class an empty mapping."""
    if is_model(class_) and not class_.__pydantic_complete__:
        class_.model_rebuild()
    # pydantic 2.10 added __pydantic_fields__ to models. Dataclasses always had it.
    found: Mapping[str, Any] = getattr(class_, "__pydantic_fields__", None) or (
        class_.model_fields if is_model(class_) else {}
    )
    return found


def field_types(class_: _Class) -> dict[str, tuple[_Class, _Class]]:
    """Return, for each field of a model, the class that annotates it and its type, in the type variables of that class.

    The fields of ``Box[int]`` itself have no names for a class within itself, so read those of ``Box``.
    """
    types: dict[str, tuple[_Class, _Class]] = {
        name: (class_, info.annotation) for name, info in fields_of(class_).items()
    }
    for owner in reversed(class_.__mro__):
        if is_model(owner) and generic_parts(owner)[0] is owner:
            own = typing_extensions.get_annotations(owner, format=typing_extensions.Format.FORWARDREF)
            types.update((name, (owner, info.annotation)) for name, info in fields_of(owner).items() if name in own)
    return types


def generic_parts(type_: _Class) -> tuple[_Class, tuple[_Class, ...]]:
    """Return the generic class of *type_* and its type arguments. pydantic makes a class of ``Box[int]``.

    The arguments of a bare generic model are its own type variables, because ``Box[T]`` is ``Box`` for its own T.
    """
    origin: _Class = typing.get_origin(type_)
    if origin is not None:
        return origin, typing.get_args(type_)
    if not is_model(type_):
        return type_, ()
    made: Mapping[str, Any] = type_.__pydantic_generic_metadata__  # Any: classes and types, by name
    return (made["origin"], made["args"]) if made["origin"] is not None else (type_, made["parameters"])


def private_names(class_: _Class) -> tuple[str, ...]:
    """Return the names of the private attributes of a model."""
    return tuple(class_.__private_attributes__)


# --- texts for fingerprints ------------------------------------------------------------------------------------------


def field_labels(info: Any) -> str:  # Any: a pydantic FieldInfo
    """Return the text of the constraints and aliases of a field."""
    return "".join(f"({label})" for label in sorted(set(constraints(info))))


# The settings that change the bytes or the accepted values, and their defaults.
_CONFIG: Final[Mapping[str, object]] = {
    "extra": "ignore",
    "ser_json_timedelta": "iso8601",
    "ser_json_temporal": "iso8601",
    "val_temporal_unit": "infer",
    "ser_json_bytes": "utf8",
    "val_json_bytes": "utf8",
    "ser_json_inf_nan": "null",
    "allow_inf_nan": True,
    "use_enum_values": False,
    "str_to_lower": False,
    "str_to_upper": False,
    "str_strip_whitespace": False,
    "str_min_length": 0,
    "str_max_length": None,
}


def config_labels(class_: _Class) -> tuple[str, ...]:
    """Return the texts of the settings of *class_* that change its bytes. A class without a config has none."""
    return tuple(_config_labels(class_))


def config_of(class_: _Class) -> Mapping[str, Any]:  # Any: settings of several classes
    """Return the config of a model, of a dataclass or of a TypedDict; of another class an empty mapping."""
    config: Mapping[str, Any] | None = getattr(
        class_, "model_config" if is_model(class_) else "__pydantic_config__", None
    )
    return config or {}


def _config_labels(class_: _Class) -> Iterator[str]:
    config = config_of(class_)
    for name, usual in _CONFIG.items():
        value = config.get(name, usual)
        if value is not None and value != usual:
            yield f"{name}={literal_text(value)}"


_URLS: Final[Mapping[str, str]] = {
    "pydantic_core._pydantic_core.Url": "url",  # AnyUrl before pydantic 2.10
    "pydantic_core._pydantic_core.MultiHostUrl": "multihosturl",
    "pydantic.networks._BaseUrl": "url",
    "pydantic.networks._BaseMultiHostUrl": "multihosturl",
}


def url_kind(class_: _Class) -> tuple[str, tuple[str, ...]] | None:
    """Return the kind of a class of URLs and its constraints; None for another class."""
    names = [f"{base.__module__}.{base.__qualname__}" for base in class_.__mro__]
    kind = next((_URLS[name] for name in names if name in _URLS), None)
    if kind is None:
        return None
    return kind, tuple(sorted(set(constraints(getattr(class_, "_constraints", None)))))


def is_fixed_zone(zone: object) -> bool:
    """Return whether *zone* is a TzInfo of pydantic: an offset, as in a datetime.timezone without a name."""
    return type(zone).__name__ == "TzInfo" and type(zone).__module__.partition(".")[0] == "pydantic_core"


def secret_value(value: Any) -> object:  # Any: an object with attributes that no type expresses
    """Return the content of a SecretStr or another secret of pydantic; None for another value."""
    is_secret = type(value).__module__ == "pydantic.types" and hasattr(value, "get_secret_value")
    return value.get_secret_value() if is_secret else None
