"""The program `igo report`: one HTML page with its styles and figures inside, and their files."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from omegaconf import DictConfig

from igo.config.schema import has_effect
from igo.ground.errors import counted, require
from igo.ground.numbers import BETWEEN, POSITIVE, fault
from igo.report import formats, sections
from igo.report.formats import in_range
from igo.report.names import labels, without_delta
from igo.report.output import csv_of, write_output
from igo.report.provenance import short
from igo.report.results import Results, read_results
from igo.report.sections import Section
from igo.report.settings import TOTALS, constants
from igo.report.table import show_errors, states
from igo.report.target import NEEDED
from igo.runs.find import find, named
from igo.runs.manifest import command

HERE = Path(__file__).parent
PAGE = "index.html"


def run(composed: DictConfig) -> Sequence[Section]:
    """Read the runs, and write their report."""
    output = composed.output
    is_name = isinstance(output, str) and output != "" and not Path(output).is_file()
    require(is_name, "output", output, "it must be the name of a folder")
    reason = composed.target is not None and fault(composed.target, BETWEEN)
    advice = f"{reason}: 36 % of test accuracy is 0.36"
    require(not reason, "target", composed.target, advice)
    require(
        not fault(composed.margin, POSITIVE),
        "margin",
        composed.margin,
        "it must be points of test accuracy, above 0",
    )
    folders = find(named(composed.runs))
    # A folder that cannot be written ends the command before it reads.
    write_output(Path(output), {})
    return write(read_results(folders, composed.target), Path(output), composed.margin)


def write(results: Results, output: Path, margin: float = sections.MARGIN) -> Sequence[Section]:
    """Write the page, the figures and the tables into a folder, and print what was found."""
    results = replace(results, runs=results.runs.sort("setting", "seed", "run", nulls_last=True))
    tasks = sections.compared(results, margin)
    figures = [figure for task in tasks for figure in task.figures]
    excluded = len(results.runs) - int(results.runs["counted"].sum())
    print(
        f"{counted(len(results.runs), 'run')} ({excluded:,} excluded);"
        f" {counted(len(figures), 'figure')}"
    )
    show_errors(results.runs)
    for task in tasks:
        if words := " ".join(filter(None, (task.headline, *task.notes))):
            print(f"{task.title}: {words}")
    # A report may be published: names of folders are left out.
    local_names = ["folder", *(x for x in results.runs.columns if not has_effect(x))]
    files = {
        "runs.csv": csv_of(results.runs.drop(local_names)),
        "settings.csv": csv_of(results.settings),
        "epochs.csv": csv_of(results.curves),
    }
    for figure in figures:
        files |= {f"figures/{figure.name}.{kind}": data for kind, data in figure.files().items()}
    write_output(output, files | render(tasks, results, output))
    print(f"wrote {output / PAGE}")
    return tasks


def render(tasks: Sequence[Section], results: Results, folder: Path) -> dict[str, bytes]:
    """The page and the table for LaTeX, by their names in ``folder``; the page links the runs."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        # A record may hold anything, also a stranger's HTML: only what is made here is Markup.
        autoescape=True,
        # A misspelt name in the template is an error, not an empty place.
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": formats.fixed,
        "number": formats.number,
        "p_value": formats.p_value,
        "difference": formats.difference,
        "counted": counted,
        "short": short,
        # ``p = 0.5``, ``η₁ 0.1`` and ``91 %`` stay on one line.
        "tied": lambda text: re.sub(r" (?=[=%≤>×])|(?<=[=≤>×₁βM]) ", "\u00a0", text),
    }
    names = labels(results.settings)
    runs = results.runs.to_dicts()
    for row in runs:
        run_folder = Path(row["folder"]).resolve()
        row["label"] = names.get(row["setting"], "–")
        # The link is relative, so that page and runs can be moved together.
        row["link"] = f"{quote(os.path.relpath(run_folder, folder.resolve()))}/"
    values = {
        "css": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "sections": tasks,
        "settings": [(names[row["setting"]], row) for row in results.settings.to_dicts()],
        "runs": runs,
        "facts": _facts(results),
        "totals": TOTALS,
        "target": results.target,
        "needed": NEEDED,
        "how": _how(results),
        "common": constants(results.settings),
    }
    templates = {PAGE: "page.html", "settings.tex": "page.tex"}
    return {
        name: environment.get_template(template).render(values).encode()
        for name, template in templates.items()
    }


def _facts(results: Results) -> dict[str, Any]:
    """The numbers at the head of the page."""
    runs, settings = results.runs, results.settings
    return {
        "runs": len(runs),
        "counted": int(runs["counted"].sum()),
        "settings": len(settings),
        "seeds": in_range(settings.filter(pl.col("n") > 0)["n"].to_list() or [0]),
        "time": f"{float(runs['seconds'].sum()) / 60:,.1f} min",
        "states": states(runs),
    }


def _how(results: Results) -> dict[str, str]:
    """The rows of “How it was run”; values that differ have their number of runs."""
    runs = results.runs.filter("counted")
    rows = {"This page": command(), "Noise level": "; ".join(without_delta(results.settings))}
    for name in ("hardware", "software", "commit"):
        counts = Counter(runs[name].fill_null("unknown").sort()).most_common()
        texts = [f"{text} ({count} runs)" if len(counts) > 1 else text for text, count in counts]
        rows[name.capitalize()] = "; ".join(texts)
    return {name: text for name, text in rows.items() if text}
