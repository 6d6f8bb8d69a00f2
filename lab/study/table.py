"""The tables of the rows, between two marks: some rows in README.md, all in results/README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from igo.ground.files import write_atomically
from igo.report.comparison import p_value, signed
from igo.report.statistics import LEVEL
from lab.study.judge import interval
from lab.study.written import ROOT, Row

README, PAGE = ROOT / "README.md", ROOT / "results" / "README.md"
START, END = "<!-- made of results/rows.yaml by make study -->\n", "<!-- end of rows -->\n"
TITLE = (
    "| claim | endpoint | n | result, 95 % | p, different | p, equal | detectable | verdict |",
    "|---|---|---|---|---|---|---|---|",
)
ENDPOINTS = {
    "accuracy": "last five",
    "end_accuracy": "last epoch",
}
SECONDARY = {  # numbers beside a verdict: their title, and the format of a number
    "loss": ("training loss, difference", "+.4f"),
    "annealed": ("after the anneal, points", "+.2f"),
    "worst_case": ("worst-case sharpness, first ÷ second", ".2f"),
    "worst_case_within": ("its correlation with accuracy within first, second", "+.2f"),
    "means": ("accuracy in %", ".2f"),
}


def table(rows: Sequence[Row]) -> str:
    """The judged rows: adjusted p, what n seeds can detect, or the seeds that equality needs."""
    judged = [row for row in rows if row.get("judged", True)]
    return "\n".join([*TITLE, *(_line(row) for row in judged)]) + "\n"


def _line(row: Row) -> str:
    numbers, endpoint = row["found"], ENDPOINTS[row.get("endpoint", "accuracy")]
    if numbers is None:
        return f"| {row['claim']} | {endpoint} | – | `{row['command']}` | | | | **not run** |"
    p, p_equal = (p_value(numbers.get(f"{name}_adjusted")) for name in ("p", "p_equal"))
    cells = [row["claim"], endpoint, str(numbers["n"]), _result(row), p, p_equal, _power(row)]
    return f"| {' | '.join(cells)} | {_verdict(row)} |"


def _verdict(row: Row) -> str:
    """The verdict. Settings can be equal within the margin and also different."""
    numbers = row["found"]
    p = numbers.get("p_adjusted")
    equal = row["test"] == "equal" and numbers["verdict"] == "confirmed"
    if equal and p is not None and p <= LEVEL:
        return "confirmed, and different"
    return str(numbers["verdict"])


def _result(row: Row) -> str:
    numbers = row["found"]
    if row["test"] == "order":
        return "τ = " + _numbers(interval(numbers), ".2f")
    return _interval(interval(numbers))


def _interval(numbers: Sequence[float]) -> str:
    value, low, high = (signed(number, ".2f") for number in numbers)
    return f"{value} [{low}, {high}]"


def _power(row: Row) -> str:
    """The difference that 80 % of such studies find, or the seeds that equality needs."""
    numbers = row["found"]
    if row["test"] == "equal":
        return f"{numbers['seeds_to_equate']} seeds"
    value = numbers.get("detectable")
    return "–" if value is None else f"{value:.2g}"


def by_last_epoch(rows: Sequence[Row]) -> str:
    """The rows by the mean of five epochs, the primary endpoint, and by the last epoch."""
    lines = [
        "| claim | n | last five | last epoch | p, different | p, equal | verdicts |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if (numbers := row["found"]) and "last_epoch" in numbers:
            p, p_equal = (p_value(numbers[f"last_epoch_{name}"]) for name in ("p", "p_equal"))
            verdicts = (numbers["verdict"], numbers["last_epoch_verdict"])
            both = verdicts[0] if len(set(verdicts)) == 1 else f"{verdicts[0]}; **{verdicts[1]}**"
            cells = [
                row["claim"],
                str(numbers["n"]),
                _result(row),
                _interval(numbers["last_epoch"]),
            ]
            lines.append(f"| {' | '.join([*cells, p, p_equal, both])} |")
    return "\n".join(lines) + "\n"


def beside(rows: Sequence[Row]) -> str:
    """Secondary endpoints, and the rows that are not judged, with intervals and no verdicts."""
    lines = ["| claim | n | beside it | 95 % |", "|---|---|---|---|"]
    shown: set[tuple[str, str, str]] = set()  # rows of the same runs have the same numbers
    for row in rows:
        numbers = row["found"] or {}
        for name, (title, form) in SECONDARY.items():
            if name in numbers:
                text = _numbers(numbers[name], form)
                if (key := (row["command"], name, text)) not in shown:
                    lines.append(f"| {row['claim']} | {numbers['n']} | {title} | {text} |")
                    shown.add(key)
    return "\n".join(lines) + "\n"


def _numbers(value: float | Sequence[float], form: str) -> str:
    """A number, a value with its interval (three numbers), or several numbers."""
    if isinstance(value, float | int):
        return f"{value:{form}}"
    texts = [f"{number:{form}}".replace("-", "−") for number in value]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else ", ".join(texts)


def between(text: str) -> str:
    """The text between the marks."""
    return text.partition(START)[2].partition(END)[0]


def readme(rows: Sequence[Row]) -> str:
    """The rows that README.md shows, by both endpoints."""
    lines = ["| claim | n | last five | last epoch | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        if row.get("readme") and (numbers := row["found"]):
            last = numbers.get("last_epoch")
            last_epoch = "–" if last is None else _interval(last)
            cells = [row["claim"], str(numbers["n"]), _result(row), last_epoch, _verdict(row)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row]) -> str:
    """The tables of results/README.md."""
    sections = {
        "Verdicts": table(rows),
        "By the last epoch": by_last_epoch(rows),
        "Beside the verdicts": beside(rows),
    }
    return "\n".join(f"### {title}\n\n{text}" for title, text in sections.items())


def put(rows: Sequence[Row], readme_file: Path = README, page_file: Path = PAGE) -> None:
    """Write the tables into their files."""
    for path, text in ((readme_file, readme(rows)), (page_file, page(rows))):
        head, _, rest = path.read_text().partition(START)
        write_atomically(path, head + START + text + END + rest.partition(END)[2])
