"""Study: smoothing by light and heavy tails, and the tails of a network's own noise.

These statements are of version 7 of the paper (arXiv 2311.08745, January 2026), not of the slides.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lab.theory import digits
from lab.theory.digits import NETWORK
from lab.theory.row import Check, Frames, Seen, Study, Tables, checks
from lab.theory.smoothing import PUBLISHED, Array, wave_left
from lab.theory.studies.own_noise import BATCH, RATE

STUDY = Study("published_kernels", "tail_index")
SMALL, LEVEL = 0.01, 0.5  # δ; the authors' is 0.5
EPOCHS = (0, 1, 5, 20)
SHARE = 0.05  # part of the sizes that is their tail
ONE, MANY, NORMAL = "b = 1", f"b = {BATCH}", "Gaussian, its own covariance"


def hill(sizes: Array) -> tuple[float, float]:
    """Return Hill's (1975) tail index of the largest SHARE of the sizes, and its standard error."""
    k, descending = round(SHARE * len(sizes)), np.sort(sizes)[::-1]
    index = float(1 / np.log(descending[:k] / descending[k]).mean())
    return index, index / k**0.5


def noises(gradients: Tensor, count: int, random: torch.Generator) -> Iterator[Tensor]:
    """Draw ω of mini-batches, then Gaussian ω of the same covariance; each is (count, P).

    `gradients` X (n, P) are the one-sample gradients minus their mean. ω of a mini-batch has the
    covariance Xᵀ X/(n b), and so has zᵀ X/√(n b) of a normal z (n,).
    """
    n, weights = len(gradients), torch.zeros(count, len(gradients), dtype=gradients.dtype)
    rows = torch.randint(n, (count, BATCH), generator=random)
    weights.scatter_add_(1, rows, torch.full((count, BATCH), 1 / BATCH, dtype=gradients.dtype))
    yield weights @ gradients
    normal = torch.randn(count, n, generator=random, dtype=gradients.dtype)
    yield normal @ gradients / (n * BATCH) ** 0.5


def measure(seed: int) -> Tables:
    """Measure the means of the published kernels, what they leave of the wave cos 2πx, and tails.

    The tails are those of a network's noise after each of EPOCHS.
    """
    kernels, tails = [], []
    for name, law in PUBLISHED.items():
        small, large = (round(wave_left(name, 2 * np.pi * delta), 6) for delta in (SMALL, LEVEL))
        mean = np.nan_to_num(law.mean(), nan=np.inf, posinf=np.inf)  # It may not exist.
        kernels.append({"kernel": name, "mean": mean, "left_of_wave": large, "small_delta": small})
    data = digits.load()
    for epochs in EPOCHS:
        x = digits.after_epochs(data, epochs, RATE, BATCH, seed)
        gradients = NETWORK.sample_gradients(x, *data.tensors)
        gradients -= gradients.mean(0)
        random, n = torch.Generator().manual_seed(seed), len(gradients)
        omegas = gradients, *noises(gradients, n, random)
        for name, omega in zip((ONE, MANY, NORMAL), omegas, strict=True):
            squares = omega.square().sum(1).sort().values.numpy()
            index, error = hill(squares**0.5)
            share = squares[-(n // 100) :].sum() / squares.sum()  # of the largest 1 %
            tails.append(
                {
                    "epochs": epochs,
                    "noise": name,
                    "hill": index,
                    "standard_error": error,
                    "share_of_largest_percent": share,
                }
            )
    return kernels, tails


@STUDY.statement("arXiv v7")
def tails_smooth(frames: Frames) -> Seen:
    """light- or heavy-tailed u smooths f: f̂_δ(x) = E f(x − δu)"""
    table = frames["published_kernels"]
    parts = []
    for name, mean, amplitude, _ in table.iter_rows():
        parts.append(Check(f"left of the wave, δ = {LEVEL}, {name}", amplitude, high=0.5))
        parts.append(Check(f"E u, {name}", mean, high=100))
    return Seen(
        "the authors' seven kernels",
        parts,
        [Check(f"left of the wave, δ = {SMALL}, gaussian", table["small_delta"][0], high=0.5)],
        "Cauchy, Lévy and Pareto u have no mean: only bounded f have their f̂_δ",
    )


@STUDY.statement("arXiv v7")
def noise_is_heavy_tailed(frames: Frames) -> Seen:
    """the noise of SGD may be heavy-tailed (index below 2)"""

    def indices(noise: str) -> list[Check]:
        table, quantity = frames["tail_index"].filter(noise=noise), "index, {noise}, epoch {epochs}"
        return checks(table, quantity, "hill", high=2, error="standard_error")

    return Seen(
        "digits, Hill's index",
        [*indices(ONE), *indices(MANY)],
        indices(NORMAL),
        "One-sample gradients become heavy-tailed, mini-batches do not",
    )
