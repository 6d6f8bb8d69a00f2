"""From the settings of src/sharpness.py to a sharpness.json in the folder of each finished run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from igo.config.load import of_file, split_off
from igo.errors import ConfigError, UserError
from igo.files import from_json, write_atomically
from igo.runs.find import find, is_run, named
from igo.runs.folder import last_record, state_of
from igo.runs.same_data import Comparison

if TYPE_CHECKING:
    from igo.analysis.sharpness.surface import Surface
    from igo.config.schema import Config
    from igo.train.state import Training

FILE = "sharpness.json"
VERSION = 1  # of what is measured: another one is measured again
NO_EFFECT = ("runs", "batch_size", "data_dir", "fresh", "engine")
LEAST = {"samples": 1, "steps": 1, "starts": 1, "eigenvalues": 1, "probes": 2, "batch_size": 1}
Say = Callable[[str], None]


@dataclass
class EngineChoice:
    """Where it computes; the precision is fp32."""

    device: str = "auto"
    threads: int | None = None


@dataclass
class Settings:
    """What src/sharpness.py can be told (conf/sharpness.yaml)."""

    runs: Any = "runs"
    samples: int = 500
    norm: str = "inf"
    radius: float = 0.002
    steps: int = 20
    starts: int = 1
    eigenvalues: int = 3
    tolerance: float = 1e-3
    probes: int = 10
    seed: int = 0
    batch_size: int = 250
    data_dir: str | None = None
    fresh: bool = False
    engine: EngineChoice = field(default_factory=EngineChoice)

    def of_result(self) -> dict[str, Any]:
        """Those that change what is measured."""
        return {name: value for name, value in asdict(self).items() if name not in NO_EFFECT}


def run(composed: DictConfig) -> None:
    """Measure every run that has not been measured with these settings; say what came of each.

    Raises:
        UserError: naming the setting.
        SystemExit: 1 where a run could not be measured; the others were.
    """
    settings, _ = split_off(composed, Settings)
    _check(settings)
    folders = find(named(settings.runs))
    counts = {"measured": 0, "measured before": 0, "failed": 0}
    with _overview(len(folders)) as (say, doing, done):
        data = Comparison(say)
        for place, folder in enumerate(folders, 1):
            doing(folder.name)
            if not settings.fresh and _measured_before(folder, settings):
                how, said = _attempt_to_compare(folder, settings, data)
            else:
                how, said = _attempt(folder, settings, doing)
            if said:
                say(f"[{place}/{len(folders)}] {how}: {folder.name}: {said}")
            counts[how] += 1
            done()
        say(", ".join(f"{count} {how}" for how, count in counts.items() if count))
    if counts["failed"]:
        raise SystemExit(1)


def _check(settings: Settings) -> None:
    from igo.analysis.sharpness.worst_case import NORMS

    for name, choices in (("norm", NORMS), ("engine.device", ("auto", "cpu", "cuda"))):
        value = settings.engine.device if name == "engine.device" else getattr(settings, name)
        if value not in choices:
            raise ConfigError(name, value, f"it must be one of {', '.join(choices)}")
    for name, least in LEAST.items():
        if getattr(settings, name) < least:
            raise ConfigError(name, getattr(settings, name), f"it must be {least} or more")
    for name in ("radius", "tolerance"):
        value = getattr(settings, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(name, value, "it must be above 0")
    threads = settings.engine.threads
    if threads is not None and threads < 1:
        raise ConfigError("engine.threads", threads, "it must be 1 or more")


@contextmanager
def _overview(runs: int) -> Iterator[tuple[Say, Say, Callable[[], None]]]:
    """A bar over the runs where there is a terminal.

    Yields:
        How to say a line, what is being done in the bar, and that a run is done.
    """
    console = Console(highlight=False, soft_wrap=True)
    bar = Progress(
        BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=runs)
        yield (
            lambda text: console.print(text, markup=False),
            lambda text: bar.update(task, description=text),
            lambda: bar.advance(task),
        )


def _measured_before(folder: Path, settings: Settings) -> bool:
    try:
        found = from_json((folder / FILE).read_text(encoding="utf-8"))
        return bool((found["version"], found["settings"]) == (VERSION, settings.of_result()))
    except (OSError, ValueError, LookupError, TypeError):  # none, damaged, or of something else
        return False


def _attempt_to_compare(folder: Path, settings: Settings, data: Comparison) -> tuple[str, str]:
    """What was measured before counts if it was on the data that are here."""
    try:
        config = of_file(folder / "config.yaml")
        config.data_dir = settings.data_dir or config.data_dir
        data.finished(folder, config)
    except UserError as error:
        return "failed", str(error)
    return "measured before", ""


def _attempt(folder: Path, settings: Settings, doing: Say) -> tuple[str, str]:
    """Measure one run; whatever is wrong with it, the others go on."""
    try:
        found = _measure(folder, settings, doing)
        write_atomically(folder / FILE, json.dumps(found, indent=2, allow_nan=False) + "\n")
    except UserError as error:
        return "failed", str(error)
    except OSError as error:
        return "failed", f"{FILE} cannot be written ({error.strerror or error})"
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return "failed", f"{type(error).__name__}: {lines[0]}"
    return "measured", (
        f"loss {found['loss']:.4g}, worst case +{found['worst_case']:.4g},"
        f" largest eigenvalue {found['largest_eigenvalue']:.4g},"
        f" trace {found['trace']:.4g} ± {found['trace_standard_error']:.2g}"
        f" ({found['seconds']:.1f} s)"
    )


def _measure(folder: Path, settings: Settings, doing: Say) -> dict[str, Any]:
    started = time.perf_counter()
    _check_finished(folder)
    from igo.analysis.sharpness.surface import Surface
    from igo.runs import assemble
    from igo.train import engine

    def here(config: Config) -> None:
        config.engine.device, config.engine.threads = (
            settings.engine.device,
            settings.engine.threads,
        )
        config.engine.precision = "fp32"
        config.data_dir = settings.data_dir or config.data_dir

    training, progress = assemble.of_folder(folder, here, warn=lambda _: None)  # an error below
    if progress.epoch < training.plan.epochs:
        raise UserError(
            f"its last checkpoint is damaged and the one before is of epoch {progress.epoch} of"
            f" {training.plan.epochs}; train it again with fresh=true"
        )
    surface = Surface(training.network.eval(), _cross_entropy(), _images(training, settings))
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
    """Only a finished run has an end to look at.

    Raises:
        UserError: it is not finished.
    """
    if not is_run(folder):
        raise UserError("it has no files of a run")
    state = state_of(folder)
    if state != "finished":
        epoch = last_record(folder).get("epoch", 0)
        raise UserError(f"it is {state}, after epoch {epoch}; only finished runs are measured")


def _cross_entropy() -> Callable[..., Any]:
    from torch.nn.functional import cross_entropy

    return cross_entropy


def _images(training: Training, settings: Settings) -> list[Any]:
    """The drawn training images, not augmented, kept on the device for all passes over them."""
    import torch

    from igo.seeds import generator

    n = training.data.n
    drawn = torch.randperm(n, generator=generator(settings.seed, "sharpness"))[: settings.samples]
    return list(training.data.plain_batches(list(drawn.split(settings.batch_size))))


def _numbers(surface: Surface, settings: Settings, doing: Say) -> dict[str, Any]:
    """All that is measured, in the order of its cost.

    Raises:
        UserError: a loss that is not finite, or eigenvalues that are not found.
    """
    import torch

    from igo.analysis.sharpness import curvature, worst_case

    torch.backends.cudnn.allow_tf32 = False  # fp32 is what is said, and ten bits are not that
    passes = 0

    def work() -> None:
        nonlocal passes
        passes += 1
        doing(f"{phase}, {passes} passes over the images")

    phase = "worst case"
    surface = replace(surface, work=work)
    at = surface.here
    loss, gradient = surface.value_and_gradient(at)
    if not math.isfinite(loss):
        raise UserError(f"its loss is {loss}: the run diverged")
    rise, rises = worst_case.worst_rise(
        surface.value_and_gradient, at, radius=settings.radius, norm=settings.norm,
        steps=settings.steps, starts=settings.starts, seed=settings.seed,
    )  # fmt: skip
    if not math.isfinite(rise):
        raise UserError(f"the loss overflows within radius={settings.radius:g}; take a smaller one")

    def product(vector: torch.Tensor) -> torch.Tensor:
        return surface.curvature(at, vector)

    phase, before = "eigenvalues", passes
    start = curvature.random_direction(at, settings.seed)
    top = curvature.largest(
        product, start, count=min(settings.eigenvalues, len(at) - 1), tolerance=settings.tolerance
    )
    phase, products = "trace", passes - before
    trace, error = curvature.trace(product, top, probes=settings.probes, seed=settings.seed)
    return {
        "parameters": len(at),
        "loss": loss,
        "gradient_norm": float(gradient.norm()),
        "worst_case": rise,
        "worst_case_of_starts": rises,
        "largest_eigenvalue": float(top.values[0]),
        "largest_eigenvalues": top.values.tolist(),
        "eigenvalue_products": products,
        "trace": trace,
        "trace_standard_error": error,
    }
