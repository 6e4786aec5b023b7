"""What the figures were measured with: the machine, the versions, and how busy other programs kept the processors."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

__all__ = ["busy_share", "machine", "versions"]

GIB: Final = 1024**3


def machine() -> Mapping[str, str]:
    """Return what a reader must know about this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{round(memory / GIB)} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "memcached": f"memcached {_memcached()}",
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", described.read_text()) if described.exists() else None
    return found[1].strip() if found else platform.machine()


def _memcached() -> str:
    """Return the version of the memcached that `Memcached` starts."""
    program = os.environ.get("METACACHE_MEMCACHED") or "memcached"
    return subprocess.run([program, "-V"], check=True, capture_output=True, text=True).stdout.split()[-1]


def versions(distributions: Iterable[str]) -> Mapping[str, str]:
    """Return the versions of those *distributions* that are installed."""
    found: dict[str, str] = {}
    for name in sorted(set(distributions)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def busy_share(seconds: float = 1.0) -> float:
    """Return the share of the processors that programs use in the next *seconds*, in which this one sleeps."""
    before = _ticks()
    time.sleep(seconds)
    idle, total = (after - earlier for after, earlier in zip(_ticks(), before, strict=True))
    return 1 - idle / total if total else 0.0


def _ticks() -> tuple[int, int]:
    """Return the ticks that the processors were idle, and all their ticks. 0 and 0 if there is no /proc/stat."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return 0, 0
    # proc(5): cpu user nice system idle iowait …
    ticks = [int(word) for word in counters.read_text().split("\n", 1)[0].split()[1:]]
    return ticks[3] + ticks[4], sum(ticks)
