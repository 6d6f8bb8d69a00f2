"""The program `igo report`: one HTML page with its styles and figures inside, and their files."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from omegaconf import DictConfig

from igo.config.schema import NO_EFFECT
from igo.ground.errors import ConfigError, UserError
from igo.ground.files import output_folder, replace_all
from igo.ground.words import counted
from igo.report import content
from igo.report.comparison import Pair, in_range, p_value, signed
from igo.report.content import Section
from igo.report.names import data_set, labels, without_delta
from igo.report.results import Results, read
from igo.report.show import say, show_errors
from igo.report.table import Row, constants
from igo.runs.find import find, named

HERE = Path(__file__).parent
PAGE = "index.html"


def run(composed: DictConfig) -> None:
    """Read the runs; write the page, the figures and the tables."""
    names = named(composed.runs)
    output = output_folder(composed.output)
    margin = composed.get("margin", content.MARGIN)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 < margin <= 100:
        raise ConfigError("margin", margin, "it must be points of test accuracy, above 0")
    folders = find(names)
    _write(output, {})  # a folder that cannot be written ends the command before it reads
    results = read(folders)
    sections = content.compared(results, margin)
    figures = [figure for section in sections for figure in section.figures]
    excluded = len(results.runs) - int(results.runs["counted"].sum())
    runs = f"{counted(len(results.runs), 'run')} ({excluded:,} excluded)"
    say(f"{runs}; {counted(len(figures), 'figure')}")
    show_errors(results.runs)
    for line in content.headlines(sections):
        say(line)
    files = {f"{name}.csv": data for name, data in _tables(results).items()}
    for figure in figures:
        files |= {f"figures/{figure.name}.{kind}": data for kind, data in figure.files().items()}
    shown = names[0] if len(names) == 1 else f"[{','.join(names)}]"
    typed = ["igo", "report", f"runs={shown}", f"output={composed.output}"]
    typed += [f"margin={margin:g}"] * (margin != content.MARGIN)
    links = output if composed.get("links", True) else None
    html = render(sections, results, shlex.join(typed), links)
    _write(output, files | {PAGE: html.encode()})
    say(f"wrote {output / PAGE}")


def _tables(results: Results) -> dict[str, bytes]:
    """runs.csv, settings.csv and epochs.csv: all data, without folders and hosts."""
    without = tuple(f"{setting}." for setting in (*NO_EFFECT, "host", "folder"))
    local = [name for name in results.runs.columns if f"{name}.".startswith(without)]
    if results.runs["worst_case"].null_count() == len(results.runs):
        local.append("worst_case")
    runs = results.runs.drop(local).sort("setting", "seed", "run", nulls_last=True)
    tables = {"runs": runs, "settings": results.settings, "epochs": results.curves}
    return {name: table.write_csv().encode() for name, table in tables.items()}


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write each file whole, the page last."""
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            replace_all({folder / name: data})
    except OSError as error:
        raise UserError(f"output: {folder} cannot be written ({error.strerror or error})") from None


