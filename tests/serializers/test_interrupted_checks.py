"""An exception of a signal handler or another thread propagates unchanged while a serializer checks a value."""

from __future__ import annotations

import itertools
import uuid
from typing import Any, Final

import pydantic
import pytest

from metacache import InvalidTypeError, SerializationError, Serializer, load_serializer
from tests.client.interrupting import Interrupter
from tests.serializers import records

# Any: the tests use wrong values of these classes.
R: Final[Any] = records

# The code of the plugins, which is outside the package that the interrupter knows by default.
PLUGIN_CODE: Final = (
    *("_Msgspec.", "_Orjson.", "_Attrs.", "_probe", "_same_kinds", "_signature", "record_codec.", "_list.", "_union."),
    *("_member_for", "_tagged.", "_mapping.", "exact_codec.", "check_class", "StrictConverter.", "Computed."),
    *("_Pydantic.", "Codec.", "_uninterrupted", "_cause", "_unordered", "Even."),
)


class Even(pydantic.BaseModel):
    """A model whose validator is code of the user, and whose default is a new one at each read."""

    size: int = 2
    id: uuid.UUID = pydantic.Field(default_factory=uuid.uuid4)

    @pydantic.field_validator("size")
    @classmethod
    def check_even(cls, size: int) -> int:
        if size % 2:
            raise ValueError("odd")
        return size


class SoftTimeLimitExceeded(Exception):
    """An Exception that a signal handler raises, like the one of Celery."""


ERRORS: Final = [SoftTimeLimitExceeded, ValueError, TypeError, KeyError, RecursionError, SerializationError]
MORE_ERRORS: Final = [*ERRORS, InvalidTypeError, OverflowError, MemoryError, AttributeError]

# For each serializer: a type, a value that it stores, and a value that it refuses. Any: of several types.
VALUES: Final[dict[str, tuple[Any, Any, Any]]] = {
    "json": (dict[str, list[float | None]], {"a": [1, None, 2.5]}, {"a": [None, "x"]}),
    "msgspec": (list[R.Computed], [R.Computed(1)], [R.Computed("x")]),
    "msgspec-json": (dict[str, list[float | None]], {"a": [1, None]}, {"a": [float("nan")]}),
    "orjson": (list[R.Boxed[int] | R.Boxed[str]], [R.Boxed(1), R.Boxed("a")], [R.Boxed(1.5)]),
    "attrs": (list[R.Positive], [R.Positive(1)], [R.Positive(1), R.Leaf(1, 2)]),
    "pydantic": (list[Even], [Even()], [Even.model_construct(size=3)]),
}


def count_interruptions(serializer: Serializer[Any], value: Any, error: type[Exception], *, from_handler: bool) -> int:
    """Interrupt ``dumps`` of *value* at each call and return in turn, and return their number."""
    for at in itertools.count(1):
        raised: BaseException | None = None
        instance = error("interrupted")
        interrupter = Interrupter(at, instance, also=PLUGIN_CODE, from_handler=from_handler)
        try:
            interrupter.run(lambda: serializer.dumps(value))
        except Exception as other:
            raised = other
        if interrupter.left > 0:
            return at
        assert raised is instance, f"interruption {at}: {raised!r}"
    raise AssertionError


@pytest.mark.parametrize("from_handler", [True, False])
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("error", MORE_ERRORS)
def test_an_interruption_of_a_valid_write_propagates(name: str, error: type[Exception], from_handler: bool) -> None:
    type_, good, _ = VALUES[name]
    assert count_interruptions(load_serializer(name, type_), good, error, from_handler=from_handler) > 10


@pytest.mark.parametrize("from_handler", [True, False])
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("error", ERRORS)
def test_an_interruption_of_a_refused_write_propagates(name: str, error: type[Exception], from_handler: bool) -> None:
    type_, _, wrong = VALUES[name]
    assert count_interruptions(load_serializer(name, type_), wrong, error, from_handler=from_handler) > 100
