"""The tables of a page, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from igo.ground.files import write_atomically
from igo.ground.statistics import Array, mean_of
from igo.report.comparison import signed

START, END = "<!-- made by make study -->\n", "<!-- end of rows -->\n"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    head_line, *other_lines = (f"| {' | '.join(line)} |\n" for line in (head, *lines))
    return "".join([head_line, "|---" * len(head), "|\n", *other_lines])


def power(detectable: float | None) -> str:
    """What n seeds can detect."""
    return "–" if detectable is None else f"{detectable:.2g}"


def with_interval(*numbers: float, digits: int = 2) -> str:
    """A number with the ends of its interval."""
    value, low, high = (signed(number, f".{digits}f") for number in numbers)
    return f"{value} [{low}, {high}]"


def mean_with_interval(values: Array, digits: int = 2) -> str:
    """Their mean, with Student's 95 % interval."""
    mean = mean_of(values)
    return with_interval(mean.value, mean.low, mean.high, digits=digits)


def between(text: str) -> str:
    """The text between the marks."""
    return text.partition(START)[2].partition(END)[0]


def put(text: str, path: Path) -> None:
    """Write the text between the marks of a page."""
    head, _, rest = path.read_text().partition(START)
    write_atomically(path, head + START + text + END + rest.partition(END)[2])
