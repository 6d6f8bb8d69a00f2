"""What is shown of the rows: a table and a figure for each page, and README's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    return _markdown(rows, head, [_cells(row) for row in rows])


def _markdown(rows: Sequence[Row], head: list[str], lines: list[list[str]]) -> str:
    """A table; the last epoch has a column where a row has a number of it."""
    if any("last_epoch" in (row["found"] or {}) for row in rows):
        head.insert(3, "last epoch")
        for row, line in zip(rows, lines, strict=True):
            last = (row["found"] or {}).get("last_epoch")
            line.insert(3, with_interval(last) if last else "–")
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines]) + "\n"
    )


def _cells(row: Row) -> list[str]:
    numbers = row["found"]
    if numbers is None:
        return [row["claim"], "–", "", "", "", "", "**not run**"]
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
    return _markdown(shown, head, lines)


def between(text: str) -> str:
    """The text between the marks."""
    return text.partition(START)[2].partition(END)[0]


def put(text: str, path: Path) -> None:
    """Write the text between the marks of a page."""
    head, _, rest = path.read_text().partition(START)
    write_atomically(path, head + START + text + END + rest.partition(END)[2])


def draw(panels: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Differences with 95 % intervals and the margin of equality; a panel for each title."""
    height = 1.2 + 0.27 * max(len(rows) for rows in panels.values())
    with drawn(path, len(panels), 9.5 / len(panels), height, dpi=130) as axes:
        for ax, (title, rows) in zip(axes, panels.items(), strict=True):
            margin = rows[0].get("margin", MARGIN)
            ax.axvspan(-margin, margin, color=GREY, alpha=0.18, lw=0)
            ax.axvline(0, color=GREY, lw=0.8)
            places = np.arange(len(rows))[::-1]
            kinds = (("", BLUE, 0.0), ("last_epoch", VERMILION, -0.25))
            for name, colour, shift in kinds:
                found = [row["found"].get(name) if name else interval(row["found"]) for row in rows]
                kept = [(x, y + shift) for x, y in zip(found, places, strict=True) if x]
                if kept:
                    x, y = np.array([x for x, _ in kept]), [y for _, y in kept]
                    sides = [x[:, 0] - x[:, 1], x[:, 2] - x[:, 0]]
                    label = name.replace("_", " ") or "as judged"
                    ax.errorbar(x[:, 0], y, xerr=sides, fmt="o", ms=3.5, lw=1.2, capsize=2,
                                color=colour, label=label)  # fmt: skip
            ax.set_yticks(places, [row["claim"] for row in rows])
            ax.set_title(title)
        if len(axes[0].get_legend_handles_labels()[0]) > 1:
            axes[0].legend(loc="best")
