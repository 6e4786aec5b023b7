"""The command `keys`: lists the items of all nodes, one node after the other."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import final

from metacache.cli.dump_lines import Dumped, key_json, key_row, key_titles, parse_line
from metacache.cli.metadump import dump
from metacache.cli.output import Progress
from metacache.cli.session import Session
from metacache.cli.statuses import Status
from metacache.cluster.blocking import Cluster
from metacache.errors import MetacacheError
from metacache.nodes import Node
from metacache.settings import Settings

__all__ = ["keys"]


@final
class _Listing:
    """What is listed so far, over all nodes."""

    def __init__(self, session: Session, prefix: bytes, limit: int | None, width: int | None) -> None:
        self._session = session
        self._prefix = prefix
        self._limit = limit
        self.width = width
        self.seen = 0
        self.listed = 0
        self.size = 0

    @property
    def is_full(self) -> bool:
        """True when the limit is reached."""
        return self._limit is not None and self.listed >= self._limit

    def node(self, node: Node, settings: Settings, now: int, bar: Progress) -> None:
        """List the items of *node*. *now*: its unix time. Raises the errors of `dump`."""
        output = self._session.output
        row = key_row(output.charset, now, self.width)
        for lines in dump(node, settings):
            matching = list(self._matching(lines))
            if matching:
                if output.is_terminal:
                    bar.clear()
                if self._session.as_json:
                    for item in matching:
                        output.json(key_json(item, node.name, now))
                else:
                    output.text("".join(map(row, matching)))
            bar.update(self.seen)
            if self.is_full:
                return

    def _matching(self, lines: list[bytes]) -> Iterator[Dumped]:
        prefix = self._prefix
        for line in lines:
            item = parse_line(line)
            if item is None:
                continue
            self.seen += 1
            if item.key.startswith(prefix):
                self.listed += 1
                self.size += item.size
                yield item
                if self.is_full:
                    return


def keys(session: Session, args: argparse.Namespace) -> Status:
    """List the keys of all nodes with size, TTL and idle time."""
    output = session.output
    listing = _Listing(session, os.fsencode(args.prefix), args.limit, output.width)
    settings = session.settings()
    failed: list[MetacacheError] = []
    with session.cluster() as cluster:
        clocks, total = _clocks(cluster)
        if not session.as_json:
            output.text(key_titles(listing.width))
        with output.progress(total) as bar:
            for node in cluster.nodes:
                try:
                    if not listing.is_full:
                        listing.node(node, settings, clocks.get(node, int(time.time())), bar)
                except MetacacheError as error:
                    failed.append(error.locate(node=node.name, operation="keys"))
    output.message(f"{listing.listed:,} of {listing.seen:,} items, {listing.size:,} bytes in the server")
    for failure in failed:
        output.message(f"metacache: {failure}")
    return Status.FAILED if failed else Status.DONE


def _clocks(cluster: Cluster) -> tuple[dict[Node, int], int]:
    """Return the unix time of each node that answers, and the number of items of all of them."""
    answers = {node: found for node, found in cluster.stats().items() if not isinstance(found, MetacacheError)}
    clocks = {node: int(found["time"]) for node, found in answers.items() if found.get("time", "").isdigit()}
    counts = [found.get("curr_items", "") for found in answers.values()]
    return clocks, sum(int(count) for count in counts if count.isdigit())
