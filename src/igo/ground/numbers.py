"""Ranges of numbers, and the one check of them: for plans, settings and the noise."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any


@dataclass(frozen=True)
class Rule:
    """A range of numbers, as a test and in words."""

    allows: Callable[[float], bool]
    words: str


def at_least(low: float) -> Rule:
    """The range [low, ∞)."""
    return Rule(lambda x: x >= low, f"it must be {low:,} or more")


def within(low: float, high: float) -> Rule:
    """The range [low, high]."""
    return Rule(lambda x: low <= x <= high, f"it must be in [{low:,}, {high:,}]")


POSITIVE = Rule(lambda x: x > 0, "it must be above 0")
NOT_NEGATIVE = at_least(0)
AT_LEAST_ONE = at_least(1)
BELOW_ONE = Rule(lambda x: 0 <= x < 1, "it must be in [0, 1)")
BETWEEN = Rule(lambda x: 0 < x < 1, "it must be in (0, 1)")
Count = Annotated[int, AT_LEAST_ONE]  # Settings have this type.


def fault(value: Any, rule: Rule, whole: bool = False) -> str:
    """What is wrong with a value: it must be a finite number in a range, whole if asked.

    It says what the value must be; it is empty if the value is right.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max or (whole and value % 1 != 0):
        return f"it must be a {'whole ' * whole}number; {rule.words}"
    return "" if rule.allows(float(value)) else rule.words


def check(rule: Rule, *, whole: bool = False, **arguments: object) -> None:
    """Check arguments by a rule; one that is None was not given.

    Raises:
        ValueError: it names the argument, its value and what it must be.
    """
    for name, value in arguments.items():
        if value is not None and (reason := fault(value, rule, whole)):
            raise ValueError(f"{name}={value}: {reason}")
