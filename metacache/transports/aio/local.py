"""`LocalTransport`: a session with a server in this process, in the shape of an asyncio transport.

The reply to a write arrives in the next event loop iteration, as from a network, and the steps of a fault one after the
other. It opens no socket.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from typing import TypeVar, final

from metacache.marks import override
from metacache.sessions import Ending, LocalServer, Pause, Session, Step

__all__ = ["LocalTransport", "open_local"]

L = TypeVar("L", bound=asyncio.Protocol)


def open_local(server: LocalServer, made: L) -> L:
    """Connect the protocol *made* to *server*, and return it."""
    made.connection_made(LocalTransport(server.open(), made, asyncio.get_running_loop()))
    return made


@final
class LocalTransport(asyncio.Transport):
    """Carries bytes between a protocol of one event loop and a session."""

    def __init__(self, session: Session, protocol: asyncio.Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._session = session
        self._protocol: asyncio.Protocol | asyncio.BufferedProtocol = protocol
        self._loop = loop
        self._steps: deque[Step] = deque()
        self._is_scheduled = False
        self._is_closing = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Let the server receive *data*."""
        if self._is_closing:
            return
        replied = self._session.receive(bytes(data) if isinstance(data, bytearray) else data)
        if isinstance(replied, list):
            self._steps.extend(replied)
        elif replied:
            self._steps.append(replied)
        self._schedule()

    def _schedule(self) -> None:
        if self._steps and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        """Carry out the next step."""
        self._is_scheduled = False
        if self._is_closing or not self._steps:
            return
        step = self._steps.popleft()
        if isinstance(step, bytes):
            self._deliver(step)
        elif isinstance(step, Pause):
            self._is_scheduled = True
            self._loop.call_later(step.seconds, self._advance)
        elif step is not Ending.SILENCE:
            reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            self._lose(reset if step is Ending.RESET else None)

    def _deliver(self, data: bytes) -> None:
        try:
            protocol = self._protocol
            if isinstance(protocol, asyncio.Protocol):
                protocol.data_received(data)
            else:
                self._pass_on(memoryview(data))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # as the transport of a socket does: a signal handler's exception, for one
            self._lose(error if isinstance(error, Exception) else None)
            return
        self._schedule()

    def _pass_on(self, data: memoryview) -> None:
        """Pass *data* to the protocol, which may replace itself by a buffered one, as `asyncio.Transport` allows."""
        while data and not self._is_closing:
            protocol = self._protocol
            if isinstance(protocol, asyncio.Protocol):
                protocol.data_received(bytes(data))
                return
            room = memoryview(protocol.get_buffer(len(data)))
            count = min(len(room), len(data))
            room[:count] = data[:count]
            protocol.buffer_updated(count)
            data = data[count:]

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass what arrives from now on to *protocol*."""
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        self._protocol = protocol

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def _lose(self, error: Exception | None) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._session.close()
        self._steps.clear()
        self._loop.call_soon(self._protocol.connection_lost, error)

    @override
    def abort(self) -> None:
        """Close. Idempotent."""
        self._lose(None)

    @override
    def close(self) -> None:
        """Close. Idempotent."""
        self._lose(None)

    @override
    def is_closing(self) -> bool:
        """Return whether it is closed or closing."""
        return self._is_closing

    @override
    def get_write_buffer_size(self) -> int:
        """Return 0: the server has received every byte."""
        return 0

    @override
    def pause_reading(self) -> None:
        """Do nothing: a link pauses its transport only before it closes it."""
