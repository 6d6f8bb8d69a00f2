"""Measure the noise of a run's checkpoint or of a fresh model; write a table and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig

from igo.config import optimizer_rules
from igo.config.load import load, split_off
from igo.config.schema import Config, training_samples
from igo.ground.errors import ConfigError, UserError
from igo.ground.files import write_atomically
from igo.ground.words import aligned
from igo.method.ranges import AT_LEAST_ONE, Rule
from igo.noise.noise import LEAST_FOR_INTERVAL, SAMPLINGS, Noise
from igo.runs.folder import read_records
from igo.runs.rerun import recorded_run
from igo.runs.terminal import Terminal

if TYPE_CHECKING:
    from igo.train.state import Training

# Printed where the unbiased estimate of ‖∇f‖² is by chance not above 0.
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
    """The settings of `igo measure-noise` itself, without a run's; see conf/measure_noise.yaml."""

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
class Subject:
    """What is measured: a network with its data and engine, and the η and β of δ."""

    description: dict[str, Any]
    training: Training
    learning_rate: float
    momentum: float


def run(composed: DictConfig, typed: Collection[str]) -> list[dict[str, Any]]:
    """Measure as configured; print a table, write ``output``, return the rows."""
    settings, rest = split_off(composed, NoiseSettings)
    _check(settings)
    fresh = settings.run is None
    subject = _fresh(load(rest, typed)) if fresh else _from_run(settings, rest, typed)
    _check_sizes(settings, subject)
    rows = [_row(settings, subject, b) for b in settings.batch_sizes]
    print(table(rows))
    if settings.output:
        content = rows[0] if len(rows) == 1 else rows
        try:
            write_atomically(Path(settings.output), json.dumps(content, indent=2) + "\n")
        except OSError as error:
            reason = f"it cannot be written ({error.strerror})"
            raise ConfigError("output", settings.output, reason) from None
    return rows


def _check(settings: NoiseSettings) -> None:
    if not settings.batch_sizes or min(settings.batch_sizes) < 1:
        raise ConfigError("batch_sizes", settings.batch_sizes, "each must be 1 or more")
    if settings.output:
        path = Path(settings.output)
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise ConfigError("output", path, "it must be a file in a folder that exists")


def _check_sizes(settings: NoiseSettings, subject: Subject) -> None:
    from igo.train import models

    training, largest = subject.training, max(settings.batch_sizes)
    config, n = training.config, training_samples(training.config)
    if settings.sampling == "independent" and largest >= n:
        reason = f"batches of all {n} samples never vary; take fewer"
        raise ConfigError("batch_sizes", settings.batch_sizes, reason)
    if settings.estimator == "mini_batch" and settings.batchnorm == "train":
        least = training.engine.smallest_part(settings.batch_sizes)
        models.check_fits(training.network, config.model.name, config.dataset, least)


def _fresh(config: Config) -> Subject:
    from igo.config.plan import make_plan
    from igo.runs import assemble

    training = assemble.prepare(config, make_plan(config))
    model, dataset = f"fresh {config.model.name}", config.dataset.name
    description = {"model": model, "dataset": dataset, "seed": config.seed}
    return Subject(description, training, config.learning_rate, config.optimizer.momentum)


def _from_run(settings: NoiseSettings, rest: DictConfig, typed: Collection[str]) -> Subject:
    """A run at its newest checkpoint; the command may change device, threads, data_dir and η."""
    from igo.runs import assemble

    of_program = {setting.name for setting in fields(NoiseSettings)}
    names = [name for name in typed if name not in of_program]
    changed = [name for name in names if name != "learning_rate"]
    folder, move = recorded_run(
        str(settings.run), rest, changed, ("engine.device", "engine.threads", "data_dir")
    )
    training, progress = assemble.load_folder(folder, move, Terminal().warn)
    records = progress.records or read_records(folder)  # version 1 kept them in the checkpoint
    last = next((record for record in records if record.get("epoch") == progress.epoch), None)
    if last is None:
        raise UserError(f"{folder} has no record of its last epoch, {progress.epoch}")
    eta = load(rest).learning_rate if "learning_rate" in names else last["eta_m"]
    description = {"run": str(settings.run), "epoch": progress.epoch}
    return Subject(description, training, eta, last["beta_m"] or 0.0)


