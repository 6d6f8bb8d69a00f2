"""Lemma 2.1 as an experiment: E‖∇f_S - ∇f‖² ≤ C²/b, for b from 1 to n."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from igo.analysis import statistics
from igo.analysis.statistics import Array, Estimate
from igo.config.schema import Config
from igo.method import spread
from igo.method.measure import draw, untouched
from igo.seeds import derive_seed
from igo.train import datasets, measure
from igo.train.state import Training
from lab.noise import Found, Row, Study, quantities
from lab.noise.networks import sample_gradients, trained, unaugmented


def lemma(study: Study, config: Config) -> Found:
    """E‖∇f_S - ∇f‖² against b, from one-sample gradients and as training with BatchNorm has it."""
    training, states = trained(config, [config.epochs])
    training.network.load_state_dict(states[config.epochs])
    images = unaugmented(config, training.engine.device)
    gram = quantities.centred_gram(sample_gradients(training.network, images))
    random = np.random.default_rng(config.seed)
    rows = [
        lemma_row(gram, sampling, b, study.draws, random)
        for sampling in ("with_replacement", "independent")
        for b in batch_sizes(images.n)
    ]
    batchnorm = batchnorm_rows(training, images, config.seed)
    return Found(
        {"lemma": rows, "lemma_batchnorm": batchnorm},
        lemma_facts(rows, batchnorm, images.n, quantities.variance_of(gram)),
        {},
    )


def batch_sizes(n: int) -> list[int]:
    """About two a factor of 2 from 1 to n."""
    steps = range(2 * int(math.log2(n)) + 1)
    return sorted({round(2 ** (k / 2)) for k in steps} | {round(0.75 * n), round(0.9 * n), n})


def lemma_row(
    gram: Array, sampling: str, batch_size: int, draws: int, random: np.random.Generator
) -> Row:
    """One point of the lemma: the mean over draws, and what the lemma says."""
    n = len(gram)
    variance = quantities.variance_of(gram)
    counts = quantities.draw_counts(sampling, n, batch_size, draws, random)
    found = statistics.mean_of(quantities.squared_noise(gram, counts, batch_size))
    factor = 1.0 if sampling == "with_replacement" else quantities.finite_factor(batch_size, n)
    return {
        "sampling": sampling, "b": batch_size, "draws": draws, "mean": found.value,
        "low": found.low, "high": found.high, "c2_over_b": variance / batch_size,
        "c2_over_b_finite": variance / batch_size * factor,
    }  # fmt: skip


def slope_of(rows: list[Row], factored: bool = False) -> Estimate:
    """Log-log slope of rows; ``factored`` divides by (n - b)/(n - 1) first; b = n left out then."""
    kept = [row for row in rows if row["mean"] > 1e-9 * row["c2_over_b"]]
    divisors = [row["c2_over_b_finite"] / row["c2_over_b"] if factored else 1.0 for row in kept]
    return quantities.fit_slope(
        [row["b"] for row in kept],
        [
            Estimate(row["mean"] / by, row["low"] / by, row["high"] / by)
            for row, by in zip(kept, divisors, strict=True)
        ],
    )


def batchnorm_rows(
    training: Training, images: datasets.Data, seed: int, batches: int = 48
) -> list[Row]:
    """The gradients that SGD really uses, BatchNorm on each batch's own statistics, fp32.

    For each b: C²(b) from independent batches, what b divides it to, and how far the mean of
    mini-batch gradients is from the gradient of all n samples as one batch.
    """
    whole = replace(training.engine, autocast=None, micro_batch_size=images.n)
    network = training.network.train()
    (batch,) = images.train_batches([torch.arange(images.n)], 0)
    with untouched(network):
        full = _flat(measure.training_gradient(whole, network, batch)).double()
    rows = []
    for b in [2**k for k in range(1, 11) if 2**k <= images.n // 2]:
        drawn = draw("independent", n=images.n, batch_size=b, batches=batches,
                             seed=derive_seed(seed, "lemma", b))  # fmt: skip
        with untouched(network):
            gradients = torch.stack(
                [_flat(measure.training_gradient(whole, network, one))
                 for one in images.train_batches(drawn, 0)]
            )  # fmt: skip
        rows.append(batchnorm_row(gradients, full, b, images.n))
    return rows


def _flat(gradient: list[Tensor | None]) -> Tensor:
    return torch.cat([part.flatten() for part in gradient if part is not None])


def batchnorm_row(gradients: Tensor, full: Tensor, batch_size: int, n: int) -> Row:
    """Variance and bias of mini-batch gradients (K, d) against ``full``, all samples as one."""
    found = spread.estimate(gradients, batch_size=batch_size, n=n, sampling="independent")
    if found.interval is None:
        raise ValueError("three batches or more give an interval")
    finite = quantities.finite_factor(batch_size, n)
    varies = found.variance / batch_size * finite  # E‖g_S - E g_S‖²
    gap = float((gradients.mean(dim=0, dtype=torch.float64) - full).square().sum())
    squares = [float((one.double() - full).square().sum()) for one in gradients]
    distance = statistics.mean_of(squares)
    return {
        "b": batch_size, "batches": len(gradients), "c2": found.variance,
        "c2_low": found.interval[0], "c2_high": found.interval[1],
        "mean": distance.value, "low": distance.low, "high": distance.high,
        "bias_square": max(gap - varies / len(gradients), 0.0),
        "full_gradient_square": float(full.square().sum()),
    }  # fmt: skip


def lemma_facts(rows: list[Row], batchnorm: list[Row], n: int, variance: float) -> Row:
    """Slopes, and the farthest that a mean is from the lemma's in its own standard errors."""
    drawn, pieces = (
        [row for row in rows if row["sampling"] == sampling]
        for sampling in ("with_replacement", "independent")
    )
    checked = [row for row in rows if row["c2_over_b_finite"] > 0]
    scores = [
        1.96 * abs(row["mean"] - row["c2_over_b_finite"]) / (row["high"] - row["mean"])
        for row in checked
    ]
    facts: Row = {
        "n": n,
        "variance": variance,
        "slopes": {
            "with": slope_of(drawn),
            "without_factored": slope_of(pieces, factored=True),
            "without": slope_of(pieces),
            "without_small": slope_of([row for row in pieces if row["b"] <= n / 20]),
        },
        "farthest": max(scores),  # |mean - lemma| in standard errors
        "points": len(scores),
        "at_n": pieces[-1]["mean"],  # ‖ω‖² at b = n without replacement
    }
    for least in (2, 32):
        some = [row for row in batchnorm if row["b"] >= least]
        if len(some) > 2:
            finite = [quantities.finite_factor(row["b"], n) for row in some]
            facts["slopes"][f"batchnorm_{least}"] = quantities.fit_slope(
                [row["b"] for row in some],
                [
                    Estimate(row["mean"] / by, row["low"] / by, row["high"] / by)
                    for row, by in zip(some, finite, strict=True)
                ],
            )
    return facts
