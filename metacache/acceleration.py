"""The compiled primitives of the optional distribution metacache-speed, or None in place of each if it is not used.

A primitive does the usual case of one function of this package. Everything else it leaves to that function, so only
Python code decides what a reply means. The environment variable METACACHE_PURE=1 turns all primitives off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from metacache.logs import logger_of

if TYPE_CHECKING:
    from metacache_speed import Builder, Exchange, Owners

__all__ = [
    "accelerated",
    "are_same",
    "count_lines",
    "encode_items",
    "encode_keys",
    "exchange_parts",
    "find_pending_reply",
    "find_waiter",
    "found_values",
    "frame_requests",
    "give_answers",
    "join_window",
    "make_builder",
    "make_exchange",
    "make_owners",
    "place_items",
    "queue_request",
    "read_answers",
    "read_window",
    "take_items",
    "total_size",
    "wake_tasks",
]

C = TypeVar("C")
Op = TypeVar("Op")
K = TypeVar("K")
# Arguments that are too many for a list of their types, or generic, are `...`.
AreSame: TypeAlias = Callable[[object, object, dict[type, Sequence[object]]], bool]
CountLines: TypeAlias = Callable[[Sequence[bytes], bytes], int]
EncodeItems: TypeAlias = Callable[..., tuple[list[Any], list[bytes], list[bytes], list[bytes]] | None]  # Any: keys
EncodeKeys: TypeAlias = Callable[[Sequence[object], bytes, bytes, bytes], tuple[list[bytes], list[bytes]] | None]
ExchangeParts: TypeAlias = Callable[..., list[tuple[int, bytes | None, int] | None] | None]
FoundValues: TypeAlias = Callable[..., dict[Any, bytes] | None]  # Any: keys
JoinWindow: TypeAlias = Callable[[Sequence[bytes], Sequence[bytes] | None, int, int, bytes, bytes], bytes | None]
PlaceItems: TypeAlias = Callable[..., bool]
ReadWindow: TypeAlias = Callable[..., int]
TotalSize: TypeAlias = Callable[[Sequence[bytes], int, int], int]
TakeItems: TypeAlias = Callable[..., list[Any] | None]  # Any: items of any type

# The number of the interface. A metacache-speed with another number has other primitives and is not used.
API: Final = 4


def _is_usable() -> bool:
    """Return whether metacache-speed is installed and fits. Log a warning if it is installed and does not fit."""
    # A free-threaded Python cannot load it: the primitives rely on the GIL.
    if os.environ.get("METACACHE_PURE", "") not in ("", "0") or "t" in sys.abiflags:
        return False
    try:
        import metacache_speed
    except ModuleNotFoundError:
        return False
    except ImportError as error:
        return _unusable(f"cannot be loaded ({error})")
    found: object = getattr(metacache_speed, "API", None)  # of any version
    return found == API or _unusable(f"has interface {found}, and metacache needs {API}")


def _unusable(why: str) -> bool:
    logger_of("metacache.acceleration").warning(
        "metacache-speed %s; pure Python is used; install the versions of one release", why
    )
    return False


accelerated: Final[bool] = _is_usable()
"""True if compiled primitives are used."""


def _find(name: str) -> Any:  # Any: a function of its own type, or None
    if not accelerated:
        return None
    import metacache_speed

    return getattr(metacache_speed, name)


# --- batches ---------------------------------------------------------------------------------------------------------

encode_keys: Final[EncodeKeys | None] = _find("encode_keys")
"""The usual case of `Batches._of_keys`: distinct keys of one type, of ASCII characters above the space.

Takes keys, prefix, start and end of a request line. Returns the routing keys and the heads; None if a key is not plain
or if two are equal.
"""

encode_items: Final[EncodeItems | None] = _find("encode_items")
"""The usual case of `Batches.set_many`, as `encode_keys`.

Takes a dict, the list of its encoded values (None: each value is its own), prefix, start, a list of the ends of request
lines by size, a function that makes an end and the largest size. It adds to that list. Returns keys, routing keys,
heads and encoded values; None if a key or an encoded value is not plain. Raises what the function raises.
"""

join_window: Final[JoinWindow | None] = _find("join_window")
"""The usual case of `joined` in `connection`: takes lists or tuples of heads and of bodies, start, stop, the first and
the last mark. Returns the bytes of the window; None if something has another type.
"""

take_items: Final[TakeItems | None] = _find("take_items")
"""The usual case of `take` in `parts`: takes a list or tuple of items, and of indexes; None if an index is wrong."""

place_items: Final[PlaceItems | None] = _find("place_items")
"""A part of `fill_part` in `parts`: takes a list, indexes, and the items to put there. False: nothing was changed."""

total_size: Final[TotalSize | None] = _find("total_size")
"""The usual case of `_total` in `batch_windows`: takes a list or tuple of bytes, start and stop. -1: it is not one."""

exchange_parts: Final[ExchangeParts | None] = _find("exchange_parts")
"""`exchange_windows` in `parallel`: sends a window on each of several sockets, and reads plain replies.

Takes lists of an `Exchange`, of the indexes of requests and of two opaques for each part; heads, bodies, the most
requests and the largest window; the deadline; largest value, codes of whole replies, whether hits have values,
`known_sizes` and `value_header`; and the lists of all headers and values, which it fills. Returns None for each part
that is finished, or how many bytes were sent, what was received (None: nothing) and the errno. A signal ends the wait.
None: nothing was sent.
"""

found_values: Final[FoundValues | None] = _find("found_values")
"""The usual case of `Reader.values`: takes keys, header lines, values and the set of known lines.

