"""Tell the errors of this package and of its system calls from exceptions that interrupted them.

A signal handler, or another thread (PyThreadState_SetAsyncExc), may raise between any two instructions. Such an
exception belongs to the caller, whatever its class: TimeoutError and OSError are common in handlers, and this package's
own errors are possible. Only tracebacks can tell the two apart. Reads them; catches nothing and raises nothing.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, TypeVar, final

__all__ = ["clear_frames", "fails_again", "ignoring", "is_from_handler", "is_own"]

A = TypeVar("A")

# The packages whose frames stand between a caller in this package and a system call. The second row replaces the
# standard sockets or certificate checks by its own.
_PACKAGES: Final = frozenset(
    ("metacache", "ssl", "socket", "select", "selectors", "threading", "contextlib", "ipaddress", "asyncio")
    + ("uvloop", "gevent", "eventlet", "truststore")
)


def is_own(error: BaseException, *modules: str) -> bool:
    """Tell whether *error* comes from this package or its system calls. Call it where *error* is caught.

    *modules*: names of further modules whose code was called.

    An exception of a signal handler has the handler's frame in its traceback. One that another thread injected has no
    frame of its own, and no arguments, for Python makes it from its class alone. An error of a system call, and every
    error of this package, says what went wrong.
    """
    names = [str(frame.f_globals.get("__name__", "")) for frame in _frames_behind(error)]
    return any(error.args) and all(name.partition(".")[0] in _PACKAGES or name in modules for name in names)


@final
class ignoring:  # noqa: N801 - reads as a phrase: with ignoring(ValueError)
    """Ignore errors of *kinds* as `contextlib.suppress` does, but let pass what a signal handler raises."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object, /) -> bool:
        return isinstance(error, self._kinds) and is_own(error)


def fails_again(call: Callable[[A], object], argument: A, error: Exception) -> bool:
    """Tell whether *call*, which raised *error* for *argument*, fails in the same way when it is called again.

    If it does not, *error* interrupted the call. An exception that is known to come from a signal handler is not
    tried again.
    """
    if is_from_handler(error):
        return False
    try:
        call(argument)
    except Exception as again:
        return type(again) is type(error) and _place(again) == _place(error)
    return False


def _place(error: Exception) -> list[tuple[CodeType, int]]:
    """Return where *error* was raised, as seen from the frame that caught it."""
    trace = error.__traceback__
    return [(each.tb_frame.f_code, each.tb_lasti) for each in _walk(trace and trace.tb_next)]


def is_from_handler(error: BaseException) -> bool:
    """Tell whether the traceback of *error* passes through a signal handler that is installed now."""
    handlers = {code for number in signal.valid_signals() if (code := _code_of(signal.getsignal(number)))}
    return any(frame.f_code in handlers for frame in _frames_behind(error))


def _code_of(handler: Any) -> CodeType | None:  # Any: getsignal returns whatever callable was installed
    function = getattr(handler, "func", handler)  # of a functools.partial
    function = getattr(function, "__func__", function)  # of a bound method
    call = function if hasattr(function, "__code__") else inspect.getattr_static(function, "__call__", None)
    code: object = getattr(call, "__code__", None)
    return code if isinstance(code, CodeType) else None


def clear_frames(error: BaseException) -> None:
    """Clear the local variables of this package's frames in the traceback of *error*, but for those still running.

    A caller may keep *error*. Its traceback keeps the frames, and the frames would keep the connections they used. A
    connection that a pool has lent is free as soon as nothing refers to it.
    """
    try:
        _clear_frames(error)
    except BaseException as second:  # another signal came meanwhile
        _clear_frames(second)
        raise


def _clear_frames(error: BaseException) -> None:
    chain: list[BaseException | None] = [error]
    for each in chain:  # it grows meanwhile
        if each is None:
            continue
        for frame in _frames_behind(each):
            if frame.f_globals.get("__name__", "").startswith("metacache."):
                with contextlib.suppress(RuntimeError):  # it is still running
                    frame.clear()
        chain += [other for other in (each.__cause__, each.__context__) if other not in chain]


def _frames_behind(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames between the one that caught *error* and the one that raised it, which comes last."""
    trace = error.__traceback__
    return (each.tb_frame for each in _walk(trace and trace.tb_next))


def _walk(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next
