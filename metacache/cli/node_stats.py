"""What the statistics of one node say: totals, and rates between two samples. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs

from metacache.cli.item_view import duration
from metacache.cli.layout import Column, Line, table
from metacache.cli.messagepack import Shown
from metacache.cli.text import Charset

__all__ = ["HISTORY", "Counters", "NodeHistory", "Rates", "bytes_text", "node_row", "stats_lines", "top_lines"]

HISTORY: Final = 8  # samples in a sparkline


@final
@attrs.frozen
class Counters:
    """The numbers of one ``stats`` reply that the commands use; 0 for a missing one.

    Attributes:
        at: when the reply was read, in seconds of a monotonic clock.
    """

    at: float
    hits: int
    misses: int
    gets: int
    sets: int
    evictions: int
    items: int
    used: int
    limit: int
    connections: int
    uptime: int
    version: str

    @classmethod
    def of(cls, found: Mapping[str, str], at: float) -> Counters:
        """Return the counters in the reply *found*, which was read at the time *at*."""

        def number(name: str) -> int:
            text = found.get(name, "")
            return int(text) if text.isascii() and text.isdigit() else 0

        return cls(
            at=at,
            hits=number("get_hits"),
            misses=number("get_misses"),
            gets=number("cmd_get"),
            sets=number("cmd_set"),
            evictions=number("evictions"),
            items=number("curr_items"),
            used=number("bytes"),
            limit=number("limit_maxbytes"),
            connections=number("curr_connections"),
            uptime=number("uptime"),
            version=found.get("version", ""),
        )

    @property
    def hit_rate(self) -> float | None:
        """The share of reads that were hits since the server started; None without reads."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None


@final
@attrs.frozen
class Rates:
    """What a node did per second between two samples; ``hit_rate`` is None without reads."""

    gets: float
    sets: float
    evictions: float
    hit_rate: float | None

    @classmethod
    def between(cls, before: Counters, now: Counters) -> Rates | None:
        """Return the rates from *before* to *now*; None if the server restarted in between, or no time passed."""
        seconds = now.at - before.at
        if seconds <= 0 or now.gets < before.gets or now.sets < before.sets or now.uptime < before.uptime:
            return None
        hits, misses = now.hits - before.hits, now.misses - before.misses
        return cls(
            gets=(now.gets - before.gets) / seconds,
            sets=(now.sets - before.sets) / seconds,
            evictions=max(now.evictions - before.evictions, 0) / seconds,
            hit_rate=hits / (hits + misses) if hits + misses > 0 else None,
        )


@final
class NodeHistory:
    """The last samples of one node. Changes with each sample."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counters: Counters | None = None
        self.rates: Rates | None = None
        self.error = ""
        self.hit_rates: deque[float | None] = deque(maxlen=HISTORY)

    def answered(self, counters: Counters) -> None:
        """Add a sample."""
        self.rates = None if self.counters is None else Rates.between(self.counters, counters)
        self.counters = counters
        self.error = ""
        self.hit_rates.append(self.rates.hit_rate if self.rates else None)

    def failed(self, error: str) -> None:
        """Note that the node did not answer."""
        self.counters = self.rates = None
        self.error = error
        self.hit_rates.append(None)

    def as_json(self) -> dict[str, Shown]:
        """Return what ``top --json`` prints for the node."""
        found: dict[str, Shown] = {"node": self.name, "state": "down" if self.error else "up"}
        if self.error:
            found["error"] = self.error
        if self.counters is not None:
            counters = {name: value for name, value in attrs.asdict(self.counters).items() if name != "at"}
            found |= counters
            found["hit_rate"] = self.counters.hit_rate
        if self.rates is not None:
            found["per_second"] = {
                "gets": self.rates.gets,
                "sets": self.rates.sets,
                "evictions": self.rates.evictions,
                "hit_rate": self.rates.hit_rate,
            }
        return found


def bytes_text(number: float) -> str:
    """Return a number of bytes with a unit: ``1.5M``."""
    for unit in ("B", "K", "M", "G"):
        if number < 1024:
            return f"{number:.0f}{unit}" if number >= 100 or number == int(number) else f"{number:.1f}{unit}"
        number /= 1024
    return f"{number:.1f}T"


def _rate(number: float) -> str:
    return f"{number:.0f}" if number < 100_000 else f"{number / 1000:.0f}k"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return "100%" if share == 1 else f"{share:.1%}"


def _memory(counters: Counters) -> str:
    return f"{bytes_text(counters.used)}/{bytes_text(counters.limit)}"


# --- stats -----------------------------------------------------------------------------------------------------------

STATS_COLUMNS: Final = (
    Column("node", is_flexible=True),
    Column("hits", ">"),
    Column("items", ">", rank=1),
    Column("memory", ">", rank=2),
    Column("evictions", ">", rank=3),
    Column("conns", ">", rank=4),
    Column("uptime", ">", rank=5),
    Column("version", rank=6),
)


def node_row(name: str, counters: Counters) -> Line:
    """Return the row of a node in the table of `stats_lines`; *name* is escaped."""
    return (
        (name, "name"),
        (_percent(counters.hit_rate), ""),
        (f"{counters.items:,}", ""),
        (_memory(counters), ""),
        (f"{counters.evictions:,}", "bad" if counters.evictions else ""),
        (str(counters.connections), ""),
        (duration(counters.uptime), ""),
        (counters.version, ""),
    )


def stats_lines(rows: Sequence[Line], width: int | None, charset: Charset) -> list[Line]:
    """Return the table of nodes."""
    return table(STATS_COLUMNS, rows, width, charset)


# --- top -------------------------------------------------------------------------------------------------------------

TOP_COLUMNS: Final = (
    Column("node", is_flexible=True),
    Column("state"),
    Column("hits", ">"),
    Column("", rank=5),
    Column("gets/s", ">", rank=1),
    Column("sets/s", ">", rank=2),
    Column("memory", ">", rank=3),
    Column("evict", ">", rank=4),
    Column("conns", ">", rank=6),
)


def top_lines(histories: Sequence[NodeHistory], title: str, width: int | None, charset: Charset) -> list[Line]:
    """Return the lines of one picture of `top`."""
    rows = [_top_row(history, charset) for history in histories]
    errors: list[Line] = [
        (("  ", ""), (charset.escaped(history.error), "bad")) for history in histories if history.error
    ]
    return [((title, "title"),), (), *table(TOP_COLUMNS, rows, width, charset), *errors]


def _top_row(history: NodeHistory, charset: Charset) -> Line:
    counters, rates = history.counters, history.rates
    spark = charset.sparkline(list(history.hit_rates)).rjust(HISTORY)
    return (
        (charset.escaped(history.name), "name"),
        ("down", "bad") if history.error else ("up", "good"),
        (_percent(rates.hit_rate if rates else None), ""),
        (spark, "good"),
        (_rate(rates.gets) if rates else "-", ""),
        (_rate(rates.sets) if rates else "-", ""),
        (_memory(counters) if counters else "-", ""),
        (_rate(rates.evictions) if rates else "-", "bad" if rates and rates.evictions else ""),
        (str(counters.connections) if counters else "-", ""),
    )
