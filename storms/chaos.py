"""`Chaos`: a thread that kills, freezes and restarts servers, changes the node set and forks, at random times.

It ends only processes that it started itself: the servers, and its own children.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, final

from metacache import Node
from metacache.testing import Memcached

__all__ = ["Chaos", "forked"]

PAUSE: Final = (0.05, 0.6)  # seconds between two faults
FROZEN: Final = (0.05, 1.2)  # seconds; the longest is above the timeout of the clients
DEAD: Final = (0.0, 0.5)  # seconds
CHILD: Final = 30.0  # seconds until a child that hangs is killed


@final
class Chaos:
    """Makes faults until `stop`.

    Args:
        servers: may be killed and frozen.
        chance: decides which fault comes next, where and for how long.
        set_nodes: changes the node set of the clients.
        child: the work of a forked child; it returns None or raises.
        rest: called between two faults; it may wait.
    """

    def __init__(
        self,
        servers: Sequence[Memcached],
        chance: random.Random,
        set_nodes: Callable[[list[Node]], object],
        child: Callable[[], object],
        rest: Callable[[], object],
    ) -> None:
        self._servers = list(servers)
        self._chance = chance
        self._set_nodes = set_nodes
        self._child = child
        self._rest = rest
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the faults; when it returns, all servers run and all are in the node set."""
        self._over.set()
        self._thread.join()
        self._set_nodes([server.node for server in self._servers])

    @property
    def summary(self) -> str:
        """What it did, as words."""
        return ", ".join(f"{count} x {fault}" for fault, count in sorted(self.done.items()))

    def _run(self) -> None:
        faults = (self._freeze, self._freeze, self._kill, self._leave, self._reweigh, self._fork)
        while not self._over.wait(self._chance.uniform(*PAUSE)):
            self._rest()
            fault = self._chance.choice(faults)
            try:
                fault()
                self.done[fault.__name__.strip("_")] += 1
            except Exception as error:  # the run ends with it
                self.faults.append(f"chaos: {error!r}")

    def _freeze(self) -> None:
        server = self._chance.choice(self._servers)
        server.freeze()
        try:
            self._over.wait(self._chance.uniform(*FROZEN))
        finally:
            server.thaw()

    def _kill(self) -> None:
        server = self._chance.choice(self._servers)
        server.kill()
        self._over.wait(self._chance.uniform(*DEAD))
        server.restart()

    def _leave(self) -> None:
        left = self._chance.sample(self._servers, len(self._servers) - 1)
        self._set_nodes([server.node for server in left])
        self._over.wait(self._chance.uniform(*DEAD))
        self._set_nodes([server.node for server in self._servers])

    def _reweigh(self) -> None:
        weights = [self._chance.choice((0.5, 1.0, 2.0)) for _ in self._servers]
        nodes = zip(self._servers, weights, strict=True)
        self._set_nodes([Node(server.node.address, weight=weight) for server, weight in nodes])

    def _fork(self) -> None:
        problem = forked(self._child)
        if problem:
            self.faults.append(problem)


def forked(work: Callable[[], object]) -> str:
    """Do *work* in a forked child, and wait for it; return what went wrong, or an empty text."""
    pid = os.fork()
    if not pid:
        code = 1
        faulthandler.register(signal.SIGUSR1)  # a child that hangs shows where
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()  # a child must not continue the storm
        finally:
            os._exit(code)
    end = time.monotonic() + CHILD
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return f"a forked child exited with {code}" if code else ""
        time.sleep(0.005)
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1.0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return f"a forked child did not end within {CHILD} s"
