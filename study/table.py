"""The rows as a table, in the README between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igo.analysis.report.phrases import p_value, signed
from igo.files import write_atomically
from study import judge
from study.records import ROOT

Row = dict[str, Any]
README = ROOT / "README.md"
START, END = "<!-- made of results/rows.yaml by make study -->\n", "<!-- end of rows -->\n"
TITLE = (
    "| claim | n | result, 95 % | p | detectable | verdict |",
    "|---|---|---|---|---|---|",
)


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
        return f"{name} = {found['statistic']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
    value, low, high = (signed(found[name], form) for name in ("statistic", "low", "high"))
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


def between(text: str) -> str:
    """What stands between the marks."""
    return text.partition(START)[2].partition(END)[0]


def put(rows: Sequence[Row], readme: Path = README) -> None:
    """Write the table into the README."""
    text = readme.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    write_atomically(readme, before + START + table(rows) + END + after)
