"""Question (iii): the checkpoint, the prediction and the runs of a ResNet-8 with BatchNorm.

With BatchNorm in train mode the loss of a batch is not a mean over its samples. So the objective is
the mean loss of fixed batches of 64. It has no minimum, so the checkpoint is none.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from igo.ground.files import durable, partial_of, write_atomically
from igo.ground.seeds import derive_seed
from igo.noise import curvature
from igo.noise.measure import Loss
from igo.noise.surface import Surface
from igo.runs.provenance import now, provenance
from lab.exponent import chains
from lab.exponent.chains import CENTRE, FASTER, POINTS, Cell, Length
from lab.theory.functions import Array

STEPS, SEEDS = (0.2, 0.6, 1.0, 1.6), 8
BATCH = 64  # of the objective, the Hessian and the noise
LENGTH = Length(600, 20)  # 600 updates of burn-in, then 600 updates with 20 evaluations
MODES, NOISE_BATCHES, TOLERANCE = 20, 1024, 1e-2
EPOCHS, FIRST_ETA, TRAINED_AT = 40, 0.1, 32  # of the checkpoint; η falls linearly to 0
BARRIER = 1.01  # loss on a segment over the loss at its higher end: above this there is a barrier
FIRST = 0  # the seed for which λ_max is computed at the ends of the central points
FACTS = ("commit", "python", "versions")
RESULTS = "batchnorm"  # folder of checkpoint.npz, predictions.csv and runs.jsonl


@dataclass(frozen=True)
class InBatches:
    """A `tasks.Task` with the loss of whole batches, as BatchNorm in train mode needs.

    Args:
        x: inputs, (n, …).
        y: labels, (n,).
        network: in train mode; a forward pass must change no state.
        loss: mean loss of a batch, of outputs and labels.
    """

    x: Tensor
    y: Tensor
    network: nn.Module
    loss: Loss

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.x)

    @property
    def fixed(self) -> Tensor:
        """The rows of the objective's batches, (batches, BATCH), the same for all runs.

        They are a permutation. Its first rows stand in the last batch again, to fill it.
        """
        order = np.random.default_rng(derive_seed(0, "partition")).permutation(self.samples)
        batches = -(-self.samples // BATCH)
        return torch.from_numpy(np.resize(order, (batches, BATCH)))

    def surface(self, rows: Tensor) -> Surface:
        """The mean loss of the batches `rows` (batches, b)."""
        return Surface(self.network, self.loss, [(self.x[r], self.y[r]) for r in rows])

    def gradients(self, at: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """Gradients (S, P, d) at (S, P, d), as `Task` says; point p has the first b_p rows."""
        sizes = (weights > 0).sum(1).tolist()
        return torch.stack([
            torch.stack([
                self.surface(rows[seed, None, :b]).value_and_gradient(at[seed, point])[1]
                for point, b in enumerate(sizes)
            ])
            for seed in range(len(at))
        ])  # fmt: skip

    def objective(self, at: Tensor) -> Tensor:
        """The mean loss of the fixed batches at (S, P, d), shape (S, P)."""
        fixed = self.fixed
        values = [self._value(point, fixed) for point in at.flatten(0, 1)]
        return torch.tensor(values, dtype=torch.float64).view(at.shape[:2])

    def _value(self, at: Tensor, rows: Tensor) -> float:
        named = dict(self.network.named_parameters())
        pieces = at.split([p.numel() for p in named.values()])
        values = {
            name: piece.view_as(p) for (name, p), piece in zip(named.items(), pieces, strict=True)
        }
        with torch.no_grad():
            losses = [
                float(self.loss(functional_call(self.network, values, (self.x[r],)), self.y[r]))
                for r in rows
            ]
        return float(np.mean(losses))


@dataclass(frozen=True)
class Modes:
    """The leading eigenvalues (k,) of a Hessian, and the one-sample noise in each and elsewhere."""

    curvatures: Array
    noise: Array
    rest: float

    def excess(self, eta: float, b: int) -> float:
        """η/2b · (Σ C_i²/(2 − ηλ_i) + C_rest²/2). In the rest ηλ counts as 0, which is ρ = 1."""
        leading = float((self.noise / (2 - eta * self.curvatures)).sum())
        return eta / (2 * b) * (leading + self.rest / 2)


def digits(data_dir: Path) -> InBatches:
    """ResNet-8 of width 8 and the 1,437 training images of digits."""
    from igo.config.schema import DatasetConfig, ModelConfig
    from igo.data.readers import read
    from igo.data.source import Place
    from igo.train import models

    train, _ = read("digits", Place(data_dir))
    data = DatasetConfig("digits", 10, 1, 8, len(train.labels), [0.3054], [0.3760])
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(0, "initialisation"))
        network = models.build(ModelConfig("resnet8", width=8), data).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    images = torch.from_numpy(train.images.astype(np.float32)).permute(0, 3, 1, 2) / 255
    x = ((images - data.mean[0]) / data.std[0]).contiguous()
    return InBatches(x, torch.from_numpy(train.labels.astype(np.int64)), network, cross_entropy)


def train(task: InBatches) -> Tensor:
    """The parameters (d,) after 40 epochs of SGD whose η falls linearly from 0.1 to 0."""
    at = task.surface(task.fixed).here
    random = np.random.default_rng(derive_seed(0, "checkpoint"))
    batches = task.samples // TRAINED_AT
    for k in range(EPOCHS * batches):
        if k % batches == 0:
            order = np.array_split(random.permutation(task.samples), batches)
        rows = torch.from_numpy(order[k % batches])
        gradient = task.surface(rows[None]).value_and_gradient(at)[1]
        at = at - FIRST_ETA * (1 - k / (EPOCHS * batches)) * gradient
    return at


def measure(task: InBatches, at: Tensor, modes: int = MODES, batches: int = NOISE_BATCHES) -> Modes:
    """The Hessian's leading modes, and the noise of random batches of 64, times 64."""
    top = _top(task, at, modes, TOLERANCE)
    random = np.random.default_rng(derive_seed(0, "noise"))
    rows = torch.from_numpy(random.integers(task.samples, size=(batches, BATCH)))
    gradients = torch.stack([task.surface(r[None]).value_and_gradient(at)[1] for r in rows])
    noise = (gradients - gradients.mean(0)).double()
    variances = BATCH * (noise @ top.vectors.T.double()).square().sum(0) / (batches - 1)
    total = BATCH * float(noise.square().sum()) / (batches - 1)
    return Modes(top.values.numpy(), variances.numpy(), total - float(variances.sum()))


