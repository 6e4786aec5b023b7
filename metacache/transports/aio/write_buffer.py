"""Bytes in portions: small frames joined into packs, and a large data block cut into pieces. No socket, no loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar, final

__all__ = ["WriteBuffer", "packs"]

P = TypeVar("P")

CRLF: Final = b"\r\n"

# An asyncio transport copies what it cannot send. Hundreds of megabytes would block the loop for seconds. So a large
# data block is written in pieces of PIECE bytes as the socket takes them, MAX_TURN bytes per event loop iteration.
PIECE: Final = 262_144
MAX_TURN: Final = 1_048_576

_NOTHING: Final = memoryview(b"")


@final
class WriteBuffer(Generic[P]):
    """The unwritten rest of a large data block.

    ``pending`` is the pending reply of its request; None when the block is written.
    """

    __slots__ = ("_rest", "pending")

    def __init__(self) -> None:
        self._rest = _NOTHING
        self.pending: P | None = None

    def __len__(self) -> int:
        return len(self._rest)

    def fill(self, body: bytes, pending: P) -> None:
        """Take *body*, the data block of the request of *pending*."""
        self._rest, self.pending = memoryview(body), pending

    def write_pieces(self, write: Callable[[bytes | memoryview], object], may_write: Callable[[], bool]) -> bool:
        """Write pieces while *may_write* allows it; return True if only the limit of one iteration stopped it."""
        left = MAX_TURN
        while self.pending is not None and may_write():
            if left <= 0:
                return True
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            left -= PIECE
            # The CRLF goes with the last piece. Over TLS a write must end where a command ends: the server does not
            # look at the bytes of a further command that it has decrypted already.
            write(piece if self._rest else b"".join((piece, CRLF)))
            if not self._rest:
                self.clear()
        return False

    def clear(self) -> None:
        """Release the block, which may be hundreds of megabytes: even an empty rest refers to all of it."""
        self._rest, self.pending = _NOTHING, None


def packs(frames: list[bytes], limit: int) -> Iterator[bytes]:
    """Yield *frames* joined into packs of at most *limit* bytes; a single larger frame is a pack of its own."""
    pack: list[bytes] = []
    room = limit
    for frame in frames:
        if len(frame) > room and pack:
            yield b"".join(pack)
            pack, room = [], limit
        pack.append(frame)
        room -= len(frame)
    yield b"".join(pack)
