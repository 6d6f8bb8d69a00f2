"""The program `igo report`: one HTML page with its styles and figures inside, and their files."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import DictConfig
from polars import DataFrame, String, col
from polars.selectors import starts_with

from igo.config.schema import NO_EFFECT
from igo.ground.errors import UserError, counted, require
from igo.ground.files import alone, replace_all, writing
from igo.ground.numbers import BETWEEN, POSITIVE, fault
from igo.report import formats
from igo.report.provenance import short
from igo.report.results import NEEDED, Results, read_results
from igo.report.sections import MARGIN, Section, by_task
from igo.report.settings import TOTALS, constants, labels, without_delta
from igo.report.table import show_errors, states
from igo.runs.find import find, named
from igo.runs.manifest import command

PAGE = "index.html"
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    # A record may hold anything, also a stranger's HTML: it is shown as text.
    autoescape=True,
    # A misspelt name in a template is an error, not an empty place.
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def run(composed: DictConfig) -> Sequence[Section]:
    """Read the runs and write their report, by the settings of conf/report.yaml."""
    output, target, margin = composed.output, composed.target, composed.margin
    is_name = isinstance(output, str) and output != ""
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
    """Write page, figures and tables into a folder, print what was found, return the sections.

    Settings may be called equal within ``margin`` points of test accuracy.
    """
    runs = results.runs.sort("setting", "seed", "run", nulls_last=True)
    results = replace(results, runs=runs)
    sections = by_task(results, margin)
    figures = [figure for section in sections for figure in section.figures]
    excluded = int((~runs["counted"]).sum())
    print(f"{counted(len(runs), 'run')} ({excluded:,} excluded); {counted(len(figures), 'figure')}")
    show_errors(runs)
    for section in sections:
        if text := " ".join(filter(None, (section.headline, *section.notes))):
            print(f"{section.title}: {text}")
    # A report may be published: folders are left out, and with them all settings without an effect.
    tables = {
        "runs": runs.drop("folder", starts_with(*NO_EFFECT)),
        "settings": results.settings,
        "epochs": results.curves,
        **{f"figures/{figure.name}": figure.table for figure in figures},
    }
    files = {f"{name}.csv": csv_of(table) for name, table in tables.items()}
    for figure in figures:
        files |= {f"figures/{figure.name}.{kind}": data for kind, data in figure.pictures().items()}
    write_output(output, files | render(sections, results, output))
    print(f"wrote {output / PAGE}")
    return sections


def csv_of(table: DataFrame) -> bytes:
    """A table as CSV. A record may hold any text: a spreadsheet must take none for a formula."""
    texts = col(String).str.replace("^([=+@])", "'$1")
    return table.with_columns(texts).write_csv().encode()


def write_output(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files of a report, or none; make their folders.

    ``contents`` has each file by its path in ``folder``: a name, or a folder and a name.
    """
    with writing("output", folder), alone(folder):
        for inner in {(folder / name).parent for name in contents} - {folder}:
            inner.mkdir(exist_ok=True)
            # A link would lead the files to another place than the user named.
            if inner.is_symlink():
                raise UserError(f"{inner} is a link: remove it")
        replace_all({folder / name: data for name, data in contents.items()})


def render(sections: Sequence[Section], results: Results, output: Path) -> dict[str, bytes]:
    """The page, and the table "Every setting" for LaTeX, by the names of their files.

    The page links the runs from the folder ``output``.
    """
    values = {
        "sections": sections,
        "labels": labels(results.settings),
        "settings": results.settings.to_dicts(),
        "runs": results.runs.to_dicts(),
        "states": states(results.runs),
        "totals": TOTALS,
        "target": results.target,
        "needed": NEEDED,
        "how": _how(results),
        "common": constants(results.settings),
        "output": output,
    }
    return {
        name: TEMPLATES.get_template(template).render(values).encode()
        for name, template in ((PAGE, "page.html"), ("settings.tex", "page.tex"))
    }


def link(folder: str, output: Path) -> str:
    """The address of a folder for a page in ``output``; relative, so that both can be moved."""
    return quote(os.path.relpath(Path(folder).resolve(), output.resolve()))


def _how(results: Results) -> dict[str, str]:
    """The rows of “How it was run”, by their titles; a row without text is left out.

    Where runs differ, each value has the number of its runs, and the most frequent value is first.
    """
    runs = results.runs.filter("counted")
    rows = {"This page": command(), "Noise level": "; ".join(without_delta(results.settings))}
    for name in ("hardware", "software", "commit"):
        # Values that are equally frequent keep the order in which they were counted.
        counts = Counter(runs[name].fill_null("unknown").sort()).most_common()
        texts = [text for text, _ in counts]
        if len(counts) > 1:
            texts = [f"{text} ({count} runs)" for text, count in counts]
        rows[name.capitalize()] = "; ".join(texts)
    return {name: text for name, text in rows.items() if text}


# Templates write numbers and words by the functions of formats, and by these.
TEMPLATES.filters |= vars(formats) | {"counted": counted, "short": short, "link": link}
