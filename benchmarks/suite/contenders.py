"""Who is measured: a table of contenders. Each prepares the work of a case. To add one, add a row.

A contender has keys of its own, because clients do not understand one another's flags.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from importlib.util import find_spec
from typing import Any, Final, TypeAlias, TypeVar, final

import attrs
import uvloop
from pymemcache.serde import PickleSerde, pickle_serde
from typing_extensions import override

from benchmarks import records
from benchmarks.async_subjects import (
    AUTOBATCHING,
    AsyncSetup,
    set_up_aiomcache,
    set_up_autobatching,
    set_up_cluster,
    set_up_emcache,
    set_up_memcache,
)
from benchmarks.peers import (
    Calls,
    Lacking,
    Open,
    open_bmemcached,
    open_memcache,
    open_meta_memcache,
    open_metacache,
    open_pylibmc,
    open_pymemcache,
    open_typed_metacache,
    open_typed_pylibmc,
    open_typed_pymemcache,
)
from benchmarks.repeating import Repeat, repeat_one, repeat_two
from benchmarks.suite.cases import Case, Kind, Verb
from metacache import Node, accelerated, load_serializer

__all__ = ["CONTENDERS", "Contender", "check_presence"]

T = TypeVar("T")

Prepare: TypeAlias = Callable[[Case, Sequence[Node], str, ExitStack], Repeat]
"""Connects, stores the values under keys with that prefix, and returns what does the work.

