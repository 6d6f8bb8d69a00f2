"""Words and numbers in sentences and columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with characters that steer a terminal written out, as ``\\x1b``."""
    return CONTROL.sub(lambda one: one[0].encode("unicode_escape").decode(), text)


def all_printable(value: Any) -> Any:
    """The same of every text in lists and dictionaries."""
    if isinstance(value, dict):
        return {all_printable(key): all_printable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [all_printable(one) for one in value]
    return printable(value) if isinstance(value, str) else value


def leaves(value: Any, name: str = "", *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Full names and values, ``a.b[0]``, of what is in dictionaries, and in ``lists`` or not."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{name}.{key}" if name else str(key), lists=lists)
    elif lists and isinstance(value, list):
        for place, one in enumerate(value):
            yield from leaves(one, f"{name}[{place}]")
    else:
        yield name, value


def counted(number: int, what: str) -> str:
    """``1 epoch``, ``1,200 epochs``."""
    return f"{number:,} {what if number == 1 else what + 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line a row, its cells flush right in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
