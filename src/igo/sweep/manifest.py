"""The book of a sweep, RUNS_DIR/sweeps/NAME/sweep.json: which runs belong to it, in which queue.

A sweep is its set of runs, as a run is its configuration: the same runs make the same sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from igo.config.schema import total_epochs
from igo.errors import UserError
from igo.files import from_json, make_writable, write_atomically
from igo.runs.folder import state_of
from igo.sweep.jobs import Job, labels
from igo.sweep.queue import queue_states, with_queue

FOLDER = "sweeps"  # under runs_dir


@dataclass(frozen=True)
class Entry:
    """One run of a sweep: its folder's name, what was typed for it, and how to tell it apart."""

    run: str
    overrides: list[str]
    label: str
    epochs: int


@dataclass
class Book:
    """A sweep's record. ``queue`` holds the SLURM job of each run that was handed to SLURM."""

    name: str
    command: str
    started: str
    runs: list[Entry]
    queue: dict[str, str] = field(default_factory=dict)

    def write(self, runs_dir: Path) -> Path:
        """Write sweep.json; return the sweep's folder.

        Raises:
            UserError: the folder cannot be written in.
        """
        folder = runs_dir / FOLDER / self.name
        make_writable(folder)
        write_atomically(folder / "sweep.json", json.dumps(asdict(self), indent=1) + "\n")
        return folder

    def recorded(self, runs_dir: Path) -> dict[str, str]:
        """How each run stands by its own record, see ``igo.runs.folder.state_of``."""
        return {entry.run: state_of(runs_dir / entry.run) for entry in self.runs}

    def states(self, runs_dir: Path) -> dict[str, str]:
        """How each run stands, by its record and SLURM's queue.

        Raises:
            UserError: the queue cannot be read.
        """
        states = self.recorded(runs_dir)
        jobs = {
            run: job for run, job in self.queue.items() if states.get(run) not in (None, "finished")
        }
        in_queue = queue_states(jobs.values())
        seen = {
            run: with_queue(states[run], runs_dir / run, in_queue.get(job))
            for run, job in jobs.items()
        }
        return states | seen


def sweep_name(choice: str, jobs: Sequence[Job]) -> str:
    """The name of a sweep of these runs."""
    names = sorted(job.name for job in jobs)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"{choice}-{digest}"


def open_book(runs_dir: Path, name: str, command: str, jobs: Sequence[Job]) -> Book:
    """The book of these runs, with the SLURM jobs that this sweep or another has for them."""
    told_apart = labels(jobs)
    entries = [
        Entry(job.name, list(job.overrides), told_apart[job.name], total_epochs(job.config))
        for job in jobs
    ]
    queue = {run: job for run, job in _queued(runs_dir).items() if run in told_apart}
    return Book(name, command, time.strftime("%Y-%m-%dT%H:%M:%S%z"), entries, queue)


def _queued(runs_dir: Path) -> dict[str, str]:
    """The newest SLURM job of each run of any sweep whose record can be read."""
    queue: dict[str, str] = {}
    for path in sorted((runs_dir / FOLDER).glob("*/sweep.json"), key=lambda p: p.stat().st_mtime):
        with contextlib.suppress(UserError):
            queue |= read_book(path).queue
    return queue


def read_book(path: Path) -> Book:
    """Read a sweep.json. Its folder gives the sweep its name, whatever is written inside.

    Raises:
        UserError: it cannot be read, is something else, or names a run outside RUNS_DIR.
    """
    try:
        found = from_json(path.read_text())
        runs = [Entry(**one) for one in found.pop("runs")]
        book = Book(runs=runs, **{**found, "name": path.parent.name})
        _check(book)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not the record of a sweep ({error})") from None
    return book


def _check(book: Book) -> None:
    """Hold a record against what this project writes; somebody else may have written it.

    Raises:
        ValueError: a run that is no folder's name, which could lead out of RUNS_DIR, or no job id.
        TypeError: a value of another type.
    """
    texts = [book.command, book.started, *book.queue, *book.queue.values()]
    for entry in book.runs:
        texts += [entry.run, entry.label, *entry.overrides]
        if not isinstance(entry.epochs, int):
            raise TypeError(f"epochs={entry.epochs!r}")
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text")
    for run in [*book.queue, *(entry.run for entry in book.runs)]:
        if run in ("", "..", ".") or not {"/", "\0"}.isdisjoint(run):
            raise ValueError(f"{run!r} is no run's name")
    for job in book.queue.values():
        if not re.fullmatch(r"\d+(_\d+)?", job):
            raise ValueError(f"{job!r} is no job")


def find_book(runs_dir: Path, name: str | None) -> Book:
    """The sweep whose name begins so; the newest one for None.

    Raises:
        UserError: there is none.
    """
    books = [
        path
        for path in (runs_dir / FOLDER).glob("*/sweep.json")
        if path.parent.name.startswith(name or "")
    ]
    found = sorted(books, key=lambda p: p.stat().st_mtime)
    if not found:
        known = sorted(path.parent.name for path in (runs_dir / FOLDER).glob("*/sweep.json"))
        there = f"there are {', '.join(known)}" if known else "no sweep was started there"
        which = f" whose name begins with {name}" if name else ""
        raise UserError(f"runs_dir={runs_dir} holds no sweep{which}; {there}")
    return read_book(found[-1])


def counts(states: Mapping[str, str]) -> str:
    """``12 finished, 2 running, …``, in this order, what is 0 left out."""
    order = ("finished", "running", "queued", "interrupted", "damaged", "failed", "new")
    values = list(states.values())
    parts = [
        f"{values.count(state)} {'to go' if state == 'new' else state}"
        for state in order
        if state in values
    ]
    return ", ".join(parts) or "no runs"
