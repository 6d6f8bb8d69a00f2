"""The program `igo sweep-status`, and the end of a sweep: what runs, what failed, what is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from igo.config.load import split_off
from igo.ground.errors import UserError
from igo.ground.words import counted
from igo.runs.folder import last_record
from igo.sweep.manifest import Manifest, counts, find_manifest, why

if TYPE_CHECKING:  # polars, which an installation may lack
    from igo.report.content import Section


@dataclass
class StatusSettings:
    """The settings of `igo sweep-status` (conf/sweep_status.yaml)."""

    name: str | None
    runs_dir: str


def run(composed: DictConfig) -> None:
    """Show the sweep that the settings name."""
    settings, _ = split_off(composed, StatusSettings)
    runs_dir = Path(settings.runs_dir)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    manifest = find_manifest(runs_dir, settings.name)
    console.print(f"sweep {manifest.name}, started {manifest.started}: {manifest.command}")
    show(manifest, runs_dir, console)


def show(
    manifest: Manifest, runs_dir: Path, console: Console, *, report: bool = False
) -> dict[str, str]:
    """Print the runs that run or failed, and why. Print the table, and write it into the folder.

    Args:
        manifest: the sweep.
        runs_dir: the folder of its runs.
        console: where to print.
        report: write the report, too.

    Returns:
        The state of each run.
    """
    try:
        states = manifest.states(runs_dir)
    except UserError as failure:
        console.print(f"warning: {failure}; the states below are from records only")
        states = manifest.states(runs_dir, with_queue=False)
    for entry in manifest.runs:
        state, folder = states[entry.run], runs_dir / entry.run
        if state == "running":
            epoch = last_record(folder).get("epoch", 0)
            console.print(f"running: {entry.label}: epoch {epoch}/{entry.epochs}")
        elif state in ("failed", "interrupted"):
            console.print(f"{state}: {entry.label}: {why(folder)} ({folder})")
    if "finished" in states.values():
        _show_results(manifest, runs_dir, console, report)
    console.print(f"sweep {manifest.name}: {counts(states)}")
    return states


def _show_results(manifest: Manifest, runs_dir: Path, console: Console, report: bool) -> None:
    if find_spec("polars") is None:
        console.print("no table: polars is not installed (pip install '.[report]')")
        return
    from igo.report import content, page, results, show, table

    folder = manifest.folder(runs_dir)
    folders = [runs_dir / entry.run for entry in manifest.runs]
    runs = table.read_runs(folders)
    table.write(runs, folder)
    show.show_summary(runs)
    console.print(f"table {folder / 'table.csv'}")
    sections = content.compared(results.read(folders), draw=False)
    for line in _differences(sections):
        console.print(line)
    typed = {"runs": str(folder), "output": str(folder / "report")}
    if report and sections:
        page.run(OmegaConf.create(typed))
        return
    for line in content.headlines(sections):
        console.print(line)
    console.print(f"report: igo report runs={typed['runs']} output={typed['output']}")


def _differences(sections: Sequence[Section]) -> Iterator[str]:
    """``Method 3 − Method 1: +0.44 points [−0.01, +0.90] over 10 seeds: undecided``."""
    from igo.report.comparison import signed

    for section in sections:
        for pair in section.brief:
            names = f"{section.labels[pair.first]} − {section.labels[pair.second]}"
            if pair.difference is None or pair.low is None or pair.high is None:
                yield f"{names}: {pair.verdict}"
                continue
            mean, low, high = (signed(100 * x) for x in (pair.difference, pair.low, pair.high))
            seeds = counted(pair.n, "seed")
            yield f"{names}: {mean} points [{low}, {high}] over {seeds}: {pair.verdict}"
