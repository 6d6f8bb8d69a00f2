"""The noise itself: is ω_t distributed as δu with u uniform in the unit ball?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from igo.config.schema import Config
from igo.report import statistics
from igo.report.statistics import Array
from lab.noise import Findings, Row, Study, quantities
from lab.noise.networks import sample_gradients, trained, unaugmented

DIRECTIONS = 20  # random directions that ω is projected on
BATCH_SIZES = (8, 32, 128, 512)


def omega(study: Study, config: Config) -> Findings:
    """The distribution of ω at initialisation, after one epoch and at the end."""
    moments = sorted({0, 1, config.epochs})
    training, states = trained(config, moments)
    images = unaugmented(config, training.engine.device)
    rows: list[Row] = []
    spectra: list[Row] = []
    arrays: dict[str, Any] = {}
    for epoch in moments:
        training.network.load_state_dict(states[epoch])
        gradients = sample_gradients(training.network, images)
        random = np.random.default_rng([config.seed, epoch])
        rows_of_epoch, shares, arrays[str(epoch)] = omega_at(gradients, study.draws, random, epoch)
        rows += rows_of_epoch
        spectra.append(shares)
    adjusted = statistics.holm([p for row in rows for p in row["p"]])
    rejected = np.array([p is not None and p <= statistics.LEVEL for p in adjusted])
    for index, row in enumerate(rows):
        count = len(row["p"])
        of_row = rejected[index * count : (index + 1) * count]
        row["not_gaussian"] = int(of_row[:DIRECTIONS].sum())
        row["not_gaussian_ks"] = int(of_row[DIRECTIONS:].sum())
        row["p_smallest"] = min(row.pop("p"))
    return Findings(images.n, {"omega": rows, "omega_directions": spectra}, arrays)


def omega_at(
    gradients: Tensor, draws: int, random: np.random.Generator, epoch: int
) -> tuple[list[Row], Row, dict[str, Any]]:
    """ω after an epoch: a row for each b, a row on ω's directions, and arrays for the figure.

    Args:
        gradients: of all samples, (n, d).
        draws: mini-batches for each b, with replacement.
        random: generator of draws and directions.
        epoch: the epoch.
    """
    n, d = gradients.shape
    gram = quantities.centred_gram(gradients)
    c = math.sqrt(quantities.variance_of(gram))
    spectrum = quantities.spectrum(gram)
    directions = torch.from_numpy(random.normal(size=(d, DIRECTIONS)))
    directions = (directions / directions.norm(dim=0)).float()
    along = ((gradients - gradients.mean(dim=0)) @ directions).double().numpy()  # (n, DIRECTIONS)
    along -= along.mean(axis=0)
    rows, arrays = [], {}
    for b in BATCH_SIZES:
        counts = quantities.draw_counts("with_replacement", n, b, draws, random)
        radii = np.sqrt(quantities.squared_noise(gram, counts, b) * b) / c  # ‖ω‖√b/C
        projections = counts @ along / math.sqrt(b) / c * math.sqrt(d)  # 1 in rms if isotropic
        leading = counts @ spectrum.leading / math.sqrt(b) / c
        rows.append(omega_row(epoch, b, radii, projections, leading, along / c * math.sqrt(d)))
        arrays[str(b)] = {"radii": radii, "projections": projections, "leading": leading}
    shares: Row = {
        "epoch": epoch, "d": d, "c2": c * c, "share_1": spectrum.shares[0],
        "share_10": spectrum.shares[:10].sum(), "share_100": spectrum.shares[:100].sum(),
        "effective_rank": spectrum.effective_rank, "isotropic_rank": min(d, n - 1),
    }  # fmt: skip
    return rows, shares, {"by_b": arrays, "shares": spectrum.shares, "d": d}


def omega_row(
    epoch: int, batch_size: int, radii: Array, projections: Array, leading: Array,
    population: Array,
) -> Row:  # fmt: skip
    """Moments and normality of ω at one b; ``p`` holds the tests' p-values."""
    mean = statistics.mean_of(radii)
    scales = population.std(axis=0)
    tests = [
        quantities.normality(column, scale)
        for column, scale in zip(projections.T, scales, strict=True)
    ]
    return {
        "epoch": epoch, "b": batch_size, "draws": len(radii),
        "radius_mean": mean.value, "radius_mean_low": mean.low, "radius_mean_high": mean.high,
        "radius_sd": float(radii.std(ddof=1)), "radius_rms": float(np.sqrt(np.mean(radii**2))),
        "excess_kurtosis_leading": float(stats.kurtosis(leading)),
        "p": [p for test in zip(*tests, strict=True) for p in test],
    }  # fmt: skip
