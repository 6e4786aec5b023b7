"""`NodeSourceContract`: the tests that every source of nodes must pass."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn
from unittest import SkipTest, mock

from metacache.discovery import NodeSource
from metacache.errors import MetacacheError
from metacache.nodes import Node

__all__ = ["NodeSourceContract"]

_POLLS: Final = 5


class NodeSourceContract:
    """Tests of a node source. Subclass it in a test module, with a name that begins with ``Test``.

    Override `source`, `expected` and, unless the source cannot fail, `failing`.
    """

    def source(self) -> NodeSource:
        """Return a new source that finds the nodes of `expected`."""
        raise NotImplementedError("override source(self)")

    def expected(self) -> Sequence[Node]:
        """Return the nodes that the source finds, in any order."""
        raise NotImplementedError("override expected(self)")

    def failing(self) -> NodeSource | None:
        """Return a new source that cannot find its nodes, for example because nothing listens; None: it cannot fail."""
        return None

    def test_a_poll_returns_the_nodes(self) -> None:
        """A poll returns Nodes with different names, which are the expected ones."""
        found: object = self.source().poll()
        assert isinstance(found, Sequence), f"poll returned a {type(found).__name__}, not a Sequence"
        wrong = {type(node).__name__ for node in found if not isinstance(node, Node)}
        assert not wrong, f"poll returned {wrong} in place of Nodes"
        names = [node.name for node in found]
        assert len(set(names)) == len(names), f"poll returned two nodes with one name: {sorted(names)}"
        found_nodes, expected = sorted(found, key=_name), sorted(self.expected(), key=_name)
        assert found_nodes == expected, f"poll returned {found_nodes}, not {expected}"

    def test_nodes_keep_their_identity(self) -> None:
        """While nothing changes, each poll, and each source, returns the same nodes."""
        source = self.source()
        first = sorted(source.poll(), key=_name)
        for _ in range(_POLLS):
            assert sorted(source.poll(), key=_name) == first, "two polls of an unchanged source differ"
        assert sorted(self.source().poll(), key=_name) == first, "two sources of the same nodes differ"

    def test_a_caller_may_keep_the_answer(self) -> None:
        """A later poll does not change the answer of an earlier one."""
        source = self.source()
        first = source.poll()
        copy = list(first)
        source.poll()
        assert list(first) == copy, "a poll changed the answer of an earlier poll"

    def test_polls_may_come_from_different_threads(self) -> None:
        """The watch of a cluster polls in its own thread, and after a fork in another one."""
        source = self.source()
        first = sorted(source.poll(), key=_name)
        answers: list[object] = []

        def poll() -> None:
            try:
                answers.append(sorted(source.poll(), key=_name))
            except Exception as error:
                answers.append(error)

        thread = threading.Thread(target=poll)
        thread.start()
        thread.join()
        assert answers == [first], f"in another thread, poll gave {answers}"

    def test_making_a_source_connects_nowhere(self) -> None:
        """A source is made without a look-up and without a connection."""
        with _no_network():
            self.source()

    def test_a_failure_is_a_metacache_error_or_an_oserror(self) -> None:
        """A source that does not know its nodes raises; it does not return an empty answer."""
        failing = self.failing()
        if failing is None:
            raise SkipTest("this source cannot fail")
        for _ in range(2):
            error = _failure(failing.poll)
            assert error is not None, "a source that cannot find its nodes returned an answer"
            is_right = isinstance(error, MetacacheError | OSError)
            assert is_right, f"a source that cannot find its nodes raised {error!r}"


def _name(node: Node) -> str:
    return node.name


def _failure(poll: Callable[[], object]) -> Exception | None:
    try:
        poll()
    except Exception as error:
        return error
    return None


@contextmanager
def _no_network() -> Generator[None]:
    """Let each connection and each look-up of a name fail."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the source used the network when it was made, not when it was polled")

    with (
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
        mock.patch.object(socket, "getnameinfo", refuse),
    ):
        yield
