"""`AsyncWatch`: what its task applies, and how it ends, before its loop or with it, also with a hanging source."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Final

import pytest

from metacache import ClosedError, InvalidArgumentError, Node, Settings
from metacache.discovery.aio_watch import AsyncWatch
from tests.discovery.sources import PATIENCE, Heard, Listed, ended, ignore, nodes

EAGER: Final = Settings(poll_interval=0.01, change_interval=0.0)
NEVER: Final = Settings(poll_interval=1e6)


class Hanging:
    """A source that does not answer until it is released."""

    def __init__(self) -> None:
        self.asked, self.release = threading.Event(), threading.Event()

    def poll(self) -> Sequence[Node]:
        self.asked.set()
        assert self.release.wait(PATIENCE)
        return nodes("b")


def threads() -> list[threading.Thread]:
    """Return the threads that poll sources."""
    return [thread for thread in threading.enumerate() if thread.name == "metacache-poll"]


def watching() -> list[asyncio.Task[object]]:
    """Return the tasks of the watches of this loop."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "metacache-watch"]


async def until(event: threading.Event) -> bool:
    return await asyncio.to_thread(event.wait, PATIENCE)


async def finished(tasks: Sequence[asyncio.Task[object]]) -> bool:
    _, pending = await asyncio.wait(tasks, timeout=PATIENCE)
    return not pending


async def test_changes_are_applied_on_the_loop_one_node_at_a_time() -> None:
    heard = Heard(lambda heard: heard.sets[-1] == ("c",))
    source = Listed(nodes("a"), OSError("away"), RuntimeError("a bug"), (), nodes("b c"), nodes("c"))
    watch = AsyncWatch(source, heard.set_nodes, settings=EAGER, first=nodes("a"))
    assert "1 nodes, settled" in repr(watch)
    assert await until(heard.is_enough)
    await watch.aclose()
    assert heard.sets[0] == ("a", "b")
    assert heard.threads == {threading.current_thread().name}
    assert repr(watch) == "<AsyncWatch: closed>"
    assert not watching()


@pytest.mark.parametrize("settings", [EAGER, NEVER])
async def test_aclose_ends_the_task_and_is_idempotent(settings: Settings) -> None:
    watch = AsyncWatch(Listed(nodes("a")), ignore, settings=settings, first=nodes("a"))
    await asyncio.gather(watch.aclose(), watch.aclose())
    await watch.aclose()
    assert not watching()


async def test_a_close_does_not_wait_for_a_hanging_source() -> None:
    heard, source = Heard(), Hanging()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    watch = AsyncWatch(source, heard.set_nodes, settings=EAGER, first=nodes("a"))
    assert await until(source.asked)
    await watch.aclose()
    assert not source.release.is_set()
    hanging = threads()
    assert hanging
    source.release.set()
    assert await asyncio.to_thread(ended, hanging)
    await asyncio.sleep(0)  # for the callback that the thread scheduled
    assert heard.sets == []
    assert complaints == []


def test_a_loop_ends_while_a_source_hangs() -> None:
    source = Hanging()

    async def main() -> None:
        AsyncWatch(source, ignore, settings=EAGER, first=nodes("a"))
        watches.append(AsyncWatch(source, ignore, settings=EAGER, first=nodes("a")))
        assert await until(source.asked)

    watches: list[AsyncWatch] = []
    asyncio.run(main())
    assert not source.release.is_set()
    hanging = threads()
    assert hanging
    source.release.set()
    assert ended(hanging), "an answer for a loop that is closed is dropped"
    assert repr(watches[0]) == "<AsyncWatch: closed>"
    asyncio.run(watches[0].aclose())


async def test_a_watch_ends_when_the_object_of_apply_is_freed() -> None:
    heard = Heard()
    watch = AsyncWatch(Listed(nodes("a")), heard.set_nodes, settings=NEVER, first=nodes("a"))
    tasks = watching()
    assert tasks
    await asyncio.sleep(0)
    del heard
    assert await finished(tasks)
    assert repr(watch) == "<AsyncWatch: closed>"


async def test_a_watch_without_references_continues() -> None:
    heard = Heard()
    AsyncWatch(Listed(nodes("a b")), heard.set_nodes, settings=EAGER, first=nodes("a"))
    tasks = watching()
    assert await until(heard.is_enough)
    del heard
    assert await finished(tasks)


def test_the_object_of_apply_may_outlive_the_loop() -> None:
    heard = [Heard()]

    async def main() -> AsyncWatch:
        return AsyncWatch(Listed(nodes("a")), heard[0].set_nodes, settings=NEVER, first=nodes("a"))

    watch = asyncio.run(main())
    heard.clear()
    assert repr(watch) == "<AsyncWatch: closed>"


async def test_a_watch_ends_when_apply_raises_closed_error() -> None:
    def refuse(_: object) -> None:
        raise ClosedError("the cluster was closed")

    AsyncWatch(Listed(nodes("b")), refuse, settings=EAGER, first=nodes("a"))
    assert await finished(watching())


async def test_a_watch_without_first_nodes_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="there are none"):
        AsyncWatch(Listed(nodes("a")), ignore, settings=EAGER, first=())
    assert not watching()
