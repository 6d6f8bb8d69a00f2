"""Words and numbers in sentences and columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def leaves(value: Any, name: str = "", *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield full name, such as ``a.b[0]``, and value of each entry of nested dictionaries.

    ``lists=False`` yields a list as one value.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else str(key), lists=lists)
    elif lists and isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}[{index}]")
    else:
        yield name, value


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
