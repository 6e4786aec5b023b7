"""`Session`: what a command works with: its output, its input, and the cluster of the URL."""

from __future__ import annotations

from typing import Final, TextIO, final

from metacache.cli.output import Output
from metacache.cluster.blocking import Cluster
from metacache.settings import Settings
from metacache.urls import parse_url

__all__ = ["Session"]


@final
class Session:
    """The surroundings of one command.

    Args:
        url: the URL of the servers. It may contain a password, so nothing prints it.
        output: standard output and standard error.
        stdin: standard input.
        as_json: print JSON.
    """

    def __init__(self, url: str, output: Output, stdin: TextIO, *, as_json: bool) -> None:
        self._url = url
        self.output: Final = output
        self.stdin: Final = stdin
        self.as_json: Final = as_json

    def cluster(self) -> Cluster:
        """Return a new cluster of the URL. Raises InvalidArgumentError for an invalid URL."""
        return Cluster.from_url(self._url)

    def settings(self) -> Settings:
        """Return the settings of the URL."""
        return parse_url(self._url, Settings())[1]