def predictions(modes: Modes, loss: float) -> pl.DataFrame:
    """A row for each point of each cell: its setting and predicted excess objective."""
    largest = float(modes.curvatures[0])
    rows = [
        {
            "task": RESULTS, "eta_lambda_max": h, "point": name, "eta": eta, "b": b,
            "predicted_loss": modes.excess(eta, b), "lambda_max": largest,
            "lambda_20": float(modes.curvatures[-1]), "checkpoint_loss": loss,
            "rest_of_noise": modes.rest / (modes.rest + float(modes.noise.sum())),
        }
        for h in STEPS
        for name, (eta, b) in zip(POINTS, Cell(RESULTS, h).points(largest), strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round_sig_figs(6))


def predict(folder: Path, data_dir: Path, console: Console) -> None:
    """Write checkpoint.npz and predictions.csv if they are missing."""
    if (folder / "predictions.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    console.print("40 epochs, then Hessian and noise")
    task = digits(data_dir)
    at = train(task)
    with durable(partial_of(folder / "checkpoint.npz")) as opened:
        np.savez(opened, at=at.numpy())
    partial_of(folder / "checkpoint.npz").replace(folder / "checkpoint.npz")
    predicted = predictions(measure(task, at), float(task.objective(at[None, None])))
    write_atomically(folder / "predictions.csv", predicted.write_csv())


def run(
    folder: Path, seeds: range, data_dir: Path, console: Console, length: Length = LENGTH
) -> None:
    """Run the seeds and cells without a record, and add a line of runs.jsonl for each of them.

    Args:
        folder: the folder with checkpoint and predictions.
        seeds: the seeds of the draws.
        data_dir: the folder of the images.
        console: for a line about each run.
        length: the length of the runs.
    """
    task = digits(data_dir)
    start = torch.from_numpy(np.load(folder / "checkpoint.npz")["at"])
    predicted = pl.read_csv(folder / "predictions.csv")
    done = {(line["seeds"][0], line["eta_lambda_max"]) for line in recorded(folder)}
    for seed in seeds:
        for h in STEPS:
            if (seed, h) in done:
                continue
            points = predicted.filter(eta_lambda_max=h).select("eta", "b").rows()
            record = run_one(task, start, points, h, seed, length)
            with (folder / "runs.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            console.print(f"seed {seed}, ηλ_max {h:g}: {record['seconds']:.0f} s of CPU")


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The records of runs.jsonl."""
    path = folder / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_one(
    task: InBatches, start: Tensor, points: list[tuple[float, int]], h: float, seed: int,
    length: Length,
) -> dict[str, Any]:  # fmt: skip
    """Run the five points of a cell with one seed: excesses, guard, and moves of the weights."""
    began = time.process_time()
    averages = chains.run(task, start, points, [seed], length, f"{RESULTS}_{h:g}")
    ends = averages.ends[0]
    curved = largest_curvature(task, ends[CENTRE]) if seed == FIRST else None
    return {
        "task": RESULTS,
        "eta_lambda_max": h,
        "points": [list(point) for point in points],
        "seeds": [seed],
        "updates": length.updates,
        "evaluations": length.evaluations,
        "halves": [[[_number(v) for v in row] for row in half] for half in averages.halves],
        "returned": {POINTS[k]: int(stayed(task, start, ends[k])) for k in (CENTRE, FASTER)},
        "norms": [_number(float(end.norm() / start.norm())) for end in ends],
        "lambda_max": curved,
        "seconds": round(time.process_time() - began, 1),
        "written": now(),
        "threads": torch.get_num_threads(),
        **{name: value for name, value in provenance().items() if name in FACTS},
    }


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if np.isfinite(value) else None


def stayed(task: InBatches, start: Tensor, end: Tensor) -> bool:
    """Whether the loss between start and end (d,) exceeds both ends nowhere by more than 1 %."""
    if not bool(torch.isfinite(end).all()):
        return False
    shares = torch.linspace(0, 1, 11)[:, None]
    losses = task.objective((start + shares * (end - start))[None])[0]
    return bool(losses.max() <= BARRIER * max(losses[0], losses[-1]))


def largest_curvature(task: InBatches, at: Tensor) -> float | None:
    """λ_max of the objective's Hessian, within 5 %."""
    if not bool(torch.isfinite(at).all()):
        return None
    return float(_top(task, at, 1, 0.05).values[0])


def _top(task: InBatches, at: Tensor, count: int, tolerance: float) -> curvature.Top:
    whole, start = task.surface(task.fixed), curvature.random_direction(at, 0)
    return curvature.largest(
        lambda v: whole.curvature(at, v), start, count=count, tolerance=tolerance
    )
