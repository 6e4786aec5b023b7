"""`LocalSocket`: a session with a server in this process, in the shape of a connected socket.

A reply is there as soon as its request is sent, so it waits only for the steps of a fault. It opens no socket.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Final, final

from metacache.sessions import Ending, Pause, Session, Step

__all__ = ["LocalSocket"]

# A driver of a batch cannot wait for a descriptor here. So a read that finds nothing sleeps for this many seconds.
POLL: Final = 0.001


@final
class LocalSocket:
    """The methods of a socket that a stream uses. One thread at a time may use it."""

    __slots__ = ("_due", "_receive", "_reply", "_session", "_steps", "_timeout")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._receive = session.receive
        self._reply = b""  # what the server has sent and no `recv` has returned, before the steps
        self._steps: list[Step] = []
        self._timeout = 0.0
        self._due: float | None = None  # when the pause at the head of the steps ends

    def fileno(self) -> int:
        """Return -1: there is no descriptor to wait for."""
        return -1

    def settimeout(self, seconds: float) -> None:
        """Wait at most *seconds* in `recv`."""
        self._timeout = seconds

    def poll(self, _: int, /) -> bytes | list[Step]:
        """Return what has arrived without a request, or the end of the connection; empty for a usable connection."""
        return self._reply or self._steps

    def send(self, data: bytes | memoryview, /) -> int:
        """Let the server receive *data*; return its length."""
        replied = self._receive(data)
        if type(replied) is bytes and not self._reply and not self._steps:
            self._reply = replied
        else:
            self._steps += replied if isinstance(replied, list) else [replied] if replied else []
        return len(data)

    def recv(self, _: int, /) -> bytes:
        """Return the next bytes of the server, ``b""`` at the end. Raises OSError as a socket does."""
        reply = self._reply
        if reply:
            self._reply = b""
            return reply
        return self._wait()

    def recv_into(self, room: memoryview, /) -> int:
        """Copy the next bytes of the server into *room*; return their number, 0 at the end. Raises as `recv`."""
        data = self.recv(len(room))
        count = min(len(data), len(room))
        room[:count] = data[:count]
        if count < len(data):
            self._reply = data[count:]
        return count

    def _wait(self) -> bytes:
        while True:
            step = self._steps[0] if self._steps else Ending.SILENCE
            if isinstance(step, bytes):
                del self._steps[0]
                return step
            if step is Ending.CLOSE:
                return b""
            if step is Ending.RESET:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            if isinstance(step, Pause):
                self._sleep_until(self._end_of(step))
                del self._steps[0]
                self._due = None
            else:
                self._sleep_until(None)

    def _end_of(self, pause: Pause) -> float:
        if self._due is None:
            self._due = time.monotonic() + pause.seconds
        return self._due

    def _sleep_until(self, due: float | None) -> None:
        """Sleep until *due*. Raises TimeoutError after the timeout, and BlockingIOError if there is none."""
        left = None if due is None else due - time.monotonic()
        longest = self._timeout or POLL
        if left is not None and left <= longest and self._timeout:
            time.sleep(max(left, 0.0))
            return
        if left is not None and left <= 0:
            return
        time.sleep(longest if left is None else min(left, longest))
        if self._timeout:
            raise TimeoutError("timed out")
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def close(self) -> None:
        """End the session. Idempotent."""
        self._session.close()
