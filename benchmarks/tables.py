"""Print tables as text: names aligned left, figures aligned right."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["print_table"]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *header*. The first column has names, the others have figures."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        name, *figures = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  " + "   ".join([name.strip().ljust(widths[0]), *figures]))
    print()
