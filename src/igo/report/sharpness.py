"""The program `igo sharpness`: how much the loss can rise near the parameters where a run ended.

Worst-case sharpness is max L(w + δ) − L(w) over ‖u‖_p ≤ ρ. Adaptive, δ = |w| u (Kwon et al. 2021;
Andriushchenko et al. 2023): a parameter moves in proportion to its size, so rescaling the layers of
a ReLU network changes nothing. With adaptive=false δ = u.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from igo.config.load import split_off
from igo.config.schema import Config
from igo.ground.errors import UserError, first_line
from igo.ground.files import write_atomically
from igo.ground.seeds import generator
from igo.method.ranges import AT_LEAST_ONE, POSITIVE
from igo.runs import assemble
from igo.runs.find import find, is_run, named
from igo.runs.folder import last_record, state_of
from igo.train import machine

FILE = "sharpness.json"
VERSION = 2  # of the measurement; a run with another version is measured again
NO_EFFECT = ("runs", "adaptive", "batch_size", "batches", "data_dir", "fresh", "engine")
MOMENTUM = LEAST_SHARE = 0.75  # of Croce and Hein 2020, Algorithm 1

Function = Callable[[Tensor], tuple[float, Tensor]]  # a point (d,) to value and gradient (d,)


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
    norm: Annotated[str, ("inf", "2")] = "inf"
    radius: Annotated[float, POSITIVE] = 0.002
    adaptive: bool = True
    steps: Annotated[int, AT_LEAST_ONE] = 20
    seed: int = 0
    batch_size: Annotated[int, AT_LEAST_ONE] = 250
    batches: bool = False
    data_dir: str | None = None
    fresh: bool = False
    engine: EngineChoice = field(default_factory=EngineChoice)

    def of_result(self) -> dict[str, Any]:
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
    failed = 0
    for place, folder in enumerate(folders, 1):
        if not settings.fresh and _measured_before(folder, settings):
            said = "measured before"
        else:
            try:
                result = measure(folder, settings)
                text = json.dumps(result, indent=2, allow_nan=False)
                write_atomically(folder / FILE, text + "\n")
                rise = f"worst case +{result['worst_case']:.4g} ({result['seconds']:.1f} s)"
                said = f"loss {result['loss']:.4g}, {rise}"
            except Exception as error:  # it does not stop the other runs
                failed += 1
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                said = f"failed: {kind}{first_line(error)}"
        print(f"[{place}/{len(folders)}] {folder.name}: {said}", flush=True)
    if failed:
        raise SystemExit(1)


def _measured_before(folder: Path, settings: Settings) -> bool:
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return bool((content["version"], content["settings"]) == (VERSION, settings.of_result()))
    except (OSError, ValueError, LookupError, TypeError):  # missing, damaged, or another content
        return False


def measure(folder: Path, settings: Settings) -> dict[str, Any]:
    """The content of sharpness.json for a finished run."""
    started = time.perf_counter()
    if not is_run(folder):
        raise UserError("it has no files of a run")
    if (state := state_of(folder)) != "finished":
        epoch = last_record(folder).get("epoch", 0)
        raise UserError(f"it is {state}, after epoch {epoch}; only finished runs are measured")

    def move(config: Config) -> None:
        config.engine.device = settings.engine.device
        config.engine.threads = settings.engine.threads
        config.engine.precision = "fp32"
        config.data_dir = settings.data_dir or config.data_dir

    training = assemble.load_folder(folder, move)
    torch.backends.cudnn.allow_tf32 = False  # TF32 has ten bits of precision, fp32 has 23
    drawn = torch.randperm(training.data.n, generator=generator(settings.seed, "sharpness"))
    parts = drawn[: settings.samples].split(settings.batch_size)
    network = training.network.eval()
    batches = list(training.data.plain_batches(list(parts)))
    function, weights = surface(network, batches)
    loss, gradient = function(weights)
    if not math.isfinite(loss):
        raise UserError(f"its loss is {loss}: the run diverged")
    functions = [function]
    if settings.batches:
        functions = [surface(network, [batch])[0] for batch in batches]
    ball = settings.radius, settings.norm, settings.steps, settings.adaptive
    rise = sum(worst_rise(each, weights, *ball) for each in functions) / len(functions)
    if not math.isfinite(rise):
        raise UserError(f"the loss overflows within radius={settings.radius:g}; take a smaller one")
    moved = "delta/|w|" if settings.adaptive else "delta"
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
        "worst_case_by": f"auto-PGD on {moved} in the {settings.norm}-ball, a lower bound",
        "hardware": machine.hardware(training.engine),
        "seconds": round(time.perf_counter() - started, 3),
    }


def surface(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]
) -> tuple[Function, Tensor]:
    """The mean cross-entropy of images and labels as a function of the parameters, and where it is.

    The parameters are one vector (d,). The network keeps its mode: in eval mode BatchNorm uses its
    running statistics, which do not change with the parameters. Parameters that need no gradient
    are constants.
    """
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in named.values()]
    n = sum(len(labels) for _, labels in batches)

    def value_and_gradient(parameters: Tensor) -> tuple[float, Tensor]:
        value, gradient = 0.0, torch.zeros_like(parameters)
        for images, labels in batches:
            point = parameters.detach().requires_grad_()
            pieces = zip(named.items(), point.split(sizes), strict=True)
            values = {name: piece.view_as(p) for (name, p), piece in pieces}
            loss = cross_entropy(functional_call(network, values, (images,)), labels)
            share = len(labels) / n
            gradient += share * torch.autograd.grad(loss, point)[0]
            value += share * float(loss.detach())
        return value, gradient

    return value_and_gradient, torch.cat([p.detach().flatten() for p in named.values()])


def worst_rise(
    function: Function, at: Tensor, radius: float, norm: str, steps: int, adaptive: bool
) -> float:
    """The largest rise of the loss around w = ``at``, (d,), on the path of auto-PGD from w.

    It is a lower bound, 0 or more, and not finite where the loss overflows. If ``adaptive``, a
    parameter that is zero stays zero.

    Algorithm 1 of Croce and Hein 2020: steps along the gradient (its signs for p = ∞) with
    momentum, each projected into the ball. The length of a step is 2ρ at first. At a checkpoint the
    length is halved and the best point is restored, if too few steps since the last checkpoint went
    upwards, or if no step with this length reached a new best value.
    """
    scale = at.abs() if adaptive else torch.ones_like(at)

    def scaled(u: Tensor) -> tuple[float, Tensor]:
        value, gradient = function(at + scale * u)
        return value, scale * gradient

    checks, shares = set(), [0, 22]  # percent of the steps, closer together towards the end
    while shares[-1] <= 100:
        checks.add(math.ceil(shares[-1] * steps / 100))
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 3, 6))
    step = 2 * radius
    point = previous = torch.zeros_like(at)
    before, gradient = scaled(point)
    value, best = before, (before, point, gradient)
    last_check, last_best, halved, upwards = 0, value, True, 0
    for k in range(steps):
        unit = gradient.sign() if norm == "inf" else gradient / gradient.norm().clamp(min=1e-30)
        moved = project(point + step * unit, radius, norm)
        if k:
            moved = point + MOMENTUM * (moved - point) + (1 - MOMENTUM) * (point - previous)
            moved = project(moved, radius, norm)
        previous, point, last = point, moved, value
        value, gradient = scaled(point)
        if not math.isfinite(value):
            return value
        upwards += value > last
        best = max(best, (value, point, gradient), key=lambda state: state[0])
        if k + 1 in checks:
            too_few = upwards < LEAST_SHARE * (k + 1 - last_check)
            stalled = not halved and best[0] == last_best
            halved = too_few or stalled
            if halved:
                step /= 2
                value, point, gradient = best
            last_check, last_best, upwards = k + 1, best[0], 0
    return best[0] - before


def project(u: Tensor, radius: float, norm: str) -> Tensor:
    """The nearest point of the ball."""
    if norm == "inf":
        return u.clamp(-radius, radius)
    return u.div((u.norm() / radius).clamp(min=1))
