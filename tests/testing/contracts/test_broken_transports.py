"""Each check of the contract of transports fails for a transport that breaks it, in both kinds of client."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest
from typing_extensions import override

from metacache import (
    AsyncPool,
    AsyncTransport,
    Batch,
    MetacacheError,
    Node,
    Operation,
    Pool,
    Replies,
    Settings,
    Transport,
)
from metacache.testing import AsyncTransportContract, TransportContract

R = TypeVar("R")


class Wrapper:
    """A correct wrapper. The broken ones below differ from it in one thing."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        return self.inner.run(op, deadline=deadline)

    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self.inner.run_batch(batch, deadline=deadline)

    def close(self) -> None:
        self.inner.close()


class WithoutDeadline(Wrapper):
    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        return self.inner.run(op)


class WithoutBatchDeadline(Wrapper):
    @override
    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        return self.inner.run_batch(batch, deadline=math.inf)


class RetryingAll(Wrapper):
    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        try:
            return self.inner.run(op, deadline=deadline)
        except MetacacheError:
            return self.inner.run(op, deadline=deadline)


class Twice(Wrapper):
    """Sends each operation twice."""

    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        self.inner.run(op, deadline=deadline)
        return self.inner.run(op, deadline=deadline)


class Certain(Wrapper):
    """Denies that a write may have been applied."""

    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        try:
            return self.inner.run(op, deadline=deadline)
        except MetacacheError as error:
            error.maybe_applied = False
            raise


class Swallowing(Wrapper):
    """Makes a miss of each error."""

    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Any:  # Any: R, or None by mistake
        try:
            return self.inner.run(op, deadline=deadline)
        except Exception:
            return None


class Translating(Wrapper):
    """Raises errors of its own."""

    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        try:
            return self.inner.run(op, deadline=deadline)
        except Exception as error:
            raise RuntimeError("it failed") from error


class RaisingForAPart(Wrapper):
    @override
    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        replies = self.inner.run_batch(batch, deadline=deadline)
        for error in replies.errors.values():
            raise error
        return replies


class FailingAsAWhole(Wrapper):
    """The error of one request becomes that of all."""

    @override
    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        replies = self.inner.run_batch(batch, deadline=deadline)
        for error in list(replies.errors.values()):
            replies.errors = dict.fromkeys(range(len(batch)), error)
        return replies


class DroppingErrors(Wrapper):
    @override
    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        replies = self.inner.run_batch(batch, deadline=deadline)
        replies.errors.clear()
        return replies


class Reversing(Wrapper):
    @override
    def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        replies = self.inner.run_batch(batch, deadline=deadline)
        replies.values.reverse()
        replies.headers.reverse()
        return replies


class Cutting(Wrapper):
    """Cuts long values, by another reader."""

    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Any:  # Any: as in Swallowing
        found = self.inner.run(op, deadline=deadline)
        return found[:3000] if isinstance(found, bytes) else found


class Copying(Wrapper):
    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Any:  # Any: as in Swallowing
        found = self.inner.run(op, deadline=deadline)
        return type(found)() if type(found) is object else found


class ReturningPartsOfValues(Wrapper):
    """Returns a part of a value when the connection is lost."""

    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Any:  # Any: as in Swallowing
        try:
            return self.inner.run(op, deadline=deadline)
        except MetacacheError:
            return b"value " * 500


class Mixing(Wrapper):
    """Threads share the place of the last result."""

    last: object = None

    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Any:  # Any: as in Swallowing
        self.last = self.inner.run(op, deadline=deadline)
        time.sleep(0.001)
        return self.last


class Changing(Wrapper):
    @override
    def run(self, op: Operation[R], /, *, deadline: float | None = None) -> R:
        op.body = None if op.body is None else op.body[::-1]
        return self.inner.run(op, deadline=deadline)


class Immortal(Wrapper):
    """Works after its close."""

    @override
    def close(self) -> None:
        pass


class ClosedOnce(Wrapper):
    is_closed = False

    @override
    def close(self) -> None:
        assert not self.is_closed, "closed twice"
        self.is_closed = True
        self.inner.close()