Returns the values that are not None, by key; None if the line of one is not known.
"""

count_lines: Final[CountLines | None] = _find("count_lines")
"""``list.count`` of bytes, for a list in which equal ones are often one object. -1 if an element is not bytes."""

read_window: Final[ReadWindow | None] = _find("read_window")
"""The usual case of `Window._split`: reads the replies up to the first one that is not plain.

Takes data, position, largest value, number of replies, the first and the last mark, the codes of whole replies, whether
hits have values, `known_sizes`, `value_header`, and the lists of headers and values, which it extends. Returns the
position after the last reply that it read.
"""


# --- serializers -----------------------------------------------------------------------------------------------------

are_same: Final[AreSame | None] = _find("are_same")
"""The usual case of `Comparer.check`: takes a value, the value decoded for it, and a dict of classes.

A class has a tuple with the names of its fields, or a list. With a list, ``==`` compares two values if certain
attributes are one object in both: each tuple of the list has the name of an attribute, and the objects that it may be.

True: the same, and no part has another class. False: `Comparer.check` must decide.
"""

# --- asyncio ---------------------------------------------------------------------------------------------------------

read_answers: Final[Callable[..., tuple[list[Any], int]] | None] = _find("read_answers")  # Any: an Answer
"""The usual case of `ProtocolConnection.answers`: reads the replies up to the first one that is not plain.

Takes data, the queue of expected replies, `known_headers` and `value_header`. Removes from the queue what it read.
Returns the answers, and the position after them.
"""

frame_requests: Final[Callable[..., tuple[bytes, int]] | None] = _find("frame_requests")
"""The usual case of `Link._write_each`: moves plain requests from one list to another; returns their bytes and number.

Takes the two lists, the queue of expected replies, the iterator of opaques, the numbers of requests and bytes at which
it stops, and CRLF.
"""

give_answers: Final[Callable[..., list[Any]] | None] = _find("give_answers")  # Any: a pending reply of any result
"""The usual case of `Link._answer`: removes pending replies from a list, gives them their answers, and returns them.

Takes the list and the answers. Returns an empty list, with nothing done, if a request is not plain.
"""

queue_request: Final[Callable[..., Any] | None] = _find("queue_request")  # Any: a pending reply of any result, or None
"""The usual case of `AsyncConnection.run`: makes a pending reply and appends it to a list.

Takes operation, command, head, body and reader; queue, its event loop and its list of waiting requests; deadline,
timeout, the time for which the timer is set, and the time from which a flush must be scheduled. Returns None, with
nothing done, if `AsyncConnection._enqueue` must do more.
"""

wake_tasks: Final[Callable[..., None] | None] = _find("wake_tasks")
"""The loop of `RequestQueue.wake`. Takes the answered requests, the idle waiters, and a future that is done."""


def find_pending_reply(pure: type[C]) -> type[C]:
    """Return the compiled form of *pure*, which gets its unusual methods from *pure*; *pure* itself if not used."""
    compiled = _find("PendingReply")
    if compiled is None:
        return pure
    for name in ("__repr__", "abandon", "is_missed", "note_failure"):
        setattr(compiled, name, pure.__dict__[name])
    compiled.finish = pure.__dict__["__await__"]
    # An Any: mypy cannot know that both have the same attributes.
    return compiled  # type: ignore[no-any-return]


def find_waiter(pure: type[C]) -> type[C]:
    """Return the compiled form of *pure*, or *pure* itself if compiled primitives are not used."""
    compiled = _find("Waiter")
    return pure if compiled is None else compiled


# Looked up once: an import statement in a function would take 2,000 instructions of each client, and of each dial.
_Builder: Final[type[Builder[Any]] | None] = _find("Builder")  # Any: each builder has its own kind of operation
_Exchange: Final[type[Exchange] | None] = _find("Exchange")


def make_builder(
    operation: type[Op],
    verb: object,
    prefix: bytes,
    start: bytes,
    end: bytes | list[bytes | None],
    read: object,
    dumps: Callable[..., bytes] | None = None,
    *,
    is_raw: bool = False,
) -> Builder[Op] | None:
    """Return the usual case of `Operations.get` and `Operations.set`: keys of ASCII characters above the space.

    A builder makes instances of *operation* for *verb* and *read*. A request line is *start*, *prefix*, the key, and
    *end*. For a set, *end* is a list of ends by the size of the encoded value.

    None if a character of *prefix* is not plain.
    """
    if _Builder is None or any(byte <= 0x20 or byte >= 0x7F for byte in prefix):
        return None
    return _Builder(operation, verb, prefix, start, end, read, dumps, is_raw)


def make_exchange(
    descriptor: int,
    limit: int,
    known_headers: dict[bytes, tuple[int, list[bytes]]],
    hd_reply: tuple[list[bytes], bytes | None],
) -> Exchange | None:
    """Return the usual case of an exchange on a plain socket: one call sends, waits, receives and finds the reply.

    *limit*: of the bytes of a value. *known_headers*: the table of `value_header`. *hd_reply*: the reply HD.
    """
    return None if _Exchange is None else _Exchange(descriptor, limit, known_headers, hd_reply)


def make_owners(nodes: int, groups: Iterable[tuple[float, Iterable[int]]], seeds: tuple[int, ...]) -> Owners | None:
    """Return `winner` of rendezvous routing for *nodes* nodes, with their groups by weight and the seeds in order."""
    if not accelerated:
        return None
    from metacache_speed import Owners

    return Owners(nodes, tuple((weight, tuple(positions)) for weight, positions in groups), seeds)
