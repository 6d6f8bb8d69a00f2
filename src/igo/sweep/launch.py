"""A sweep from its command lines to its results: which runs start, and which are skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from igo.config.schema import result_settings
from igo.ground.errors import ConfigError, UserError
from igo.ground.files import make_writable
from igo.ground.ranks import Ranks
from igo.ground.words import counted
from igo.runs.folder import state_of
from igo.runs.manifest import check_data_here
from igo.sweep.jobs import Composer, Job, distinct, labels
from igo.sweep.manifest import Manifest, counts
from igo.sweep.status import show

SLOW = 200  # runs, from which on composing them takes seconds


def check_counts(settings: Mapping[str, Any]) -> None:
    """Raise a ConfigError if one of these settings of a launcher is no whole number, 1 or more."""
    for name, value in settings.items():
        if not isinstance(value, int) or value is True or value < 1:
            allowed = "it must be a whole number, 1 or more"
            raise ConfigError(f"hydra.launcher.{name}", value, allowed)


@dataclass(frozen=True)
class Sweep:
    """The arguments of a launcher: the runs to train, their manifest, and where to print."""

    jobs: list[Job]
    manifest: Manifest
    runs_dir: Path
    folder: Path  # of the sweep itself
    console: Console


Runner = Callable[[Sweep], bool]  # returns whether the runs have ended


def launch(
    hydra: DictConfig, retry_failed: object, lines: Sequence[Sequence[str]], runner: Runner
) -> None:
    """Run these command lines, except runs that are skipped; then print the results.

    Raises:
        SystemExit: a run did not finish; the exit code is 1.
    """
    if not isinstance(retry_failed, bool):
        allowed = "it must be true or false"
        raise ConfigError("hydra.launcher.retry_failed", retry_failed, allowed)
    if Ranks.of_environment().size > 1:
        raise UserError(
            "a sweep starts the processes of its runs, so start it in one process. For runs of"
            " several processes use hydra/launcher=slurm with tasks_per_node, or"
            " hydra/launcher=basic, which trains one run after the other"
        )
    console = Console(highlight=False, soft_wrap=True, markup=False)
    jobs = _compose(hydra, lines, console)
    if few := too_few_seeds(jobs):
        console.print(few)
    if jobs[0].config.dry_run:
        label_of = labels(jobs)
        for job in jobs:
            state = state_of(job.folder.path)
            console.print(f"{state:<12}{label_of[job.name]:<40} {job.folder.path}")
        return
    sweep = _open(hydra, jobs, retry_failed, console)
    if not sweep.jobs:
        sweep.manifest.write(sweep.runs_dir)
    elif not runner(sweep):  # which writes the manifest once the runs are accepted
        return
    states = show(sweep.manifest, sweep.runs_dir, console, report=True)
    if any(state in ("failed", "interrupted", "new") for state in states.values()):
        raise SystemExit(1)


def _compose(hydra: DictConfig, lines: Sequence[Sequence[str]], console: Console) -> list[Job]:
    """The distinct runs of these command lines, checked."""
    if len(lines) >= SLOW:
        console.print(f"checking {len(lines):,} runs")
    without_name = [[o for o in line if not o.startswith("sweep=")] for line in lines]
    jobs, left_out = Composer(hydra.job.config_name).jobs(without_name)
    for name, runs in left_out.items():
        console.print(
            f"{name} has no effect in {runs:,} of {counted(len(jobs), 'combination')}:"
            " it is left out there"
        )
    for setting in ("runs_dir", "dry_run", "fresh"):
        values = dict.fromkeys(getattr(job.config, setting) for job in jobs)  # in their order
        if len(values) > 1:
            listed = ", ".join(map(str, values))
            raise ConfigError(setting, listed, "it must be the same for all runs of a sweep")
    return distinct(jobs)


def _open(hydra: DictConfig, jobs: list[Job], retry_failed: bool, console: Console) -> Sweep:
    """Make the manifest, and decide which runs are trained."""
    runs_dir, choices = Path(jobs[0].config.runs_dir), hydra.runtime.choices
    manifest = Manifest.of_jobs(str(choices.get("sweep") or "sweep"), runs_dir, jobs)
    if jobs[0].config.fresh:
        for job in jobs:
            with job.folder.held():
                job.folder.start_over()
        # Without ``fresh``, so that a restart continues them.
        jobs = [replace(job, config=replace(job.config, fresh=False)) for job in jobs]
    states = manifest.states(runs_dir)
    for job in jobs:
        job.config.tracking.group = job.config.tracking.group or manifest.name  # in W&B
        if states[job.name] == "finished":
            check_data_here(job.folder.path, job.folder.status(), job.config)
    skipped = {"finished", "queued"} | (set() if retry_failed else {"failed"})
    if choices["hydra/launcher"] != "local":  # which waits for what a killed sweep left running
        skipped.add("running")
    console.print(f"sweep {manifest.name}: {counted(len(jobs), 'run')}, {counts(states)}")
    if "failed" in states.values() and not retry_failed:
        console.print("failed runs are skipped; hydra.launcher.retry_failed=true runs them again")
    folder = manifest.folder(runs_dir)
    make_writable(folder)
    to_do = [job for job in jobs if states[job.name] not in skipped]
    return Sweep(to_do, manifest, runs_dir, folder, console)


def too_few_seeds(jobs: Sequence[Job]) -> str:
    """A line if the settings of a sweep have too few seeds for a test to decide between them."""
    seeds: dict[str, set[int]] = {}
    for job in jobs:
        setting = json.dumps({**result_settings(job.config), "seed": None}, sort_keys=True)
        seeds.setdefault(setting, set()).add(job.config.seed)
    if len(seeds) < 2 or find_spec("polars") is None:
        return ""
    from igo.report.statistics import least_seeds

    fewest, least = min(map(len, seeds.values())), least_seeds(math.comb(len(seeds), 2))
    if fewest >= least:
        return ""
    return (
        f"note: {counted(fewest, 'seed')} cannot decide which of {len(seeds)} settings is better;"
        f" {least} can: seed='range({least})'"
    )
