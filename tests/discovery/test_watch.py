"""`Watch`: what its thread applies, which errors it survives, and how it ends: by a close, a fork, an exit."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import pytest

from metacache import ClosedError, Cluster, InvalidArgumentError, Node, Settings
from metacache.discovery.watch import Watch
from metacache.testing import Memcached
from tests.discovery.sources import PATIENCE, Heard, Listed, ended, ignore, nodes

EAGER: Final = Settings(poll_interval=0.01, change_interval=0.0)
NEVER: Final = Settings(poll_interval=1e6)


def watchers() -> set[threading.Thread]:
    """Return the threads of all watches."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("metacache-")}


def has(*last: str) -> Callable[[Heard], bool]:
    return lambda heard: heard.sets[-1] == last


def test_a_watch_applies_changes_until_it_is_closed() -> None:
    before = watchers()
    heard = Heard(has("c"))
    watch = Watch(Listed(nodes("a"), nodes("b c"), nodes("c")), heard.set_nodes, settings=EAGER, first=nodes("a"))
    (thread,) = watchers() - before
    assert thread.daemon
    assert heard.is_enough.wait(PATIENCE)
    watch.close()
    watch.close()
    assert ended([thread])
    assert heard.sets[0] == ("a", "b")
    assert heard.threads == {"metacache-watch"}
    assert repr(watch) == "<Watch: closed>"


def test_a_close_does_not_wait_for_the_next_poll() -> None:
    before = watchers()
    watch = Watch(Listed(nodes("a")), ignore, settings=NEVER, first=nodes("a"))
    assert "1 nodes, settled" in repr(watch)
    started = watchers() - before
    watch.close()
    assert started
    assert ended(started)


def test_a_close_does_not_wait_for_a_hanging_source() -> None:
    before = watchers()
    asked, release = threading.Event(), threading.Event()

    class Hanging:
        def poll(self) -> Sequence[Node]:
            asked.set()
            assert release.wait(PATIENCE)
            return nodes("b")

    heard = Heard()
    watch = Watch(Hanging(), heard.set_nodes, settings=EAGER, first=nodes("a"))
    assert asked.wait(PATIENCE)
    watch.close()
    started = watchers() - before
    assert started, "it still hangs"
    release.set()
    assert ended(started)
    assert heard.sets == []


def test_a_failed_source_is_polled_again() -> None:
    heard = Heard(has("a", "b"))
    source = Listed(OSError("away"), RuntimeError("a bug"), (), nodes("a b"))
    watch = Watch(source, heard.set_nodes, settings=EAGER, first=nodes("a"))
    assert heard.is_enough.wait(PATIENCE)
    watch.close()
    assert heard.sets == [("a", "b")]
    assert source.asked >= 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the warning about the SystemExit
def test_a_source_that_ends_its_thread_ends_the_watch() -> None:
    before = watchers()

    class Exiting:
        def poll(self) -> Sequence[Node]:
            raise SystemExit

    watch = Watch(Exiting(), ignore, settings=EAGER, first=nodes("a"))
    assert ended(watchers() - before)
    assert repr(watch) == "<Watch: closed>"


def test_a_watch_ends_when_the_object_of_apply_is_freed() -> None:
    before = watchers()
    heard = Heard()
    watch = Watch(Listed(nodes("a")), heard.set_nodes, settings=NEVER, first=nodes("a"))
    started = watchers() - before
    assert started
    del heard
    assert ended(started)
    assert repr(watch) == "<Watch: closed>"


def test_a_watch_without_references_continues() -> None:
    heard = Heard(has("a", "b"))
    Watch(Listed(nodes("a b")), heard.set_nodes, settings=EAGER, first=nodes("a"))
    assert heard.is_enough.wait(PATIENCE)


def test_a_watch_ends_when_apply_raises_closed_error() -> None:
    before = watchers()

    def refuse(_: object) -> None:
        raise ClosedError("the cluster was closed")

    Watch(Listed(nodes("b")), refuse, settings=EAGER, first=nodes("a"))
    assert ended(watchers() - before)


def test_a_watch_without_first_nodes_is_refused() -> None:
    before = watchers()
    with pytest.raises(InvalidArgumentError, match="there are none"):
        Watch(Listed(nodes("a")), ignore, settings=EAGER, first=())
    assert watchers() == before


def test_a_cluster_follows_its_source(shared_memcached: Memcached) -> None:
    address = shared_memcached.url.partition("//")[2].strip("/")
    first, second = Node(address, name="first"), Node(address, name="second")
    moved = Heard(has("second"))
    with Cluster([first]) as cluster:

        def apply(found: Sequence[Node]) -> None:
            cluster.set_nodes(found)
            moved.set_nodes(found)

        watch = Watch(Listed([second]), apply, settings=EAGER, first=[first])
        assert moved.is_enough.wait(PATIENCE)
        watch.close()
        assert cluster.client().set("watched", b"found")
        assert cluster.client().get("watched") == b"found"
    assert moved.sets == [("first", "second"), ("second",)]