BROKEN: Final[list[tuple[Callable[[Transport], Wrapper], str]]] = [
    (Swallowing, "test_a_server_error_is_raised_and_the_next_call_works"),
    (Translating, "test_a_server_error_is_raised_and_the_next_call_works"),
    (Twice, "test_each_method_of_a_client_works"),
    (Cutting, "test_values_are_not_changed"),
    (Copying, "test_the_result_is_what_the_operation_reads"),
    (Reversing, "test_a_batch_has_a_reply_for_each_request"),
    (RaisingForAPart, "test_a_failed_part_of_a_batch_fails_alone"),
    (FailingAsAWhole, "test_a_failed_part_of_a_batch_fails_alone"),
    (RaisingForAPart, "test_a_batch_on_a_lost_connection_has_an_error_for_each_request"),
    (DroppingErrors, "test_a_batch_on_a_lost_connection_has_an_error_for_each_request"),
    (ReturningPartsOfValues, "test_a_value_that_is_cut_is_never_returned"),
    (RetryingAll, "test_a_write_is_never_sent_twice"),
    (Certain, "test_a_write_is_never_sent_twice"),
    (WithoutDeadline, "test_a_deadline_is_obeyed"),
    (Translating, "test_a_deadline_is_obeyed"),
    (WithoutBatchDeadline, "test_a_deadline_of_a_batch_is_obeyed"),
    (Swallowing, "test_an_exception_of_a_reader_propagates_unchanged"),
    (Translating, "test_an_exception_of_a_reader_propagates_unchanged"),
    (Changing, "test_operations_and_batches_are_not_changed"),
    (Mixing, "test_concurrent_calls_get_their_own_values"),
    (Immortal, "test_a_closed_transport_refuses"),
    (ClosedOnce, "test_a_closed_transport_refuses"),
]
CHECKS: Final = [name for name in dir(TransportContract) if name.startswith("test_")]
FAILURES: Final = (AssertionError, MetacacheError, RuntimeError, TypeError)


@pytest.mark.parametrize(("broken", "check"), BROKEN)
def test_the_contract_fails_for_a_broken_transport(broken: Callable[[Transport], Wrapper], check: str) -> None:
    class Contract(TransportContract):
        in_process = True

        @override
        def transport(self, node: Node, settings: Settings) -> Transport:
            return broken(Pool(node, settings=settings))

    with pytest.raises(FAILURES):
        getattr(Contract(), check)()


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_has_a_broken_transport(check: str) -> None:
    assert check in {name for _, name in BROKEN}


@pytest.mark.parametrize("check", CHECKS)
def test_the_contract_holds_for_a_correct_wrapper(check: str) -> None:
    class Contract(TransportContract):
        in_process = True

        @override
        def transport(self, node: Node, settings: Settings) -> Transport:
            return Wrapper(Pool(node, settings=settings))

    getattr(Contract(), check)()


def test_both_contracts_have_the_same_checks() -> None:
    assert [name for name in dir(AsyncTransportContract) if name.startswith("test_")] == CHECKS


class AsyncWrapper:
    """A wrapper that ignores deadlines and sends writes again."""

    def __init__(self, inner: AsyncTransport) -> None:
        self.inner = inner

    async def run(self, op: Operation[R], /, *, deadline: float | None = None) -> Any:  # Any: as in Swallowing
        try:
            return await self.inner.run(op)
        except MetacacheError:
            return await self.inner.run(op)

    async def run_batch(self, batch: Batch, /, *, deadline: float) -> Replies:
        replies = await self.inner.run_batch(batch, deadline=math.inf)
        for error in replies.errors.values():
            raise error
        return replies

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    "check",
    [
        "test_a_failed_part_of_a_batch_fails_alone",
        "test_a_write_is_never_sent_twice",
        "test_a_deadline_is_obeyed",
        "test_a_deadline_of_a_batch_is_obeyed",
        "test_a_closed_transport_refuses",
    ],
)
def test_the_contract_fails_for_a_broken_asyncio_transport(check: str) -> None:
    pools: list[AsyncPool] = []

    class Contract(AsyncTransportContract):
        in_process = True

        @override
        def transport(self, node: Node, settings: Settings) -> AsyncTransport:
            pools.append(AsyncPool(node, settings=settings))
            return AsyncWrapper(pools[-1])

    with pytest.raises(FAILURES):
        getattr(Contract(), check)()


def test_a_contract_without_a_transport_says_what_to_override() -> None:
    with pytest.raises(NotImplementedError, match=r"override transport\(self, node, settings\)"):
        TransportContract().test_values_are_not_changed()
    with pytest.raises(NotImplementedError, match=r"override transport\(self, node, settings\)"):
        AsyncTransportContract().test_values_are_not_changed()
