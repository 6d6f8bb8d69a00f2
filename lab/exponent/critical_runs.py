"""The trainings of question (v): the updates until the smoothed training loss is below a target.

The loop uses igo's public API: a plan with constant noise, a Counter on one stream of shuffled
epochs, a Schedule, and a NoiseMeter. A seed has the same first parameters and the same stream for
every η and b.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import igo
from igo.config.schema import DatasetConfig, ModelConfig
from igo.ground.files import write_atomically
from igo.ground.seeds import derive_seed
from igo.runs.provenance import now, provenance
from igo.train import models
from igo.train.engine import cpu_name
from igo.train.on_device import Normalise
from lab.exponent import trainings
from lab.study.records import Run, of_archives, write_archive
from lab.study.written import ROOT

SWEEP = "exponent_critical"
FOLDER = ROOT / "runs" / "sweeps" / SWEEP
ARCHIVE = ROOT / "results" / "exponent" / "critical.tar.xz"  # records/ has run folders only
B = tuple(2**k for k in range(3, 11))
ETA = tuple(0.05 * 2**k for k in range(7))
TUNING_SEEDS = {b: (1000, 1001) if b <= 128 else (1000,) for b in B}
WHOLE_TO = 256  # the largest b for which tuning tries all of ETA
SMOOTHED_OVER = 8192  # samples in the mean that is the smoothed loss
TARGET = 0.45
MOST_UPDATES, MOST_SAMPLES = 20_000, 400_000
MEASURED_B = 32  # the b whose judged runs have a NoiseMeter
MEASURE_EVERY, PARTS = 32, 8  # updates; parts of a measurement, each of MEASURED_B samples
HALF_LIFE = 8 * PARTS * MEASURED_B  # samples of the meter's half-life: 8 measurements
FIRST_TRIED = 0.2  # η, at the smallest b
DATASET = DatasetConfig(
    name="arrays", classes=10, channels=1, image_size=14, samples=60_000,
    mean=[0.2860], std=[0.3301],
)  # fmt: skip
FACTS = ("command", "commit", "python", "versions")


@dataclass(frozen=True)
class Outcome:
    """The end of a run (``arrived``, ``diverged``, ``limit``), its updates, last smoothed loss."""

    state: str
    updates: int
    loss: float | None


@dataclass
class Training:
    """Images (n, 1, H, W), normalised, and labels (n,), and a run's η, b and seed.

    ``scales`` gets B_simple after each measurement, None where ‖∇f‖² is measured as 0 or less.
    """

    images: Tensor
    labels: Tensor
    b: int
    eta: float
    seed: int
    measured: bool = False
    scales: list[float | None] = field(default_factory=list)

    def losses(self, updates: int) -> Iterator[float]:
        """Train, and yield the training loss of each update's batch, before the update."""
        torch.manual_seed(derive_seed(self.seed, SWEEP, "parameters"))
        model = models.build(ModelConfig(name="resnet8", width=8), DATASET)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(model.parameters(), lr=self.eta)
        plan = igo.plan(
            "constant", samples=updates * self.b, stages=1, learning_rate=self.eta,
            batch_size=self.b,
        )  # fmt: skip
        counter = igo.Counter(plan)
        schedule = igo.Schedule(optimizer, counter)
        measure = self._meter(model) if self.measured else None
        for rows in counter.batches(self._stream()):
            update = schedule.step()
            if measure and update.number % MEASURE_EVERY == 0:
                measure(update.number * self.b)
            optimizer.zero_grad()
            loss = self._loss(model, rows)
            loss.backward()
            optimizer.step()
            yield loss.item()

    def _stream(self) -> Iterator[int]:
        """The rows of all samples in random order, epoch after epoch."""
        random = np.random.default_rng(derive_seed(self.seed, SWEEP, "stream"))
        while True:
            yield from random.permutation(len(self.labels)).tolist()

    def _loss(self, model: nn.Module, rows: Tensor) -> Tensor:
        return cross_entropy(model(self.images[rows]), self.labels[rows])

    def _meter(self, model: nn.Module) -> Callable[[int], None]:
        """A function that measures C² and ‖∇f‖² on other images, in parts of a batch's size."""
        with warnings.catch_warnings():  # parts have the size of a batch
            warnings.filterwarnings("ignore", "BatchNorm in train mode")
            meter = igo.NoiseMeter(model, half_life=HALF_LIFE)
        random = np.random.default_rng(derive_seed(self.seed, SWEEP, "noise"))

        def measure(samples: int) -> None:
            model.zero_grad()
            for _ in range(PARTS):
                rows = torch.from_numpy(random.integers(len(self.labels), size=self.b))
                (self._loss(model, rows) / PARTS).backward()
                meter.part(self.b)
            meter.update()
            if samples >= SMOOTHED_OVER and meter.noise:
                self.scales.append(meter.noise.noise_scale)

        return measure


def until(losses: Iterable[float], window: int, target: float, limit: int) -> Outcome:
    """Stop after the first update at which the mean of the last ``window`` losses is below target.

    Stops also at a loss that is not finite, or after ``limit`` updates.
    """
    kept: deque[float] = deque(maxlen=window)
    updates, total = 0, 0.0
    for updates, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            return Outcome("diverged", updates, None)
        total += loss - (kept[0] if len(kept) == window else 0.0)
        kept.append(loss)
        if len(kept) == window and total / window < target:
            return Outcome("arrived", updates, total / window)
        if updates >= limit:
            break
    return Outcome("limit", updates, total / len(kept))


