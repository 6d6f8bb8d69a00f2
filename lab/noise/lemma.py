"""Lemma 2.1 as an experiment: E‖∇f_S - ∇f‖² ≤ C²/b, for b from 1 to n.

X (n, d) are the one-sample gradients minus their mean, and c_i is how often sample i is in a
mini-batch S. The noise of S is ω = Σ_i c_i x_i / b, and ‖ω‖² = cᵀ G c / b² with the Gram matrix
G = X Xᵀ. So 1,000 mini-batches are drawn without computing another gradient.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground import statistics
from igo.ground.seeds import derive_seed, generator
from igo.ground.statistics import Array, Estimate
from igo.noise.measure import Spread, untouched
from igo.runs.terminal import Terminal
from igo.train import loop
from igo.train.assembly import assembled
from igo.train.engine import Engine
from igo.train.on_device import Batch
from igo.train.training import Progress, Training
from lab.noise.point import flat_gradient

Row = dict[str, Any]
DRAWS = 1000  # mini-batches drawn for each b
BATCHES = 48  # mini-batches of each b whose gradients are computed, under BatchNorm in train mode
AT_ONCE = 500  # images of a batch where the size of batches does not matter
AVERAGED = 4096  # images, in batches of 128, from which BatchNorm's statistics are taken anew
Z = 1.96  # standard errors on each side of a 95 % interval


def lemma(config: Config) -> dict[str, list[Row]]:
    """Three tables of E‖∇f_S - ∇f‖² against b, as rows.

    ``lemma`` rests on one-sample gradients, with BatchNorm in eval mode, and ``lemma_batchnorm`` on
    the gradients that SGD uses, with BatchNorm in train mode. ``lemma_slopes`` has the slopes of
    both.
    """
    training = trained(config)
    n = training.data.n
    batches = training.data.plain_batches(torch.arange(n).split(AT_ONCE))
    gram = centred_gram(sample_gradients(training.network.eval(), batches))
    random = np.random.default_rng(config.seed)
    rows = [
        lemma_row(gram, sampling, b, random)
        for sampling in ("with_replacement", "independent")
        for b in batch_sizes(n)
    ]
    batchnorm = batchnorm_rows(training, config.seed)
    return {
        "lemma": rows,
        "lemma_batchnorm": batchnorm,
        "lemma_slopes": slope_rows(rows, batchnorm, n),
    }


def trained(config: Config) -> Training:
    """A run that igo's loop has trained to its end.

    BatchNorm's running statistics, which depend on the last few batches, are replaced by the mean
    of those of AVERAGED augmented training images at the last parameters.
    """
    plan = make_plan(config)
    training = assembled(config, plan)
    with Terminal().progress(plan) as bar:
        loop.train(training, Progress(), bar, lambda _: None, lambda: None)
    order = torch.randperm(training.data.n, generator=torch.Generator().manual_seed(0))
    batches = training.data.train_batches(order[:AVERAGED].split(128), seed=0)
    update_bn(batches, training.network.train())
    return training


def sample_gradients(network: nn.Module, batches: Iterable[Batch], memory: int = 2**28) -> Tensor:
    """The gradient of each sample's loss, (n, d) float32 on the CPU.

    About ``memory`` bytes are worked on at a time. Under BatchNorm in train mode, where a sample
    has no gradient of its own, torch raises an error.
    """
    parameters = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    buffers = dict(network.named_buffers())
    d = sum(p.numel() for p in parameters.values())
    # A sample takes three times d numbers of 4 bytes: gradients, their concatenation, work space.
    chunk = max(1, memory // (3 * 4 * d))

    def sample_loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, (values, buffers), (image.unsqueeze(0),))
        return nn.functional.cross_entropy(logits, label.unsqueeze(0))

    gradient = torch.func.vmap(torch.func.grad(sample_loss), (None, 0, 0), chunk_size=chunk)
    rows = []
    for images, labels in batches:
        gradients = gradient(parameters, images, labels)
        rows.append(torch.cat([gradients[name].flatten(1) for name in parameters], dim=1).cpu())
    return torch.cat(rows)


def centred_gram(gradients: Tensor) -> Array:
    """G = X Xᵀ, (n, n), of gradients (n, d) minus their mean; its rows sum to 0."""
    rows = gradients - gradients.mean(dim=0)
    gram: Array = (rows @ rows.T).double().numpy()
    across = gram.mean(axis=0)  # It is not 0 in single precision: the next line removes the rest.
    gram += across.mean() - across - across[:, None]
    return gram


def draw_counts(
    sampling: str, n: int, batch_size: int, draws: int, random: np.random.Generator
) -> Array:
    """How often each sample is in each mini-batch, (draws, n).

    `sampling` is with_replacement, or independent: each batch drawn without replacement.
    """
    if sampling == "with_replacement":
        return random.multinomial(batch_size, np.full(n, 1 / n), size=draws).astype(np.float64)
    counts = np.zeros((draws, n))
    for row in counts:
        row[random.choice(n, batch_size, replace=False)] = 1
    return counts


def squared_noise(gram: Array, counts: Array, batch_size: int) -> Array:
    """‖ω‖² = ‖∇f_S - ∇f‖² of each mini-batch, (draws,)."""
    squares: Array = np.einsum("ri,ri->r", counts @ gram, counts) / batch_size**2
    return np.maximum(squares, 0.0)


def finite_factor(batch_size: float | Array, n: int) -> Any:
    """(n - b)/(n - 1): the factor of sampling without replacement on the variance of a mean."""
    return (n - batch_size) / (n - 1)


def batch_sizes(n: int) -> list[int]:
    """Batch sizes from 1 to n, about two for each factor of 2."""
    steps = range(2 * int(math.log2(n)) + 1)
    return sorted({round(2 ** (k / 2)) for k in steps} | {round(0.75 * n), round(0.9 * n), n})


def lemma_row(gram: Array, sampling: str, batch_size: int, random: np.random.Generator) -> Row:
    """A row of a batch size: the mean of ‖ω‖² over draws with its interval, and what is expected.

    ``c2_over_b`` is the lemma's bound C²/b. ``c2_over_b_finite`` is the expected mean itself, which
    without replacement is below the bound by the finite factor.
    """
    n = len(gram)
    variance = float(np.trace(gram)) / n  # C²
    counts = draw_counts(sampling, n, batch_size, DRAWS, random)
    mean = statistics.mean_of(squared_noise(gram, counts, batch_size))
    factor = 1.0 if sampling == "with_replacement" else finite_factor(batch_size, n)
    return {
        "sampling": sampling,
        "b": batch_size,
        "mean": mean.value,
        "low": mean.low,
        "high": mean.high,
        "c2_over_b": variance / batch_size,
        "c2_over_b_finite": variance / batch_size * factor,
    }


def slope(rows: list[Row], n: int | None = None) -> Estimate:
    """The log-log slope of the rows' means against b, with its 95 % interval.

    It is a least-squares fit, weighted by the rows' intervals. With n the means are first divided
    by (n - b)/(n - 1).
    """
    b, mean, low, high = (
        np.array([row[name] for row in rows], dtype=float) for name in ("b", "mean", "low", "high")
    )
    y = np.log(mean / (finite_factor(b, n) if n else 1.0))
    # The standard error of log(mean) is that of the mean over the mean. Where all draws are equal
    # this error would be 0, and its weight infinite.
    errors = np.maximum((high - low) / (2 * Z * mean), 1e-9)
    (exponent, _), covariance = np.polyfit(np.log(b), y, 1, w=1 / errors, cov="unscaled")
    reach = Z * math.sqrt(covariance[0, 0])
    return Estimate(float(exponent), float(exponent - reach), float(exponent + reach))


def batchnorm_rows(training: Training, seed: int) -> list[Row]:
    """A row of ``batchnorm_row`` for each b: 2, 4, 8, …, of at most 1,024 samples and half of all.

    The gradients are those that SGD uses, in fp32: BatchNorm takes the statistics of each batch.
    Images are not augmented, so that a sample differs by its batch alone.
    """
    data, network = training.data, training.network.train()
    # A batch goes through the network whole: each micro-batch would have statistics of its own.
    engine = replace(training.engine, autocast=None, micro_batch_size=data.n)
    (batch,) = data.plain_batches([torch.arange(data.n)])
    with untouched(network):
        full = _gradient(engine, network, batch).double()
    rows = []
    for b in [2**k for k in range(1, 11) if 2**k <= data.n // 2]:
        random = generator(derive_seed(seed, "lemma", b), "pieces")
        index_batches = [torch.randperm(data.n, generator=random)[:b] for _ in range(BATCHES)]
        with untouched(network):
            gradients = torch.stack(
                [_gradient(engine, network, batch) for batch in data.plain_batches(index_batches)]
            )
        rows.append(batchnorm_row(gradients, full, b, data.n))
    return rows


def _gradient(engine: Engine, network: nn.Module, batch: Batch) -> Tensor:
    """The gradient of a batch's mean loss, (d,)."""
    engine.backward(network, [batch], len(batch[1]))
    return flat_gradient(network)


