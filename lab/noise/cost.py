"""The cost of measuring C² online: call by call, and by epochs with and without it."""

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
from lab.noise import Findings, Row, Study

BATCH_SIZES = (32, 128)


def online_cost(study: Study, config: Config) -> Findings:
    """Time single measurements and steps, and whole epochs with and without measurements."""
    calls: list[Row] = []
    epochs: list[Row] = []
    facts: Row = {"calls": {}, "starts": {}}
    for b in BATCH_SIZES:
        online_config = replace(config, batch_size=b)
        training = assemble.prepare(online_config, make_plan(online_config))
        training.network.train()
        rows = call_rows(training, b, study.calls)
        calls += rows
        facts["calls"] |= call_facts(rows, config, b)
        facts["starts"][b] = _timed(training, _stage_start)["cpu"]
        unmeasured = replace(online_config, noise=replace(config.noise, online=0.0))
        offline = replace(training, config=unmeasured)
        for repeat in range(study.repeats):
            arms = {"online": training, "off": offline}
            order = ("online", "off") if repeat % 2 else ("off", "online")
            spent = {arm: _timed(arms[arm], _epoch) for arm in order}
            for clock in ("cpu", "wall"):
                with_s, without_s = spent["online"][clock], spent["off"][clock]
                epochs.append({"b": b, "repeat": repeat, "clock": clock, "online_s": with_s,
                               "off_s": without_s, "ratio": with_s / without_s})  # fmt: skip
    tables = {"online_cost_calls": calls, "online_cost_epochs": epochs}
    return Findings(tables, facts | epoch_facts(epochs), {})


def call_rows(training: Training, batch_size: int, calls: int) -> list[Row]:
    """Milliseconds of a training step and of a measurement of the same batch, by turns."""
    config = training.config
    k = math.ceil(training.data.n / batch_size)
    size = online.Online.of_epoch(config.noise, training.data.n, k).size
    random = torch.Generator().manual_seed(config.seed)
    batches = [torch.randperm(training.data.n, generator=random)[:batch_size] for _ in range(calls)]
    rows: list[Row] = []
    plan = online.Online(size, 2, 1 if 2 * size <= batch_size else 2)
    for batch in training.data.train_batches(batches, 0):
        of_step = _timed(training, partial(_step, batch))
        of_measurement = _timed(training, partial(_pieces, plan, batch))
        for clock in ("cpu", "wall"):
            step_ms, measure_ms = 1000 * of_step[clock], 1000 * of_measurement[clock] / plan.pieces
            rows.append({"b": batch_size, "size": size, "clock": clock, "step_ms": step_ms,
                         "measure_ms": measure_ms})  # fmt: skip
    return rows[4:]  # without the first two calls, which also allocate memory


def call_facts(rows: list[Row], config: Config, batch_size: int) -> dict[tuple[int, str], Row]:
    """The cost of an epoch's measurements over the cost of its steps, by clock, from medians."""
    n = training_samples(config)
    updates = math.ceil(n / batch_size)
    plan = online.Online.of_epoch(config.noise, n, updates)
    facts: dict[tuple[int, str], Row] = {}
    for clock in ("cpu", "wall"):
        of_clock = [row for row in rows if row["clock"] == clock]
        step = np.array([row["step_ms"] for row in of_clock])
        measurement = np.array([row["measure_ms"] for row in of_clock])
        ratio = _bootstrapped(lambda a, b: float(np.median(b) / np.median(a)), step, measurement)
        each = plan.pieces / updates  # measurements for each update
        facts[batch_size, clock] = {
            "pieces": plan.pieces, "size": plan.size, "updates": updates,
            "samples": plan.size * plan.pieces / n,
            "step_ms": float(np.median(step)), "measure_ms": float(np.median(measurement)),
            "cost": Estimate(each * ratio.value, each * ratio.low, each * ratio.high),
        }  # fmt: skip
    return facts


def _step(batch: Batch, run: Training) -> object:
    return run.engine.step(run.network, run.optimizer, batch)


def _pieces(plan: online.Online, batch: Batch, run: Training) -> object:
    batches = [batch] * plan.batches
    return online.measured(run.engine, run.network, plan, batches, run.data.n)[0]


def _epoch(training: Training) -> object:
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
    """Seconds by the process's CPU clock and by the wall clock, until the device has finished."""
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
            of_case = [row for row in rows if (row["b"], row["clock"]) == (b, clock)]
            ratios = np.array([row["ratio"] for row in of_case])
            facts["ratios"][b, clock] = _bootstrapped(lambda a: float(np.median(a)), ratios)
            seconds = float(np.median([row["off_s"] for row in of_case]))
            facts["seconds"][b, clock] = seconds
    return facts


def _bootstrapped(statistic: Callable[..., float], *samples: Array) -> Estimate:
    """The statistic of paired samples with its bootstrap interval (percentiles)."""
    interval = stats.bootstrap(
        samples, statistic, paired=True, vectorized=False, n_resamples=2000,
        method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    return Estimate(statistic(*samples), float(interval.low), float(interval.high))
