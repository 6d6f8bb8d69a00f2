"""The tables of docs/performance.md, from benchmarks/results: python -m benchmarks.page."""

import json
from pathlib import Path
from typing import Any

from benchmarks import cells, report
from igo.ground.files import write_atomically
from lab.markdown import markdown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
NAMES = {"script": "over the script", "limit": "of the limit", "published": "over the published"}
START, END = "<!-- made by python -m benchmarks.page -->\n", "<!-- end of rows -->\n"


def spread(values: dict[str, float], form: str = ".2f") -> str:
    """The median, with quartiles."""
    median, low, high = (format(values[name], form) for name in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def contenders() -> str:
    """A row for each cell that is there: igo's images a second, and over each other contender's."""
    files = [report.RESULTS / f"{name}.json" for name in cells.NAMES]
    lines = []
    for file in filter(Path.is_file, files):
        record = json.loads(file.read_text())
        rows = {row["contender"]: row for row in record["contenders"]}
        ratios = [spread(rows[name]["ours_over_it"]) if name in rows else "" for name in NAMES]
        rate = f"{rows['ours']['images_per_second']['median']:,.0f}"
        accuracy = (f"{rows[name]['test_accuracy']:.1%}" for name in ("ours", "script"))
        lines.append([file.stem, *ratios, rate, " / ".join(accuracy)])
    head = ["model and b", *NAMES.values(), "images/s", "accuracy: igo / script"]
    return measured(record["facts"]) + markdown(head, lines)


def measured(facts: dict[str, Any]) -> str:
    """Where and when, in a sentence."""
    machine = facts["hardware"]
    return (
        f"Measured at {facts['commit']} on {facts['date'][:10]}: {machine['cpu']}"
        f" ({machine['instructions']}), {machine['threads']} threads, {machine['precision']},"
        f" PyTorch {facts['versions']['torch']}.\n\n"
    )


def costs() -> str:
    """A row for each update whose C² was timed."""
    record = json.loads((report.RESULTS / "cost.json").read_text())
    lines = [[row["cell"], spread(row["share"], ".2%")] for row in record["shares"]]
    return measured(record["facts"]) + markdown(["model and b", "C²'s share of an update"], lines)


def made() -> str:
    """The page with the tables of the results."""
    text, *texts = PAGE.read_text().split(START)
    for table, rest in zip((contenders, costs), texts, strict=True):
        _, end, after = rest.partition(END)
        text += START + table() + end + after
    return text


if __name__ == "__main__":
    write_atomically(PAGE, made())
