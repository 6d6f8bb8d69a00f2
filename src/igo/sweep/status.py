"""How a sweep stands, from the records of its runs and the queue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from igo.analysis.table import table
from igo.analysis.table.show import show_summary
from igo.errors import UserError
from igo.runs.folder import last_record, read_status
from igo.sweep.manifest import FOLDER, Book, counts, find_book


@dataclass
class StatusSettings:
    """What src/sweep_status.py can be told (conf/sweep_status.yaml)."""

    sweep: str | None
    runs_dir: str


def report(settings: StatusSettings) -> None:
    """Show the sweep that the settings name.

    Raises:
        UserError: there is none.
    """
    runs_dir = Path(settings.runs_dir)
    console = Console(highlight=False, soft_wrap=True)
    book = find_book(runs_dir, settings.sweep)
    console.print(f"sweep {book.name}, started {book.started}: {book.command}", markup=False)
    show(book, runs_dir, console)


def show(book: Book, runs_dir: Path, console: Console) -> dict[str, str]:
    """Print what runs, what failed and why, and the table, which is written to the sweep's folder.

    Returns:
        How each run stands.
    """
    try:
        states = book.states(runs_dir)
    except UserError as unseen:
        console.print(f"warning: {unseen}; what follows is from the records alone", markup=False)
        states = book.recorded(runs_dir)
    for entry in book.runs:
        state, folder = states[entry.run], runs_dir / entry.run
        if state == "running":
            epoch = last_record(folder).get("epoch", 0)
            console.print(f"running: {entry.label}: epoch {epoch}/{entry.epochs}", markup=False)
        elif state == "failed":
            error = read_status(folder).get("error", "")
            console.print(f"failed: {entry.label}: {error} ({folder}/error.txt)", markup=False)
        elif state == "interrupted":
            console.print(f"interrupted: {entry.label} ({folder})", markup=False)
    if "finished" in states.values():
        runs = table.read_runs(runs_dir / entry.run for entry in book.runs)
        table.write(runs, runs_dir / FOLDER / book.name)
        show_summary(runs)
        console.print(f"table {runs_dir / FOLDER / book.name}/table.csv", markup=False)
    console.print(f"sweep {book.name}: {counts(states)}", markup=False)
    return states
