"""Ids of parametrized tests that are equal in every process: workers that share the tests compare their lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import cast

__all__ = ["stable"]


def stable(text: Callable[[object], str]) -> Callable[[object], str]:
    """Return *text* (`repr`, `ascii`, `str`) without addresses of objects, and with sets in order."""

    def id_of(value: object) -> str:
        kind = type(value).__name__
        if not isinstance(value, set | frozenset | list):
            return re.sub(r" at 0x[0-9a-f]+", "", text(value))
        elements = [id_of(each) for each in cast("Collection[object]", value)]  # isinstance leaves the type unknown
        if isinstance(value, list):
            return f"[{', '.join(elements)}]"
        return f"{kind}({', '.join(sorted(elements))})"

    return id_of
