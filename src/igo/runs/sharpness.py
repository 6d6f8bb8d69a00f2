"""The program `igo sharpness`: how much the loss can rise near the parameters where a run ended."""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from omegaconf import DictConfig

from igo.config.load import split_off
from igo.config.schema import Config
from igo.ground.errors import UserError, first_line, printable, told
from igo.ground.files import OBJECT, Record, read_json, write_json
from igo.ground.numbers import POSITIVE, Count
from igo.ground.seeds import generator
from igo.noise.sharpness import surface, worst_rise
from igo.runs import assemble
from igo.runs.find import find, named
from igo.runs.folder import read_status, state_of
from igo.train import machine

FILE = "sharpness.json"
VERSION = 2  # A run that has another version of the measurement is measured again.
NO_EFFECT = ("runs", "adaptive", "batch_size", "batches", "data_dir", "fresh", "trust", "engine")


@dataclass
class EngineChoice:
    """The device that computes; the precision is fp32."""

    device: Annotated[str, ("auto", "cpu", "cuda")] = "auto"


@dataclass
class Settings:
    """The settings of `igo sharpness` (conf/sharpness.yaml)."""

    runs: Any = "runs"
    samples: Count = 500
    norm: Annotated[str, ("inf", "2")] = "inf"
    radius: Annotated[float, POSITIVE] = 0.002
    adaptive: bool = True
    steps: Count = 20
    seed: int = 0
    batch_size: Count = 250
    batches: bool = False
    data_dir: str | None = None
    fresh: bool = False
    trust: bool = False
    engine: EngineChoice = field(default_factory=EngineChoice)

    def of_result(self) -> Record:
        """The settings that change what is measured."""
        result = {name: value for name, value in asdict(self).items() if name not in NO_EFFECT}
        result |= {"batches": self.batch_size} if self.batches else {}
        return result | ({} if self.adaptive else {"adaptive": False})


def run(composed: DictConfig) -> None:
    """Measure every run that has not been measured with these settings; print each result.

    Raises:
        SystemExit: 1 where a run could not be measured; the other runs were measured.
    """
    settings, _ = split_off(composed, Settings)
    folders = find(named(settings.runs))
    failures = 0
    for number, folder in enumerate(folders, 1):
        try:
            record = {} if settings.fresh else read_json(folder / FILE, {"settings": OBJECT})
            if (record.get("version"), record.get("settings")) == (VERSION, settings.of_result()):
                outcome = "measured before"
            else:
                record = measure(folder, settings)
                write_json(folder / FILE, record)
                outcome = (
                    f"loss {record['loss']:.4g}, worst case +{record['worst_case']:.4g}"
                    f" ({record['seconds']:.1f} s)"
                )
        except Exception as error:  # It does not stop the other runs.
            failures += 1
            outcome = f"failed: {told(error) or f'{type(error).__name__}: {first_line(error)}'}"
        print(f"[{number}/{len(folders)}] {printable(f'{folder.name}: {outcome}')}", flush=True)
    if failures:
        raise SystemExit(1)


def measure(folder: Path, settings: Settings) -> Record:
    """The content of sharpness.json for a finished run."""
    start = time.perf_counter()
    read_status(folder)
    if (state := state_of(folder)) != "finished":
        raise UserError(f"it is {state}; only finished runs are measured")

    def move(config: Config) -> None:
        config.engine.device = settings.engine.device
        config.engine.precision = "fp32"
        config.data_dir = settings.data_dir or config.data_dir

    training = assemble.load_folder(folder, move, settings.trust)
    torch.backends.cudnn.allow_tf32 = False  # TF32 has ten bits of precision, fp32 has 23
    indices = torch.randperm(training.data.n, generator=generator(settings.seed, "sharpness"))
    network = training.network.eval()
    parts = indices[: settings.samples].split(settings.batch_size)
    batches = [*training.data.plain_batches(parts)]
    function, weights = surface(network, batches)
    loss, gradient = function(weights)
    functions = [function]
    if settings.batches:
        functions = [surface(network, [batch])[0] for batch in batches]
    ball = settings.radius, settings.norm, settings.steps, settings.adaptive
    rise = sum(worst_rise(loss_of, weights, *ball) for loss_of in functions) / len(functions)
    if not math.isfinite(loss + rise):
        raise UserError(f"the loss, {loss:g}, overflows within radius={settings.radius:g}")
    step = "delta/|w|" if settings.adaptive else "delta"
    return {
        "version": VERSION,
        "settings": settings.of_result(),
        "epoch": training.plan.epochs,
        "samples": sum(len(labels) for _, labels in batches),
        "parameters": len(weights),
        "loss": loss,
        "gradient_norm": float(gradient.norm()),
        "worst_case": rise,
        "of": "mean cross-entropy of training images, without weight decay",
        "batchnorm": "eval, running statistics",
        "augmentation": "none",
        "precision": "fp32",
        "worst_case_by": f"auto-PGD on {step} in the {settings.norm}-ball, a lower bound",
        "hardware": machine.hardware(training.engine),
        "seconds": round(time.perf_counter() - start, 3),
    }
