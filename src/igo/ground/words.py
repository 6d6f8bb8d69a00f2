"""Words and numbers in sentences and columns."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """``1 epoch``, ``1,200 epochs``."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """One line for each row, with its cells right-aligned in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
