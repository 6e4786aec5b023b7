"""The types of the extension module. The protocols in metacache/acceleration.py say what each primitive does."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, final, overload

K = TypeVar("K")
O = TypeVar("O")
P = TypeVar("P")
T = TypeVar("T")

API: Final[int]

@final
class Builder(Generic[O]):
    def __new__(
        cls,
        operation: type[O],
        verb: object,
        prefix: bytes,
        start: bytes,
        end: bytes | list[bytes | None],
        read: object,
        dumps: Callable[..., bytes] | None,
        is_raw: bool,
        /,
    ) -> Builder[O]: ...
    def get(self, key: object, /) -> O | None: ...
    def set(self, key: object, value: object, /) -> O | bytes | None: ...

@final
class Exchange:
    @property
    def data(self) -> bytes | None: ...
    @property
    def sent(self) -> int: ...
    def __new__(
        cls,
        descriptor: int,
        limit: int,
        known_headers: dict[bytes, tuple[int, list[bytes]]],
        hd_reply: tuple[list[bytes], bytes | None],
        /,
    ) -> Exchange: ...
    def run(
        self,
        head: bytes,
        body: bytes | None,
        suffix: bytes,
        whole: frozenset[bytes],
        has_value: bool,
        most: int,
        deadline: float,
        /,
    ) -> tuple[list[bytes], bytes | None] | None: ...
    def unblock(self) -> None: ...
    def close(self) -> None: ...

@final
class Owners:
    def __new__(
        cls, nodes: int, groups: tuple[tuple[float, tuple[int, ...]], ...], seeds: tuple[int, ...]
    ) -> Owners: ...
    def pick(self, key: object, /) -> int | None: ...
    def shares(self, keys: object, /) -> list[list[int]] | None: ...

# It has the attributes and methods of its twin in Python, which describes them.
@final
class PendingReply:
    # Any: the result of the operation, which its reader knows
    def __await__(self) -> Iterator[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...  # Any: as above
    def __next__(self) -> asyncio.Future[None]: ...
    @overload
    def throw(self, error: BaseException, /) -> asyncio.Future[None]: ...
    @overload
    def throw(
        self, kind: type[BaseException], value: object = ..., trace: TracebackType | None = ..., /
    ) -> asyncio.Future[None]: ...
    def close(self) -> None: ...

@final
class Waiter:
    future: asyncio.Future[None]
    pending: object
    def __new__(cls, future: asyncio.Future[None]) -> Waiter: ...

def are_same(value: object, decoded: object, fields: dict[type, Sequence[object]], /) -> bool: ...
def queue_request(
    op: object,
    command: object,
    head: bytes,
    body: bytes | None,
    read: Callable[..., object],
    queue: object,
    loop: asyncio.AbstractEventLoop | None,
    waiting: list[P],
    deadline: float | None,
    timeout: float,
    timer_at: float,
    until: float,
    /,
) -> P | None: ...
def wake_tasks(answered: deque[P], idle: list[Waiter], done: asyncio.Future[None], /) -> None: ...
def frame_requests(
    waiting: list[P],
    in_flight: list[P],
    expected: list[O],
    opaques: Iterator[tuple[bytes, bytes, bytes, bytes]],
    room: int,
    largest: int,
    crlf: bytes,
    /,
) -> tuple[bytes, int]: ...
def give_answers(in_flight: list[P], answers: list[O], /) -> list[P]: ...
def read_answers(
    data: bytes,
    expected: list[O],
    known_headers: dict[bytes, tuple[int, list[bytes]]],
    learn: Callable[[bytes], tuple[int, list[bytes]]],
    /,
) -> tuple[list[tuple[list[bytes], bytes | None]], int]: ...
def read_window(
    data: bytes,
    position: int,
    limit: int,
    count: int,
    first: bytes,
    last: bytes,
    whole: frozenset[bytes],
    has_value: bool,
    sizes: dict[bytes, int],
    learn: Callable[[bytes], tuple[int, list[bytes]]],
    headers: list[bytes],
    values: list[bytes | None],
    /,
) -> int: ...
def encode_keys(
    keys: Sequence[object], prefix: bytes, start: bytes, end: bytes, /
) -> tuple[list[bytes], list[bytes]] | None: ...
def encode_items(
    items: dict[K, T],
    bodies: list[bytes] | None,
    prefix: bytes,
    start: bytes,
    ends: list[bytes | None],
    make_end: Callable[[int], bytes],
    longest: int,
    /,
) -> tuple[list[K], list[bytes], list[bytes], list[bytes]] | None: ...
def join_window(
    heads: Sequence[bytes], bodies: Sequence[bytes] | None, start: int, stop: int, first: bytes, last: bytes, /
) -> bytes | None: ...
def take_items(items: Sequence[T], indices: Sequence[int], /) -> list[T] | None: ...
def place_items(items: list[T], indices: Sequence[int], parts: Sequence[T], /) -> bool: ...
def found_values(
    keys: Sequence[K], headers: Sequence[bytes], values: Sequence[bytes | None], known: set[bytes], /
) -> dict[K, bytes] | None: ...
def count_lines(lines: Sequence[bytes], line: bytes, /) -> int: ...
def total_size(items: Sequence[bytes], start: int, stop: int, /) -> int: ...
def exchange_parts(
    exchanges: list[Exchange],
    shares: list[list[int]],
    opaques: list[tuple[tuple[bytes, bytes, bytes, bytes], tuple[bytes, bytes, bytes, bytes]]],
    heads: Sequence[bytes],
    bodies: Sequence[bytes] | None,
    most: int,
    largest: int,
    deadline: float,
    limit: int,
    whole: frozenset[bytes],
    has_value: bool,
    sizes: dict[bytes, int],
    learn: Callable[[bytes], tuple[int, list[bytes]]],
    headers: list[bytes],
    values: list[bytes | None],
    /,
) -> list[tuple[int, bytes | None, int] | None] | None: ...
