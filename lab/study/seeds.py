"""Runs by whole seeds: all arms of a seed, then those of the next, each with its ends.

Start the command once for each core: the processes share the runs. Each can be stopped at any time;
the same command continues.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import accumulate

from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground.errors import Busy, UserError
from igo.ground.ranks import ALONE
from igo.method.plan import Plan
from igo.runs.assemble import load, prepare, train
from igo.runs.folder import RunFolder, path_of, state_of
from igo.runs.terminal import Terminal
from lab.study import ends, records, table
from lab.study import rows as study
from lab.study.records import REVERSED, RUNS, Arm
from lab.study.rows import Row


def seeds(words: list[str]) -> None:
    """Train the runs of an experiment's rows, and measure their ends; what is archived is done.

    With N other seeds, from FIRST on, this is a study of its own: its rows are judged and printed.
    """
    experiment, *other = words
    rows = study.of_experiment(experiment)
    if not rows:
        sys.exit(f"error: no row of results/rows.yaml has the experiment {experiment}")
    if not other:
        done = records.of_archives(pattern=f"{experiment}.tar.xz")
        run(rows, study.planned_seeds(rows[0]), done)
        return
    if len(other) != 2 or not all(word.isdecimal() for word in other) or int(other[1]) < 2:
        sys.exit(f"error: FIRST N is {' '.join(other)}: two whole numbers, N at least 2")
    first, n = map(int, other)
    rows = [{**row, "first_seed": first, "seeds": n, "least": 2} for row in rows]
    run(rows, study.planned_seeds(rows[0]))
    study.fill(rows, study.whole_seeds(rows, records.of_study()))
    print(table.table(rows))


def run(rows: Sequence[Row], planned: range, done: Container[str] = ()) -> None:
    """Train the runs of one experiment's rows with these seeds, but for those in ``done``."""
    train_all(rows[0]["experiment"], study.arms(rows), planned, rows[0].get("anneal"), done)


def train_all(
    experiment: str,
    arms: Sequence[Arm],
    planned: range,
    rate: float | None = None,
    done: Container[str] = (),
) -> None:
    """Train all arms of a seed, then of the next; one that fails stops no other."""
    os.environ["OMP_NUM_THREADS"] = "1"  # other processes train beside it
    for seed, arm in itertools.product(planned, arms):
        if records.name_of(experiment, arm, seed) in done:
            continue
        try:
            one(experiment, arm, seed, rate)
        except Busy:  # another process trains it
            pass
        except UserError as error:
            print(f"seed {seed}, {arm}: {error}", file=sys.stderr, flush=True)


def one(experiment: str, arm: Arm, seed: int, rate: float | None) -> None:
    """Train a run as the program does, and measure its ends, unless this was done.

    With ``rate`` they are measured again after an anneal.
    """
    config = replace(records.config(experiment, arm, seed), runs_dir=str(RUNS))
    plan = make_plan(config)
    if records.reverses(arm):
        config.runs_dir, plan = str(REVERSED), backwards(plan)
    finish(config, plan, rate)
    print(f"seed {seed}, {arm}: done", flush=True)  # without the result: the clock ends the runs


def finish(config: Config, plan: Plan, rate: float | None = None) -> RunFolder:
    """Train a run on this plan and measure its ends, unless this was done."""
    folder = RunFolder(path_of(config))
    if state_of(folder.path) != "finished":
        train(config, plan, folder, Terminal(quiet=True), ALONE)
    with folder.held():
        if (folder.path / ends.FILE).is_file():
            return folder
        training = prepare(config, plan)
        load(folder.checkpoint, folder.path.name, training, folder.status())
        ends.measure(folder.path, training, rate)
    return folder


def backwards(plan: Plan) -> Plan:
    """The same stages in reversed order."""
    turned = plan.rows[::-1]
    firsts = accumulate((row.epochs for row in turned), initial=1)
    return replace(plan, rows=tuple(
        replace(row, stage=m, first_epoch=first, gamma_m=None, kappa_m=None, lambda_m=None)
        for m, (row, first) in enumerate(zip(turned, firsts, strict=False), 1)
    ))  # fmt: skip
