"""`use_python`: replaces compiled primitives by Python code, to compare both."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import TypeAlias
from unittest.mock import patch

__all__ = ["Seam", "use_python"]

Seam: TypeAlias = tuple[object, str, object]
"""A module, the name of a primitive in it, and what Python code uses instead."""


@contextmanager
def use_python(seams: Iterable[Seam]) -> Generator[None]:
    """Replace the primitives at *seams*."""
    with ExitStack() as stack:
        for module, name, instead in seams:
            stack.enter_context(patch.object(module, name, instead))
        yield
