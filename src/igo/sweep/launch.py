"""A sweep from its command lines to its results: which runs start, and which are skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from igo.config.schema import settings_of
from igo.ground.errors import ConfigError, UserError
from igo.ground.files import make_writable
from igo.ground.ranks import Ranks
from igo.ground.words import counted
from igo.method.ranges import Rule
from igo.runs.folder import read_status, state_of
from igo.runs.manifest import Comparison, command
from igo.sweep.jobs import Composer, Job, distinct, labels
from igo.sweep.manifest import Manifest
from igo.sweep.state import counts, open_manifest, sweep_name, sweep_states

SLOW = 200  # runs, from which on composing them has a progress bar


def is_whole(value: object, least: int) -> bool:
    """Whether a value is a whole number, ``least`` or more. Hydra checks no types of launchers."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


COUNT: Rule = (lambda v: is_whole(v, 1), "it must be a whole number, 1 or more")
COUNT_OR_NONE: Rule = (lambda v: v is None or is_whole(v, 1), COUNT[1])


def check_settings(settings: object) -> None:
    """Check a launcher's settings by the rules in their annotations."""
    for name, setting in settings_of(type(settings)):
        value, rule = getattr(settings, name), setting.notes.rule
        if rule and not rule[0](value):
            raise ConfigError(f"hydra.launcher.{name}", value, rule[1])


@dataclass(frozen=True)
class Sweep:
    """The arguments of a launcher: the runs to train, their manifest, and where to print."""

    jobs: list[Job]
    manifest: Manifest
    runs_dir: Path
    folder: Path  # of the sweep itself
    console: Console


Runner = Callable[[Sweep], bool]  # returns whether the runs have ended


class Launch:
    """One sweep, named by its runs."""

    def __init__(self, hydra: DictConfig, retry_failed: object) -> None:
        if not isinstance(retry_failed, bool):
            allowed = "it must be true or false"
            raise ConfigError("hydra.launcher.retry_failed", retry_failed, allowed)
        self._hydra, self._retry = hydra, retry_failed
        self._console = Console(highlight=False, soft_wrap=True)
        self._manifest: Manifest | None = None
        self._runs_dir = Path()
        self._ended = False

    def go(self, lines: Sequence[Sequence[str]], runner: Runner) -> list[JobReturn]:
        """Run these command lines, except runs that are skipped; return how each run ended."""
        if Ranks.of_environment().size > 1:
            raise UserError(
                "a sweep starts the processes of its runs, so start it in one process. For runs of"
                " several processes use hydra/launcher=slurm with tasks_per_node, or"
                " hydra/launcher=basic, which trains one run after the other"
            )
        jobs = self._compose(lines)
        distinct_jobs = distinct(jobs)
        if jobs[0].config.dry_run:
            self._print_jobs(distinct_jobs)
            return []
        sweep = self._open(distinct_jobs)
        if sweep.jobs:
            self._ended = runner(sweep)  # writes the manifest once the runs are accepted
        else:
            sweep.manifest.write(sweep.runs_dir)
            self._ended = True
        return [_result(job, self._ended) for job in jobs]

    def conclude(self) -> None:
        """Print how the sweep ended, with its table; SystemExit(1) if a run did not finish."""
        if self._manifest is None or not self._ended:
            return
        from igo.sweep.status import show

        states = show(self._manifest, self._runs_dir, self._console)
        if any(state in ("failed", "interrupted", "new") for state in states.values()):
            raise SystemExit(1)

    def _compose(self, lines: Sequence[Sequence[str]]) -> list[Job]:
        composer = Composer(self._hydra.job.config_name)
        shown = track(
            lines, "checking the runs", console=self._console, transient=True,
            disable=len(lines) < SLOW or not self._console.is_terminal,
        )  # fmt: skip
        runs_typed = ([o for o in line if not o.startswith("sweep=")] for line in shown)
        jobs, left_out = composer.jobs(runs_typed)
        for name, runs in left_out.items():
            self._console.print(
                f"{name} has no effect in {runs:,} of {counted(len(jobs), 'combination')}:"
                " it is left out there",
                markup=False,
            )
        for setting in ("runs_dir", "dry_run", "fresh"):
            values = dict.fromkeys(getattr(job.config, setting) for job in jobs)  # in their order
            if len(values) > 1:
                listed = ", ".join(map(str, values))
                raise ConfigError(setting, listed, "it must be the same for all runs of a sweep")
        return jobs

    def _open(self, jobs: list[Job]) -> Sweep:
        """Make the manifest, and decide which runs are trained."""
        runs_dir = Path(jobs[0].config.runs_dir)
        name = sweep_name(str(self._hydra.runtime.choices.get("sweep") or "sweep"), jobs)
        manifest = open_manifest(runs_dir, name, command(), jobs)
        self._manifest, self._runs_dir = manifest, runs_dir
        if jobs[0].config.fresh:
            jobs = [_cleared(job) for job in jobs]
        for job in jobs:  # so that W&B shows the sweep as one group
            job.config.tracking.group = job.config.tracking.group or manifest.name
        recorded = sweep_states(manifest, runs_dir)
        states = {job.name: recorded[job.name] for job in jobs}
        data = Comparison(lambda text: self._console.print(f"warning: {text}", markup=False))
        for job in jobs:
            if states[job.name] == "finished":
                data.finished(job.folder.path, job.folder.status(), job.config)
        # The local launcher waits for running runs: a killed sweep may have left them.
        local = self._hydra.runtime.choices["hydra/launcher"] == "local"
        skipped = {"finished", "queued"} | (set() if local else {"running"})
        skipped |= set() if self._retry else {"failed"}
        to_do = [job for job in jobs if states[job.name] not in skipped]
        self._console.print(
            f"sweep {manifest.name}: {counted(len(jobs), 'run')}, {counts(states)}", markup=False
        )
        if "failed" in states.values() and not self._retry:
            self._console.print(
                "failed runs are skipped; hydra.launcher.retry_failed=true runs them again",
                markup=False,
            )
        folder = manifest.folder(runs_dir)
        make_writable(folder)
        return Sweep(to_do, manifest, runs_dir, folder, self._console)

    def _print_jobs(self, jobs: Sequence[Job]) -> None:
        """Print the runs and their states, for ``dry_run=true``."""
        label_of = labels(jobs)
        for job in jobs:
            line = f"{state_of(job.folder.path):<12}{label_of[job.name]:<40} {job.folder.path}"
            self._console.print(line, markup=False)


def _cleared(job: Job) -> Job:
    """Empty the run's folder; return the job without ``fresh``, so that a restart continues it."""
    with job.folder.held():
        job.folder.start_over()
    return replace(job, config=replace(job.config, fresh=False))


def _result(job: Job, ended: bool) -> JobReturn:
    """The result for Hydra's sweeper: the error of a run that did not finish."""
    status, value = JobStatus.COMPLETED, None
    state = state_of(job.folder.path)
    if ended and state != "finished":
        status = JobStatus.FAILED
        reason = read_status(job.folder.path).get("error", state)
        value = UserError(f"{' '.join(job.overrides)}: {reason}")
    return JobReturn(overrides=job.overrides, status=status, _return_value=value)
