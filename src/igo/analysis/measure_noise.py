"""The noise of a run's checkpoint, or of a fresh model, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig

from igo.config import of_optimizer
from igo.config.load import load, split_off
from igo.config.schema import Config, training_samples
from igo.errors import ConfigError, UserError
from igo.files import write_atomically
from igo.method.noise import LEAST_FOR_INTERVAL, SAMPLINGS, Noise
from igo.method.ranges import AT_LEAST_ONE, Rule
from igo.runs.folder import read_records
from igo.runs.rerun import of_command
from igo.runs.terminal import Terminal
from igo.words import aligned

if TYPE_CHECKING:
    from igo.train.state import Training

# Said where the unbiased estimate of ‖∇f‖² is not above 0, as chance can make it.
HIDDEN = (
    "‖∇f‖ 0: the gradient is too small beside the noise of these batches to be seen, so B_simple ="
    " C²/‖∇f‖² is not known; more batches (batches=…) or larger ones show it"
)
ENOUGH: Rule = (
    lambda k: k >= LEAST_FOR_INTERVAL,
    f"an interval needs {LEAST_FOR_INTERVAL} mini-batches or more",
)


@dataclass
class NoiseSettings:
    """The settings of `igo measure-noise` beside those of a run; see conf/measure_noise.yaml."""

    run: str | None = None
    batch_sizes: list[int] = field(default_factory=lambda: [32])
    batches: Annotated[int, ENOUGH] = 32
    sampling: Annotated[str, SAMPLINGS] = "disjoint"
    estimator: Annotated[str, ("mini_batch", "per_sample")] = "mini_batch"
    batchnorm: Annotated[str, ("train", "eval")] = "train"
    memory_mb: Annotated[int, AT_LEAST_ONE] = 1024
    exponent: bool = False
    modes: Annotated[int, AT_LEAST_ONE] = 10
    output: str | None = None


@dataclass(frozen=True)
class Measured:
    """What is measured: a network with its data and engine, and the η and β that δ is for."""

    of: dict[str, Any]
    training: Training
    learning_rate: float
    momentum: float


def run(composed: DictConfig, typed: Collection[str]) -> list[dict[str, Any]]:
    """Measure as configured; print a table, write ``output``, return its rows."""
    settings, rest = split_off(composed, NoiseSettings)
    _check(settings)
    what = _fresh(load(rest, typed)) if settings.run is None else _of_run(settings, rest, typed)
    _check_sizes(settings, what)
    rows = [_row(settings, _measure(settings, what, b), b, what) for b in settings.batch_sizes]
    print(table(rows, what.of))
    if settings.output:
        content = rows[0] if len(rows) == 1 else rows
        try:
            write_atomically(Path(settings.output), json.dumps(content, indent=2) + "\n")
        except OSError as error:
            why = f"it cannot be written ({error.strerror})"
            raise ConfigError("output", settings.output, why) from None
    return rows


def _check(settings: NoiseSettings) -> None:
    if not settings.batch_sizes or min(settings.batch_sizes) < 1:
        raise ConfigError("batch_sizes", settings.batch_sizes, "each must be 1 or more")
    if settings.output:
        path = Path(settings.output)
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError("output", path, "it must be a file in a folder that is there")


def _check_sizes(settings: NoiseSettings, what: Measured) -> None:
    from igo.train import models

    config, largest = what.training.config, max(settings.batch_sizes)
    if settings.sampling == "independent" and largest >= training_samples(config):
        allowed = f"batches of all {training_samples(config)} samples never vary; take fewer"
        raise ConfigError("batch_sizes", settings.batch_sizes, allowed)
    if settings.estimator == "mini_batch" and settings.batchnorm == "train":
        least = what.training.engine.smallest_part(settings.batch_sizes)
        models.check_fits(what.training.network, config.model.name, config.dataset, least)


def _fresh(config: Config) -> Measured:
    from igo.config.plan import make_plan
    from igo.runs import assemble

    training = assemble.prepare(config, make_plan(config))
    of = {"model": f"fresh {config.model.name}", "dataset": config.dataset.name}
    eta, beta = config.learning_rate, config.optimizer.momentum
    return Measured({**of, "seed": config.seed}, training, eta, beta)


def _of_run(settings: NoiseSettings, rest: DictConfig, typed: Collection[str]) -> Measured:
    """A run at its newest checkpoint; what was typed may change where it is measured, and η."""
    from igo.runs import assemble

    names = [name for name in typed if name not in {one.name for one in fields(NoiseSettings)}]
    changed = [name for name in names if name != "learning_rate"]
    folder, move = of_command(
        str(settings.run), rest, changed, ("engine.device", "engine.threads", "data_dir")
    )
    training, progress = assemble.of_folder(folder, move, Terminal().warn)
    records = progress.records or read_records(folder)  # version 1 kept them in the checkpoint
    last = next((one for one in records if one.get("epoch") == progress.epoch), None)
    if last is None:
        raise UserError(f"{folder} has no record of epoch {progress.epoch}, where it stands")
    eta = load(rest).learning_rate if "learning_rate" in names else last["eta_m"]
    of = {"run": str(settings.run), "epoch": progress.epoch}
    return Measured(of, training, eta, last["beta_m"] or 0.0)


def _measure(settings: NoiseSettings, what: Measured, batch_size: int) -> Noise:
    from torch.nn.functional import cross_entropy

    from igo.method.measure import check_per_sample, draw, joined, per_sample
    from igo.seeds import derive_seed
    from igo.train import measure

    training, network = what.training, what.training.network
    network.train(settings.batchnorm == "train")
    seed = derive_seed(training.config.seed, "instrument")
    if settings.estimator == "mini_batch":
        return measure.mini_batch(
            training.engine,
            network,
            training.data,
            batch_size=batch_size,
            batches=settings.batches,
            seed=seed,
            sampling=settings.sampling,
        )
    check_per_sample(network)
    samples = settings.batches * batch_size
    drawn = draw(settings.sampling, n=training.data.n, batch_size=1, batches=samples, seed=seed)
    together = joined(drawn, 256)
    return per_sample(
        network,
        cross_entropy,
        lambda: training.data.train_batches(together, derive_seed(seed, "augmentation")),
        n=training.data.n,
        sampling=settings.sampling,
        memory=settings.memory_mb * 2**20,
    )


def _exponent(settings: NoiseSettings, what: Measured, batch_size: int) -> dict[str, Any]:
    """ρ as curvature predicts it, or why it cannot: of other batches than C², drawn likewise."""
    from igo.train import exponent

    what.training.network.train(settings.batchnorm == "train")
    try:
        found = exponent.predict(
            what.training,
            learning_rate=what.learning_rate,
            momentum=what.momentum,
            batch_size=batch_size,
            batches=settings.batches,
            sampling=settings.sampling,
            modes=settings.modes,
        )
    except ValueError as error:
        return {"value": None, "why": str(error)}
    return asdict(found)


def _row(settings: NoiseSettings, found: Noise, batch_size: int, what: Measured) -> dict[str, Any]:
    from igo.train import control

    config, eta, beta = what.training.config, what.learning_rate, what.momentum
    known = of_optimizer.law(config.optimizer) in of_optimizer.OF_SGD
    return {
        "of": what.of,
        "variance": found.variance,
        "interval": list(found.interval or ()),
        "gradient_norm": found.gradient_norm,
        "noise_scale": found.noise_scale,
        "tail_index": None if found.tail is None else asdict(found.tail),
        "noise_exponent": None if found.tail is None else found.tail.noise_exponent,
        "batch_size": found.batch_size,
        "batches": found.batches,
        "sampling": found.sampling,
        "estimator": settings.estimator,
        "batchnorm": settings.batchnorm,
        "delta": {
            "learning_rate": eta,
            "batch_size": batch_size,
            "optimizer": config.optimizer.name,
            "momentum": beta,
            "value": control.level(config, eta, batch_size, beta, found) if known else None,
        },
        **(
            {"predicted_exponent": _exponent(settings, what, batch_size)}
            if settings.exponent
            else {}
        ),
        "config": asdict(config),
    }


def table(rows: list[dict[str, Any]], of: dict[str, Any]) -> str:
    """The rows as text, aligned."""
    first = rows[0]
    eta = first["delta"]["learning_rate"]
    cells = [["b", "K", "C²", "95 % interval", "‖∇f‖", "B_simple", "tail index α",
              f"δ at η = {eta:.4g}"]]  # fmt: skip
    for row in rows:
        low, high = row["interval"]
        scale, level = row["noise_scale"], row["delta"]["value"]
        cells.append([
            str(row["batch_size"]),
            str(row["batches"]),
            f"{row['variance']:.5g}",
            f"{low:.5g} to {high:.5g}" if math.isfinite(high) else "not known",
            f"{row['gradient_norm']:.4g}",
            "not known" if scale is None else f"{scale:,.0f}",
            _tail(row),
            "not known" if level is None else f"{level:.4g} (b = {row['delta']['batch_size']})",
        ])  # fmt: skip
    what = ", ".join(f"{key} {value}" for key, value in of.items())
    how = f"{first['estimator']}, {first['sampling']}, BatchNorm {first['batchnorm']}"
    notes = [HIDDEN] if any(row["noise_scale"] is None for row in rows) else []
    notes += [_predicted(row) for row in rows if "predicted_exponent" in row]
    return "\n".join([f"noise of {what} ({how})", *aligned(cells), *notes])


def _predicted(row: dict[str, Any]) -> str:
    """A line on ρ from curvature, with what it rests on."""
    found, b = row["predicted_exponent"], row["delta"]["batch_size"]
    if found["value"] is None:
        return f"ρ from curvature, b = {b}: not known: {found['why']}"
    low, high = found["interval"]
    return (
        f"ρ from curvature, b = {b}: {found['value']:.3f} ({low:.3f} to {high:.3f}), largest ηλ"
        f" {found['steps'][0]:.3g}; of stationary training loss near a minimum (docs/exponent.md)"
    )


def _tail(row: dict[str, Any]) -> str:
    """α with its interval, and the ρ of δ = η C b^(-ρ) that would follow."""
    tail = row["tail_index"]
    if tail is None:
        return "not known"
    low, high = tail["interval"]
    rho = row["noise_exponent"]
    return (
        f"{tail['alpha']:.2f} ({low:.2f} to {high:.2f}), ρ {'-' if rho is None else f'{rho:.2f}'}"
    )
