"""The requests of one client's recipes: run one, and forgive its failure if the client's policy says so.

It awaits only the effects of its client.
"""

from __future__ import annotations

from typing import Generic, TypeVar, final

from metacache.caching.asking import Asked, Asking
from metacache.caching.effects import Call, Effects
from metacache.errors import MetacacheError, ValueTooLargeError
from metacache.interrupts import is_injected
from metacache.operations.policies import READ, ErrorPolicy
from metacache.operations.tallies import note_suppressed
from metacache.transports.base import Operation

__all__ = ["Exchanges"]

R = TypeVar("R")
T = TypeVar("T")


@final
class Exchanges(Generic[T]):
    """The requests of one client.

    Args:
        effects: of the client.
        asking: makes its requests.
        errors: which errors it forgives.
    """

    __slots__ = ("asking", "effects", "errors")

    def __init__(self, effects: Effects, asking: Asking[T], errors: ErrorPolicy) -> None:
        self.effects = effects
        self.asking = asking
        self.errors = errors

    async def ask(self, call: Call[T]) -> tuple[T | Asked[T]] | None:
        """Ask the cache; None when that fails and the client forgives it."""
        return await self.attempt(self.asking.ask(call.key, call.wire, call.flags))

    async def attempt(self, op: Operation[R]) -> tuple[R] | None:
        """Return the result of *op*; None when it fails and the client forgives that."""
        try:
            return (await self.effects.run(op),)
        except MetacacheError as error:
            if self.forgives(error):
                return None
            raise

    def forgives(self, error: BaseException) -> bool:
        """Count *error* of an exchange; return whether the call continues without the cache."""
        if not isinstance(error, MetacacheError) or not self.errors.suppresses(READ, error):
            return False
        note_suppressed(type(error))
        return True

    def forgives_too_large(self, error: ValueTooLargeError) -> bool:
        """Return whether a computed value that is too large for the protocol is returned and not stored."""
        if is_injected(error) or not self.errors.suppresses_too_large(error):
            return False
        note_suppressed(type(error))
        return True
