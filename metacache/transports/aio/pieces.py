"""Bytes in portions: small frames joined to packs, a large data block cut into pieces. Knows no socket and no loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar, final

__all__ = ["WriteBuffer", "packs"]

P = TypeVar("P")

CRLF: Final = b"\r\n"

# A transport of asyncio that is given hundreds of megabytes copies them, and holds up the loop for seconds. So a large
# data block goes out as the socket takes it: bytes of one piece, and of those written in one event-loop turn.
PIECE: Final = 262_144
MAX_TURN: Final = 1_048_576

_NOTHING: Final = memoryview(b"")


@final
class WriteBuffer(Generic[P]):
    """The rest of a large data block. ``place`` is the request that it belongs to, None when nothing is left."""

    __slots__ = ("_rest", "place")

    def __init__(self) -> None:
        self._rest = _NOTHING
        self.place: P | None = None

    def __len__(self) -> int:
        return len(self._rest)

    def fill(self, body: bytes, place: P) -> None:
        """Take *body*, the data block of *place*."""
        self._rest, self.place = memoryview(body), place

    def pour(self, write: Callable[[bytes | memoryview], object], may_go_on: Callable[[], bool]) -> bool:
        """Write pieces as long as that is allowed; return True when the turn is over and more may be written."""
        left = MAX_TURN
        while self.place is not None and may_go_on():
            if left <= 0:
                return True
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            left -= PIECE
            # A write over TLS ends where a command ends: the server sleeps on bytes of the next one that it decrypted.
            write(piece if self._rest else b"".join((piece, CRLF)))
            if not self._rest:
                self.place = None
        return False

    def drop(self) -> None:
        """Forget the rest, which may be hundreds of megabytes."""
        self._rest = _NOTHING


def packs(frames: list[bytes], limit: int) -> Iterator[bytes]:
    """Yield *frames* joined to packs of *limit* bytes at most, or of a single larger one."""
    pack: list[bytes] = []
    room = limit
    for frame in frames:
        if len(frame) > room and pack:
            yield b"".join(pack)
            pack, room = [], limit
        pack.append(frame)
        room -= len(frame)
    yield b"".join(pack)
