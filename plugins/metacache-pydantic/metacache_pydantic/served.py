"""Decide which types the pydantic serializer serves: those that TypeAdapter supports, except rows of a database."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from metacache.errors import InvalidTypeError
from metacache.interrupts import is_from_handler
from metacache.serializers import Form, fingerprint, resolve
from metacache.serializers.forms import walk
from metacache.serializers.models import config_of, fields_of

__all__ = ["NAMES", "adapter_of", "check_served"]

# pydantic 2.11 and newer read fields by their names although they have aliases.
NAMES: Final[Mapping[str, Any]] = (  # Any: mypy would compare bool with the types of all other arguments
    {"by_alias": False, "by_name": True}
    if "by_name" in inspect.signature(TypeAdapter[Any].validate_json).parameters
    else {}
)
"""The arguments of `TypeAdapter.validate_json` that say so."""


# Any, here and below: a type expression, and a TypeAdapter of it.
def adapter_of(type_: Any) -> TypeAdapter[Any]:
    """Return the adapter of *type_*. Raises InvalidTypeError with pydantic's reason if there is none."""
    try:
        return TypeAdapter(type_)
    except Exception as error:  # pydantic raises several classes, and annotations are code
        if is_from_handler(error):
            raise
        reason, _, _ = (str(error) or type(error).__name__).partition("\n")
        raise InvalidTypeError(f"pydantic: {reason}") from None


def check_served(type_: Any) -> None:
    """Raise InvalidTypeError, with the part and the reason, if the type is not served."""
    fingerprint(type_)  # its error has the clearest reason
    for where, form in walk(resolve(type_)):
        problem = _problem(form)
        if problem is not None:
            raise InvalidTypeError(f"{where}: {problem}" if where else problem)
    adapter_of(type_)


def _problem(form: Form) -> str | None:
    if form.class_ is None:
        return None
    if hasattr(form.class_, "__mapper__"):
        return (
            f"SQLAlchemy maps {form.name} to a table, and its objects belong to a session; "
            "copy them into a model without a table"
        )
    config = config_of(form.class_)
    if NAMES or config.get("populate_by_name"):
        return None
    fields = fields_of(form.class_).items()
    aliased = next((name for name, info in fields if info.validation_alias not in (None, name)), None)
    return aliased and f"the field {aliased} of {form.name} has an alias, which needs pydantic 2.11 or populate_by_name"
