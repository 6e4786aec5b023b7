"""`metacache.interrupts` distinguishes the errors of this package from exceptions that interrupted it."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep
from types import FrameType

import pytest

from metacache import ConnectError, Connection, Node, OperationTimeout, ServerError, Settings
from metacache.cluster.admin import ping
from metacache.interrupts import (
    clear_frames,
    fails_again,
    is_from_handler,
    is_injected,
    is_own,
    map_or_none,
)
from metacache.transports.blocking.dialer import Dialer

CLASSES: list[type[Exception]] = [
    TimeoutError,
    OSError,
    BlockingIOError,
    ConnectionResetError,
    BrokenPipeError,
    InterruptedError,
    ssl.SSLError,
    ssl.SSLWantReadError,
    ConnectError,
    OperationTimeout,
    ValueError,
]


@contextmanager
def handling(handler: Callable[[int, FrameType | None], object]) -> Generator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


class Method:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def handle(self, _: int, __: FrameType | None) -> None:
        raise self.error

    __call__ = handle


HANDLERS: dict[str, Callable[[Exception], Callable[[int, FrameType | None], object]]] = {
    "method": lambda error: Method(error).handle,
    "callable": Method,
    "partial": lambda error: functools.partial(Method(error).handle),
}


@pytest.mark.parametrize("kind", HANDLERS)
@pytest.mark.parametrize("class_", CLASSES)
def test_an_exception_of_a_signal_handler_is_not_our_own(kind: str, class_: type[Exception]) -> None:
    error = (
        class_(5, "of the handler") if issubclass(class_, OSError) and class_ not in CLASSES[8:] else class_("of it")
    )
    with handling(HANDLERS[kind](error)):
        caught = caught_of(lambda _: os.kill(os.getpid(), signal.SIGALRM))
        assert caught is error
        assert not is_own(caught)
        assert is_from_handler(caught)


class JobTimeout(TimeoutError):
    """An exception class with a fixed message, as in job queues: Python injects a class, not an instance."""

    def __init__(self) -> None:
        super().__init__("the job took too long")


class JobServer(ServerError):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # only checkers refuse it
    def __init__(self) -> None:
        super().__init__("the job's own")


@pytest.mark.parametrize("class_", [*CLASSES, JobTimeout, JobServer])
def test_an_exception_injected_by_another_thread_is_not_our_own(class_: type[Exception]) -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            thread = ctypes.c_ulong(threading.get_ident())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(class_))
            for _ in range(1000):
                sleep(0)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in caught] == [class_]
    assert not is_own(caught[0])


def test_errors_of_system_calls_are_our_own() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(0.0)
        with pytest.raises(BlockingIOError) as blocked:
            left.recv(1)
        assert is_own(blocked.value)
        left.settimeout(0.001)
        with pytest.raises(TimeoutError) as late:
            left.recv(1)
        assert is_own(late.value)
        right.close()
        with pytest.raises(BrokenPipeError) as broken:
            left.send(b"x")
        assert is_own(broken.value)


def test_errors_of_this_package_are_our_own() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        node = Node(f"127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(ConnectError) as refused:
        Dialer(node, Settings()).dial(monotonic() + 5.0)
    assert is_own(refused.value)
    with Connection(node) as connection, pytest.raises(ConnectError) as again:
        connection.run(ping())
    assert is_own(again.value)


def test_errors_of_tls_are_our_own() -> None:
    left, right = socket.socketpair()
    with left, right:
        right.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        left.settimeout(5.0)
        with pytest.raises(ssl.SSLError) as wrong:
            ssl.create_default_context().wrap_socket(left, server_hostname="x")
        assert is_own(wrong.value)


class Once:
    """A function that fails at the first call, or at every call."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self, _: bytes) -> bytes:
        if self.errors:
            raise self.errors.pop(0)
        return b""


def caught_of(call: Callable[[bytes], object]) -> Exception:
    try:
        call(b"")
    except Exception as error:
        return error
    raise AssertionError


def test_a_call_that_fails_twice_in_the_same_way_was_not_interrupted() -> None:
    call = Once(ValueError("one"), ValueError("another message"))
    assert fails_again(call, b"", caught_of(call))


