"""The tree of errors: base classes, messages, and that pickle, copy and another process keep all attributes."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import pytest

from metacache import errors
from metacache.errors import BatchError, MetacacheError, ServerError

ALL: Final = sorted(errors.__all__)

# The base classes of each error.
PARENTS: Final[dict[str, tuple[type[BaseException], ...]]] = {
    "InvalidKeyError": (MetacacheError, ValueError),
    "InvalidKeyTypeError": (errors.InvalidKeyError, TypeError),
    "InvalidArgumentError": (MetacacheError, ValueError),
    "InvalidTypeError": (errors.InvalidArgumentError, TypeError),
    "DecodeError": (errors.SerializationError,),
    "SerializerNotFound": (MetacacheError, LookupError),
    "SerializerConflict": (errors.SerializerNotFound,),
    "TransportError": (MetacacheError, OSError),
    "ConnectError": (errors.TransportError,),
    "ConnectionLost": (errors.TransportError,),
    "OperationTimeout": (errors.TransportError, TimeoutError),
    "NodeDownError": (errors.TransportError,),
    "PoolTimeout": (MetacacheError, TimeoutError),
    "MetacacheError": (Exception,),
}


def example(name: str) -> MetacacheError:
    if name == "BatchError":
        inner = ServerError("out of memory", node="n:1", operation="set_many", key="k")
        results: dict[str | bytes, object] = {"a": b"1", b"b": 2}
        failed: dict[str | bytes, MetacacheError] = {"k": inner}
        return BatchError(results=results, errors=failed, operation="set_many")
    kind: type[MetacacheError] = getattr(errors, name)
    return kind("something failed", node="cache-1:11211", operation="set", key=b"k\xff", maybe_applied=True)


def facts(error: MetacacheError) -> tuple[object, ...]:
    whole = (type(error), str(error), error.message, error.node, error.operation, error.key, error.maybe_applied)
    if isinstance(error, BatchError):
        return (*whole, error.results, {key: facts(each) for key, each in error.errors.items()})
    return whole


def raise_again(error: MetacacheError) -> None:
    raise error


@pytest.mark.parametrize("name", ALL)
def test_an_error_has_the_documented_base_classes(name: str) -> None:
    parents = PARENTS.get(name, (MetacacheError,))
    assert getattr(errors, name).__bases__ == parents


@pytest.mark.parametrize("name", ALL)
def test_an_error_keeps_all_attributes_when_pickled_or_copied(name: str) -> None:
    error = example(name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert facts(pickle.loads(pickle.dumps(error, protocol))) == facts(error)
    assert facts(copy.copy(error)) == facts(error)
    assert facts(copy.deepcopy(error)) == facts(error)


def test_an_error_keeps_all_attributes_across_processes() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        for name in ALL:
            error = example(name)
            raised = processes.submit(raise_again, error).exception()
            assert isinstance(raised, MetacacheError)
            assert facts(raised) == facts(error)


def test_a_message_names_operation_key_node_and_whether_a_write_may_have_been_applied() -> None:
    assert str(example("OperationTimeout")) == (
        "set b'k\\xff' on cache-1:11211: something failed (the write may have been applied)"
    )
    assert str(example("BatchError")) == (
        "set_many: 1 of 3 keys failed: 1 ServerError at n:1; the first: set_many 'k' on n:1: out of memory"
    )


@pytest.mark.parametrize("applied", [(True, True), (True, False), (False, True), (False, False)])
def test_the_note_about_an_applied_write_appears_once(applied: tuple[bool, bool]) -> None:
    lost = [
        errors.ConnectionLost("broke", node="n:1", key=str(n), maybe_applied=each) for n, each in enumerate(applied)
    ]
    text = str(BatchError(errors={str(n): error for n, error in enumerate(lost)}, operation="set_many"))
    assert text.count("the write may have been applied") == int(any(applied))
    assert text.endswith(" (the write may have been applied)" if any(applied) else "broke")


def test_a_message_truncates_a_long_key_and_the_attribute_does_not() -> None:
    error = ServerError("no", key="k" * 1000)
    assert error.key == "k" * 1000
    assert str(error) == f"'{'k' * 80}'… (1000 long): no"
