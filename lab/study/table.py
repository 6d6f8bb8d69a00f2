"""The rows as tables between two marks: a few in the README, all in results/README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from igo.analysis.report.phrases import p_value, signed
from igo.analysis.statistics import LEVEL
from igo.files import write_atomically
from lab.study.written import ROOT, Row

README, PAGE = ROOT / "README.md", ROOT / "results" / "README.md"
START, END = "<!-- made of results/rows.yaml by make study -->\n", "<!-- end of rows -->\n"
THREE = ("statistic", "low", "high")
TITLE = (
    "| claim | endpoint | n | result, 95 % | p, different | p, equal | detectable | verdict |",
    "|---|---|---|---|---|---|---|---|",
)
ENDPOINTS = {
    "accuracy": "last five",
    "end_accuracy": "last epoch",
    "end_loss": "test loss, last epoch",
    "deviation": "rms of log(δ_measured/δ_m)",
}
SECONDARY = {  # what a row may have beside its verdict, and how many digits are shown of it
    "loss": ("training loss, difference", "+.4f"),
    "annealed": ("after the anneal, points", "+.2f"),
    "of_test_error": ("ρ̂ of the test error", ".2f"),
    "of_train_loss": ("ρ̂ of the training loss", ".2f"),
    "tail": ("tail index α, median of runs [quartiles]", ".2f"),
    "tail_below_2": ("runs with α < 2, %", ".0f"),
    "settings_below_2": ("settings, of 16, with a median α < 2", "d"),
    "of_tail": ("ρ that would follow from α, median [quartiles]", ".2f"),
    "largest_eigenvalue": ("largest eigenvalue, first ÷ second", ".2f"),
    "largest_eigenvalue_within": ("its correlation with accuracy within first, second", "+.2f"),
    "trace": ("trace of the Hessian, first ÷ second", ".2f"),
    "trace_within": ("its correlation with accuracy within first, second", "+.2f"),
    "means": ("accuracy in %", ".2f"),
}


def table(rows: Sequence[Row]) -> str:
    """A line a row that is judged: p adjusted, what n can detect, for equality the n it takes."""
    shown = [row for row in rows if row.get("judged", True)]
    return "\n".join([*TITLE, *(_line(row) for row in shown)]) + "\n"


def _line(row: Row) -> str:
    found, what = row["found"], ENDPOINTS[row.get("endpoint", "accuracy")]
    if found is None:
        return f"| {row['claim']} | {what} | – | `{row['command']}` | | | | **not run** |"
    p, p_equal = (p_value(found.get(f"{name}_adjusted")) for name in ("p", "p_equal"))
    if row["test"] == "not_lower":  # judged by its interval; p_equal is no test of the claim
        p_equal = "–"
    cells = [row["claim"], what, str(found["n"]), _result(row), p, p_equal, _power(row)]
    return f"| {' | '.join(cells)} | {_verdict(row)} |"


def _verdict(row: Row) -> str:
    """The verdict; whether two settings that are equal within the margin differ all the same."""
    found = row["found"]
    p = found.get("p_adjusted")
    if row["test"] == "equal" and found["verdict"] == "confirmed" and p is not None and p <= LEVEL:
        return "confirmed, and different"
    by_rule = f" (by its rule: {found['by_rule']})" if "by_rule" in found else ""
    return f"{found['verdict']}{by_rule}"


def _result(row: Row) -> str:
    found, form = row["found"], row.get("form", ".2f")
    if row["test"] in ("law", "order"):
        name = "ρ̂" if row["test"] == "law" else "τ"
        return f"{name} = " + _numbers([found[part] for part in THREE], ".2f")
    return _interval([found[part] for part in THREE], form)


def _interval(numbers: Sequence[float], form: str = ".2f") -> str:
    """A difference with its interval."""
    value, low, high = (signed(number, form) for number in numbers)
    return f"{value} [{low}, {high}]"


def _power(row: Row) -> str:
    """What 80 % of such studies find, in the endpoint's unit; the seeds that equality takes."""
    found = row["found"]
    if row["test"] == "law":
        return f"curve {100 * found['explained']:.0f} %"
    if row["test"] == "equal":
        return f"{found['seeds_to_equate']} seeds"
    value = found.get("detectable")
    return "–" if value is None else f"{value:.2g}"


def by_last_epoch(rows: Sequence[Row]) -> str:
    """Rows whose primary endpoint is the average of five, by the last epoch beside it."""
    lines = [
        "| claim | n | last five | last epoch | p, different | p, equal | verdicts |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if (found := row["found"]) and "last_epoch" in found:
            p, p_equal = (p_value(found[f"last_epoch_{name}"]) for name in ("p", "p_equal"))
            verdicts = (found["verdict"], found["last_epoch_verdict"])
            both = verdicts[0] if len(set(verdicts)) == 1 else f"{verdicts[0]}; **{verdicts[1]}**"
            cells = [row["claim"], str(found["n"]), _result(row), _interval(found["last_epoch"])]
            lines.append(f"| {' | '.join([*cells, p, p_equal, both])} |")
    return "\n".join(lines) + "\n"


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
    if isinstance(value, float | int):
        return f"{value:{form}}"
    told = [f"{one:{form}}".replace("-", "−") for one in value]
    return f"{told[0]} [{told[1]}, {told[2]}]" if len(told) == 3 else ", ".join(told)


def between(text: str) -> str:
    """What stands between the marks."""
    return text.partition(START)[2].partition(END)[0]


def readme(rows: Sequence[Row]) -> str:
    """The few rows that the README shows, by both endpoints."""
    lines = ["| claim | n | last five | last epoch | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        if row.get("readme") and (found := row["found"]):
            last = found.get("last_epoch")
            shown = "–" if last is None else _interval(last)
            cells = [row["claim"], str(found["n"]), _result(row), shown, _verdict(row)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row]) -> str:
    """All rows, for results/README.md: verdicts, by the last epoch, what stands beside them."""
    parts = {
        "Verdicts": table(rows),
        "By the last epoch": by_last_epoch(rows),
        "Beside the verdicts": beside(rows),
    }
    return "\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def put(rows: Sequence[Row], readme_file: Path = README, page_file: Path = PAGE) -> None:
    """Write the tables into their files."""
    for path, text in ((readme_file, readme(rows)), (page_file, page(rows))):
        before, _, rest = path.read_text().partition(START)
        write_atomically(path, before + START + text + END + rest.partition(END)[2])
