"""Distinguishes the errors of this package and its system calls from exceptions that interrupted them.

A signal handler, or another thread (PyThreadState_SetAsyncExc), may raise between any two instructions. Such an
exception belongs to the caller, whatever its class: TimeoutError and OSError are common in handlers, and this package's
own errors are possible. Tracebacks show the difference; if they do not, the interrupted function is called again.
"""

from __future__ import annotations

import contextlib
import dis
import inspect
import signal
from collections.abc import Callable, Iterable
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, TypeVar, final

__all__ = ["clear_frames", "fails_again", "ignoring", "is_from_handler", "is_injected", "is_own", "map_or_none"]

A = TypeVar("A")
R = TypeVar("R")

# The packages whose frames are between a caller in this package and a system call. The packages in the second row
# replace the standard sockets or certificate checks.
_PACKAGES: Final = frozenset(
    ("metacache", "ssl", "socket", "select", "selectors", "threading", "contextlib", "ipaddress", "asyncio")
    + ("uvloop", "gevent", "eventlet", "truststore")
)

_RAISE: Final = dis.opmap["RAISE_VARARGS"]
_SIGNALS: Final = tuple(signal.valid_signals())


def is_own(error: BaseException, *modules: str) -> bool:
    """Return whether *error* comes from this package or its system calls. Call it where *error* is caught.

    *modules*: names of further modules whose code was called.

    An exception of a signal handler has the handler's frame in its traceback. One that another thread injected has no
    additional frame, but Python creates it without arguments. An error of a system call, and every error of this
    package, has arguments. A class that is not of Python, this package or *modules* is a class of the user.
    """
    return any(error.args) and _is_known_class(error, modules) and _has_known_frames(error, modules)


def _is_known_class(error: BaseException, modules: tuple[str, ...] = ()) -> bool:
    """Return whether the class of *error* is one of Python, of this package or of *modules*."""
    module = type(error).__module__
    package = module.partition(".")[0]
    return package == "builtins" or package in _PACKAGES or module in modules


def _has_known_frames(error: BaseException, modules: tuple[str, ...] = ()) -> bool:
    """Return whether all frames in the traceback of *error* are of this package, of _PACKAGES or of *modules*."""
    names = [str(frame.f_globals.get("__name__", "")) for frame in _inner_frames(error)]
    return not [name for name in names if name.partition(".")[0] not in _PACKAGES and name not in modules]


@final
class ignoring:  # noqa: N801 - reads as a phrase: with ignoring(ValueError)
    """Suppress errors of *kinds* like `contextlib.suppress`, but only errors of this package and its system calls."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object, /) -> bool:
        return isinstance(error, self._kinds) and is_own(error)


def is_injected(error: BaseException) -> bool:
    """Return whether a signal handler or another thread raised *error*. Call it where *error* is caught.

    Only for errors of this package's classes, which are always raised by a ``raise`` statement. An error that other
    code of the user raised, such as a transport of the user, gives False here and in `is_own`.
    """
    if any(error.args) and _is_known_class(error):
        return not _has_known_frames(error) and is_from_handler(error)
    return is_from_handler(error) or not _is_raised_by_code(error)


def _is_raised_by_code(error: BaseException) -> bool:
    """Return whether a ``raise`` statement raised *error*."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def fails_again(call: Callable[[A], object], argument: A, error: Exception) -> bool:
    """Return whether *call*, which raised *error* for *argument*, fails in the same way if it is called again.

    If it does not, *error* interrupted the first call. There is no second call if the traceback shows that *error*
    comes from a signal handler. An exception that interrupts the second call propagates.
    """
    if is_from_handler(error):
        return False
    try:
        call(argument)
    except Exception as again:
        if _is_same(again, error):
            return True
        # One of the two errors is an interruption: the second one, if a third call fails like the first.
        if is_from_handler(again) or _is_same(_failure(call, argument), error):
            raise
    return False


def _failure(call: Callable[[A], object], argument: A) -> Exception | None:
    try:
        call(argument)
    except Exception as error:
        return error
    return None


def _is_same(one: Exception | None, other: Exception) -> bool:
    """Return whether both have the same class and were raised on the same line."""
    if one is None or type(one) is not type(other):
        return False
    # The line where the stack or the memory is exhausted depends on the caller.
    return isinstance(one, RecursionError | MemoryError) or _raise_site(one) == _raise_site(other)


def map_or_none(call: Callable[[A], R], arguments: Iterable[A]) -> list[R] | None:
    """Return the results of *call* for all *arguments*; None if one of the calls fails.

    An exception that interrupts a call propagates.
    """
    results: list[R] = []
    for argument in arguments:
        try:
            results.append(call(argument))
        except Exception as error:
            if not fails_again(call, argument, error):
                raise
            return None
    return results


def _raise_site(error: Exception) -> list[tuple[CodeType, int]]:
    """Return the functions and lines between the frame that caught *error* and the line that raised it.

    Lines, not instructions: Python specializes an instruction that ran a few times, and 3.11 then reports another
    offset.
    """
    return [(trace.tb_frame.f_code, trace.tb_lineno) for trace in _inner_tracebacks(error)]


def is_from_handler(error: BaseException) -> bool:
    """Return whether the traceback of *error* has a frame of a signal handler that is installed now."""
    codes = {frame.f_code for frame in _inner_frames(error)}
    # Most signals have no handler in Python. Looking for the code of such a handler would cost milliseconds.
    handlers = [handler for handler in map(signal.getsignal, _SIGNALS) if callable(handler)] if codes else []
    return not codes.isdisjoint(map(_code_of, handlers))


def _code_of(handler: Any) -> CodeType | None:  # Any: getsignal returns any callable
    function = getattr(handler, "func", handler)  # of a functools.partial
    function = getattr(function, "__func__", function)  # of a bound method
    call = function if hasattr(function, "__code__") else inspect.getattr_static(function, "__call__", None)
    code: object = getattr(call, "__code__", None)
    return code if isinstance(code, CodeType) else None


def clear_frames(error: BaseException) -> None:
    """Clear the local variables of this package's frames in the traceback of *error*, except frames that still run.

    A caller may keep *error*, its traceback keeps the frames, and the frames would keep their connections. A pool gets
    a lent connection back as soon as no reference to it is left.
    """
    try:
        _clear_frames(error)
    except BaseException as second:  # another signal interrupted the loop
        _clear_frames(second)
        raise


def _clear_frames(error: BaseException) -> None:
    chain: list[BaseException | None] = [error]
    for each in chain:  # the loop appends to this list
        if each is None:
            continue
        for frame in _inner_frames(each):
            if frame.f_globals.get("__name__", "").startswith("metacache."):
                with contextlib.suppress(RuntimeError):  # the frame still runs
                    frame.clear()
        chain += [other for other in (each.__cause__, each.__context__) if other not in chain]


# Lists, not generators: Python swallows an exception that a signal handler raises while a generator is closed.


def _inner_frames(error: BaseException) -> list[FrameType]:
    """Return the frames below the one that caught *error*. The last one raised it."""
    return [trace.tb_frame for trace in _inner_tracebacks(error)]


def _inner_tracebacks(error: BaseException) -> list[TracebackType]:
    found: list[TracebackType] = []
    trace = error.__traceback__ and error.__traceback__.tb_next
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found
