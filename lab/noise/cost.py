"""What the online measurement of C² costs: call by call, and by epochs with and without it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy import stats

from igo.analysis.statistics import Array, Estimate
from igo.config.plan import make_plan
from igo.config.schema import Config, training_samples
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.runs import assemble
from igo.runs.terminal import Terminal
from igo.train import measure, online
from igo.train.epoch import train_epoch
from igo.train.on_device import Batch
from igo.train.state import Training
from lab.noise import Found, Row, Study

BATCH_SIZES = (32, 128)


def online_cost(study: Study, config: Config) -> Found:
    """The measurement call by call beside the steps, and whole epochs with and without it."""
    calls: list[Row] = []
    epochs: list[Row] = []
    facts: Row = {"calls": {}, "starts": {}}
    for b in BATCH_SIZES:
        with_it = replace(config, batch_size=b)
        training = assemble.prepare(with_it, make_plan(with_it))
        training.network.train()
        own = call_rows(training, b, study.calls)
        calls += own
        facts["calls"] |= call_facts(own, config, b)
        facts["starts"][b] = _timed(training, _stage_start)["cpu"]
        off = replace(training, config=replace(with_it, noise=replace(config.noise, online=0.0)))
        for repeat in range(study.repeats):
            arms = {"online": training, "off": off}
            order = ("online", "off") if repeat % 2 else ("off", "online")
            spent = {arm: _timed(arms[arm], _epoch) for arm in order}
            for clock in ("cpu", "wall"):
                with_s, without_s = spent["online"][clock], spent["off"][clock]
                epochs.append({"b": b, "repeat": repeat, "clock": clock, "online_s": with_s,
                               "off_s": without_s, "ratio": with_s / without_s})  # fmt: skip
    tables = {"online_cost_calls": calls, "online_cost_epochs": epochs}
    return Found(tables, facts | epoch_facts(epochs), {})


def call_rows(training: Training, batch_size: int, calls: int) -> list[Row]:
    """Milliseconds of a training step and of a measurement on the same batch, in turns."""
    config = training.config
    k = math.ceil(training.data.n / batch_size)
    size = online.Online.of_epoch(config.noise, training.data.n, k).size
    random = torch.Generator().manual_seed(config.seed)
    drawn = [torch.randperm(training.data.n, generator=random)[:batch_size] for _ in range(calls)]
    rows: list[Row] = []
    plan = online.Online(size, 2, 1 if 2 * size <= batch_size else 2)
    for batch in training.data.train_batches(drawn, 0):
        found = _timed(training, partial(_step, batch))
        again = _timed(training, partial(_pieces, plan, batch))
        for clock in ("cpu", "wall"):
            step, spent = 1000 * found[clock], 1000 * again[clock] / plan.pieces
            rows.append({"b": batch_size, "size": size, "clock": clock, "step_ms": step,
                         "measure_ms": spent})  # fmt: skip
    return rows[4:]  # the first two calls allocate


def call_facts(rows: list[Row], config: Config, batch_size: int) -> dict[tuple[int, str], Row]:
    """The cost of an epoch's measurements as a share of its steps, from medians, by clock."""
    n = training_samples(config)
    updates = math.ceil(n / batch_size)
    plan = online.Online.of_epoch(config.noise, n, updates)
    facts: dict[tuple[int, str], Row] = {}
    for clock in ("cpu", "wall"):
        own = [row for row in rows if row["clock"] == clock]
        step = np.array([row["step_ms"] for row in own])
        spent = np.array([row["measure_ms"] for row in own])

        def share(a: Array, b: Array) -> float:
            return float(np.median(b) / np.median(a))

        drawn = stats.bootstrap(
            (step, spent), share, paired=True, vectorized=False, n_resamples=2000,
            method="percentile", rng=0,
        ).confidence_interval  # fmt: skip
        ratio = share(step, spent)
        by = plan.pieces / updates
        facts[batch_size, clock] = {
            "pieces": plan.pieces, "size": plan.size, "updates": updates,
            "samples": plan.size * plan.pieces / n,
            "step_ms": float(np.median(step)), "measure_ms": float(np.median(spent)),
            "cost": Estimate(by * ratio, by * float(drawn.low), by * float(drawn.high)),
        }  # fmt: skip
    return facts


def _step(batch: Batch, run: Training) -> object:
    return run.engine.step(run.network, run.optimizer, batch)


def _pieces(plan: online.Online, batch: Batch, run: Training) -> object:
    first = [batch] * plan.batches
    return online.measured(run.engine, run.network, plan, first, run.data.n)[0]


def _epoch(training: Training) -> object:
    """One epoch's training, without its evaluation."""
    sampler = BatchSampler(training.plan, training.config.seed)
    schedule = Schedule(training.optimizer, sampler)
    with Terminal().progress(training.plan, 0) as bar:
        return train_epoch(training, sampler, schedule, bar, check_stop=lambda: None)


def _stage_start(training: Training) -> object:
    settings = training.config.noise
    size = measure.size_at_start(training.config, None)
    return measure.mini_batch(
        training.engine, training.network, training.data,
        batch_size=size, batches=settings.batches, seed=0,
    )  # fmt: skip


def _timed(training: Training, work: Callable[[Training], object]) -> dict[str, float]:
    """Seconds by the process's CPU clock and by the wall's, the device's work done."""
    cpu, wall = time.process_time(), time.perf_counter()
    work(training)
    if training.engine.device.type == "cuda":
        torch.cuda.synchronize()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def epoch_facts(rows: list[Row]) -> Row:
    """Medians of the ratios of whole epochs, with bootstrap intervals."""
    facts: Row = {"ratios": {}, "seconds": {}}
    for b in sorted({row["b"] for row in rows}):
        for clock in ("cpu", "wall"):
            own = [row for row in rows if (row["b"], row["clock"]) == (b, clock)]
            ratios = np.array([row["ratio"] for row in own])
            drawn = stats.bootstrap(
                (ratios,), np.median, n_resamples=2000, method="percentile", rng=0
            ).confidence_interval
            facts["ratios"][b, clock] = Estimate(
                float(np.median(ratios)), float(drawn.low), float(drawn.high)
            )
            seconds = float(np.median([row["off_s"] for row in own]))
            facts["seconds"][b, clock] = seconds
    return facts
