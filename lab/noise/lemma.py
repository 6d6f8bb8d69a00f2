"""Lemma 2.1 as an experiment: E‖∇f_S - ∇f‖² ≤ C²/b, for b from 1 to n."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from igo.config.schema import Config
from igo.ground.seeds import derive_seed
from igo.noise import spread
from igo.noise.measure import draw, untouched
from igo.report import statistics
from igo.report.statistics import Array, Estimate
from igo.train import datasets, measure
from igo.train.state import Training
from lab.noise import Findings, Row, Study, quantities
from lab.noise.networks import sample_gradients, trained, unaugmented


def lemma(study: Study, config: Config) -> Findings:
    """E‖∇f_S - ∇f‖² against b: of one-sample gradients, and of the gradients that SGD uses."""
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
    slopes = slope_rows(rows, batchnorm, images.n)
    tables = {"lemma": rows, "lemma_batchnorm": batchnorm, "lemma_slopes": slopes}
    return Findings(images.n, tables)


def batch_sizes(n: int) -> list[int]:
    """Batch sizes from 1 to n, about two for each factor of 2."""
    steps = range(2 * int(math.log2(n)) + 1)
    return sorted({round(2 ** (k / 2)) for k in steps} | {round(0.75 * n), round(0.9 * n), n})


def lemma_row(
    gram: Array, sampling: str, batch_size: int, draws: int, random: np.random.Generator
) -> Row:
    """One b: the mean over draws, and the value that the lemma gives."""
    n = len(gram)
    variance = quantities.variance_of(gram)
    counts = quantities.draw_counts(sampling, n, batch_size, draws, random)
    mean = statistics.mean_of(quantities.squared_noise(gram, counts, batch_size))
    factor = 1.0 if sampling == "with_replacement" else quantities.finite_factor(batch_size, n)
    return {
        "sampling": sampling, "b": batch_size, "draws": draws, "mean": mean.value,
        "low": mean.low, "high": mean.high, "c2_over_b": variance / batch_size,
        "c2_over_b_finite": variance / batch_size * factor,
    }  # fmt: skip


def slope_of(rows: list[Row], factored: bool = False) -> Estimate:
    """Log-log slope of rows without b = n; ``factored`` divides by (n - b)/(n - 1) first."""
    kept = [row for row in rows if row["mean"] > 1e-9 * row["c2_over_b"]]
    divisors = [row["c2_over_b_finite"] / row["c2_over_b"] if factored else 1.0 for row in kept]
    return _slope(kept, divisors)


def _slope(rows: list[Row], divisors: list[float]) -> Estimate:
    means = [
        Estimate(row["mean"] / divisor, row["low"] / divisor, row["high"] / divisor)
        for row, divisor in zip(rows, divisors, strict=True)
    ]
    return quantities.fit_slope([row["b"] for row in rows], means)


def batchnorm_rows(
    training: Training, images: datasets.Data, seed: int, batches: int = 48
) -> list[Row]:
    """Rows on the gradients that SGD uses, in fp32: BatchNorm uses each batch's statistics.

    A row has C²(b) from independent batches, the mean squared distance of mini-batch gradients from
    the gradient of all n samples as one batch, and the bias of the mean gradient.
    """
    engine = replace(training.engine, autocast=None, micro_batch_size=images.n)
    network = training.network.train()
    (batch,) = images.train_batches([torch.arange(images.n)], 0)
    with untouched(network):
        full = _flat(measure.training_gradient(engine, network, batch)).double()
    rows = []
    for b in [2**k for k in range(1, 11) if 2**k <= images.n // 2]:
        index_batches = draw("independent", n=images.n, batch_size=b, batches=batches,
                             seed=derive_seed(seed, "lemma", b))  # fmt: skip
        with untouched(network):
            gradients = torch.stack(
                [_flat(measure.training_gradient(engine, network, batch))
                 for batch in images.train_batches(index_batches, 0)]
            )  # fmt: skip
        rows.append(batchnorm_row(gradients, full, b, images.n))
    return rows


def _flat(gradient: list[Tensor | None]) -> Tensor:
    return torch.cat([part.flatten() for part in gradient if part is not None])


def batchnorm_row(gradients: Tensor, full: Tensor, batch_size: int, n: int) -> Row:
    """Variance and bias of mini-batch gradients (K, d); ``full`` is the gradient of all samples."""
    noise = spread.estimate(gradients, batch_size=batch_size, n=n, sampling="independent")
    if noise.interval is None:
        raise ValueError(f"{len(gradients)} batches give no interval: 3 or more are needed")
    finite = quantities.finite_factor(batch_size, n)
    variance_of_batch = noise.variance / batch_size * finite  # E‖g_S - E g_S‖²
    squared_gap = float((gradients.mean(dim=0, dtype=torch.float64) - full).square().sum())
    squares = [float((gradient.double() - full).square().sum()) for gradient in gradients]
    distance = statistics.mean_of(squares)
    return {
        "b": batch_size, "batches": len(gradients), "c2": noise.variance,
        "c2_low": noise.interval[0], "c2_high": noise.interval[1],
        "mean": distance.value, "low": distance.low, "high": distance.high,
        "bias_square": max(squared_gap - variance_of_batch / len(gradients), 0.0),
        "full_gradient_square": float(full.square().sum()),
    }  # fmt: skip


def slope_rows(rows: list[Row], batchnorm: list[Row], n: int) -> list[Row]:
    """The log-log slope of each way to draw: -1 by Lemma 2.1, without replacement if divided."""
    with_replacement, without = (
        [row for row in rows if row["sampling"] == sampling]
        for sampling in ("with_replacement", "independent")
    )
    small = [row for row in without if row["b"] <= n / 20]
    slopes = {
        "with replacement": slope_of(with_replacement),
        "without replacement, divided by (n - b)/(n - 1)": slope_of(without, factored=True),
        "without replacement": slope_of(without),
        "without replacement, b <= n/20": slope_of(small),
    }
    for least in (2, 32):
        large = [row for row in batchnorm if row["b"] >= least]
        if len(large) > 2:
            factors = [quantities.finite_factor(row["b"], n) for row in large]
            slopes[f"train-mode BatchNorm, divided, b >= {least}"] = _slope(large, factors)
    return [
        {"fit": name, "slope": slope.value, "low": slope.low, "high": slope.high}
        for name, slope in slopes.items()
    ]
