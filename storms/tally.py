"""`Tally`: what one thread did and met. Each thread has its own, so none needs a lock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import monotonic
from typing import Final, final

import attrs

from metacache import (
    BatchError,
    BusyError,
    ConnectError,
    ConnectionLost,
    MetacacheError,
    NodeDownError,
    OperationTimeout,
    PoolTimeout,
)
from storms.canary import ForeignValue
from storms.lag import Lag
from storms.steps import Step

__all__ = ["ALLOWANCE", "Tally", "merged"]

ALLOWANCE: Final = 0.05  # seconds after the deadline
KEPT: Final = 20  # descriptions of faults

# What a caller may get while nodes die, freeze and leave. Any other error is a fault.
EXPECTED: Final = (ConnectError, ConnectionLost, OperationTimeout, NodeDownError, PoolTimeout, BusyError)


@final
@attrs.define
class Tally:
    """Counts and faults.

    Attributes:
        operations: requests for one key each, whether they succeeded or not.
        outcomes: the calls, by how they ended.
        over: calls that ended more than `ALLOWANCE` after their deadline.
        late: those of them that the lag of the machine does not explain.
        worst: seconds that a late call ended after its deadline, without the lag.
        foreign: values that do not belong to the key that was read.
        faults: descriptions of everything that must not happen.
    """

    operations: int = 0
    outcomes: Counter[str] = attrs.field(factory=Counter[str])
    over: int = 0
    late: int = 0
    worst: float = 0.0
    foreign: int = 0
    faults: list[str] = attrs.field(factory=list[str])

    def fault(self, text: str) -> None:
        """Note a fault."""
        if len(self.faults) < KEPT:
            self.faults.append(text)

    def failed(self, verb: str, error: BaseException) -> None:
        """Note how a call failed."""
        self.outcomes[type(error).__name__] += 1
        if isinstance(error, ForeignValue):
            self.foreign += 1
            self.fault(f"{verb}: a foreign value for {error}")
        errors = error.errors.values() if isinstance(error, BatchError) else (error,)
        for each in errors:
            if not isinstance(each, (*EXPECTED, ForeignValue)):
                self.fault(f"{verb}: {type(each).__name__}: {each if isinstance(each, MetacacheError) else repr(each)}")

    def ended(self, step: Step, timeout: float, deadline: float, lag: Lag, mark: float) -> None:
        """Note that *step*, a call with *timeout*, has ended now. Its *deadline* may be over."""
        if monotonic() > deadline + ALLOWANCE and step.is_timed:
            self.timed(step.verb, timeout, deadline, lag, mark)
        self.operations += step.keys

    def returned(self, step: Step, result: object) -> None:
        """Note that *step* returned *result*, which may be foreign."""
        try:
            step.check(result)
        except ForeignValue as foreign:
            self.failed(step.verb, foreign)
        self.outcomes["returned"] += 1

    def timed(self, verb: str, timeout: float, deadline: float, lag: Lag, mark: float) -> None:
        """Note that a call with *timeout* ended, now, more than `ALLOWANCE` after its *deadline*."""
        self.over += 1
        beyond = lag.beyond(mark, deadline)
        self.worst = max(self.worst, beyond)
        if beyond > ALLOWANCE:
            self.late += 1
            self.fault(f"{verb}: ended {beyond * 1000:.0f} ms after its deadline of {timeout} s, without lag")


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of *tallies*."""
    total = Tally()
    for each in tallies:
        total.operations += each.operations
        total.outcomes.update(each.outcomes.copy())
        total.over += each.over
        total.late += each.late
        total.worst = max(total.worst, each.worst)
        total.foreign += each.foreign
        for text in each.faults:
            total.fault(text)
    return total