def grid(b: int, before: float) -> list[float]:
    """The η to try. For b above WHOLE_TO: the η of the next smaller b, its half and its double."""
    return [eta for eta in ETA if b <= WHOLE_TO or before / 2 <= eta <= 2 * before]


def chosen(records: Iterable[dict[str, Any]]) -> float:
    """The η with the least sum of K over TUNING_SEEDS; of equal sums, the smallest η.

    If no η has arrived with all seeds, it is the η with the least last loss of the first seed.

    Args:
        records: the tuning runs of one batch size.
    """
    by_eta: dict[float, list[dict[str, Any]]] = {}
    for record in records:
        by_eta.setdefault(record["eta"], []).append(record)

    def rank(eta: float) -> tuple[bool, float, float]:
        arrived = [r for r in by_eta[eta] if r["state"] == "arrived"]
        if len(arrived) == len(TUNING_SEEDS[by_eta[eta][0]["b"]]):
            return False, sum(r["updates"] for r in arrived), eta
        loss = by_eta[eta][0]["loss"]
        return True, math.inf if loss is None else loss, eta

    return min(by_eta, key=rank)


def end(b: int) -> int:
    """The most updates of a run."""
    return min(MOST_UPDATES, MOST_SAMPLES // b)


def name_of(kind: str, b: int, eta: float, seed: int) -> str:
    """The name of a run's record; a judged run has the η that tuning chose."""
    return f"{kind}-b{b}-eta{eta:g}-s{seed}" if kind == "tuning" else f"{kind}-b{b}-s{seed}"


def recorded(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The records of a folder by name; of FOLDER, with those of the archive."""
    runs = of_archives(ARCHIVE.parent, ARCHIVE.name) if folder == FOLDER else {}
    return {name: run.status for name, run in runs.items()} | {
        path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")
    }


def archive(folder: Path = FOLDER, path: Path = ARCHIVE) -> None:
    """Write all records into the archive, as RUN/status.json."""
    records = recorded(folder)
    texts = {name: json.dumps(record, indent=1) + "\n" for name, record in records.items()}
    write_archive(path, [Run(name, {"status.json": text}) for name, text in texts.items()])


def data() -> tuple[Tensor, Tensor]:
    """The images of ``trainings.SMALL_DATA``, normalised, and their labels."""
    if not trainings.SMALL_DATA.is_file():
        trainings.make_small_data()
    with np.load(trainings.SMALL_DATA) as arrays:
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    return Normalise(DATASET, torch.device("cpu"))(images), labels


@dataclass
class Runs:
    """Makes the runs without a record and keeps their records.

    Args:
        train: makes the training of b, η, seed, and whether it is measured.
        folder: the folder of the records.
        end: gives the most updates for b.
        target: the target of the smoothed loss.
    """

    train: Callable[[int, float, int, bool], Training]
    folder: Path = FOLDER
    end: Callable[[int], int] = end
    target: float = TARGET
    report: Callable[[str], None] = print

    def run(self, kind: str, b: int, eta: float, seed: int, limit: int) -> dict[str, Any]:
        """The record of a run. If there is none, the run is made."""
        name = name_of(kind, b, eta, seed)
        records = recorded(self.folder)
        if name in records:
            return records[name]
        began = time.process_time()
        training = self.train(b, eta, seed, kind == "judged" and b == MEASURED_B)
        outcome = until(training.losses(limit), SMOOTHED_OVER // b, self.target, limit)
        record = {
            "kind": kind, "b": b, "eta": eta, "seed": seed, "target": self.target, "limit": limit,
            **asdict(outcome), "scales": training.scales,
            "seconds": time.process_time() - began, "written": now(),
            "cpu": cpu_name(), "threads": torch.get_num_threads(),
            **{key: value for key, value in provenance().items() if key in FACTS},
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{name}.json", json.dumps(record, indent=1) + "\n")
        self.report(f"{name}: {record['seconds']:.0f} s of CPU")
        return record

    def tune(self, b: int, first: float) -> float:
        """The η of ``grid`` that ``chosen`` takes.

        A run stops if the sum of K over TUNING_SEEDS must exceed the least sum so far. So the η
        that is tried ``first`` changes the time. Up to WHOLE_TO it does not change the choice.
        """
        seeds = TUNING_SEEDS[b]
        records, best = [], len(seeds) * self.end(b)
        for eta in sorted(grid(b, first), key=lambda eta: (abs(math.log2(eta / first)), eta)):
            left = best
            for to_come, seed in zip(reversed(range(len(seeds))), seeds, strict=True):
                limit = min(self.end(b), left - to_come * (SMOOTHED_OVER // b))
                records.append(self.run("tuning", b, eta, seed, limit))
                if records[-1]["state"] != "arrived":
                    break
                left -= records[-1]["updates"]
            else:
                best -= left
        return chosen(records)

    def tune_all(self) -> dict[int, float]:
        """The η of each b."""
        etas: dict[int, float] = {}
        for b in B:
            etas[b] = self.tune(b, next(reversed(etas.values()), FIRST_TRIED))
        return etas
