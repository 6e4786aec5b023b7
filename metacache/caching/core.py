"""What one client needs for `get_or_compute` beside its effects: plans, requests and counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

from metacache.caching.asking import ASK, ASK_MANY, Asked, Asking
from metacache.caching.context import computing, refuse_own
from metacache.caching.effects import Call, CallMany
from metacache.caching.policy import Plan, Stampede
from metacache.caching.statistics import ComputationCounts
from metacache.errors import InvalidArgumentError, InvalidTypeError
from metacache.operations.arguments import Default, Ttl, distinct_keys, listed_keys
from metacache.operations.options import Options
from metacache.operations.requests import Operations, error_context
from metacache.operations.tallies import ReadCounts
from metacache.protocol.keys import MAX_KEY, K, Key, WireKey
from metacache.transports.base import Operation

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Caching", "function_name"]

T = TypeVar("T")

# Plans are kept for this many pairs of a policy and a time to live.
KEPT_PLANS: Final = 256

Kept = tuple[bytes, Plan, bytes, Stampede, Ttl | Default]
"""The format of an ask, a plan, what follows the key of an ask, and what all was made of, whose ids so stay in use."""


@final
class Caching(Generic[T]):
    """The asks of one client.

    Args:
        ops: its operations.
        options: its options, for the default time to live.
        counts: its counters.
        computations: its counts of computations.
        background: what `Stampede.background` may be beside False: True, or the class Executor.
    """

    __slots__ = ("_background", "_keys", "_last", "_options", "_plans", "_read", "_text", "asking", "computations")

    def __init__(
        self,
        ops: Operations[T],
        options: Options,
        counts: ReadCounts,
        computations: ComputationCounts,
        background: type[bool] | type[Executor],
    ) -> None:
        self.asking: Asking[T] = Asking(ops, counts, time.time)
        self.computations = computations
        self._keys = ops.keys
        self._read = self.asking.read
        self._text = ops.keys.text
        self._options = options
        self._background = background
        # By identity: the hash of an Enum costs 700 instructions, and other values may have none.
        self._plans: dict[tuple[int, int], Kept] = {}
        self._last: Kept | None = None  # the one used last: most callers use one

    def ask(
        self, key: Key, factory: object, policy: Stampede, ttl: Ttl | Default, should_cache: object
    ) -> Operation[T | Asked[T]]:
        """Return the first ask of a call.

        Raises InvalidTypeError and InvalidArgumentError for a bad argument, and BusyError inside the factory of *key*.
        """
        if not callable(factory) or should_cache is not None:
            _check_functions(ASK.name, factory, should_cache)
        kept = self._last
        if kept is None or kept[3] is not policy or kept[4] is not ttl:
            kept = self._last = self._plans.get((id(policy), id(ttl))) or self._plan(policy, ttl, key)
        # As in `Operations.get`: the rule of KeyEncoder.plain without its call, and no call of `operation`.
        text = self._text
        raw: bytes | None
        if text is not None and type(key) is str and key.isprintable() and " " not in key and key:
            raw = (text + key).encode()
        else:
            raw = self._keys.plain(key)
        if computing() is not None:
            refuse_own(self.computations, ASK.name, {key: self.asking.encode(key)[0]})
        if raw is None or len(raw) > MAX_KEY:
            return self.asking.ask(key, self.asking.encode(key), kept[2])
        op: Operation[T | Asked[T]] = Operation()
        op.verb = ASK
        op.given = key
        op.key = raw
        op.head = kept[0] % raw
        op.body = None
        op.read = self._read
        return op

    def call(
        self,
        key: Key,
        factory: Callable[[], Any],  # Any: T, or an awaitable of T
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
        label: str | None,
    ) -> Call[T]:
        """Return the arguments of a call for the recipe; all were checked by `ask`."""
        _, plan, flags, _, _ = self._plan(policy, ttl, key)
        return Call(
            key,
            self.asking.encode(key),
            flags,
            factory,
            plan,
            should_cache,
            label or f"factory {function_name(factory)}",
        )

    def call_many(
        self,
        keys: Iterable[K],
        factory: Callable[[Sequence[K]], Any],  # Any: a mapping of T by key, or an awaitable of one
        policy: Stampede,
        ttl: Ttl | Default,
        should_cache: Callable[[T], bool] | None,
    ) -> CallMany[K, T]:
        """Return the arguments of a `get_or_compute_many`.

        Raises InvalidTypeError and InvalidArgumentError, and BusyError inside the factory of one of *keys*.
        """
        _check_functions(ASK_MANY.name, factory, should_cache)
        with error_context(ASK_MANY):
            given = distinct_keys(listed_keys(keys))
        _, plan, flags, _, _ = self._plan(policy, ttl, None)
        wires: dict[K, WireKey] = {}
        first: dict[bytes, K] = {}
        aliases: dict[K, K] = {}
        for key in given:
            with error_context(ASK_MANY, key):
                wire = self._keys.encode(key)
            owner = first.setdefault(wire[0], key)  # "k" and b"k" are one key: it is sent once
            if owner == key:
                wires[key] = wire
            else:
                aliases[key] = owner
        refuse_own(self.computations, ASK_MANY.name, {key: wire[0] for key, wire in wires.items()})
        return CallMany(wires, aliases, flags, factory, plan, should_cache, f"factory {function_name(factory)}")

    def check(self, policy: Stampede, ttl: Ttl | Default, should_cache: object) -> None:
        """Raise InvalidTypeError or InvalidArgumentError for a bad argument of `cached`."""
        self._plan(policy, ttl, None)
        _check_functions("cached", len, should_cache)

    def _plan(self, policy: Stampede, ttl: Ttl | Default, key: Key | None) -> Kept:
        with error_context(ASK, key):
            if not isinstance(policy, Stampede):
                raise InvalidTypeError(f"policy is a Stampede, not {type(policy).__name__}")
            if policy.background is not False and not isinstance(policy.background, self._background):
                wanted = "True or False in an AsyncClient" if self._background is bool else "an Executor in a Client"
                raise InvalidArgumentError(f"Stampede.background is {wanted}, not {type(policy.background).__name__}")
            plan = Plan.of(policy, self._options.default_ttl if isinstance(ttl, Default) else ttl)
        if len(self._plans) >= KEPT_PLANS:
            self._plans.clear()
        flags = self.asking.flags(plan)
        kept = self._plans[id(policy), id(ttl)] = (b"mg %b" + flags, plan, flags, policy, ttl)
        return kept


def _check_functions(verb: str, factory: object, should_cache: object) -> None:
    if not callable(factory):
        raise InvalidTypeError(f"factory is a function, not {type(factory).__name__}", operation=verb)
    if should_cache is not None and not callable(should_cache):
        kind = type(should_cache).__name__
        raise InvalidTypeError(f"should_cache is a function of the value, not {kind}", operation=verb)


def function_name(function: object) -> str:
    """Return what logs call *function*: never a key, and never an argument."""
    function = getattr(function, "func", function)  # of a partial
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else f"of class {type(function).__name__}"
