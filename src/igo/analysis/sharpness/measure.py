"""Measure the sharpness of the loss where one run ended."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from igo.config.schema import TWO
from igo.ground.errors import UserError
from igo.method.ranges import AT_LEAST_ONE, POSITIVE
from igo.runs.find import is_run
from igo.runs.folder import last_record, state_of

if TYPE_CHECKING:
    from igo.config.schema import Config
    from igo.noise.surface import Surface
    from igo.train.state import Training

VERSION = 1  # of the measurement; a run with another version is measured again
NORMS = ("inf", "2")
NO_EFFECT = ("runs", "batch_size", "data_dir", "fresh", "engine")
Say = Callable[[str], None]


@dataclass
class EngineChoice:
    """The device that computes; the precision is fp32."""

    device: Annotated[str, ("auto", "cpu", "cuda")] = "auto"
    threads: Annotated[int | None, AT_LEAST_ONE] = None


@dataclass
class Settings:
    """The settings of `igo sharpness` (conf/sharpness.yaml)."""

    runs: Any = "runs"
    samples: Annotated[int, AT_LEAST_ONE] = 500
    norm: Annotated[str, NORMS] = "inf"
    radius: Annotated[float, POSITIVE] = 0.002
    steps: Annotated[int, AT_LEAST_ONE] = 20
    starts: Annotated[int, AT_LEAST_ONE] = 1
    eigenvalues: Annotated[int, AT_LEAST_ONE] = 3
    tolerance: Annotated[float, POSITIVE] = 1e-3
    probes: Annotated[int, TWO] = 10
    seed: int = 0
    batch_size: Annotated[int, AT_LEAST_ONE] = 250
    data_dir: str | None = None
    fresh: bool = False
    engine: EngineChoice = field(default_factory=EngineChoice)

    def of_result(self) -> dict[str, Any]:
        """The settings that change what is measured."""
        return {name: value for name, value in asdict(self).items() if name not in NO_EFFECT}


def measure(folder: Path, settings: Settings, doing: Say) -> dict[str, Any]:
    """The content of sharpness.json for a finished run; ``doing`` shows the progress."""
    started = time.perf_counter()
    _check_finished(folder)
    from torch.nn.functional import cross_entropy

    from igo.noise.surface import Surface
    from igo.runs import assemble
    from igo.train import engine

    def move(config: Config) -> None:
        config.engine.device = settings.engine.device
        config.engine.threads = settings.engine.threads
        config.engine.precision = "fp32"
        config.data_dir = settings.data_dir or config.data_dir

    # A damaged checkpoint is an error below.
    training, progress = assemble.load_folder(folder, move, warn=lambda _: None)
    if progress.epoch < training.plan.epochs:
        raise UserError(
            f"its last checkpoint is damaged, and the previous one is of epoch {progress.epoch} of"
            f" {training.plan.epochs}; train the run again with fresh=true"
        )
    surface = Surface(training.network.eval(), cross_entropy, _images(training, settings))
    return {
        "version": VERSION,
        "settings": settings.of_result(),
        "epoch": progress.epoch,
        "samples": sum(len(labels) for _, labels in surface.batches),
        **_numbers(surface, settings, lambda text: doing(f"{folder.name}: {text}")),
        "of": "mean cross-entropy of training images, without weight decay",
        "batchnorm": "eval, running statistics",
        "augmentation": "none",
        "precision": "fp32",
        "worst_case_by": f"auto-PGD on delta/|w| in the {settings.norm}-ball, a lower bound",
        "eigenvalues_by": "Lanczos (ARPACK), Hessian products by differentiating twice",
        "trace_by": "Hutchinson, random signs, the largest eigenvectors projected out",
        "hardware": engine.hardware(training.engine),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _check_finished(folder: Path) -> None:
    if not is_run(folder):
        raise UserError("it has no files of a run")
    state = state_of(folder)
    if state != "finished":
        epoch = last_record(folder).get("epoch", 0)
        raise UserError(f"it is {state}, after epoch {epoch}; only finished runs are measured")


def _images(training: Training, settings: Settings) -> list[Any]:
    """Random training images, not augmented, on the device."""
    import torch

    from igo.ground.seeds import generator

    n = training.data.n
    drawn = torch.randperm(n, generator=generator(settings.seed, "sharpness"))[: settings.samples]
    return list(training.data.plain_batches(list(drawn.split(settings.batch_size))))


def _numbers(surface: Surface, settings: Settings, doing: Say) -> dict[str, Any]:
    """All measurements, the fastest first; ``doing`` is called at each pass over the images."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # TF32 has ten bits of precision, fp32 has 23
    passes: Counter[str] = Counter()

    def counting(phase: str) -> Surface:
        def count() -> None:
            passes[phase] += 1
            doing(f"{phase}, {passes.total()} passes over the images")

        return replace(surface, work=count)

    numbers = _worst_case(counting("worst case"), settings)
    numbers |= _curvature(counting("eigenvalues"), counting("trace"), settings)
    return numbers | {"eigenvalue_products": passes["eigenvalues"]}


def _worst_case(surface: Surface, settings: Settings) -> dict[str, Any]:
    from igo.analysis.sharpness import worst_case

    weights = surface.here
    loss, gradient = surface.value_and_gradient(weights)
    if not math.isfinite(loss):
        raise UserError(f"its loss is {loss}: the run diverged")
    rise, rises = worst_case.worst_rise(
        surface.value_and_gradient, weights, radius=settings.radius, norm=settings.norm,
        steps=settings.steps, starts=settings.starts, seed=settings.seed,
    )  # fmt: skip
    if not math.isfinite(rise):
        raise UserError(f"the loss overflows within radius={settings.radius:g}; take a smaller one")
    return {
        "parameters": len(weights),
        "loss": loss,
        "gradient_norm": float(gradient.norm()),
        "worst_case": rise,
        "worst_case_of_starts": rises,
    }


def _curvature(eigenvalues: Surface, trace: Surface, settings: Settings) -> dict[str, Any]:
    from igo.noise import curvature

    weights = eigenvalues.here
    top = curvature.largest(
        lambda vector: eigenvalues.curvature(weights, vector),
        curvature.random_direction(weights, settings.seed),
        count=min(settings.eigenvalues, len(weights) - 1),
        tolerance=settings.tolerance,
    )
    value, error = curvature.trace(
        lambda v: trace.curvature(weights, v), top, probes=settings.probes, seed=settings.seed
    )
    return {
        "largest_eigenvalue": float(top.values[0]),
        "largest_eigenvalues": top.values.tolist(),
        "trace": value,
        "trace_standard_error": error,
    }
