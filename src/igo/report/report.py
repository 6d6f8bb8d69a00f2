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
from igo.report import formats
from igo.report.formats import in_range
from igo.report.names import labels, without_delta
from igo.report.output import csv_of, write_output
from igo.report.provenance import short
from igo.report.results import Results, read_results
from igo.report.sections import MARGIN, Section, by_task
from igo.report.settings import TOTALS, constants
from igo.report.table import show_errors, states
from igo.report.target import NEEDED
from igo.runs.find import find, named
from igo.runs.manifest import command

HERE = Path(__file__).parent
PAGE = "index.html"


def run(composed: DictConfig) -> Sequence[Section]:
    """Read the runs, and write their report."""
    output, target, margin = composed.output, composed.target, composed.margin
    is_name = isinstance(output, str) and output != "" and not Path(output).is_file()
    require(is_name, "output", output, "it must be the name of a folder")
    if target is not None:
        reason = fault(target, BETWEEN)
        require(not reason, "target", target, f"{reason}: 36 % of test accuracy is 0.36")
    reason = fault(margin, POSITIVE)
    require(not reason, "margin", margin, "it must be points of test accuracy, above 0")
    folders = find(named(composed.runs))
    # A folder that cannot be written ends the command before it reads.
    write_output(Path(output), {})
    return write(read_results(folders, target), Path(output), margin)


def write(results: Results, output: Path, margin: float = MARGIN) -> Sequence[Section]:
    """Write page, figures and tables into a folder, print what was found, return the sections."""
    results = replace(results, runs=results.runs.sort("setting", "seed", "run", nulls_last=True))
    sections = by_task(results, margin)
    figures = [figure for section in sections for figure in section.figures]
    excluded = len(results.runs) - int(results.runs["counted"].sum())
    run_count, figure_count = counted(len(results.runs), "run"), counted(len(figures), "figure")
    print(f"{run_count} ({excluded:,} excluded); {figure_count}")
    show_errors(results.runs)
    for section in sections:
        if text := " ".join(filter(None, (section.headline, *section.notes))):
            print(f"{section.title}: {text}")
    # A report may be published: folders are left out, and with them all settings without an effect.
    local_columns = [name for name in results.runs.columns if not has_effect(name)]
    files = {
        "runs.csv": csv_of(results.runs.drop("folder", *local_columns)),
        "settings.csv": csv_of(results.settings),
        "epochs.csv": csv_of(results.curves),
    }
    for figure in figures:
        files |= {f"figures/{figure.name}.{kind}": data for kind, data in figure.files().items()}
    write_output(output, files | render(sections, results, output))
    print(f"wrote {output / PAGE}")
    return sections


def render(sections: Sequence[Section], results: Results, output: Path) -> dict[str, bytes]:
    """The page and the table for LaTeX, by their names in ``output``; the page links the runs."""
    names = labels(results.settings)
    runs = results.runs.to_dicts()
    for run in runs:
        run["label"] = names.get(run["setting"], "–")
        # The link is relative, so that page and runs can be moved together.
        link = os.path.relpath(Path(run["folder"]).resolve(), output.resolve())
        run["link"] = f"{quote(link)}/"
    values = {
        "css": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "sections": sections,
        "settings": [(names[row["setting"]], row) for row in results.settings.to_dicts()],
        "runs": runs,
        "facts": _facts(results),
        "totals": TOTALS,
        "target": results.target,
        "needed": NEEDED,
        "how": _how(results),
        "common": constants(results.settings),
    }
    environment = _environment()
    return {
        PAGE: environment.get_template("page.html").render(values).encode(),
        "settings.tex": environment.get_template("page.tex").render(values).encode(),
    }


def _environment() -> Environment:
    """Jinja, with what the templates need to write numbers and words."""
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
    return environment


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
    """The rows of “How it was run”; values that differ have the number of their runs."""
    runs = results.runs.filter("counted")
    rows = {"This page": command(), "Noise level": "; ".join(without_delta(results.settings))}
    for name in ("hardware", "software", "commit"):
        counts = Counter(runs[name].fill_null("unknown").sort()).most_common()
        texts = [text for text, _ in counts]
        if len(counts) > 1:
            texts = [f"{text} ({count} runs)" for text, count in counts]
        rows[name.capitalize()] = "; ".join(texts)
    return {name: text for name, text in rows.items() if text}
