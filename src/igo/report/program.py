"""The program `igo report`: it writes the report's folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from igo.config.schema import NO_EFFECT
from igo.ground.errors import ConfigError, UserError
from igo.ground.files import output_folder, replace_all
from igo.ground.words import counted
from igo.report import content, page
from igo.report.results import SHARPNESS, Results, read
from igo.report.show import say
from igo.runs.find import find, named

PAGE = "index.html"


def run(composed: DictConfig) -> None:
    """Read the runs; write the page, the figures and the tables."""
    names = named(composed.runs)
    output = output_folder(composed.output)
    margin = _margin(composed.get("margin", content.MARGIN))
    folders = find(names)
    _write(output, {})  # a folder that cannot be written ends the command before it reads
    results = read(folders)
    sections = content.compose(results, margin)
    figures = [figure for section in sections for figure in section.figures]
    excluded = len(results.runs) - int(results.runs["counted"].sum())
    runs = f"{counted(len(results.runs), 'run')} ({excluded:,} excluded)"
    say(f"{runs}; {counted(len(figures), 'figure')}")
    for line in content.headlines(sections):
        say(line)
    files = {f"{name}.csv": data for name, data in _tables(results).items()}
    for figure in figures:
        files |= {f"figures/{figure.name}.{kind}": data for kind, data in figure.files().items()}
    typed = ["igo", "report", f"runs={_shown(names)}", f"output={composed.output}"]
    typed += [f"margin={margin:g}"] * (margin != content.MARGIN)
    links = output if composed.get("links", True) else None
    left_out = content.left_out(results, sections)
    html = page.render(sections, left_out, results, shlex.join(typed), links)
    _write(output, files | {PAGE: html.encode()})
    say(f"wrote {output / PAGE}")


def _tables(results: Results) -> dict[str, bytes]:
    """runs.csv, settings.csv and epochs.csv: all data, without folders and hosts."""
    without = tuple(f"{setting}." for setting in NO_EFFECT)
    local = [
        name
        for name in results.runs.columns
        if f"{name}.".startswith(without) or name in ("host", "folder")
    ]
    empty = [name for name in SHARPNESS if results.runs[name].null_count() == len(results.runs)]
    runs = results.runs.drop(local + empty).sort("setting", "seed", "run", nulls_last=True)
    tables = {"runs": runs, "settings": results.settings, "epochs": results.curves}
    return {name: table.write_csv().encode() for name, table in tables.items()}


def _margin(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise ConfigError("margin", value, "it must be points of test accuracy, above 0")
    return float(value)


def _shown(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{','.join(names)}]"


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write each file whole, the page last."""
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            replace_all({folder / name: data})
    except OSError as error:
        raise UserError(f"output: {folder} cannot be written ({error.strerror or error})") from None