# --- forks, and the end of the interpreter -----------------------------------------------------------------------


def fork(in_child: Callable[[], object]) -> int:
    """Fork a child that runs *in_child* and exits; return its process id."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn, because this process has threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(int(PATIENCE))  # an alarm ends a child that hangs
        try:
            in_child()
        finally:
            os._exit(0)
    return pid


class Endless:
    """A source with another node in each answer."""

    def __init__(self) -> None:
        self._polls = 0

    def poll(self) -> Sequence[Node]:
        self._polls += 1
        return nodes("a b" if self._polls % 2 else "a")


def test_after_a_fork_parent_and_child_each_have_a_watch_thread() -> None:
    reader, writer = os.pipe()
    stay, leave = os.pipe()
    watch = Watch(Endless(), lambda _: os.write(writer, b"%d " % os.getpid()), settings=EAGER, first=nodes("a"))

    def child_work() -> None:
        os.close(leave)
        os.read(stay, 1)  # wait until the parent closes its end

    child = fork(child_work)
    os.read(reader, 65536)  # drop what the parent wrote before
    seen = set[bytes]()
    until = monotonic() + PATIENCE
    while len(seen) < 2 and monotonic() < until and select.select([reader], [], [], PATIENCE)[0]:
        seen |= set(os.read(reader, 65536).split())
    os.close(leave)
    os.waitpid(child, 0)
    before = watchers()
    watch.close()
    assert ended(before)
    for end in (reader, writer, stay):
        os.close(end)
    assert seen == {b"%d" % os.getpid(), b"%d" % child}


def test_a_watch_whose_thread_forks_has_one_thread_in_the_child() -> None:
    reader, writer = os.pipe()
    parent, forked = os.getpid(), list[int]()

    class Reporting:
        def __init__(self) -> None:
            self._polls = 0

        def poll(self) -> Sequence[Node]:
            if os.getpid() != parent:
                self._polls += 1
                os.write(writer, b"%d " % threading.get_ident())
                if self._polls > 20:
                    os._exit(0)
            return nodes("a b")

    def fork_once(_: object) -> None:
        if os.getpid() != parent:
            return  # the child applies the change again, because it cannot know that the parent applied it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # as in `fork`
            pid = os.fork()
        signal.alarm(0 if pid else int(PATIENCE))  # an alarm ends a child that hangs
        if pid:
            forked.append(pid)
            raise ClosedError("the parent's has done its part")

    before = watchers()
    Watch(Reporting(), fork_once, settings=EAGER, first=nodes("a"))
    assert ended(watchers() - before)
    os.waitpid(forked[0], 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        polls = pipe.read().split()
    assert len(polls) == 21
    assert len(set(polls)) == 1, "two threads follow in the child"


def test_a_closed_watch_stays_closed_in_a_child() -> None:
    watch = Watch(Listed(nodes("a")), ignore, settings=EAGER, first=nodes("a"))
    started = watchers()
    watch.close()
    assert ended(started)
    reader, writer = os.pipe()
    child = fork(lambda: os.write(writer, b"%d threads" % len(watchers())))
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"0 threads"
    os.close(reader)
    os.close(writer)


EXITING: Final = """
import atexit, logging, threading

def later():  # registered before the watches' own hook, so called after it
    asked = endless.asked
    threading.Event().wait(0.1)
    print(endless.asked - asked, "more polls")

atexit.register(later)

from metacache import Node, Settings
from metacache.discovery.watch import Watch

logging.basicConfig(level=logging.INFO)
hangs = threading.Event()

class Hanging:
    def poll(self):
        hangs.set()
        threading.Event().wait()

class Endless:
    asked = 0
    def poll(self):
        self.asked += 1
        return [Node("a"), Node("b")][: 1 + self.asked % 2]

endless = Endless()
eager = Settings(poll_interval=0.0001, change_interval=0.0)
Watch(Hanging(), print, settings=eager, first=[Node("a")])
Watch(endless, lambda nodes: None, settings=eager, first=[Node("a")])
Watch(Hanging(), print, settings=Settings(poll_interval=1e6), first=[Node("a")])
assert hangs.wait(10)
"""


def test_the_interpreter_exits_with_open_watches() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", EXITING], capture_output=True, text=True, timeout=30.0, check=False
    )
    assert done.returncode == 0
    assert done.stdout in ("0 more polls\n", "1 more polls\n"), "one may have been under way"
    strange = [
        line for line in done.stderr.splitlines() if not line.startswith("INFO:metacache.discovery:the nodes are")
    ]
    assert strange == []