Raises Lacking if the client cannot do it. The stack closes the client.
"""

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@final
@attrs.frozen
class Contender:
    """A client with its settings.

    ``distribution``: the package whose version the results name. ``module``: what is missing if it is not installed.
    ``is_pure``: it runs with METACACHE_PURE=1.
    """

    name: str
    distribution: str
    module: str
    prepare: Prepare
    is_pure: bool = False

    @property
    def is_metacache(self) -> bool:
        """Whether it is this package."""
        return self.distribution == "metacache"


def check_presence(contender: Contender) -> None:
    """Raise Lacking if *contender* cannot run in this process."""
    if contender.name.startswith(SPEED) and not accelerated:
        raise Lacking("is not there, because metacache-speed is not built")
    if find_spec(contender.module) is None:
        raise Lacking(f"is not there, because {contender.distribution} is not installed for this Python")


# --- blocking --------------------------------------------------------------------------------------------------------


def _blocking(open_: Open[bytes]) -> Prepare:
    def prepare(case: Case, nodes: Sequence[Node], prefix: str, stack: ExitStack) -> Repeat:
        return _repeat(case, open_(nodes, case.threads, stack), b"v" * case.size, prefix, stack)

    return prepare


def _typed(open_: Open[T], value: T) -> Prepare:
    def prepare(case: Case, nodes: Sequence[Node], prefix: str, stack: ExitStack) -> Repeat:
        return _repeat(case, open_(nodes, 1, stack), value, prefix, stack)

    return prepare


def _repeat(case: Case, calls: Calls[T], value: T, prefix: str, stack: ExitStack) -> Repeat:
    """Store the values of *case*, check that they come back, and return the work."""
    keys = [f"{prefix}{number}" for number in range(case.keys)]
    if case.verb.is_batch:
        return _batch(case.verb, calls, keys, value)
    key = keys[0]
    calls.set(key, value)
    _check(calls.get(key), value)
    if case.verb is Verb.SET:
        return repeat_two(calls.set, key, value)
    repeat = repeat_one(calls.get, f"{prefix}missing" if case.verb is Verb.MISS else key)
    return _by_threads(repeat, case.threads, stack) if case.threads > 1 else repeat


def _batch(verb: Verb, calls: Calls[T], keys: list[str], value: T) -> Repeat:
    if calls.get_many is None:
        raise Lacking("has no method for many keys")
    for key in keys:
        calls.set(key, value)
    _check(len(calls.get_many(keys)), len(keys))
    if verb is Verb.GET_MANY:
        return repeat_one(calls.get_many, keys)
    if calls.set_many is None:
        raise Lacking("has no method that sets many keys")
    return repeat_one(calls.set_many, dict.fromkeys(keys, value))


def _check(found: object, expected: object) -> None:
    if found != expected:
        raise RuntimeError("a stored value did not come back")


def _by_threads(repeat: Repeat, threads: int, stack: ExitStack) -> Repeat:
    """Return a function that shares the repetitions between threads, which wait for work between the rounds."""
    pool = stack.enter_context(ThreadPoolExecutor(threads))

    def repeat_by_threads(times: int) -> None:
        for future in [pool.submit(repeat, times // threads) for _ in range(threads)]:
            future.result()

    return repeat_by_threads


# --- asyncio ---------------------------------------------------------------------------------------------------------


def _asyncio(set_up: AsyncSetup) -> Prepare:
    # The keys are the same for all, so these contenders have a server each.
    def prepare(case: Case, nodes: Sequence[Node], _prefix: str, stack: ExitStack) -> Repeat:
        runner = stack.enter_context(asyncio.Runner(loop_factory=LOOPS[case.loop]))
        connections = AsyncExitStack()
        stack.callback(lambda: runner.run(connections.aclose()))
        reader = runner.run(_awaited(set_up, nodes[0], case.tasks, connections))

        async def read_all(count: int) -> None:
            await asyncio.gather(*(reader.read(task, case.tasks, count // case.tasks) for task in range(case.tasks)))

        return lambda count: runner.run(read_all(count))

    return prepare


async def _awaited(set_up: AsyncSetup, node: Node, tasks: int, stack: AsyncExitStack) -> Any:  # Any: see AsyncSetup
    return await set_up(node, tasks, stack)


# --- tables ----------------------------------------------------------------------------------------------------------


class JsonSerde(PickleSerde):
    """The serde of pymemcache that a service writes for dicts."""

    @override
    def serialize(self, key: object, value: object) -> tuple[object, int]:
        return json.dumps(value).encode(), 0

    @override
    def deserialize(self, key: object, value: bytes, flags: int) -> object:
        return json.loads(value)


SPEED: Final = "metacache[speed]"
PURE: Final = "metacache"


def _both(prepare: Prepare, suffix: str = "") -> tuple[Contender, Contender]:
    return (
        Contender(SPEED + suffix, "metacache", "metacache", prepare),
        Contender(PURE + suffix, "metacache", "metacache", prepare, is_pure=True),
    )


def _serialized(name: str, value: object) -> Prepare:
    def prepare(case: Case, nodes: Sequence[Node], prefix: str, stack: ExitStack) -> Repeat:
        return _typed(open_typed_metacache(load_serializer(name, type(value))), value)(case, nodes, prefix, stack)

    return prepare


def _speed_with(name: str, value: object) -> Contender:
    return Contender(f"{SPEED} + {name}", "metacache", "metacache", _serialized(name, value))


CONTENDERS: Final[Mapping[Kind, tuple[Contender, ...]]] = {
    Kind.BLOCKING: (
        *_both(_blocking(open_metacache)),
        Contender("pylibmc", "pylibmc", "pylibmc", _blocking(open_pylibmc)),
        Contender("pymemcache", "pymemcache", "pymemcache", _blocking(open_pymemcache)),
        Contender("python-binary-memcached", "python-binary-memcached", "bmemcached", _blocking(open_bmemcached)),
        Contender("meta-memcache", "meta-memcache", "meta_memcache", _blocking(open_meta_memcache)),
        Contender("memcache", "memcache", "memcache", _blocking(open_memcache)),
    ),
    Kind.TYPED: (
        *_both(_serialized("msgspec", records.struct()), " + msgspec"),
        _speed_with("orjson", records.attrs_record()),
        _speed_with("attrs", records.attrs_record()),
        _speed_with("pydantic", records.model()),
        _speed_with("json", records.plain()),
        Contender("pylibmc + pickle", "pylibmc", "pylibmc", _typed(open_typed_pylibmc, records.dataclass())),
        Contender(
            "pymemcache + pickle",
            "pymemcache",
            "pymemcache",
            _typed(open_typed_pymemcache(pickle_serde), records.dataclass()),
        ),
        Contender(
            "pymemcache + json",
            "pymemcache",
            "pymemcache",
            _typed(open_typed_pymemcache(JsonSerde()), records.plain()),
        ),
    ),
    Kind.ASYNCIO: (
        *_both(_asyncio(set_up_cluster)),
        Contender(AUTOBATCHING, "emcache", "emcache", _asyncio(set_up_autobatching)),
        Contender("emcache", "emcache", "emcache", _asyncio(set_up_emcache)),
        Contender("aiomcache", "aiomcache", "aiomcache", _asyncio(set_up_aiomcache)),
        Contender("memcache", "memcache", "memcache", _asyncio(set_up_memcache)),
    ),
}
