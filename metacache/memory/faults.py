"""Faults on purpose: a script that makes the embedded server fail at a certain request.

server.faults.on("mg", n=3).close_mid_value()

A fault is a list of steps in place of a reply. The transports and `serve` carry the steps out: they wait and close.
This module waits for nothing, opens no socket and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

import attrs

from metacache.errors import InvalidArgumentError
from metacache.sessions import Ending, Pause, Step
from metacache.settings import check_seconds, check_whole

__all__ = ["Fault", "Faults", "Trigger"]

_LONGEST_DELAY: Final = 1_000_000  # seconds
_CRLF: Final = b"\r\n"


@final
@attrs.frozen
class Fault:
    """What happens in place of a reply.

    Attributes:
        steps: turns the reply into steps.
        executes: the server executes the request first.
    """

    steps: Callable[[bytes], Sequence[Step]]
    executes: bool = True


@final
@attrs.define
class _Armed:
    """A fault that waits for its request: *skip* matching requests pass first, then *left* of them meet it."""

    command: bytes
    fault: Fault
    skip: int
    left: int | None

    def takes(self, command: bytes) -> bool:
        """Return whether this request meets the fault; count it."""
        if self.command not in (command, b"*"):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


@final
class Trigger:
    """The requests that meet a fault. Each method arms one fault for them; a later request meets none."""

    __slots__ = ("_arm",)

    def __init__(self, arm: Callable[[Fault], None]) -> None:
        self._arm = arm

    def close_mid_value(self) -> None:
        """Execute the request, send the first half of the value, and close the connection.

        Of a reply without a value, half of the line is sent.
        """
        self._arm(Fault(lambda reply: (reply[: _middle(reply)], Ending.CLOSE)))

    def delay(self, seconds: float) -> None:
        """Execute the request, and send the reply *seconds* later. Later replies of the connection wait too."""
        check_seconds("the delay", seconds, _LONGEST_DELAY, may_be_zero=True)
        self._arm(Fault(lambda reply: (Pause(seconds), reply)))

    def split_every(self, size: int) -> None:
        """Execute the request, and send the reply in pieces of *size* bytes."""
        check_whole("the size of a piece", size, 1)
        self._arm(Fault(lambda reply: [reply[start : start + size] for start in range(0, len(reply), size)]))

    def reply(self, data: bytes) -> None:
        """Do not execute the request; send *data* in place of the reply. *data* contains its own line ends."""
        if not isinstance(data, bytes):
            raise InvalidArgumentError(f"a reply is bytes, not {type(data).__name__}")
        self._arm(Fault(lambda _: (data,), executes=False))

    def error(self, line: str) -> None:
        """Do not execute the request; send the error *line*, such as ``"SERVER_ERROR out of memory"``."""
        if "\r" in line or "\n" in line:
            raise InvalidArgumentError("an error line has no line ends")
        self._arm(Fault(lambda _: (line.encode() + _CRLF,), executes=False))

    def reset(self, *, executes: bool = True) -> None:
        """Reset the connection (RST) without a reply. *executes*: the server has executed the request before."""
        self._arm(Fault(lambda _: (Ending.RESET,), executes=executes))

    def close(self, *, executes: bool = True) -> None:
        """Close the connection without a reply. *executes*: the server has executed the request before."""
        self._arm(Fault(lambda _: (Ending.CLOSE,), executes=executes))

    def stop_reading(self) -> None:
        """Do not execute the request, read nothing more on this connection, and leave it open."""
        self._arm(Fault(lambda _: (Ending.SILENCE,), executes=False))


def _middle(reply: bytes) -> int:
    """Return the position in the middle of the value of *reply*, or of the reply if it has no value."""
    start = reply.find(_CRLF) + 2
    has_value = reply.startswith(b"VA ") and start < len(reply)
    return start + (len(reply) - start - 2) // 2 if has_value else len(reply) // 2


@final
class Faults:
    """The fault script of one server. Its owner guards it with a lock."""

    __slots__ = ("_armed", "_changed")

    def __init__(self, changed: Callable[[], None]) -> None:
        self._armed: tuple[_Armed, ...] = ()
        self._changed = changed

    def on(self, command: str = "*", *, n: int = 1, times: int | None = 1) -> Trigger:
        """Choose the requests that meet a fault; call a method of the result to say which fault.

        Args:
            command: the first word of the request: mg, ms, md, ma, me, mn or an admin command; ``*``: every command.
            n: the first request that meets it, counted from now.
            times: the number of requests that meet it; None: all further ones.

        Raises InvalidArgumentError for wrong arguments.
        """
        check_whole("n", n, 1)
        if times is not None:
            check_whole("times", times, 1)
        if command != "*" and not command.replace("_", "a").isalpha():
            raise InvalidArgumentError("command is the first word of a request, such as 'mg', or '*'")

        def arm(fault: Fault) -> None:
            self._armed = (*self._armed, _Armed(command.encode(), fault, n - 1, times))
            self._changed()

        return Trigger(arm)

    def clear(self) -> None:
        """Disarm all faults."""
        self._armed = ()
        self._changed()

    @property
    def are_armed(self) -> bool:
        """True while a request may meet a fault."""
        return bool(self._armed)

    def next_for(self, command: bytes) -> Fault | None:
        """Return the fault that the request *command* meets, and count the request; None if it meets none."""
        taken = [armed for armed in self._armed if armed.takes(command)]
        if taken:
            self._armed = tuple(armed for armed in self._armed if armed.left != 0)
            self._changed()
        return taken[0].fault if taken else None
