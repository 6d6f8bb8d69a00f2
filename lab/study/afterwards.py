"""What results/fewer_updates.md adds post hoc: cosine at a larger η_1, and b = 32 with √cosine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

import igo
from igo.config.load import make_plan
from igo.ground.errors import UserError
from igo.method.plan import Plan
from igo.runs.folder import path_of, state_of
from lab.study import fewer_updates, images, records, seeds
from lab.study.design import Job, Record, Runs, Study, best, key, search
from lab.study.fewer_updates import CHANCE, EXPERIMENT, LENGTHS, RATES, TUNED

SEEDS = range(300, 332)  # those of the study
AGAIN = range(300, 308)  # of arms that are repeated, as this machine may be of another kind
LENGTH = LENGTHS[-1]
CONTROL = "√cosine, b = 32"
SPLIT, SPLIT_RATE = "cosine, split ½", 0.4  # whose curve of η the control has
PARTS = 5  # equal parts of the epochs, of which a record tells


def jobs(runs: Runs) -> Iterator[Job]:
    """The tuning of the control, and the seeds."""

    def accuracies(rate: float) -> list[float] | None:
        tried = [runs.get(key(job)) for job in _jobs([(CONTROL, rate)], TUNED)]
        found = [record["running"] for record in tried if record]
        return found if len(found) == len(tried) else None

    by_rate = search(RATES, 2, accuracies)
    for rate in by_rate:
        yield from _jobs([(CONTROL, rate)], TUNED)
    tuned = best(by_rate)
    if tuned is None:
        return
    arms = [("cosine", 0.4), ("cosine", 0.8), (CONTROL, SPLIT_RATE)]
    arms += [(CONTROL, tuned)] if tuned != SPLIT_RATE else []
    for seed in SEEDS:
        yield from _jobs(arms, [seed])
        if seed in AGAIN:
            yield from _jobs([("cosine", 0.2), (SPLIT, SPLIT_RATE)], [seed])


def _jobs(arms: list[tuple[str, float]], of_seeds: range | list[int]) -> Iterator[Job]:
    for seed in of_seeds:
        for arm, rate in arms:
            yield {"arm": arm, "rate": rate, "seed": seed}


def train(job: Job, _: Runs) -> Record:
    """A run as those of the study, but for the control's plan."""
    images.require([f"ten/{job['seed']}"], f"ten {job['seed']} 1")
    control = job["arm"] == CONTROL
    arm = fewer_updates.settings("cosine, b = 32" if control else job["arm"], LENGTH, job["rate"])
    config = records.config(EXPERIMENT, arm, job["seed"])
    config = replace(config, runs_dir=str(records.RUNS / ("root" if control else "afterwards")))
    plan = root_cosine(config.batch_size, config.dataset.samples) if control else make_plan(config)
    folder = path_of(config)
    try:
        seeds.finish(config, plan)
    except UserError:
        if state_of(folder) != "failed":
            raise
        return {"running": CHANCE, "fresh": CHANCE}  # its loss was not finite
    run = records.of_folders(folder.parent)[folder.name]
    updates = np.diff([0, *(epoch["updates"] for epoch in run.epochs)])
    rates = updates * [epoch["eta_m"] for epoch in run.epochs]
    deltas = np.array([epoch["delta_measured"] for epoch in run.epochs], dtype=float)
    return {
        "running": 100 * run.epochs[-1]["test/accuracy"], "fresh": run.after["anew_accuracy"],
        "updates": run.epochs[-1]["updates"],
        "rates": rates.reshape(PARTS, -1).sum(1).tolist(),  # Σ η of each part
        "deltas": np.nanmean(deltas.reshape(PARTS, -1), axis=1).tolist(),  # δ, as measured
    }  # fmt: skip


def root_cosine(b: int, n: int) -> Plan:
    """The η of split ½ of a cosine, at a constant b."""
    return igo.plan(
        rate=lambda share: math.sqrt((1 + math.cos(math.pi * share)) / 2),
        n=n, epochs=LENGTH, batch_size=b, stages=LENGTH,
    )  # fmt: skip


STUDY = Study("fewer_updates_afterwards", jobs, train, SEEDS)
