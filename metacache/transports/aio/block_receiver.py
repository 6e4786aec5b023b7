"""`BlockReceiver`: the protocol of a link's transport while large data blocks arrive. It parses nothing.

The transport receives straight into the buffer of a block. Between two blocks it receives only a few bytes, because the
next reply may have a large block too, and bytes of it that arrive with its header line are copied once more.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, final

from metacache.marks import override

__all__ = ["BlockOwner", "BlockReceiver"]

BETWEEN_BLOCKS: Final = 1024  # bytes; more than a usual header line


class BlockOwner(Protocol):
    """The methods of a link that its receiver calls. The last three are those of an asyncio protocol."""

    def next_room(self) -> memoryview | None:
        """Return where to receive the next bytes of a large data block; None if no such block is being received."""
        ...

    def block_received(self, count: int, /) -> None:
        """Parse *count* bytes that were received into `next_room`."""
        ...

    def between_blocks_received(self, data: bytes, /) -> None:
        """Parse *data*, and replace the receiver unless a large data block begins in it."""
        ...

    def pause_writing(self) -> None:
        """Stop writing."""
        ...

    def resume_writing(self) -> None:
        """Continue to write."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """Report that the socket was closed."""
        ...


@final
class BlockReceiver(asyncio.BufferedProtocol):
    """Passes what the transport reports to *link*, and lets the transport receive into the link's data blocks."""

    __slots__ = ("_between", "_is_between", "_link")

    def __init__(self, link: BlockOwner) -> None:
        self._link = link
        self._between = memoryview(bytearray(BETWEEN_BLOCKS))
        self._is_between = False

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to receive the next bytes."""
        room = self._link.next_room()
        self._is_between = room is None
        return self._between if room is None else room

    @override
    def buffer_updated(self, nbytes: int) -> None:
        """Pass the received bytes to the link."""
        if self._is_between:
            self._link.between_blocks_received(bytes(self._between[:nbytes]))
        else:
            self._link.block_received(nbytes)

    @override
    def pause_writing(self) -> None:
        """Pass it to the link."""
        self._link.pause_writing()

    @override
    def resume_writing(self) -> None:
        """Pass it to the link."""
        self._link.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it to the link."""
        self._link.connection_lost(exc)
