"""The program `igo report`: it writes the report's folder."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from igo.analysis.table.show import say
from igo.ground.errors import ConfigError, UserError
from igo.ground.files import output_folder, replace_all, write_atomically
from igo.ground.words import counted
from igo.report import content, draw, page, power
from igo.report.results import Results, read
from igo.runs.find import find, named
from igo.runs.provenance import code

PAGE = "index.html"
STAMP = ".inputs"  # beside the page: the fingerprint of the files that the page was made of
SUFFIXES = {".json", ".jsonl", ".yaml", ".csv"}  # of the files of a run that a report reads
DEFAULTS = {"margin": content.MARGIN, "difference": 1.0}  # points of test accuracy
FIGURES = "figures"
LINK = r'href="(figures/[\w.-]+\.(?:png|pdf|csv))"'  # from a page to its figure files


def run(composed: DictConfig) -> None:
    """Read the runs and write page, figures and tables; or print the power of their seeds."""
    names = named(composed.runs)
    output = output_folder(composed.output)
    margin, difference = (_points(composed, name) for name in ("margin", "difference"))
    folders = find(names)
    if composed.get("power", False):
        _say_power(read(folders), difference, margin)
        return
    links = composed.get("links", True)
    inputs = fingerprint(folders, (names, str(output), margin, links))
    if composed.get("if_new", False) and is_current(output, inputs):
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
    html = page.render(report, results, shlex.join(typed), output if links else None)
    files[PAGE] = html.encode()
    _write(output, files)
    if composed.get("if_new", False):
        write_atomically(output / STAMP, inputs)
    say(f"wrote {output / PAGE}")


def fingerprint(folders: Sequence[Path], settings: object) -> str:
    """SHA-256 of the settings, igo's sources, and name, size and time of each file of the runs."""
    digest = hashlib.sha256(f"{code(all_rooms=True)}\0{settings}".encode())
    for folder in sorted(folders):
        for file in sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES):
            stat = file.stat()
            digest.update(f"\0{file}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def is_current(output: Path, inputs: str) -> bool:
    """Whether the folder has a page that was made of these inputs."""
    stamp = output / STAMP
    return (output / PAGE).is_file() and stamp.is_file() and stamp.read_text() == inputs


def _say_findings(results: Results, report: content.Report, figures: int) -> None:
    """Print the findings before the figures are drawn, which takes a second each."""
    excluded = len(results.runs) - int(results.runs["counted"].sum())
    runs = f"{counted(len(results.runs), 'run')} ({excluded:,} excluded)"
    say(f"{runs}; {counted(figures, 'figure')}, {len(report.left_out)} skipped")
    for section in filter(lambda section: section.finding.sentence, report.sections):
        where = f", {section.where}" if section.where else ""
        say(f"{section.title}{where}: {section.finding.sentence}")


def _say_power(results: Results, difference: float, margin: float) -> None:
    lines = list(power.lines(results, difference, margin))
    for line in lines:
        say(line)
    if not lines:
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
    """Write each file whole, the page last; remove figures that only the previous page links to."""
    stale = _linked(folder / PAGE) - files.keys()
    with _writing(folder):
        for name, data in files.items():
            replace_all({folder / name: data})
        for name in stale:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise a UserError if the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"output: {folder} cannot be written ({error.strerror or error})") from None


def _linked(previous: Path) -> set[str]:
    """The figure files that a previous page links to."""
    if not previous.is_file():
        return set()
    html = previous.read_text(encoding="utf-8", errors="replace")
    return set(re.findall(LINK, html)) if page.MARK in html else set()