def _measure(settings: NoiseSettings, subject: Subject, batch_size: int) -> Noise:
    from torch.nn.functional import cross_entropy

    from igo.ground.seeds import derive_seed
    from igo.noise.measure import check_per_sample, draw, joined, per_sample
    from igo.train import measure

    training, network = subject.training, subject.training.network
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
    batches = joined(drawn, 256)
    return per_sample(
        network,
        cross_entropy,
        lambda: training.data.train_batches(batches, derive_seed(seed, "augmentation")),
        n=training.data.n,
        sampling=settings.sampling,
        memory=settings.memory_mb * 2**20,
    )


def _exponent(settings: NoiseSettings, subject: Subject, batch_size: int) -> dict[str, Any]:
    """ρ as curvature predicts it, or why there is none. C² uses other batches."""
    from igo.train import exponent

    subject.training.network.train(settings.batchnorm == "train")
    try:
        prediction = exponent.predict(
            subject.training,
            learning_rate=subject.learning_rate,
            momentum=subject.momentum,
            batch_size=batch_size,
            batches=settings.batches,
            sampling=settings.sampling,
            modes=settings.modes,
        )
    except ValueError as error:
        return {"value": None, "why": str(error)}
    return asdict(prediction)


def _row(settings: NoiseSettings, subject: Subject, batch_size: int) -> dict[str, Any]:
    from igo.train import control

    noise = _measure(settings, subject, batch_size)
    config, eta, beta = subject.training.config, subject.learning_rate, subject.momentum
    has_delta = optimizer_rules.law(config.optimizer) in optimizer_rules.OF_SGD
    delta = control.level(config, eta, batch_size, beta, noise) if has_delta else None
    row: dict[str, Any] = {
        "of": subject.description,
        "variance": noise.variance,
        "interval": list(noise.interval or ()),
        "gradient_norm": noise.gradient_norm,
        "noise_scale": noise.noise_scale,
        "tail_index": None if noise.tail is None else asdict(noise.tail),
        "noise_exponent": None if noise.tail is None else noise.tail.noise_exponent,
        "batch_size": noise.batch_size,
        "batches": noise.batches,
        "sampling": noise.sampling,
        "estimator": settings.estimator,
        "batchnorm": settings.batchnorm,
        "delta": {
            "learning_rate": eta,
            "batch_size": batch_size,
            "optimizer": config.optimizer.name,
            "momentum": beta,
            "value": delta,
        },
    }
    if settings.exponent:
        row["predicted_exponent"] = _exponent(settings, subject, batch_size)
    return row | {"config": asdict(config)}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, aligned."""
    first = rows[0]
    eta = first["delta"]["learning_rate"]
    cells = [["b", "K", "C²", "95 % interval", "‖∇f‖", "B_simple", "tail index α",
              f"δ at η = {eta:.4g}"]]  # fmt: skip
    for row in rows:
        low, high = row["interval"]
        scale, delta = row["noise_scale"], row["delta"]["value"]
        cells.append([
            str(row["batch_size"]),
            str(row["batches"]),
            f"{row['variance']:.5g}",
            f"{low:.5g} to {high:.5g}" if math.isfinite(high) else "not known",
            f"{row['gradient_norm']:.4g}",
            "not known" if scale is None else f"{scale:,.0f}",
            _tail(row),
            "not known" if delta is None else f"{delta:.4g} (b = {row['delta']['batch_size']})",
        ])  # fmt: skip
    subject = ", ".join(f"{key} {value}" for key, value in first["of"].items())
    method = f"{first['estimator']}, {first['sampling']}, BatchNorm {first['batchnorm']}"
    notes = [HIDDEN] if any(row["noise_scale"] is None for row in rows) else []
    notes += [_predicted(row) for row in rows if "predicted_exponent" in row]
    return "\n".join([f"noise of {subject} ({method})", *aligned(cells), *notes])


def _predicted(row: dict[str, Any]) -> str:
    prediction, b = row["predicted_exponent"], row["delta"]["batch_size"]
    if prediction["value"] is None:
        return f"ρ from curvature, b = {b}: not known: {prediction['why']}"
    rho, (low, high), largest = prediction["value"], prediction["interval"], prediction["steps"][0]
    return (
        f"ρ from curvature, b = {b}: {rho:.3f} ({low:.3f} to {high:.3f}), largest ηλ"
        f" {largest:.3g}; for stationary training loss near a minimum (docs/exponent.md)"
    )


def _tail(row: dict[str, Any]) -> str:
    """α with its interval, and the ρ of δ = η C b^(-ρ) that follows from it."""
    tail = row["tail_index"]
    if tail is None:
        return "not known"
    low, high = tail["interval"]
    rho = row["noise_exponent"]
    return (
        f"{tail['alpha']:.2f} ({low:.2f} to {high:.2f}), ρ {'-' if rho is None else f'{rho:.2f}'}"
    )