def batchnorm_row(gradients: Tensor, full: Tensor, batch_size: int, n: int) -> Row:
    """A row of a batch size, from mini-batch gradients (K, d) and that of all n samples, (d,).

    ``c2`` is C²(b); ``mean`` is the mean of ‖g_S - full‖²; both with their intervals.
    ``bias_square`` is ‖E g_S - full‖², which is 0 without BatchNorm; ``full`` is that of all.
    """
    spread = Spread([gradients[0].double()])
    for gradient in gradients:
        spread.add([gradient])
    # Without noise of a sample's own C² is divided by (n - b)/(n - 1), as in the other table.
    noise = spread.noise(batch_size=batch_size, n=n, sampling="independent", own_noise=False)
    assert noise.variance_interval is not None  # There are three batches or more.
    variance = noise.variance / batch_size * finite_factor(batch_size, n)  # E‖g_S - E g_S‖²
    squared_gap = float((gradients.mean(dim=0, dtype=torch.float64) - full).square().sum())
    squares = [float((gradient.double() - full).square().sum()) for gradient in gradients]
    distance = statistics.mean_of(squares)
    # The mean of K gradients is off E g_S by chance, too: on average by a K-th of their variance.
    return {
        "b": batch_size,
        "c2": noise.variance,
        "c2_low": noise.variance_interval[0],
        "c2_high": noise.variance_interval[1],
        "mean": distance.value,
        "low": distance.low,
        "high": distance.high,
        "bias_square": max(squared_gap - variance / len(gradients), 0.0),
    }


def slope_rows(rows: list[Row], batchnorm: list[Row], n: int) -> list[Row]:
    """Rows of log-log slopes, with intervals; by Lemma 2.1 each is -1.

    Without replacement this holds of the means over (n - b)/(n - 1). Under BatchNorm small batches
    have another C²(b), so that a second fit begins at b = 32.
    """
    without_replacement = [row for row in rows if row["sampling"] == "independent" and row["b"] < n]
    slopes = {
        "with replacement": slope([row for row in rows if row["sampling"] == "with_replacement"]),
        "without replacement, divided by (n - b)/(n - 1)": slope(without_replacement, n),
    }
    for smallest_b in (2, 32):
        rows_of_large_b = [row for row in batchnorm if row["b"] >= smallest_b]
        if len(rows_of_large_b) > 2:  # Two points lie on a line, whatever it is.
            slopes[f"train-mode BatchNorm, divided, b >= {smallest_b}"] = slope(rows_of_large_b, n)
    return [
        {"fit": name, "slope": estimate.value, "low": estimate.low, "high": estimate.high}
        for name, estimate in slopes.items()
    ]
