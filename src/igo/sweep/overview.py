"""What a person sees while a sweep runs here: what runs, what is done, how long it will take."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from igo.config.schema import total_epochs
from igo.runs.folder import last_record, read_status, state_of
from igo.sweep.jobs import Job, labels
from igo.sweep.launch import Sweep
from igo.sweep.state import counts


class Overview:
    """A bar for the sweep and one for each running run; lines where there is no terminal."""

    def __init__(self, sweep: Sweep, parallel: int) -> None:
        self._console = sweep.console
        self._labels = labels(sweep.jobs)
        self._parallel = parallel
        self._states = dict.fromkeys(self._labels, "new")
        self._epochs = {job.name: total_epochs(job.config) for job in sweep.jobs}
        self._done = {job.name: _epoch(job) for job in sweep.jobs}
        self._there = sum(self._done.values())  # epochs of earlier starts
        self._start = time.perf_counter()
        self._bars: dict[str, tuple[Job, TaskID]] = {}
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._total = self._progress.add_task("sweep", total=sum(self._epochs.values()), said="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def started(self, job: Job) -> None:
        """Show one more run."""
        label = self._labels[job.name]
        total = self._epochs[job.name]
        self._bars[job.name] = job, self._progress.add_task(f"  {label}", total=total, said="")
        self._states[job.name] = "running"

    def ended(self, job: Job, how: str) -> None:
        """Say how a run ended; ``how`` where its process was killed."""
        _, bar = self._bars.pop(job.name)
        self._progress.remove_task(bar)
        state = self._states[job.name] = state_of(job.folder.path)
        self._done[job.name] = self._epochs[job.name]
        record, status = last_record(job.folder.path), read_status(job.folder.path)
        if state == "finished":
            said = f"test accuracy {record['test/accuracy']:.2%} ({status.get('seconds', 0):.0f} s)"
        else:
            said = f"{how or status.get('error', '')} ({job.folder.path})"
        ended = sum(state not in ("new", "running") for state in self._states.values())
        line = f"[{ended}/{len(self._states)}] {state} {self._labels[job.name]}: {said}"
        self._console.print(line, markup=False)

    def look(self) -> None:
        """Read how far the running ones are."""
        for name, (job, bar) in self._bars.items():
            record = last_record(job.folder.path)
            if record:
                self._done[name] = int(record["epoch"])
                said = f"epoch {record['epoch']}  test {record['test/accuracy']:.2%}"
                self._progress.update(bar, completed=record["epoch"], said=said)
        done = sum(self._done.values())
        said = f"{counts(self._states)}, {self._time_left(done)}"
        self._progress.update(self._total, completed=done, said=said)

    def _time_left(self, done: int) -> str:
        """From the epochs of this start, whose runs share the machine as those to come will."""
        passed = done - self._there
        if passed <= 0:
            return "time left unknown"
        left = sum(self._epochs.values()) - done
        seconds = round((time.perf_counter() - self._start) * left / passed)
        hours, rest = divmod(seconds, 3600)
        return f"about {hours}:{rest // 60:02}:{rest % 60:02} left"


def _epoch(job: Job) -> int:
    return int(last_record(job.folder.path).get("epoch", 0))
