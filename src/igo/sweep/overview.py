"""What a sweep on this machine prints: progress, results and the time left."""

from __future__ import annotations

import time

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from igo.config.schema import total_epochs
from igo.ground.files import Record
from igo.runs.folder import error_of, last_record, read_status, state_of
from igo.sweep.jobs import Job, labels
from igo.sweep.launch import Sweep
from igo.sweep.state import counts, why


class Overview:
    """A bar for the sweep and one for each running run; lines if there is no terminal.

    ``bars`` is a context manager, which shows the bars.
    """

    def __init__(self, sweep: Sweep, parallel: int) -> None:
        self._console = sweep.console
        self._labels = labels(sweep.jobs)
        self._parallel = parallel
        self._states = dict.fromkeys(self._labels, "new")
        self._epochs = {job.name: total_epochs(job.config) for job in sweep.jobs}
        self._done = {job.name: _epoch(job) for job in sweep.jobs}
        self._pace = Pace()
        self._first_run: dict[str, str] = {}  # the first run that ended for a reason, by the reason
        self._running: dict[str, tuple[Job, TaskID]] = {}
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._total = self.bars.add_task("sweep", total=sum(self._epochs.values()), text="")

    def started(self, job: Job) -> None:
        """Show a bar for one more run; print a line if there is no terminal."""
        label = self._labels[job.name]
        total = self._epochs[job.name]
        self._running[job.name] = job, self.bars.add_task(f"  {label}", total=total, text="")
        self._states[job.name] = "running"
        if not self._console.is_terminal:
            self._console.print(f"started {label}", markup=False)
        self._pace.started(job.name, _epoch(job))

    def ended(self, job: Job, how: str) -> None:
        """Print how a run ended; ``how`` is not empty if its process was killed."""
        _, bar = self._running.pop(job.name)
        self.bars.remove_task(bar)
        state = self._states[job.name] = state_of(job.folder.path)
        self._done[job.name] = self._epochs[job.name]
        record, status = last_record(job.folder.path), read_status(job.folder.path)
        if state == "finished":
            self._pace.finished(job.name, int(record["epoch"]))
            part = _judged_by(record)
            accuracy = f"{part} accuracy {record[f'{part}/accuracy']:.2%}"
            outcome = f"{accuracy} ({status.get('seconds', 0):.0f} s)"
        else:
            reason = how or error_of(job.folder.path) or why(status)
            outcome = f"{self._reason(job, reason)} ({job.folder.path})"
        ended = len(self._states) - self._count_left()
        line = f"[{ended}/{len(self._states)}] {state} {self._labels[job.name]}: {outcome}"
        self._console.print(line, markup=False)

    def look(self) -> None:
        """Read the progress of the running runs from their records, and show it."""
        for name, (job, bar) in self._running.items():
            record = last_record(job.folder.path)
            if record:
                self._done[name] = int(record["epoch"])
                self._pace.at(name, self._done[name], float(record["seconds"]))
                part = _judged_by(record)
                accuracy = record[f"{part}/accuracy"]  # None where the epoch was not evaluated
                tested = "" if accuracy is None else f"  {part} {accuracy:.2%}"
                text = f"epoch {record['epoch']}{tested}"
                self.bars.update(bar, completed=record["epoch"], text=text)
        done = sum(self._done.values())
        text = f"{counts(self._states)}, {self._time_left(done)}"
        self.bars.update(self._total, completed=done, text=text)

    def _count_left(self) -> int:
        return sum(state in ("new", "running") for state in self._states.values())

    def _reason(self, job: Job, reason: str) -> str:
        """The reason, for the first run that has it; for later runs, that run's label."""
        first = self._first_run.setdefault(reason, job.name)
        return reason if first == job.name else f"for the same reason as {self._labels[first]}"

    def _time_left(self, done: int) -> str:
        pace = self._pace.seconds()
        if pace is None:
            return "time left unknown"
        left = sum(self._epochs.values()) - done
        seconds = round(pace * left / max(1, min(self._parallel, self._count_left())))
        hours, rest = divmod(seconds, 3600)
        return f"about {hours}:{rest // 60:02}:{rest % 60:02} left"


class Pace:
    """Seconds of an epoch of a run, measured in this sweep, in which runs share the machine.

    They are the mean over the epochs of finished runs, start and end of the runs included. Before a
    run has finished, they are the mean over each run's newest epoch. A run's first epoch is slower
    and counts only if there is no other.
    """

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}  # time of the start, and epochs done before
        self._latest: dict[str, tuple[int, float]] = {}  # newest epoch, and its seconds
        self._runs = self._epochs = 0.0  # seconds and epochs of finished runs

    def started(self, run: str, epoch: int) -> None:
        """Note that a run starts now after ``epoch`` epochs."""
        self._begun[run] = time.perf_counter(), epoch

    def at(self, run: str, epoch: int, seconds: float) -> None:
        """Note the seconds of a run's newest epoch."""
        if epoch > self._begun[run][1]:
            self._latest[run] = epoch, seconds

    def finished(self, run: str, epoch: int) -> None:
        """Note that a run has finished now, after ``epoch`` epochs."""
        when, first = self._begun[run]
        if epoch > first:
            self._runs += time.perf_counter() - when
            self._epochs += epoch - first

    def seconds(self) -> float | None:
        """Seconds of an epoch, None while nothing is known."""
        if self._epochs:
            return self._runs / self._epochs
        warm = [s for run, (epoch, s) in self._latest.items() if epoch > self._begun[run][1] + 1]
        known = warm or [s for _, s in self._latest.values()]
        return sum(known) / len(known) if known else None


def _epoch(job: Job) -> int:
    return int(last_record(job.folder.path).get("epoch", 0))


def _judged_by(record: Record) -> str:
    """The data whose accuracy is shown: validation if there is any, else test."""
    return "validation" if "validation/accuracy" in record else "test"
