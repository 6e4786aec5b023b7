"""Distinguish the errors of this package and its system calls from exceptions that interrupted them.

A signal handler, or another thread (PyThreadState_SetAsyncExc), may raise between any two instructions. Such an
exception belongs to the caller, whatever its class: TimeoutError and OSError are common in handlers, and this package's
own errors are possible. Only tracebacks distinguish the two. Reads them; catches nothing and raises nothing.
"""

from __future__ import annotations

import contextlib
import dis
import inspect
import signal
from collections.abc import Callable, Iterable
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, TypeVar, final

__all__ = ["call_each", "clear_frames", "fails_again", "ignoring", "is_from_handler", "is_injected", "is_own"]

A = TypeVar("A")
R = TypeVar("R")

# The packages whose frames stand between a caller in this package and a system call. The second row replaces the
# standard sockets or certificate checks by its own.
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
    frame of its own. Python makes it from its class alone: a class of Python or of this package then has no arguments,
    and any other class is the user's. An error of a system call, and every error of this package, has arguments.
    """
    return any(error.args) and _is_known(error, modules) and _is_ours(error, modules)


def _is_known(error: BaseException, modules: tuple[str, ...] = ()) -> bool:
    """Return whether the class of *error* is one of Python, of this package or of *modules*."""
    module = type(error).__module__
    package = module.partition(".")[0]
    return package == "builtins" or package in _PACKAGES or module in modules


def _is_ours(error: BaseException, modules: tuple[str, ...] = ()) -> bool:
    names = [str(frame.f_globals.get("__name__", "")) for frame in _frames_behind(error)]
    return not [name for name in names if name.partition(".")[0] not in _PACKAGES and name not in modules]


@final
class ignoring:  # noqa: N801 - reads as a phrase: with ignoring(ValueError)
    """Ignore errors of *kinds* as `contextlib.suppress` does, but not an exception of a signal handler."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object, /) -> bool:
        return isinstance(error, self._kinds) and is_own(error)


def is_injected(error: BaseException) -> bool:
    """Return whether a signal handler or another thread raised *error*. Call it where *error* is caught.

    For errors of this package's classes, which only a ``raise`` statement raises. One that the user's own code raised,
    as a transport of the user, is neither `is_own` nor this.
    """
    if any(error.args) and _is_known(error):
        return not _is_ours(error) and is_from_handler(error)
    return is_from_handler(error) or not _is_raised_by_code(error)


def _is_raised_by_code(error: BaseException) -> bool:
    """Return whether a ``raise`` statement raised *error*."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def fails_again(call: Callable[[A], object], argument: A, error: Exception) -> bool:
    """Return whether *call*, which raised *error* for *argument*, fails in the same way when it is called again.

    If it does not, *error* interrupted the call. If *error* is known to come from a signal handler, there is no second
    call. An exception that interrupts the second call propagates.
    """
    if is_from_handler(error):
        return False
    try:
        call(argument)
    except Exception as again:
        if _is_same(again, error):
            return True
        # One of the two interrupted: the second if a third call fails as the first one did.
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
    """Return whether both are of one class and were raised in the same place."""
    if one is None or type(one) is not type(other):
        return False
    # The place where the stack or the memory ends depends on the caller.
    return isinstance(one, RecursionError | MemoryError) or _place(one) == _place(other)


def call_each(call: Callable[[A], R], arguments: Iterable[A]) -> list[R] | None:
    """Return what *call* returns for each of *arguments*; None if it fails for one of them by itself.

    An exception that interrupts one of the calls propagates.
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


def _place(error: Exception) -> list[tuple[CodeType, int]]:
    """Return where *error* was raised, as seen from the frame that caught it.

    By lines: Python replaces an instruction by another one when it has run a few times, in 3.11 by one beside it.
    """
    return [(each.tb_frame.f_code, each.tb_lineno) for each in _behind(error)]


def is_from_handler(error: BaseException) -> bool:
    """Return whether the traceback of *error* passes through a signal handler that is installed now."""
    codes = {frame.f_code for frame in _frames_behind(error)}
    # Few signals have a handler in Python: to look at the others would cost milliseconds.
    handlers = [handler for handler in map(signal.getsignal, _SIGNALS) if callable(handler)] if codes else []
    return not codes.isdisjoint(map(_code_of, handlers))


def _code_of(handler: Any) -> CodeType | None:  # Any: getsignal returns any callable
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


# Lists and no generators: an exception that is raised as a generator is closed is swallowed.


def _frames_behind(error: BaseException) -> list[FrameType]:
    """Return the frames between the one that caught *error* and the one that raised it, which comes last."""
    return [each.tb_frame for each in _behind(error)]


def _behind(error: BaseException) -> list[TracebackType]:
    found: list[TracebackType] = []
    trace = error.__traceback__ and error.__traceback__.tb_next
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found
