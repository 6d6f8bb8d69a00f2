"""What is shown of the rows: a table and a figure for each page, and README's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from igo.ground.files import write_atomically
from igo.ground.statistics import LEVEL
from igo.report.comparison import p_value, signed
from lab.figures import BLUE, GREY, VERMILION, drawn
from lab.study.records import ROOT
from lab.study.rows import MARGIN, Row, interval

README = ROOT / "README.md"
START, END = "<!-- made by make study -->\n", "<!-- end of rows -->\n"


def table(rows: Sequence[Row]) -> str:
    """The rows: adjusted p, what n seeds can detect, or the seeds that equality needs."""
    head = ["claim", "n", "difference, 95 %", "p, different", "p, equal", "detectable", "verdict"]
    return _with_last_epoch(rows, head, [_cells(row) for row in rows])


def _with_last_epoch(rows: Sequence[Row], head: list[str], lines: list[list[str]]) -> str:
    """A table; the last epoch has a column where a row has a number of it."""
    if any("last_epoch" in (row["found"] or {}) for row in rows):
        head.insert(3, "last epoch")
        for row, line in zip(rows, lines, strict=True):
            last = (row["found"] or {}).get("last_epoch")
            line.insert(3, with_interval(last) if last else "–")
    return markdown(head, lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    every = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in every)


def _cells(row: Row) -> list[str]:
    numbers = row["found"]
    if numbers is None:
        return [row["claim"], "–", "", "", "", "", "**not judged**"]
    verdict = verdict_of(row)
    if numbers.get("last_epoch_verdict", numbers["verdict"]) != numbers["verdict"]:
        verdict += f"; last epoch: {numbers['last_epoch_verdict']}"
    power = numbers["detectable"]
    text = "–" if power is None else f"{power:.2g}"
    if row["test"] == "equal":
        text = f"{numbers['seeds_to_equate']} seeds"
    return [
        row["claim"], str(numbers["n"]), with_interval(interval(numbers)),
        p_value(numbers["p_adjusted"]), p_value(numbers["p_equal_adjusted"]), text, verdict,
    ]  # fmt: skip


def verdict_of(row: Row) -> str:
    """The verdict. Settings can be equal within the margin and also different."""
    numbers = row["found"]
    p = numbers.get("p_adjusted")
    both = row["test"] == "equal" and numbers["verdict"] == "confirmed"
    return (
        "confirmed, and different" if both and p is not None and p <= LEVEL else numbers["verdict"]
    )


def with_interval(numbers: Sequence[float]) -> str:
    """A number with the ends of its interval."""
    value, low, high = (signed(number, ".2f") for number in numbers)
    return f"{value} [{low}, {high}]"


def readme(rows: Sequence[Row]) -> str:
    """The rows that README.md shows, in its words, by the order in "readme"."""
    shown = [row for row in rows if "readme" in row and row["found"]]
    shown.sort(key=lambda row: row["readme"][0])
    head = ["claim", "seeds", "points of test accuracy", "verdict"]
    lines = [[row["readme"][1], *_cells(row)[1:3], verdict_of(row)] for row in shown]
    return _with_last_epoch(shown, head, lines)


def between(text: str) -> str:
    """The text between the marks."""
    return text.partition(START)[2].partition(END)[0]


def put(text: str, path: Path) -> None:
    """Write the text between the marks of a page."""
    head, _, rest = path.read_text().partition(START)
    write_atomically(path, head + START + text + END + rest.partition(END)[2])


def draw(rows: Sequence[Row], path: Path) -> None:
    """Differences with 95 % intervals, as judged and by the last epoch; the margin of equality."""
    places = np.arange(len(rows))[::-1]
    kinds = {
        "as judged": (BLUE, places, [interval(row["found"]) for row in rows]),
        "last epoch": (VERMILION, places - 0.25, [row["found"].get("last_epoch") for row in rows]),
    }
    with drawn(path, 1, 9.5, 1.2 + 0.27 * len(rows), dpi=130) as (ax,):
        ax.axvspan(-MARGIN, MARGIN, color=GREY, alpha=0.18, lw=0)
        ax.axvline(0, color=GREY, lw=0.8)
        for label, (colour, heights, found) in kinds.items():
            y = [height for height, numbers in zip(heights, found, strict=True) if numbers]
            x = np.array([numbers for numbers in found if numbers])
            sides = [x[:, 0] - x[:, 1], x[:, 2] - x[:, 0]]
            ax.errorbar(x[:, 0], y, xerr=sides, fmt="o", ms=3.5, lw=1.2, capsize=2,
                        color=colour, label=label)  # fmt: skip
        ax.set_yticks(places, [row["claim"] for row in rows])
        ax.set_title("points of test accuracy")
        ax.legend(loc="best")
