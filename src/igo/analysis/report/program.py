"""From the settings of `igo report` to the report's folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from igo.analysis.report import content, draw, inputs, page, power
from igo.analysis.report.results import Results, read
from igo.analysis.table.show import say
from igo.errors import ConfigError, UserError
from igo.files import output_folder, replace_all
from igo.runs.find import find, named
from igo.words import counted

PAGE = "index.html"
DEFAULTS = {"margin": content.MARGIN, "difference": 1.0}  # points of test accuracy
FIGURES = "figures"
OWN_LINK = r'href="(figures/[\w.-]+\.(?:png|pdf|csv))"'  # in a page of before: files of ours


def run(composed: DictConfig) -> None:
    """Read the runs, and write page, figures and tables; or print their power."""
    names = named(composed.runs)
    output = output_folder(composed.output)
    margin, difference = (_points(composed, name) for name in ("margin", "difference"))
    folders = find(names)
    if composed.get("power", False):
        _say_power(read(folders), difference, margin)
        return
    made_of = inputs.fingerprint(folders, (names, str(output), margin, composed.get("links", True)))
    if composed.get("if_new", False) and inputs.is_current(output / PAGE, made_of):
        say(f"{output / PAGE} is up to date")
        return
    with _writing(output):
        (output / FIGURES).mkdir(parents=True, exist_ok=True)
    results = read(folders)
    report = content.compose(results, margin)
    figures = [figure for section in report.sections for figure in section.figures]
    _say_findings(results, report, len(figures))
    typed = ["igo", "report", f"runs={_shown(names)}", f"output={composed.output}"]
    typed += [f"margin={margin:g}"] * (margin != content.MARGIN)
    files: dict[str, bytes] = {
        f"{name}.csv": table.write_csv().encode() for name, table in content.tables(results).items()
    }
    for figure in figures:
        drawn = draw.render(figure) | {"csv": figure.table.write_csv().encode()}
        files |= {f"{FIGURES}/{figure.name}.{suffix}": data for suffix, data in drawn.items()}
    beside = output if composed.get("links", True) else None
    files[PAGE] = page.render(report, results, shlex.join(typed), beside).encode()
    _write(output, files)
    if composed.get("if_new", False):
        inputs.keep(output / PAGE, made_of)
    say(f"wrote {output / PAGE}")


def _say_findings(results: Results, report: content.Report, figures: int) -> None:
    """Before the figures are drawn, which takes a second each."""
    excluded = len(results.runs) - int(results.runs["counted"].sum())
    runs = f"{counted(len(results.runs), 'run')} ({excluded:,} excluded)"
    say(f"{runs}; {counted(figures, 'figure')}, {len(report.left_out)} skipped")
    for section in report.sections:
        where = f", {section.where}" if section.where else ""
        say(f"{section.title}{where}: {section.finding.sentence}")


def _say_power(results: Results, difference: float, margin: float) -> None:
    shown = list(power.lines(results, difference, margin))
    for line in shown:
        say(line)
    if not shown:
        say("no two comparable settings have two finished seeds in common")
        return
    say("test accuracy at the last epoch, in points; detectable: found with 80 % power by n seeds")
    say("last two columns: seeds to find the difference, seeds to show equality within the margin")


def _points(composed: DictConfig, name: str) -> float:
    value = composed.get(name, DEFAULTS[name])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise ConfigError(name, value, "it must be points of test accuracy, above 0")
    return float(value)


def _shown(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{','.join(names)}]"


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write each file whole, the page last; remove what only the page of before links to."""
    stale = _linked(folder / PAGE) - files.keys()
    with _writing(folder):
        for name, data in files.items():
            replace_all({folder / name: data})
        for name in stale:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A UserError for what keeps the folder from being written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"output: {folder} cannot be written ({error.strerror or error})") from None


def _linked(page_of_before: Path) -> set[str]:
    """The figure files that a report of before made."""
    if not page_of_before.is_file():
        return set()
    text = page_of_before.read_text(encoding="utf-8", errors="replace")
    return set(re.findall(OWN_LINK, text)) if page.MARK in text else set()
