"""What is shown of the rows: the table of a page, and README's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from igo.ground.files import write_atomically
from igo.ground.statistics import Array, mean_of
from igo.report.comparison import p_value, signed
from lab.study.records import ROOT
from lab.study.rows import Row

README = ROOT / "README.md"
START, END = "<!-- made by make study -->\n", "<!-- end of rows -->\n"


def table(rows: Sequence[Row]) -> str:
    """The rows: adjusted p, and what n seeds can detect."""
    head = ["claim", "n", "difference, 95 %", "p", "detectable", "verdict"]
    return markdown(head, [_cells(row) for row in rows])


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    first, *rest = (f"| {' | '.join(line)} |\n" for line in (head, *lines))
    return "".join([first, "|---" * len(head), "|\n", *rest])


def _cells(row: Row) -> list[str]:
    numbers = row["found"]
    if numbers is None:
        return [row["claim"], "–", "", "", "", "**not judged**"]
    difference = with_interval(*(numbers[name] for name in ("statistic", "low", "high")))
    power = numbers["detectable"]
    text = "–" if power is None else f"{power:.2g}"
    return [
        row["claim"], str(numbers["n"]), difference, p_value(numbers["p_adjusted"]), text,
        numbers["verdict"],
    ]  # fmt: skip


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
