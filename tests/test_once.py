"""A part that is made at its first use is one part for all threads."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from metacache.once import Once


def test_the_part_is_made_at_its_first_use() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    once = Once(make)
    assert once.made is None
    assert made == []
    assert once.get() is once.get() is once.made is made[0]
    assert len(made) == 1


def test_threads_that_use_it_first_at_the_same_time_get_the_same_part() -> None:
    threads = 8
    start = Barrier(threads)

    def make() -> object:
        time.sleep(0.01)  # all threads are here before one of them ends
        return object()

    once = Once(make)

    def use() -> object:
        start.wait()
        return once.get()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            found = [future.result() for future in [pool.submit(use) for _ in range(threads)]]
    finally:
        sys.setswitchinterval(interval)
    assert len(set(map(id, found))) == 1
    assert once.made is found[0]


def test_a_part_that_cannot_be_made_is_made_by_the_next_use() -> None:
    answers = iter([ValueError("not yet"), "part"])

    def make() -> object:
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    once = Once(make)
    with pytest.raises(ValueError, match="not yet"):
        once.get()
    assert once.get() == "part"
