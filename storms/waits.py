"""What a library of C (`waits.c`) measures: waits of threads for the machine, and stalls of the whole machine.

`measure`: how long the calling thread has waited for the interpreter's lock, or for a processor. No other thread can
see this. So the library must be loaded before the C library: `restarted` starts this program again with it. `watch`:
when the machine stood still. Nothing is measured where there is no C compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["environment", "measure", "restarted", "watch"]

SOURCE: Final = Path(__file__).with_name("waits.c")
MARK: Final = "STORMS_RESTARTED"
# The allocator of the C library keeps freed memory: in a heap of each thread, in caches of each thread, and between
# living blocks. So the resident memory of 64 threads grows for hours although no more is in use (measured: from 55 to
# 105 MiB in 150 s, of which 9 MiB were in use after the threads had ended). With these settings it follows what is in
# use, and a leak is seen. Python's own allocator keeps freed memory too, and does not say how much of it is in use.
TUNABLES: Final = "GLIBC_TUNABLES"
PYTHON: Final = "PYTHONMALLOC"
ALLOCATOR: Final = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "arena_max": 1,
        "tcache_count": 0,
        "mmap_threshold": 65536,
        "trim_threshold": 1 << 30,  # the heap is trimmed before each sample, and not after each peak
    }.items()
)


def restarted(arguments: list[str]) -> None:
    """Replace this process by one that runs *arguments* in `environment`; return if it does so already."""
    if MARK not in os.environ:
        os.execve(sys.executable, [sys.executable, *arguments], environment())
    for name in (MARK, "LD_PRELOAD", TUNABLES, PYTHON):  # these are not for the servers
        os.environ.pop(name, None)


def environment() -> Mapping[str, str]:
    """Return the environment of a process that measures its waits and its memory."""
    library = _build()
    preload = {} if library is None else {"LD_PRELOAD": str(library)}
    return {**os.environ, MARK: "1", TUNABLES: ALLOCATOR, PYTHON: "malloc", **preload}


def measure() -> Callable[[], float] | None:
    """Return a function that returns the seconds that its thread has waited; None if nothing measures them."""
    try:
        function = ctypes.PyDLL(None).storms_waited  # PyDLL: a call that released the lock would wait for it again
    except AttributeError:
        return None
    function.restype = ctypes.c_double
    function.argtypes = ()
    found: Callable[[], float] = function
    return found


def watch() -> Callable[[float], float] | None:
    """Watch the machine from now on, in a thread that needs no lock of the interpreter, until the process ends.

    Return a function that returns the seconds for which the machine stood still after a ``time.monotonic()`` time; None
    if nothing measures them. A stall is a sleep of 5 ms that ends over 20 ms late.
    """
    library = ctypes.CDLL(None)
    try:
        start, function = library.storms_watch, library.storms_stalled
    except AttributeError:
        return None
    if start():
        return None
    function.restype = ctypes.c_double
    function.argtypes = (ctypes.c_double,)
    found: Callable[[float], float] = function
    return found


def _build() -> Path | None:
    """Return the compiled library; None if there is no compiler, or this is no Linux."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    name = f"storms-waits-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    library = Path(sys.prefix) / name
    if not library.exists():
        # Compiled beside it and renamed: two processes may do this at the same time.
        with tempfile.TemporaryDirectory(dir=sys.prefix) as directory:
            made = Path(directory) / name
            subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(SOURCE), "-ldl"], check=True)
            made.replace(library)
    return library
