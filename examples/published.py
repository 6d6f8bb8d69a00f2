"""Rates η/η_1 and batch sizes of later papers, as the commands of docs/reproduce.md name them."""

import math
import sys


def grown(t: float, factor: float, parts: int = 10) -> float:
    """η/η_1 grows by a factor after each of the equal parts of training."""
    return math.pow(factor, int(parts * t))


def bent(t: float, factor: float) -> float:
    """η/η_1 grows from 1 to 2 in nine steps, each of them a factor larger than the one before."""
    return 1 + (math.pow(factor, int(10 * t)) - 1) / (factor**9 - 1)


def warm(t: float, largest: float, falls: bool) -> float:
    """η/η_1 grows every three epochs of 30, and then falls by a cosine or stays."""
    epoch = round(300 * t)
    if epoch < 30:
        return math.pow(largest, epoch // 3 / 9)
    return largest * (1 + math.cos(math.pi * (epoch - 30) / 270)) / 2 if falls else largest


def tracking(t: float, factor: float) -> float:
    """η/η_1 grows by a factor where b doubles."""
    return math.pow(factor, sum(t >= start for start in (0.015, 0.05, 0.11, 0.24, 0.49)))


def heavy_ball(t: float) -> float:
    """η/η_1 by which δ of heavy ball is δ_1 (1 - t)^0.9."""
    return math.pow(1 - t, 0.9) * noise(32) / noise(size(t))


def noise(b: float) -> float:
    """δ/η of heavy ball for β = 0.9, β̂ = 81.9, and the authors' C² and ‖∇f‖."""
    return math.sqrt((1 + 81.9) * 25.318 / b + 81.9 * 1.77**2)


def size(t: float) -> float:
    """b of lr-batch-poly, where δ falls as (1 - t)^0.9."""
    return 32 * math.pow(1 - t, -0.9 * 1.335)


def table(name: str) -> dict[float, int]:
    """The batch sizes by shares of the training, or by its 50,000 samples an epoch."""
    if name == "lr-batch-poly":
        return {50_000 * epoch: int(size(epoch / 200)) for epoch in range(200)}
    factor = {"tripling": 3, "quadrupling": 4}[name]
    return {k / 10: math.ceil(8 + 4088 * (factor**k - 1) / (factor**9 - 1)) for k in range(10)}


if __name__ == "__main__":
    print(table(sys.argv[1]))
