"""The rows as tables between two marks: verdicts in the README, what stands beside in results/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igo.analysis.report.phrases import p_value, signed
from igo.files import write_atomically
from study import judge
from study.records import ROOT

Row = dict[str, Any]
README, BESIDE = ROOT / "README.md", ROOT / "results" / "README.md"
START, END = "<!-- made of results/rows.yaml by make study -->\n", "<!-- end of rows -->\n"
THREE = ("statistic", "low", "high")
TITLE = (
    "| claim | n | result, 95 % | p | detectable | verdict |",
    "|---|---|---|---|---|---|",
)
SECONDARY = {  # what a row may have beside its verdict, and how many digits are shown of it
    "loss": ("training loss, difference", "+.4f"),
    "annealed": ("after the anneal, points", "+.2f"),
    "of_test_error": ("ρ̂ of the test error", ".2f"),
    "tail": ("tail index α", ".2f"),
    "of_tail": ("ρ that would follow from α", ".2f"),
    "largest_eigenvalue": ("largest eigenvalue, first ÷ second", ".2f"),
    "largest_eigenvalue_within": ("its correlation with accuracy within first, second", "+.2f"),
    "trace": ("trace of the Hessian, first ÷ second", ".2f"),
    "trace_within": ("its correlation with accuracy within first, second", "+.2f"),
    "means": ("accuracy in %", ".2f"),
}


def table(rows: Sequence[Row]) -> str:
    """A line a row that is judged; p adjusted; what n can detect, for equality the n it takes."""
    shown = [row for row in rows if row.get("judged", True)]
    return "\n".join([*TITLE, *(_line(row) for row in shown)]) + "\n"


def _line(row: Row) -> str:
    found = row["found"]
    if found is None:
        return f"| {row['claim']} | – | `{row['command']}` | | | **not run** |"
    cells = [row["claim"], str(found["n"]), _result(row), _p(row), _power(row)]
    return f"| {' | '.join(cells)} | {found['verdict']} |"


def _result(row: Row) -> str:
    found, form = row["found"], row.get("form", ".2f")
    if row["test"] in ("law", "order"):
        name = "ρ̂" if row["test"] == "law" else "τ"
        return f"{name} = " + _numbers([found[part] for part in THREE], ".2f")
    value, low, high = (signed(found[part], form) for part in THREE)
    return f"{value} [{low}, {high}]"


def _p(row: Row) -> str:
    name = {"equal": "p_equal_adjusted", "not_lower": ""}.get(row["test"], "p_adjusted")
    return p_value(row["found"].get(name))


def _power(row: Row) -> str:
    found = row["found"]
    if row["test"] == "law":
        return f"curve {100 * found['explained']:.0f} %"
    if row["test"] == "equal":
        return f"n ≥ {found['seeds_to_equate']}"
    if row["test"] == "not_lower":
        return f"margin {judge.MARGIN:g}"
    value = found.get("detectable")
    return "–" if value is None else f"{value:.2g}"


def beside(rows: Sequence[Row]) -> str:
    """Secondary endpoints, and rows that are not judged, with their intervals: no verdicts."""
    lines = ["| claim | n | beside it | 95 % |", "|---|---|---|---|"]
    told: set[tuple[str, str, str]] = set()  # rows of the same runs have the same beside them
    for row in rows:
        found = row["found"] or {}
        if "explained" in found and not row.get("judged", True):
            lines.append(f"| {row['claim']} | {found['n']} | {_power(row)} | {_result(row)} |")
        for name, (title, form) in SECONDARY.items():
            if name in found:
                numbers = _numbers(found[name], form)
                if (one := (row["command"], name, numbers)) not in told:
                    lines.append(f"| {row['claim']} | {found['n']} | {title} | {numbers} |")
                    told.add(one)
    return "\n".join(lines) + "\n"


def _numbers(value: float | Sequence[float], form: str) -> str:
    """One number, a value with its interval (three), or several."""
    if isinstance(value, float):
        return f"{value:{form}}"
    told = [f"{one:{form}}".replace("-", "−") for one in value]
    return f"{told[0]} [{told[1]}, {told[2]}]" if len(told) == 3 else ", ".join(told)


def between(text: str) -> str:
    """What stands between the marks."""
    return text.partition(START)[2].partition(END)[0]


def put(rows: Sequence[Row], readme: Path = README, besides: Path = BESIDE) -> None:
    """Write the tables into their files."""
    for path, told in ((readme, table(rows)), (besides, beside(rows))):
        before, _, rest = path.read_text().partition(START)
        write_atomically(path, before + START + told + END + rest.partition(END)[2])
