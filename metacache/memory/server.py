"""The embedded server: parses requests, executes them on its store, and returns replies. Bytes in, bytes out.

It speaks the meta commands of memcached 1.6.18 with the flags of later releases, and the admin lines. The classic data
commands (get, set and others) get ERROR. It opens no socket and parses no reply: the clients' own parser reads what it
returns, so one mistake cannot hide in both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, final

from metacache.copying import refuse_copy
from metacache.interrupts import is_own
from metacache.marks import override
from metacache.memory.admin import ADMIN_LINES
from metacache.memory.commands import Request, debug, refusal_of_store, run_ma, run_md, run_mg, run_ms
from metacache.memory.faults import Faults
from metacache.memory.flags import BAD_LINE, RequestFlags, parse_flags
from metacache.memory.keys import KEY_MAX, decode_key
from metacache.memory.numbers import safe_strtol
from metacache.memory.shortcuts import plain_gets, plain_sets
from metacache.memory.store import Store
from metacache.sessions import Ending, Step
from metacache.settings import check_whole
from metacache.transports.forking import forget_in_children

__all__ = ["DEFAULT_MEMORY", "MAX_ITEM_SIZE", "MemoryServer", "MemorySession"]

DEFAULT_MEMORY: Final = 64 * 1024 * 1024  # bytes, as memcached -m
MAX_ITEM_SIZE: Final = 1024 * 1024  # bytes, as memcached -I
LONGEST_LINE: Final = 2048  # bytes without a line end, after which the connection is closed
MAX_WORDS: Final = 23  # words of a line that memcached looks at
MAX_TOKENS: Final = 19  # words of a meta command, with command and key
MAX_BODY: Final = 2**31 - 3  # bytes

_CRLF: Final = b"\r\n"
# The opaques that the shortest path knows, with the line end. The clients send these.
_OPAQUES: Final = frozenset([b"%d\r\n" % number for number in range(2048)])
_ERROR: Final = b"ERROR\r\n"
_BAD_LINE: Final = BAD_LINE + _CRLF
_BAD_FLAG: Final = b"CLIENT_ERROR invalid or duplicate flag\r\n"


@final
class MemoryServer:
    """A memcached in this process. Threads and event loops may share it: a lock guards its items.

    Args:
        clock: returns the time in seconds since 1970. A clock of a test should begin at ``time.time()``: the client
            uses that clock to send a TTL beyond 30 days as the time of its end.
        name: the name in ``memory://name``; empty for a private server.
        memory_limit: bytes for all items. When they are used, the least recently used items are evicted.
        max_item_size: bytes of the largest item, with its key and about 60 bytes more. A larger one is refused, and the
            old value is deleted, as by a real server.
        max_value_size: a larger value (in bytes) is refused in the same way.

    ``faults`` is the script of the faults that requests meet. Raises InvalidArgumentError for wrong sizes.
    """

    __reduce_ex__ = refuse_copy
    __slots__ = (
        "__weakref__",
        "clock",
        "faults",
        "hits",
        "is_quick",
        "items",
        "lock",
        "max_value_size",
        "name",
        "quick_hits",
        "store",
    )

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        name: str = "",
        memory_limit: int = DEFAULT_MEMORY,
        max_item_size: int = MAX_ITEM_SIZE,
        max_value_size: int = MAX_BODY,
    ) -> None:
        check_whole("max_item_size", max_item_size, 1024)
        check_whole("memory_limit", memory_limit, max_item_size)
        check_whole("max_value_size", max_value_size, 0)
        self.clock = clock
        self.name = name
        self.max_value_size = max_value_size
        self.store = Store(memory_limit=memory_limit, max_item_size=max_item_size, started=clock())
        # Re-entrant: a signal handler that uses a client would wait forever for the thread that it interrupted.
        self.lock = threading.RLock()
        self.faults = Faults(self.choose_path)
        self.is_quick = True
        self.items = self.store.items
        self.hits = self.store.hits
        self.quick_hits = 0  # gets on the shortest path, which admin lines add to the counts
        forget_in_children(self)

    @override
    def __repr__(self) -> str:
        return f"<MemoryServer {self.name!r}: {len(self.store.items)} items, {self.store.used} bytes>"

    def open(self) -> MemorySession:
        """Return a new session, which is one connection to this server."""
        return MemorySession(self)

    def answer(self, data: bytes) -> bytes:
        """Return the replies to the complete requests in *data*, in a session of their own."""
        session = self.open()
        replied = session.receive(data)
        session.close()
        return replied if isinstance(replied, bytes) else b"".join(step for step in replied if isinstance(step, bytes))

    def restart(self) -> None:
        """Remove all items, and count CAS numbers from the beginning, as a restart of memcached does."""
        with self.lock:
            self.store.clear()

    def choose_path(self) -> None:
        """Note whether a get may take the shortest path: no fault is armed and no delayed flush is due later."""
        self.is_quick = not self.faults.are_armed and not self.store.has_delayed_flush

    def reset_after_fork(self) -> None:
        """In a forked child: replace the lock, which a thread of the parent may hold. The child keeps the items."""
        self.lock = threading.RLock()


@final
class MemorySession:
    """One connection to a `MemoryServer`. One thread at a time may use it."""

    __slots__ = ("_held", "_is_closed", "_is_faulty", "_is_midway", "_needed", "_server", "_swallow")

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._held = bytearray()
        self._needed = 0  # bytes to hold before parsing goes on
        self._swallow = 0  # bytes of a refused data block that have not arrived
        self._is_midway = False  # some of the above is not zero, or the session is closed
        self._is_closed = False
        self._is_faulty = False  # a request of the last `receive` met a fault
        counts = server.store.counts
        counts.curr_connections += 1
        counts.total_connections += 1

    @override
    def __repr__(self) -> str:
        return f"<MemorySession of {self._server!r}{': closed' if self._is_closed else ''}>"

    def close(self) -> None:
        """End the session. Idempotent."""
        if not self._is_closed:
            self._server.store.counts.curr_connections -= 1
        self._is_closed = self._is_midway = True
        self._held.clear()

    def receive(self, data: bytes | memoryview, /) -> bytes | list[Step]:
        """Execute the complete requests in *data* and in earlier bytes; return the replies, or the steps of a fault."""
        server = self._server
        if server.is_quick and not self._is_midway and type(data) is bytes:
            # The shortest path: one mg for which the store has kept the reply. It needs no lock: one call returns the
            # whole reply, and a writer removes the reply before it changes the item.
            head, _, opaque = data.partition(b" O")
            hit = server.hits.get(head)
            if hit is not None and opaque in _OPAQUES:
                header, value, item = hit
                now = server.clock()
                expires = item.expires
                if expires is None or expires > now:
                    try:
                        server.items.move_to_end(item.key)
                    except KeyError as error:  # another thread has just removed the item
                        if not is_own(error):
                            raise
                    item.used = now
                    item.fetched = True
                    server.quick_hits += 1  # exact: Python does not switch threads within this statement
                    return b"".join((header, opaque, value, b"\r\n"))
        with server.lock:
            return self._plain(data) or self._receive(data)

    def _plain(self, data: bytes | memoryview) -> bytes | None:
        """Return the replies to plain gets or plain sets; None for other requests."""
        server = self._server
        if not server.is_quick or self._is_midway:
            return None
        command = bytes(data[:3])
        if command == b"mg ":
            return plain_gets(server.store, bytes(data), server.clock())
        if command == b"ms ":
            return plain_sets(server.store, bytes(data), server.clock(), server.max_value_size)
        return None

    # --- lines and data blocks ---------------------------------------------------------------------------------------

    def _receive(self, data: bytes | memoryview) -> bytes | list[Step]:
        server, store = self._server, self._server.store
        steps: list[Step] = []
        self._is_faulty = False
        if not self._is_closed:
            self._held += data
            if store.has_delayed_flush:
                store.flush_if_due(server.clock())
                server.choose_path()
            while len(self._held) >= self._needed and self._advance(steps):
                pass
        self._is_midway = bool(self._held or self._swallow or self._is_closed)
        replies = [step for step in steps if isinstance(step, bytes)]
        return steps if self._is_faulty or len(replies) < len(steps) else b"".join(replies)

    def _advance(self, steps: list[Step]) -> bool:
        """Parse and execute one request; return False if it has not arrived completely, or the session is closed."""
        held = self._held
        if self._is_closed or not held:
            return False
        self._needed = 1
        if self._swallow:
            swallowed = min(self._swallow, len(held))
            del held[:swallowed]
            self._swallow -= swallowed
            return True
        end = held.find(b"\n")
        if end < 0:
            self._needed = len(held) + 1
            if len(held) > LONGEST_LINE:
                self._end(Ending.CLOSE, steps)
            return False
        # As memcached does: the line ends at the first NUL, and a CR alone is a word.
        line = bytes(held[: end - 1 if end > 1 and held[end - 1] == 13 else end]).partition(b"\0")[0]
        words = [word for word in line.split(b" ") if word][:MAX_WORDS]
        if words and words[0] == b"ms":
            return self._store(words, end + 1, steps)
        del held[: end + 1]
        if (words and words[0] == b"quit") or (words and words[-1].startswith(b"HTTP/") and words[0] not in _LINES):
            self._end(Ending.CLOSE, steps)
        else:
            self._reply(words[0] if words else b"", partial(self._execute, words), steps)
        return True

    def _reply(self, command: bytes, execute: Callable[[], bytes], steps: list[Step]) -> None:
        """Append the reply of *execute* to *steps*, or the steps of the fault that this request meets."""
        faults = self._server.faults
        fault = faults.next_for(command) if faults.are_armed else None
        if fault is None:
            steps.append(execute())
            return
        self._is_faulty = True
        steps.extend(fault.steps(execute() if fault.executes else b""))
        if steps and isinstance(steps[-1], Ending):
            self.close()

    def _end(self, ending: Ending, steps: list[Step]) -> None:
        steps.append(ending)
        self.close()

    def _execute(self, words: list[bytes]) -> bytes:
        """Return the reply to a request without a data block."""
        if not words or len(words[0]) < 2:
            return _ERROR
        store, now = self._server.store, self._server.clock()
        admin = ADMIN_LINES.get(words[0])
        if admin is not None:
            store.counts.get_hits += self._server.quick_hits
            self._server.quick_hits = 0
            reply = admin(store, words[1:], now)
            self._server.choose_path()
            return reply
        if words[0] == b"mn":
            return b"MN\r\n"
        if words[0] == b"me":
            return self._debug(words, now)
        command = _COMMANDS.get(words[0])
        if command is None or len(words) < 2:
            return _ERROR
        if len(words[1]) > KEY_MAX:
            return _BAD_LINE
        if len(words) > MAX_TOKENS:
            return _TOO_MANY[words[0]]
        flags = parse_flags(tuple(words[2:]))
        key, error = _key_of(words[1], flags)
        if error is not None:
            return error + _CRLF if words[0] == b"mg" else _BAD_FLAG
        return command(Request(store, now, key, flags))

    def _debug(self, words: list[bytes], now: float) -> bytes:
        if len(words) < 2 or len(words[1]) > KEY_MAX:
            return _BAD_LINE
        key = decode_key(words[1]) if words[2:3] == [b"b"] else words[1]
        return debug(self._server.store, key, now) if key else _BAD_LINE

    # --- ms ----------------------------------------------------------------------------------------------------------

    def _store(self, words: list[bytes], line_size: int, steps: list[Step]) -> bool:
        """Execute an ``ms``; return False if its data block has not arrived completely."""
        size = _size_of(words)
        if size is None:  # its data block is parsed as requests
            del self._held[:line_size]
            self._reply(b"ms", lambda: _ERROR if len(words) < 2 else _BAD_LINE, steps)
            return True
        flags = parse_flags(tuple(words[3:]))
        key, error = _key_of(words[1], flags)
        server = self._server
        request = Request(server.store, server.clock(), key, flags)
        error = error or refusal_of_store(request, size, server.max_value_size)
        if error is not None:
            del self._held[:line_size]
            self._swallow = size + 2
            self._reply(b"ms", lambda: error + _CRLF, steps)
            return True
        end = line_size + size + 2
        if len(self._held) < end:
            self._needed = end
            return False
        body = bytes(self._held[line_size:end])
        del self._held[:end]
        self._reply(b"ms", partial(_run_store, request, body), steps)
        return True


def _run_store(request: Request, body: bytes) -> bytes:
    return run_ms(request, body[:-2]) if body.endswith(_CRLF) else b"CLIENT_ERROR bad data chunk\r\n"


def _size_of(words: list[bytes]) -> int | None:
    """Return the size of the data block of an ``ms``; None if memcached does not read the data block."""
    if len(words) < 3 or len(words[1]) > KEY_MAX or len(words) > MAX_TOKENS:
        return None
    size = safe_strtol(words[2])
    return size if size is not None and 0 <= size <= MAX_BODY else None


def _key_of(text: bytes, flags: RequestFlags) -> tuple[bytes, bytes | None]:
    """Return the key of a request, decoded if it is base64, and the error line if key or flags are wrong."""
    if not flags.has(b"b"):
        return text, flags.error
    key = decode_key(text)
    return key, flags.error if key else flags.error_after_key


_COMMANDS: Final = {b"mg": run_mg, b"md": run_md, b"ma": run_ma}
_LINES: Final = frozenset((*_COMMANDS, *ADMIN_LINES, b"mn", b"me"))
_TOO_MANY: Final = {
    b"mg": b"CLIENT_ERROR options flags are too long\r\n",
    b"md": b"CLIENT_ERROR options flags too long\r\n",
    b"ma": b"CLIENT_ERROR options flags too long\r\n",
}
