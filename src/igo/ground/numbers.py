"""Ranges of numbers, and the one check of them: for plans, settings and the noise."""

import sys
from collections.abc import Callable
from numbers import Real
from typing import Annotated, Any

Rule = tuple[Callable[[float], bool], str]  # A range of numbers is a test and its words.
POSITIVE: Rule = (lambda x: x > 0, "it must be above 0")


def at_least(low: float) -> Rule:
    """The bound is allowed."""
    return lambda x: x >= low, f"it must be {low:,} or more"


NOT_NEGATIVE, AT_LEAST_ONE = at_least(0), at_least(1)
BELOW_ONE: Rule = (lambda x: 0 <= x < 1, "it must be in [0, 1)")
BETWEEN: Rule = (lambda x: 0 < x < 1, "it must be in (0, 1)")
Count = Annotated[int, AT_LEAST_ONE]  # Settings have this type.


def within(low: float, high: float) -> Rule:
    """Both bounds are allowed."""
    return lambda x: low <= x <= high, f"it must be in [{low:,}, {high:,}]"


def fault(value: Any, rule: Rule, whole: bool = False) -> str:
    """What a value must be instead, empty if it is right: a finite number within a range."""
    holds, words = rule
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max or (whole and value % 1 != 0):
        return f"it must be a {'whole ' * whole}number; {words}"
    return "" if holds(float(value)) else words


def check(rule: Rule, *, whole: bool = False, **arguments: object) -> None:
    """Check arguments by a rule; one that is None was not given.

    Raises:
        ValueError: it names the argument, its value and what it must be.
    """
    for name, value in arguments.items():
        if value is not None and (reason := fault(value, rule, whole)):
            raise ValueError(f"{name}={value}: {reason}")
