"""What a signal handler, or another thread, raises while a serializer checks a value comes out unchanged."""

from __future__ import annotations

import itertools
from typing import Any, Final

import pytest

from metacache import InvalidTypeError, SerializationError, Serializer, load_serializer
from tests.client.interrupting import Interrupter
from tests.serializers import records

# Any: wrong values of its classes are the point.
R: Final[Any] = records

# The code of the plugins, which is not in the package that the interrupter knows.
PLUGINS: Final = ("_Msgspec.", "_Orjson.", "_Attrs.", "_probe", "_agree", "_signature", "record.", "_list.", "_chosen")
PLUGINS_TOO: Final = (*PLUGINS, "_union.", "_tagged.", "_mapping.", "exact.", "StrictConverter.", "Computed.", "Liar.")


class SoftTimeLimitExceeded(Exception):
    """As Celery's: an Exception that a signal handler raises."""


ERRORS: Final = [SoftTimeLimitExceeded, ValueError, TypeError, KeyError, RecursionError, SerializationError]
ERRORS_TOO: Final = [*ERRORS, InvalidTypeError, OverflowError, MemoryError, AttributeError]

# Any: of several types. Each with a value that is stored, and one that is refused.
VALUES: Final[dict[str, tuple[Any, Any, Any]]] = {
    "json": (dict[str, list[float | None]], {"a": [1, None, 2.5]}, {"a": [None, "x"]}),
    "msgspec": (list[R.Computed], [R.Computed(1)], [R.Computed("x")]),
    "msgspec-json": (dict[str, list[float | None]], {"a": [1, None]}, {"a": [float("nan")]}),
    "orjson": (list[R.Boxed[int] | R.Boxed[str]], [R.Boxed(1), R.Boxed("a")], [R.Boxed(1.5)]),
    "attrs": (list[R.Positive], [R.Positive(1)], [R.Positive(1), R.Leaf(1, 2)]),
}


def places(serializer: Serializer[Any], value: Any, error: type[Exception], *, from_handler: bool) -> int:
    """Interrupt ``dumps`` of *value* at each place; return how many there are."""
    for at in itertools.count(1):
        raised: BaseException | None = None
        instance = error("interrupted")
        interrupter = Interrupter(at, instance, also=PLUGINS_TOO, from_handler=from_handler)
        try:
            interrupter.run(lambda: serializer.dumps(value))
        except Exception as other:
            raised = other
        if interrupter.left > 0:
            return at
        assert raised is instance, f"place {at}: {raised!r}"
    raise AssertionError


@pytest.mark.parametrize("from_handler", [True, False])
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("error", ERRORS_TOO)
def test_it_comes_out_of_a_write_that_succeeds(name: str, error: type[Exception], from_handler: bool) -> None:
    type_, good, _ = VALUES[name]
    assert places(load_serializer(name, type_), good, error, from_handler=from_handler) > 10


@pytest.mark.parametrize("from_handler", [True, False])
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("error", ERRORS)
def test_it_comes_out_of_a_write_that_is_refused(name: str, error: type[Exception], from_handler: bool) -> None:
    type_, _, wrong = VALUES[name]
    assert places(load_serializer(name, type_), wrong, error, from_handler=from_handler) > 100
