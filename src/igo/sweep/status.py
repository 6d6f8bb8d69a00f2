"""The program `igo sweep-status`: the state of a sweep, from its runs' records and the queue."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from igo.config.load import split_off
from igo.ground.errors import UserError
from igo.ground.words import counted
from igo.runs.folder import error_of, last_record, read_status
from igo.sweep.manifest import FOLDER, Entry, Manifest, find_manifest
from igo.sweep.state import counts, sweep_states, why

SHOWN = 3  # labels of runs that failed with the same error


@dataclass
class StatusSettings:
    """The settings of `igo sweep-status` (conf/sweep_status.yaml)."""

    name: str | None
    runs_dir: str


def run(composed: DictConfig) -> None:
    """Show the sweep that the settings name."""
    settings, _ = split_off(composed, StatusSettings)
    runs_dir = Path(settings.runs_dir)
    console = Console(highlight=False, soft_wrap=True)
    manifest = find_manifest(runs_dir, settings.name)
    console.print(
        f"sweep {manifest.name}, started {manifest.started}: {manifest.command}", markup=False
    )
    show(manifest, runs_dir, console)


def show(manifest: Manifest, runs_dir: Path, console: Console) -> dict[str, str]:
    """Print the runs that run or failed, and why. Print the table, and write it into the folder.

    Returns:
        The state of each run.
    """
    try:
        states = sweep_states(manifest, runs_dir)
    except UserError as failure:
        console.print(f"warning: {failure}; the states below are from records only", markup=False)
        states = manifest.recorded(runs_dir)
    failed: dict[str, list[Entry]] = {}  # by error
    for entry in manifest.runs:
        state, folder = states[entry.run], runs_dir / entry.run
        if state == "running":
            epoch = last_record(folder).get("epoch", 0)
            console.print(f"running: {entry.label}: epoch {epoch}/{entry.epochs}", markup=False)
        elif state == "failed":
            failed.setdefault(error_of(folder), []).append(entry)
        elif state == "interrupted":
            reason = why(read_status(folder))
            console.print(f"interrupted: {entry.label}: {reason} ({folder})", markup=False)
    for error, entries in failed.items():
        which = "; ".join(entry.label for entry in entries[:SHOWN])
        if len(entries) > 1:
            rest = "; …" if len(entries) > SHOWN else ""
            which = f"{counted(len(entries), 'run')} ({which}{rest})"
        file = runs_dir / entries[0].run / "error.txt"
        console.print(f"failed: {which}: {error} ({file})", markup=False)
    if "finished" in states.values():
        _show_table(manifest, runs_dir, console)
    console.print(f"sweep {manifest.name}: {counts(states)}", markup=False)
    return states


def _show_table(manifest: Manifest, runs_dir: Path, console: Console) -> None:
    if find_spec("polars") is None:
        missing = "no table: polars is not installed (pip install '.[report]')"
        console.print(missing, markup=False)
        return
    from igo.report import content, results, table
    from igo.report.show import show_summary

    folder = runs_dir / FOLDER / manifest.name
    folders = [runs_dir / entry.run for entry in manifest.runs]
    runs = table.read_runs(folders)
    table.write(runs, folder)
    show_summary(runs)
    for line in content.headlines(content.compared(results.read(folders))):
        console.print(line, markup=False)
    console.print(f"table {folder}/table.csv; report: igo report runs={folder}", markup=False)
