"""`Block`: a large data block while it arrives. Its owner receives straight into it, so its bytes are copied once.

This module opens no socket.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final, Protocol, final

from metacache.errors import ProtocolError
from metacache.interrupts import is_own

__all__ = ["LARGE_BLOCK", "Block", "DroppedBlock", "ReceivedBlock"]

LARGE_BLOCK: Final = 16384  # bytes of a data block that gets a buffer of its own unless it has arrived completely
SCRATCH: Final = 65536  # bytes that are received at a time into a block that is dropped


class Block(Protocol):
    """A data block of known size that has not arrived completely."""

    @property
    def left(self) -> int:
        """The number of bytes that are missing, those that close the block included."""
        ...

    @property
    def room(self) -> memoryview:
        """Where to receive the next bytes. It is not empty before the block is complete."""
        ...

    def advance(self, count: int, /) -> None:
        """Count the next *count* bytes, which were received into `room`, as arrived."""
        ...

    def end(self, closing: bytes, /) -> bytes | None:
        """Return the value of the complete block; None if it does not end with *closing*. Call it once."""
        ...


@final
class _Buffer(BytesIO):
    """A BytesIO that is never closed.

    Python closes a BytesIO before it frees it. The garbage collector does so before it frees the views of it, which
    raises BufferError, and Python 3.13 and later print that.
    """

    __slots__ = ()

    # A C function that does nothing. Python drops what `close` raises at this time, so a signal's exception in a method
    # written in Python would be lost.
    close = [].clear  # pyright: ignore[reportAssignmentType]  # it is called without self


@final
class ReceivedBlock:
    """A block that keeps its value.

    Args:
        size: the bytes of the value and of what closes the block.
        start: the bytes of it that have arrived.

    Raises ProtocolError if there is not enough memory.
    """

    __slots__ = ("_buffer", "_last_room", "_room", "_view", "left")

    def __init__(self, size: int, start: memoryview) -> None:
        # A BytesIO takes over a `bytes` that nothing else refers to, and returns it at the end without a copy. The
        # system gives zeroed memory page by page when bytes arrive, so the announced size alone costs no memory.
        try:
            self._buffer = _Buffer(bytes(size))
        except MemoryError as error:
            raise ProtocolError(
                f"the server announces {size} bytes, and this process has no memory for them"
            ) from error
        self._view = self._buffer.getbuffer()
        self._view[: len(start)] = start
        self.left = size - len(start)
        self._room = self._last_room = self._view[len(start) :]

    @property
    def room(self) -> memoryview:
        """See `Block`."""
        return self._room

    def advance(self, count: int, /) -> None:
        """See `Block`."""
        self.left -= count
        self._last_room, self._room = self._room, self._view[len(self._view) - self.left :]

    def end(self, closing: bytes, /) -> bytes | None:
        """See `Block`."""
        size = len(self._view) - len(closing)
        if bytes(self._view[size:]) != closing:
            return None
        self._room.release()
        self._view.release()
        try:
            self._last_room.release()  # asyncio still refers to it
            self._buffer.truncate(size)
        except BufferError as error:  # uvloop still uses it
            if not is_own(error):
                raise
            return self._buffer.getvalue()[:size]
        return self._buffer.getvalue()


@final
class DroppedBlock:
    """The rest of a block that is dropped: *left* bytes, and more than close it. Its value is empty."""

    __slots__ = ("_scratch", "_tail", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self._scratch = memoryview(bytearray(min(left, SCRATCH)))
        self._tail = b""

    @property
    def room(self) -> memoryview:
        """See `Block`."""
        return self._scratch[: self.left]

    def advance(self, count: int, /) -> None:
        """See `Block`."""
        self.left -= count
        self._tail = (self._tail + bytes(self._scratch[:count][-16:]))[-16:]

    def end(self, closing: bytes, /) -> bytes | None:
        """See `Block`."""
        return b"" if self._tail.endswith(closing) else None
