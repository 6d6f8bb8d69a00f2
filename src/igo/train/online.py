"""C² during training: from pairs of parts of ordinary batches, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from igo.config.schema import Config
from igo.data.datasets import Batch
from igo.method import noise
from igo.method.measure import untouched
from igo.method.noise import Moments, Noise
from igo.ranks import ALONE, Ranks
from igo.train import measure
from igo.train.engine import Engine

Part = tuple[Tensor, Tensor, range]  # what a rank has of it, and where it is in its batch


def measured_size(config: Config) -> int:
    """The b of every measurement of a run: min(noise.batch_size, b_1, n/K).

    One b throughout, because under BatchNorm C² depends on it: the values of a run can then be
    compared with each other and with the reference.
    """
    n = config.dataset.samples
    return max(1, min(config.noise.batch_size, config.batch_size, n // config.noise.batches))


@dataclass(frozen=True)
class Online:
    """Which updates of an epoch are measured, from two parts of ``size`` samples each.

    Measuring costs forward and backward of the parts on top of the step, so the number of pairs
    keeps their samples within ``noise.online`` of the epoch's; at least one where possible.
    """

    size: int
    positions: frozenset[int]
    within: bool  # whether a batch holds both parts

    @staticmethod
    def of_epoch(config: Config, batch_size: int) -> Online:
        """Plan one epoch. Both parts are of the present batch, or one of the batch before it."""
        share, size, n = config.noise.online, measured_size(config), config.dataset.samples
        within = 2 * size <= batch_size
        if share == 0:
            return Online(size, frozenset(), within)
        full = n // batch_size  # the last, shorter batch is never measured
        first = 0 if within else 1
        pairs = min(max(int(share * n / (2 * size)), 1), full - first)
        chosen = (first + j * (full - first) // pairs for j in range(pairs))
        return Online(size, frozenset(chosen), within)

    def parts(self, batch: Batch, before: Batch | None, ranks: Ranks = ALONE) -> tuple[Part, Part]:
        """Two parts of different samples, from this batch alone where it is large enough.

        The batches are a rank's shares, and so are the parts.
        """
        first = _part(batch, range(self.size), ranks)
        if before is None or self.within:
            return first, _part(batch, range(self.size, 2 * self.size), ranks)
        return _part(before, range(self.size), ranks), first


def _part(batch: Batch, span: range, ranks: Ranks) -> Part:
    own = slice(ranks.count(span.start), ranks.count(span.stop))
    return batch[0][own], batch[1][own], span


@dataclass
class Average(Moments):
    """C² and ‖∇f‖² over about the last ``WINDOW`` pairs, or over one epoch's where it has more.

    ``weight`` counts pairs; a stage starts from the measurement with K mini-batches, which counts
    as K - 1.
    """

    variance: float
    gradient_square: float
    weight: float

    WINDOW: ClassVar[int] = 8

    @staticmethod
    def starting(measured: Noise) -> Average:
        """The average at the start of a stage."""
        return Average(measured.variance, measured.gradient_square, measured.batches - 1)

    def add(self, variances: float, gradient_squares: float, pairs: int) -> None:
        """Take the sums over some pairs."""
        if not pairs:
            return
        kept = min(self.weight, self.WINDOW)
        self.weight = kept + pairs
        self.variance = (kept * self.variance + variances) / self.weight
        self.gradient_square = (kept * self.gradient_square + gradient_squares) / self.weight


def pair(engine: Engine, network: nn.Module, parts: tuple[Part, Part]) -> Tensor:
    """C² and ‖∇f‖², (2,) on the device, from two parts of ordinary training batches (online).

    The update that follows is made as if nothing had been measured.
    """
    with untouched(network), torch.random.fork_rng(devices=measure.gpus(engine)):
        first, second = (measure.training_gradient(engine, network, part) for part in parts)
    return noise.from_halves(first, second, 2 * len(parts[0][2]))
