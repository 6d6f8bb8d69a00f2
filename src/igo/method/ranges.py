"""What a number may be: a test and the words for it, declared where the argument is."""

from __future__ import annotations

from collections.abc import Callable

Rule = tuple[Callable[[float], bool], str]
POSITIVE: Rule = (lambda x: x > 0, "it must be above 0")
NOT_NEGATIVE: Rule = (lambda x: x >= 0, "it must be 0 or more")
AT_LEAST_ONE: Rule = (lambda x: x >= 1, "it must be 1 or more")


def within(low: float, high: float) -> Rule:
    """Both bounds are allowed."""
    return lambda x: low <= x <= high, f"it must be in [{low:,}, {high:,}]"


def inside(low: float, high: float, words: str) -> Rule:
    """Neither bound is allowed."""
    return lambda x: low < x < high, words
