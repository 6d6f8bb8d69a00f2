"""What the online measurement of C² costs: epochs with and without it, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import stats

from igo import assemble, control, loop, measure, optim
from igo.config import Config
from igo.loop import Training
from igo.schedule import make_plan
from igo.study import Found, Row, Study
from igo.study.statistics import Estimate
from igo.terminal import Terminal

BATCH_SIZES = (32, 128)


def online_cost(study: Study, config: Config) -> Found:
    """Epochs with and without the online measurement, in turns; and the one at a stage's start."""
    rows: list[Row] = []
    for b in BATCH_SIZES:
        with_it = replace(config, batch_size=b)
        training = assemble.prepare(with_it, make_plan(with_it))
        training.network.train()
        off = replace(training, config=replace(with_it, noise=replace(config.noise, online=0.0)))
        _timed_epoch(off)
        for repeat in range(study.repeats):
            arms = {"online": training, "off": off}
            order = ("online", "off") if repeat % 2 else ("off", "online")
            spent = {arm: _timed_epoch(arms[arm]) for arm in order}
            start = _timed(lambda run=training: _stage_start(run))  # type: ignore[misc]
            for clock in ("cpu", "wall"):
                rows.append({
                    "b": b, "repeat": repeat, "clock": clock,
                    **{f"{arm}_s": times[clock] for arm, times in spent.items()},
                    "ratio": spent["online"][clock] / spent["off"][clock],
                    "stage_start_s": start[clock],
                })  # fmt: skip
    return Found({"online_cost": rows}, cost_facts(rows), {})


def _timed_epoch(training: Training) -> dict[str, float]:
    """Seconds of one epoch's training, without its evaluation."""
    config = training.config
    applied = control.Applied(config.learning_rate, config.batch_size, 0.0, 0.0, 0.0)
    optim.apply(training.optimizer, applied.learning_rate, 0.0, config.optimizer)
    with Terminal().progress(training.plan, 0) as bar:
        return _timed(lambda: loop._train_epoch(training, 1, applied, bar, lambda: None))


def _stage_start(training: Training) -> object:
    settings = training.config.noise
    size = measure.batch_size(settings, training.config.batch_size, training.data.n)
    return measure.mini_batch(
        training.engine, training.network, training.data,
        batch_size=size, batches=settings.batches, seed=0,
    )  # fmt: skip


def _timed(work: Callable[[], object]) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def cost_facts(rows: list[Row]) -> Row:
    """Medians of the ratios with bootstrap intervals."""
    facts: Row = {}
    for clock in ("cpu", "wall"):
        for b in sorted({row["b"] for row in rows}):
            own = [row for row in rows if row["b"] == b and row["clock"] == clock]
            ratios = np.array([row["ratio"] for row in own])
            drawn = stats.bootstrap(
                (ratios,), np.median, n_resamples=2000, method="percentile", rng=0
            ).confidence_interval
            facts[f"ratio, b = {b}, {clock}"] = Estimate(
                float(np.median(ratios)), float(drawn.low), float(drawn.high)
            )
            facts[f"epoch without, b = {b}, {clock}"] = float(np.median([r["off_s"] for r in own]))
            starts = [row["stage_start_s"] for row in own]
            facts[f"stage start, b = {b}, {clock}"] = float(np.median(starts))
    return facts