def test_a_call_that_then_succeeds_or_fails_differently_was_interrupted() -> None:
    for later in ([], [KeyError("x")]):
        call = Once(ValueError("one"), *later)
        assert not fails_again(call, b"", caught_of(call))


def test_a_call_interrupted_by_a_signal_is_not_repeated() -> None:
    calls = 0

    def call(_: bytes) -> None:
        nonlocal calls
        calls += 1
        os.kill(os.getpid(), signal.SIGALRM)

    with handling(Method(ValueError("of the handler")).handle):
        assert not fails_again(call, b"", caught_of(call))
    assert calls == 1


def test_an_exception_that_interrupts_the_second_call_propagates() -> None:
    interrupting = KeyError("of another thread")
    call = Once(ValueError("its own"), interrupting, ValueError("its own"))
    with pytest.raises(KeyError) as raised:
        fails_again(call, b"", caught_of(call))
    assert raised.value is interrupting


def test_an_exception_of_a_handler_in_the_second_call_propagates() -> None:
    calls = 0

    def call(_: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            os.kill(os.getpid(), signal.SIGALRM)
        raise ValueError("its own")

    error = ValueError("of the handler")
    with handling(Method(error).handle), pytest.raises(ValueError, match="of the handler") as raised:
        fails_again(call, b"", caught_of(call))
    assert raised.value is error
    assert calls == 2


def test_two_recursion_errors_are_the_same_wherever_the_stack_ends() -> None:
    def call(data: bytes) -> bytes:
        return call(data)

    assert fails_again(call, b"", caught_of(call))


def test_map_or_none_calls_once_per_argument_and_returns_the_results() -> None:
    asked: list[int] = []

    def call(number: int) -> int:
        asked.append(number)
        return number * 2

    assert map_or_none(call, [1, 2, 3]) == [2, 4, 6]
    assert asked == [1, 2, 3]
    assert map_or_none(call, ()) == []


@pytest.mark.parametrize("at", range(3))
def test_map_or_none_returns_none_at_the_first_failure(at: int) -> None:
    def call(number: int) -> float:
        return 1 / (number - at)

    assert map_or_none(call, range(3)) is None


@pytest.mark.parametrize("at", range(3))
def test_an_exception_that_interrupts_map_or_none_propagates(at: int) -> None:
    interrupting = [ZeroDivisionError("of another thread")]

    def call(number: int) -> int:
        if number == at and interrupting:
            raise interrupting.pop()
        return number

    with pytest.raises(ZeroDivisionError, match="of another thread"):
        map_or_none(call, range(3))


def test_an_error_that_the_users_code_raises_is_not_injected() -> None:
    def bare(_: bytes) -> None:
        raise OperationTimeout

    def with_words(_: bytes) -> None:
        raise OperationTimeout("by a wrapper")

    for call in (bare, with_words):
        assert not is_injected(caught_of(call))
        assert not is_own(caught_of(call)) or call is with_words


@pytest.mark.parametrize("class_", [OperationTimeout, ConnectError])
def test_an_error_of_a_handler_is_injected(class_: type[Exception]) -> None:
    for error in (class_("of the handler"), class_()):
        with handling(Method(error).handle):
            caught = caught_of(lambda _: os.kill(os.getpid(), signal.SIGALRM))
            assert caught is error
            assert is_injected(caught)


def test_an_error_of_another_thread_is_injected() -> None:
    caught: list[bool] = []

    def work() -> None:
        try:
            thread = ctypes.c_ulong(threading.get_ident())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(OperationTimeout))
            for _ in range(1000):
                sleep(0)
        except OperationTimeout as error:
            caught.append(is_injected(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == [True]


def test_clear_frames_clears_the_locals_of_this_package() -> None:
    with pytest.raises(ConnectError) as refused, Connection(Node("127.0.0.1:1")) as connection:
        connection.run(ping())
    clear_frames(refused.value)
    trace = refused.tb.tb_next
    assert trace is not None
    while trace is not None:
        assert trace.tb_frame.f_locals == {}
        trace = trace.tb_next
