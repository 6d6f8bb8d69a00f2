"""A sweep from its command lines to its results: which runs start, and what came out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from igo.config.schema import total_epochs
from igo.ground.errors import ConfigError, UserError
from igo.ground.ranks import Ranks
from igo.ground.statistics import least_seeds
from igo.ground.words import counted
from igo.runs.folder import last_record, read_status, setting_of
from igo.runs.manifest import check_data_here, differences
from igo.sweep.jobs import Composer, Job, distinct
from igo.sweep.record import IN_SLURM, Sweep, counts, why


def check_counts(settings: Mapping[str, Any]) -> None:
    """Raise a ConfigError if one of these settings of a launcher is no whole number, 1 or more."""
    for name, value in settings.items():
        if not isinstance(value, int) or value is True or value < 1:
            allowed = "it must be a whole number, 1 or more"
            raise ConfigError(f"hydra.launcher.{name}", value, allowed)


def launch(
    hydra: DictConfig,
    retry_failed: object,
    lines: Sequence[Sequence[str]],
    runner: Callable[[Sweep], None],
) -> None:
    """Run these command lines, except runs that are skipped; then print the results.

    Args:
        hydra: Hydra's own configuration.
        retry_failed: True runs failed runs again.
        lines: the overrides of each run.
        runner: executes or submits the ``jobs`` of a sweep.

    Raises:
        SystemExit: a run did not finish; the exit code is 1.
    """
    if Ranks.of_environment().size > 1:
        raise UserError(
            "start a sweep in one process: it starts those of its runs. For runs of several"
            " processes use hydra/launcher=slurm with tasks_per_node, or hydra/launcher=basic"
        )
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if len(lines) >= 200:  # which takes seconds
        console.print(f"checking {len(lines):,} runs")
    composer = Composer(hydra.job.config_name)
    without_name = [[o for o in line if not o.startswith("sweep=")] for line in lines]
    runs = distinct(composer.job(line) for line in without_name)
    if few := too_few_seeds(runs):
        console.print(few)
    choices = hydra.runtime.choices
    sweep = Sweep(str(choices.get("sweep") or "sweep"), runs, console)
    if runs[0].config.dry_run:
        for job, state in zip(runs, sweep.states().values(), strict=True):
            console.print(f"{state:<12}{job.label:<40} {job.folder.path}")
        return
    if runs[0].config.fresh:
        _start_over(sweep)
    skipped = {"finished", IN_SLURM} | ({"failed"} if retry_failed is not True else set())
    if choices["hydra/launcher"] != "local":  # which waits for what a killed sweep left running
        skipped.add("running")
    _choose(sweep, skipped)
    sweep.write()
    if sweep.jobs:
        runner(sweep)
    if {"failed", "interrupted", "new"} & set(show(sweep).values()):
        raise SystemExit(1)


def _start_over(sweep: Sweep) -> None:
    """Remove what the runs have recorded."""
    states = sweep.states()
    for job in sweep.runs:
        job.config.fresh = False  # so that a restart continues it
        if states[job.name] != IN_SLURM:
            with job.folder.held():
                job.folder.start_over()


def _choose(sweep: Sweep, skipped: Set[str]) -> None:
    """Choose the runs to train, by their states; finished ones must have the data that are here."""
    states, console = sweep.states(), sweep.console
    others: Counter[str] = Counter()  # finished runs, by what their code differs in
    for job in sweep.runs:
        job.config.tracking.group = job.config.tracking.group or sweep.name  # in W&B
        if states[job.name] == "finished":
            status = job.folder.status()
            check_data_here(job.folder.path, status, job.config)
            others[differences(status)] += 1
    del others[""]
    console.print(f"sweep {sweep.name}: {counted(len(sweep.runs), 'run')}, {counts(states)}")
    if others:
        more = "; and more" if len(others) > 1 else ""
        console.print(
            f"{counted(others.total(), 'finished run')} skipped: of other code or versions"
            f" ({others.most_common(1)[0][0]}{more}); fresh=true trains all runs again"
        )
    if "failed" in skipped & set(states.values()):
        console.print("failed runs are skipped; hydra.launcher.retry_failed=true runs them again")
    sweep.jobs = [job for job in sweep.runs if states[job.name] not in skipped]


def too_few_seeds(jobs: Sequence[Job]) -> str:
    """A line if the settings of a sweep have too few seeds for a test to decide between them."""
    seeds: dict[str, set[int]] = {}
    for job in jobs:
        seeds.setdefault(setting_of(job.config), set()).add(job.config.seed)
    pairs = math.comb(len(seeds), 2)
    fewest, least = min(map(len, seeds.values())), least_seeds(pairs) if pairs else 0
    if fewest >= least:
        return ""
    return (
        f"note: {counted(fewest, 'seed')} cannot decide which of {len(seeds)} settings is better;"
        f" {least} can: seed='range({least})'"
    )


def show(sweep: Sweep) -> dict[str, str]:
    """Print the runs that run or failed, and why; then the table and the differences.

    The table and the report are written into the sweep's folder.

    Returns:
        The state of each run.
    """
    states, console = sweep.states(), sweep.console
    for job in sweep.runs:
        state, folder = states[job.name], job.folder.path
        if state in ("failed", "interrupted"):
            console.print(f"{state}: {job.label}: {why(folder)} ({folder})")
        elif state != "finished" and read_status(folder).get("state") == "running":
            epoch = last_record(folder).get("epoch", 0)
            console.print(f"running: {job.label}: epoch {epoch}/{total_epochs(job.config)}")
    if "finished" in states.values():
        if find_spec("polars") is None:
            console.print("no table: polars is not installed (pip install '.[report]')")
        else:
            _show_results(sweep)
    console.print(f"sweep {sweep.name}: {counts(states)}")
    return states


def _show_results(sweep: Sweep) -> None:
    from igo.report import page, results, summary, table  # they import polars

    folders = [job.folder.path for job in sweep.runs]
    found = results.read(sorted(folders))
    table.write(found.runs, found.settings, sweep.folder)
    summary.show(found.runs, found.settings)
    sweep.console.print(f"table {sweep.folder / 'table.csv'}")
    output = str(sweep.folder / "report")
    composed = OmegaConf.create({"runs": str(sweep.folder), "output": output})
    for section in page.run(composed, found):
        for pair in section.brief:
            names = f"{section.labels[pair.first]} − {section.labels[pair.second]}"
            over = f"{page.difference(pair)} points over {counted(pair.n, 'seed')}"
            sweep.console.print(f"{names}: {over}: {pair.verdict}")
