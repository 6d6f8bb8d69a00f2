"""Ranges of numbers: a test and its words, declared in the annotation of the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args, get_origin

Rule = tuple[Callable[[float], bool], str]


class Declared(NamedTuple):
    """What an annotation says besides the type: range, choices, an example or a short name."""

    rule: Rule | None
    choices: tuple[str, ...]
    text: str | None


def declared(hint: Any) -> Declared:
    """Read ``Annotated[type, rule, choices, text]``, of which each may be missing, or a Literal."""
    notes: tuple[Any, ...] = getattr(hint, "__metadata__", ())
    pairs = [note for note in notes if isinstance(note, tuple)]
    rule = next((note for note in pairs if callable(note[0])), None)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    choices = next((note for note in pairs if not callable(note[0])), choices)
    return Declared(rule, choices, next((note for note in notes if isinstance(note, str)), None))


POSITIVE: Rule = (lambda x: x > 0, "it must be above 0")


def at_least(low: float) -> Rule:
    """The bound is allowed."""
    return lambda x: x >= low, f"it must be {low:,} or more"


NOT_NEGATIVE, AT_LEAST_ONE = at_least(0), at_least(1)


def within(low: float, high: float) -> Rule:
    """Both bounds are allowed."""
    return lambda x: low <= x <= high, f"it must be in [{low:,}, {high:,}]"


def inside(low: float, high: float, words: str) -> Rule:
    """Neither bound is allowed."""
    return lambda x: low < x < high, words
