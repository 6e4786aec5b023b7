"""Turn values of one type into bytes and back, by a TypeAdapter of pydantic.

The bytes are JSON: the fields that were set, by their names. If an unset field does not have its default (a default of
now() or uuid4() is a new one at each read), the JSON has all fields. A line before it then has, for each model in the
order of the value, the names of its unset fields: ``[["id"],[],["id","created"]]``. Another line end is before that
line, so truncated bytes are never whole.
"""

# This module inspects the classes of values, and pyright calls the class of an Any unknown.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias, final

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from metacache.interrupts import fails_again
from metacache.serializers import Form
from metacache.serializers.forms import RECORDS, walk
from metacache.serializers.mismatches import Mismatch
from metacache_pydantic.served import NAMES

__all__ = ["Codec"]

# Any: a value of the type of a codec, which only the caller knows.
_Value: TypeAlias = Any


@final
class Codec:
    """Encodes and decodes values of one type.

    Args:
        adapter: pydantic's adapter of the type.
        form: the type. Only the names of its fields appear in messages.
        parts: returns the parts of a value, each after the step that leads to it.
    """

    def __init__(
        self, adapter: TypeAdapter[Any], form: Form, parts: Callable[[_Value], list[tuple[str, _Value]]]
    ) -> None:
        self._adapter = adapter
        self._validate = partial(adapter.validate_json, strict=True, **NAMES)
        self._parts = parts
        self._names = frozenset(name for _, each in walk(form) if each.kind in RECORDS for name in each.labels)

    def encode(self, value: _Value) -> bytes:
        """Return *value* as JSON without its unset fields."""
        data: bytes = _unwrapped(self._dump_set, value)
        return data

    def encode_all(self, value: _Value) -> bytes:
        """Return *value* as JSON with all fields, after a line with the names of the unset ones if there are any."""
        data: bytes = _unwrapped(self._dump_all, value)
        unset = [sorted(self._unset(model)) for model in self._models(value)]
        if not any(unset):
            return data
        return b"\n%b\n%b" % (json.dumps(unset, separators=(",", ":")).encode(), data)

    def decode(self, data: bytes) -> _Value:
        """Return the value. Raises if *data* is not exactly what one of the encoders writes for it."""
        value = self.read(data)
        again = self.encode_all(value) if data.startswith(b"\n") else self.encode(value)
        if again != data and _unordered(again) != _unordered(data):
            raise ValueError("pydantic coerced or dropped a part of the data")
        return value

    def read(self, data: bytes, seen: list[ValidationError] | None = None) -> _Value:
        """Return the value that pydantic reads from *data*, which it may have coerced. *seen* gets pydantic's error."""
        if not data.startswith(b"\n"):
            return _unwrapped(self._load, data, seen)
        _, unset, text = data.split(b"\n", 2)
        value = _unwrapped(self._load, text, seen)
        self._restore(value, json.loads(unset))
        return value

    def read_explained(self, data: bytes) -> _Value:
        """Return the value like `read`. Raises Mismatch with the path to a part that pydantic does not read."""
        seen: list[ValidationError] = []
        try:
            return self.read(data, seen)
        except Exception as error:
            if not seen or not fails_again(self.read, data, error):
                raise
        raise self._problem(seen[0])

    def _dump_set(self, value: _Value) -> bytes:
        return self._adapter.dump_json(value, by_alias=False, exclude_unset=True, round_trip=True, warnings="error")

    def _dump_all(self, value: _Value) -> bytes:
        return self._adapter.dump_json(value, by_alias=False, round_trip=True, warnings="error")

    def _load(self, data: bytes) -> _Value:
        return self._validate(data)

    # --- unset fields ------------------------------------------------------------------------------------------------

    def _models(self, value: _Value) -> list[BaseModel]:
        """Return all models in *value*, each before the models in it."""
        found = [value] if isinstance(value, BaseModel) else []
        for _, part in self._parts(value):
            found += self._models(part)
        return found

    def _unset(self, model: BaseModel) -> frozenset[str]:
        return frozenset(model.__dict__).intersection(type(model).model_fields) - model.model_fields_set

    def _restore(self, value: _Value, unset: list[list[str]]) -> None:
        """Mark the fields *unset* of the models in *value* as unset."""
        for model, names in zip(self._models(value), unset, strict=True):
            # The set of the model itself: its class may be frozen.
            model.model_fields_set.difference_update(names)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _problem(self, error: ValidationError) -> Mismatch:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        problem = Mismatch(_REASONS.get(first["type"], f"pydantic does not read it back ({first['type']})"))
        for step in reversed(first["loc"]):
            # Other steps are keys of dicts, which may be secrets, or names of validators.
            if isinstance(step, int):
                problem.within(f"[{step}]")
            elif step in self._names:
                problem.within(f".{step}")
        return problem


# By pydantic's type of an error, which is found after the classes of all parts are right.
_REASONS: Final = {
    "missing": "expected a value, but pydantic does not write this field (exclude=True?)",
    "float_type": "the format cannot hold NaN or an infinity",  # it is null in the JSON
    "finite_number": "the format cannot hold NaN or an infinity",
}


def _unwrapped(call: Callable[[_Value], _Value], argument: _Value, seen: list[ValidationError] | None = None) -> _Value:
    """Return ``call(argument)``. Raises the exception of a validator or serializer, which pydantic wraps.

    It may be the exception of a signal handler. The caller finds out as for every other function of the user. *seen*
    gets the error of pydantic.
    """
    try:
        return call(argument)
    except (ValidationError, PydanticSerializationError) as error:
        if seen is not None and isinstance(error, ValidationError):
            seen.append(error)
        cause = _cause(error)
        if cause is None:
            raise
    raise cause


def _cause(error: ValidationError | PydanticSerializationError) -> BaseException | None:
    """Return the exception that pydantic wrapped, or None if the error is its own."""
    if isinstance(error, PydanticSerializationError):
        return error.__cause__
    for each in error.errors(include_url=False, include_input=False):
        cause: object = each.get("ctx", {}).get("error")
        if isinstance(cause, BaseException):
            return cause
    return None


def _unordered(data: bytes) -> list[str]:
    """Return the lines of *data* as texts that do not depend on the order of lists, because a set has no order."""
    return [_unordered_text(json.loads(line)) for line in data.removeprefix(b"\n").split(b"\n")]


def _unordered_text(part: _Value) -> str:
    if isinstance(part, list):
        return f"[{','.join(sorted(map(_unordered_text, part)))}]"
    if isinstance(part, dict):
        return f"{{{','.join(sorted([f'{json.dumps(key)}:{_unordered_text(held)}' for key, held in part.items()]))}}}"
    return json.dumps(part)
