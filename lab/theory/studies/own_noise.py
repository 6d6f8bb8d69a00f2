"""Study: does the ball smooth as a network's own noise does, and do η and b set that noise?"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.theory import digits
from lab.theory.digits import NETWORK
from lab.theory.row import Check, Frames, Records, Seen, Study

STUDY = Study("own_noise")
RATE, BATCH, DRAWS, CHUNK = 0.15, 32, 800, 200
POINTS = {"start": 0, "after 1 epoch": 1, "after 20 epochs": 20}
KERNELS = OWN, OWN_GAUSSIAN, BALL, LARGE, SLOW = (
    "its own mini-batches",
    "Gaussian, its own covariance",
    "ball",
    "its own, batch 4b",  # this and the next halve δ
    "its own, η/2",
)
NEAR = 0.25  # how far a ratio may be from 1


def noise(kernel: str, gradients: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Return draws ω (count, P) of a kernel: E‖ω‖² = C²/b, for the ball C²/b·P/(P + 2).

    `gradients` (n, P) are the one-sample gradients minus their mean.
    """
    n, p = gradients.shape
    if kernel == OWN_GAUSSIAN:
        normal = torch.randn(count, n, generator=random, dtype=gradients.dtype)
        return normal @ gradients / math.sqrt(n * BATCH)
    if kernel == BALL:
        scale = (gradients.square().sum(1).mean() / BATCH).sqrt()  # C/√b
        normal = torch.randn(count, p, generator=random, dtype=gradients.dtype)
        radius = torch.rand(count, 1, generator=random, dtype=gradients.dtype).pow(1 / p)
        omega: Tensor = scale * normal / (normal.norm(dim=1, keepdim=True) / radius)
        return omega
    b = 4 * BATCH if kernel == LARGE else BATCH
    rows = torch.randint(n, (count, b), generator=random)
    weights = torch.zeros(count, n, dtype=gradients.dtype)
    weights.scatter_add_(1, rows, torch.full((count, b), 1 / b, dtype=gradients.dtype))
    return weights @ gradients


def rises(x: Tensor, data: digits.Digits, seed: int) -> Iterator[dict[str, Any]]:
    """Give E f(y − ηω) − f(y) with its standard error for every kernel, y = x − η∇f(x).

    The part linear in ω has the mean 0. It is subtracted, so the error is small.
    """
    gradients = NETWORK.sample_gradients(x, data)
    y = x - RATE * gradients.mean(0)
    gradients -= gradients.mean(0)
    level, slope = NETWORK.loss(y, data), NETWORK.gradient(y, data)
    for kernel in KERNELS:
        random = torch.Generator().manual_seed(seed)
        parts, rate = [], RATE / 2 if kernel == SLOW else RATE
        for _ in range(DRAWS // CHUNK):
            move = -rate * noise(kernel, gradients, CHUNK, random)
            parts.append(NETWORK.loss(y + move, data) - level - move @ slope)
        rise = torch.cat(parts)
        yield {
            "kernel": kernel,
            "loss": level.item(),
            "rise": rise.mean().item(),
            "standard_error": rise.std().item() / DRAWS**0.5,
        }


def measure(seed: int) -> Sequence[Records]:
    """Train, and measure the rise of the smoothed loss at three points of the run."""
    data, records = digits.load(), []
    for name, epochs in POINTS.items():
        x = digits.after_epochs(data, epochs, RATE, BATCH, seed)
        records += [{"point": name} | record for record in rises(x, data, seed)]
    return (records,)


def ratio(frames: Frames, point: str, kernel: str, over: str = OWN, less: bool = False) -> Check:
    """Check that the rise of the loss by a kernel is near that by another, or `less` than it."""
    table = frames["own_noise"].filter(point=point)
    above, below = (table.filter(kernel=k).row(0, named=True) for k in (kernel, over))
    value = above["rise"] / below["rise"]
    relative = np.hypot(*(row["standard_error"] / row["rise"] for row in (above, below)))
    reach = 1.96 * abs(value) * relative
    rival = "its own noise" if over == OWN else over
    quantity = f"{kernel}: rise over that of {rival}, {point}"
    low, high = (-np.inf, 1) if less else (1 - NEAR, 1 + NEAR)
    return Check(quantity, value, low, high, (value - reach, value + reach))


RAN = f"digits: the rise of the training loss under noise, {DRAWS:,} draws"


@STUDY.statement("SGDの平滑化特性")
def ball_smooths_as_sgd(frames: Frames) -> Seen:
    """on a network, too, SGD smooths as the ball of radius δ = η√(C²/b)"""
    fitting = [ratio(frames, point, OWN_GAUSSIAN) for point in POINTS]
    return Seen(
        RAN,
        [ratio(frames, point, BALL) for point in POINTS],
        [ratio(frames, point, LARGE) for point in POINTS],
        "The rise is η²·tr(HΣ)/2b [derived], and noise lies in the steep directions. A Gaussian "
        f"with its covariance gives {', '.join(f'{c.value:.2f}' for c in fitting)} of it",
    )


@STUDY.statement("SGDの挙動についての理論的洞察")
def rate_and_batch_lower_the_noise(frames: Frames) -> Seen:
    """to lower η, or to raise b, is equivalent to lowering the noise level"""
    ratios = (f"{ratio(frames, point, SLOW, LARGE).value:.2f}" for point in POINTS)
    return Seen(
        RAN,
        [ratio(frames, p, k, less=True) for k in (SLOW, LARGE) for p in POINTS],
        [ratio(frames, point, OWN, LARGE, less=True) for point in POINTS],
        "At one point of the training both smooth alike: "
        f"η/2 gives {', '.join(ratios)} of the rise of 4b",
    )
