"""The two networks of question (i): objective and gradients of many copies at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from igo.ground.seeds import generator


class Task(Protocol):
    """An objective for SGD. Parameters are vectors (…, d); an L2 term is part of the objective."""

    @property
    def samples(self) -> int:
        """The number of samples; batches are drawn from them with replacement."""

    def gradients(self, at: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Gradients (S, P, d) at the parameters (S, P, d), of the samples `rows` (S, K).

        Point p weighs the k-th of these samples by `weights` (P, K).
        """

    def objective(self, at: Tensor) -> Tensor:
        """The objective of all samples at (S, P, d), shape (S, P)."""


@dataclass(frozen=True)
class Network:
    """A tanh network of one hidden layer without BatchNorm, and its data.

    Args:
        x: inputs, (n, inputs).
        y: labels, (n,): classes if `outputs` is above 1, else numbers.
        hidden: number of hidden units.
        outputs: number of classes, or 1 for half the squared error.
        l2: the objective has l2 ‖w‖²/2.
    """

    x: Tensor
    y: Tensor
    hidden: int
    outputs: int
    l2: float = 0.0

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.x)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shapes of first weights, first biases, second weights and second biases."""
        inputs = self.x.shape[1]
        return (
            (inputs, self.hidden),
            (1, self.hidden),
            (self.hidden, self.outputs),
            (1, self.outputs),
        )

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        return sum(rows * columns for rows, columns in self.shapes)

    def initial(self, seed: int) -> Tensor:
        """A random vector (d,): weights N(0, 1/inputs of the layer), biases 0."""
        layers = []
        for k, (rows, columns) in enumerate(self.shapes):
            weights = torch.randn(rows, columns, generator=generator(seed, "weights", k))
            layers.append(weights.flatten() / rows**0.5 * (k % 2 == 0))
        return torch.cat(layers).to(self.x)

    def parts(self, at: Tensor) -> list[Tensor]:
        """Views of (…, d) as the four layers (…, rows, columns)."""
        flat_layers = at.split([r * c for r, c in self.shapes], dim=-1)
        return [
            layer.unflatten(-1, shape)
            for layer, shape in zip(flat_layers, self.shapes, strict=True)
        ]

    def sample_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Losses of outputs (…, K, outputs), without the L2 term, shape (…, K)."""
        if self.outputs == 1:
            return (outputs[..., 0] - y).square() / 2
        chosen = outputs.gather(-1, y.expand(outputs.shape[:-1])[..., None])[..., 0]
        return outputs.logsumexp(-1) - chosen

    def outputs_of(self, at: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden values (…, K, hidden) and outputs (…, K, outputs) of inputs x (…, K, inputs)."""
        first, shift, second, last = self.parts(at)
        h = torch.tanh(x @ first + shift)
        return h, h @ second + last

    def objective(self, at: Tensor) -> Tensor:
        """The objective of all samples at (…, d), shape (…)."""
        total = self.l2 * at.square().sum(-1) / 2
        for x, y in zip(self.x.split(4096), self.y.split(4096), strict=True):
            losses = self.sample_losses(self.outputs_of(at, x)[1], y)
            total = total + losses.sum(-1) / self.samples
        return total

    def gradients(self, at: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Gradients (S, P, d) at (S, P, d), as `Task` says."""
        seeds, points, _ = at.shape
        batch, hidden, copies = rows.shape[1], self.hidden, seeds * points
        x, y = self.x[rows], self.y[rows]
        first, shift, second, last = self.parts(at)
        second, last = second.flatten(0, 1), last.flatten(0, 1)
        # the points of a seed have the same samples, so their first layers are one product
        wide = first.transpose(1, 2).reshape(seeds, -1, points * hidden)
        h = torch.baddbmm(shift.reshape(seeds, 1, points * hidden), x, wide).tanh_()
        h = h.view(seeds, batch, points, hidden).transpose(1, 2).reshape(copies, batch, hidden)
        outputs = torch.baddbmm(last, h, second).view(seeds, points, batch, self.outputs)
        errors = (self._errors(outputs, y[:, None]) * weights[..., None]).flatten(0, 1)
        inner = (errors @ second.mT * (1 - h.square())).view(seeds, points, batch, hidden)
        wide = x.mT @ inner.transpose(1, 2).reshape(seeds, batch, points * hidden)
        parts = (
            wide.view(seeds, -1, points, hidden).transpose(1, 2).flatten(2),
            inner.sum(2),
            (h.mT @ errors).view(seeds, points, -1),
            errors.sum(1).view(seeds, points, -1),
        )
        return torch.cat(parts, -1).add_(at, alpha=self.l2)

    def _errors(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Derivatives of the sample losses by the outputs."""
        if self.outputs == 1:
            return outputs - y[..., None]
        odds = outputs.exp()  # softmax along so few classes is slow
        errors = odds / (odds @ torch.ones(self.outputs, self.outputs).to(odds))
        index = y.expand(errors.shape[:-1])[..., None]
        return errors.scatter_add_(-1, index, -torch.ones_like(index, dtype=errors.dtype))


TEACHER_SEED, LABEL_NOISE = 10, 0.25
SAMPLES = 10_000


def teacher(samples: int = SAMPLES) -> Network:
    """T1: 20 Gaussian inputs, labels of a network of 16 tanh units with noise of variance 0.25.

    The teacher's first weights are N(0, 1/20), its second ones ±1.
    """
    x = torch.randn(samples, 20, generator=generator(TEACHER_SEED, "inputs"), dtype=torch.float64)
    first = torch.randn(20, 16, generator=generator(TEACHER_SEED, "teacher"), dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8)
    noise = torch.randn(samples, generator=generator(TEACHER_SEED, "labels"), dtype=torch.float64)
    y = torch.tanh(x @ first / 20**0.5) @ signs + LABEL_NOISE**0.5 * noise
    return Network(x, y, hidden=16, outputs=1)


def fashion(data_dir: Path) -> Network:
    """T2: 10,000 training images of Fashion-MNIST averaged to 7×7 pixels, each standardised.

    Raises:
        UserError: the images are missing.
    """
    from igo.data.readers import read
    from igo.data.source import Place

    train, _ = read("fashion_mnist", Place(data_dir))
    pixels = train.images[:SAMPLES].reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49)
    pixels = (pixels - pixels.mean(0)) / pixels.std(0)
    labels = torch.from_numpy(train.labels[:SAMPLES].astype(np.int64))
    return Network(torch.from_numpy(pixels.astype(np.float64)), labels, hidden=16, outputs=10)


TASKS: dict[str, Callable[[Path], Network]] = {
    "teacher": lambda _: teacher(),
    "fashion": fashion,
}
