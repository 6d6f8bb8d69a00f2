"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, what: str, several: str | None = None) -> str:
    """``1 epoch``, ``1,200 epochs``."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"