def render(
    sections: Sequence[Section], results: Results, command: str, folder: Path | None = None
) -> str:
    """The page of a report.

    Args:
        sections: its sections in order.
        results: the runs that it was made of.
        command: the command that makes the page again.
        folder: the page's folder, for links to the run folders; None for no links.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "number": _number, "p_value": p_value, "tied": _tied, "difference": _difference,
        "counted": counted, "svg": lambda figure: Markup(figure.svg()),
    }  # fmt: skip
    names = labels(results.settings)
    ordered = results.runs.sort("setting", "seed", "run", nulls_last=True)
    common = constants(results.settings)
    return environment.get_template("page.html").render(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        sections=sections,
        settings=[(label, results.row(number)) for number, label in names.items()],
        runs=[
            {**row, "label": names.get(row["setting"], "–"), "link": _link(row["folder"], folder)}
            for row in ordered.to_dicts()
        ],
        uncounted=ordered.filter(~pl.col("counted")).to_dicts(),
        facts=_facts(results),
        how=_how(results, command),
        common={k: f"{v:.6g}" if isinstance(v, float) else v for k, v in common.items()},
    )


def _tied(text: str) -> str:
    """Keep ``p = 0.5``, ``η₁ 0.1`` and ``91 %`` on one line."""
    text = re.sub(r"([₁βM]) (\d)", "\\1\u00a0\\2", text)
    for breakable in (" = ", " %", " ≤ ", " > ", " × "):
        text = text.replace(breakable, breakable.replace(" ", "\u00a0"))
    return text


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "–" if value is None else f"{value * factor:{form}}"


def _difference(pair: Pair, form: str = ".2f", factor: float = 100) -> str:
    """``+0.44 [−0.01, +0.90]``."""
    if pair.difference is None:
        return "–"
    difference = signed(factor * pair.difference, form)
    if not pair.sd or pair.low is None or pair.high is None:  # an interval has a width
        return difference
    return f"{difference} [{signed(factor * pair.low, form)}, {signed(factor * pair.high, form)}]"


def _link(run: str, folder: Path | None) -> str:
    """The address of a run's folder, relative to the page's folder."""
    if folder is None:
        return ""
    return quote(f"{os.path.relpath(Path(run).resolve(), folder.resolve())}/")


def _facts(results: Results) -> dict[str, Any]:
    """The numbers at the head of the page."""
    runs, settings = results.runs, results.settings
    states = runs["state"].value_counts().sort("count", "state", descending=[True, False])
    seconds = float(runs["seconds"].sum())
    minutes = f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    return {
        "runs": len(runs),
        "counted": int(runs["counted"].sum()),
        "settings": len(settings),
        "seeds": in_range(settings.filter(pl.col("n") > 0)["n"].to_list() or [0]),
        "datasets": ", ".join(sorted({data_set(row) for row in settings.to_dicts()})) or "–",
        "models": ", ".join(settings["model.name"].unique().sort()) or "–",
        "time": f"{seconds:.0f} s" if seconds < 120 else minutes,
        "states": ", ".join(f"{count:,} {state}" for state, count in states.iter_rows()),
    }


def _how(results: Results, command: str) -> list[tuple[str, str]]:
    """Name and value of each row of “How it was run”."""
    used = results.runs.filter("counted")
    started = sorted(str(s["started"])[:10] for s in results.statuses if s.get("started"))
    rows = [
        ("This page", command),
        ("Noise level", "; ".join(without_delta(results.settings))),
        ("Hardware", _counts([_hardware(status) for status in results.statuses])),
        ("Software", _counts([_versions(status) for status in results.statuses])),
        ("Commit", _counts(used["commit"].fill_null("unknown").to_list())),
        ("Runs started", f"{started[0]} to {started[-1]}" if started else ""),
        ("Seeds", ", ".join(map(str, used["seed"].unique().sort()))),
    ]
    return [(name, value) for name, value in rows if value]


def _counts(values: Sequence[str]) -> str:
    """Each value once; if there are several, with the number of runs of each."""
    each = Counter(sorted(values)).most_common()
    if len(each) == 1:
        return each[0][0]
    return "; ".join(f"{value} ({count} runs)" for value, count in each)


def _hardware(status: Row) -> str:
    facts = status.get("hardware")
    if not isinstance(facts, dict):
        return "unknown"
    words = [str(facts[name]) for name in ("gpu", "cpu", "precision") if name in facts]
    counts = {"core": facts.get("cores"), "thread": facts.get("threads")}
    if facts.get("ranks", 1) != 1:
        words.append(f"{facts['ranks']} processes")
    return ", ".join([*words, *(counted(n, name) for name, n in counts.items() if n is not None)])


def _versions(status: Row) -> str:
    recorded = status.get("versions")
    versions = {"Python": status.get("python"), **(recorded if isinstance(recorded, dict) else {})}
    shown = [name for name in ("Python", "torch", "torchvision", "timm") if versions.get(name)]
    return ", ".join(f"{name} {versions[name]}" for name in shown) or "unknown"
