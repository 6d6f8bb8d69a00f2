"""The noise of a run's checkpoint, or of a fresh model, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igo.config import Config, explain, load, of_file
from igo.errors import ConfigError, UserError, nearest
from igo.noise import LEAST_FOR_INTERVAL, SAMPLINGS, Noise


@dataclass
class Instrument:
    """The settings of src/measure_noise.py beside those of a run; see conf/measure_noise.yaml."""

    run: str | None = None
    batch_sizes: list[int] = field(default_factory=lambda: [32])
    batches: int = 32
    sampling: str = "disjoint"
    estimator: str = "mini_batch"
    batchnorm: str = "train"
    memory_mb: int = 1024
    output: str | None = None


CHOICES = {
    "sampling": SAMPLINGS,
    "estimator": ("mini_batch", "per_sample"),
    "batchnorm": ("train", "eval"),
}


def run(composed: DictConfig, typed: Collection[str]) -> list[dict[str, Any]]:
    """Measure as configured; print a table, write ``output``, return its rows.

    Raises:
        UserError: a bad setting, or no usable checkpoint.
    """
    instrument, config = _settings(composed, typed)
    network, of, eta, training = _network(instrument, config, typed)
    rows = []
    for b in instrument.batch_sizes:
        found = _measure(instrument, training, network, b)
        rows.append(_row(instrument, found, b, eta, training.config, of))
    print(table(rows, of))
    if instrument.output:
        from igo.record import write_atomically

        content = rows[0] if len(rows) == 1 else rows
        path = Path(instrument.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=2) + "\n")
    return rows


def _settings(composed: DictConfig, typed: Collection[str]) -> tuple[Instrument, Config]:
    """Split what was composed into the instrument's settings and a run's, both checked."""
    own = {one.name for one in fields(Instrument)}
    values = {name: composed[name] for name in own}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Instrument), values)
    except OmegaConfBaseException as error:
        raise explain(error, composed) from None
    instrument = cast(Instrument, OmegaConf.to_object(merged))
    rest = OmegaConf.masked_copy(composed, [str(name) for name in composed if name not in own])
    if instrument.run is not None:
        kept = ("engine", "data_dir")  # where it is measured; all else is the run's
        for name in typed:
            if name not in own and name.split(".")[0] not in (*kept, "learning_rate"):
                allowed = "with run=… the run says what it is; leave it out"
                raise ConfigError(name, OmegaConf.select(composed, name), allowed)
    config = load(rest, typed)
    _check(instrument, config)
    return instrument, config


def _check(instrument: Instrument, config: Config) -> None:
    for name, choices in CHOICES.items():
        value = getattr(instrument, name)
        if value not in choices:
            allowed = f"it must be one of {', '.join(choices)}.{nearest(value, choices)}"
            raise ConfigError(name, value, allowed)
    if instrument.batches < LEAST_FOR_INTERVAL:
        allowed = f"an interval needs {LEAST_FOR_INTERVAL} mini-batches or more"
        raise ConfigError("batches", instrument.batches, allowed)
    if not instrument.batch_sizes or min(instrument.batch_sizes) < 1:
        raise ConfigError("batch_sizes", instrument.batch_sizes, "each must be 1 or more")
    if instrument.memory_mb < 1:
        raise ConfigError("memory_mb", instrument.memory_mb, "it must be 1 or more")
    if (
        instrument.sampling == "independent"
        and max(instrument.batch_sizes) >= config.dataset.samples
    ):
        allowed = f"batches of all {config.dataset.samples} samples never vary; take fewer"
        raise ConfigError("batch_sizes", instrument.batch_sizes, allowed)


def _network(
    instrument: Instrument, config: Config, typed: Collection[str]
) -> tuple[Any, dict[str, Any], float, Any]:
    """The network to measure, what it is of, its learning rate, and the data and engine for it."""
    from igo import assemble
    from igo.schedule import make_plan

    if instrument.run is None:
        training = assemble.prepare(config, make_plan(config))
        of = {"dataset": config.dataset.name, "model": config.model.name, "seed": config.seed}
        return training.network, {"model": "fresh", **of}, config.learning_rate, training
    folder = Path(instrument.run)
    if not (folder / "config.yaml").is_file():
        raise ConfigError("run", instrument.run, "it must be a run folder, with a config.yaml")
    of_run = of_file(folder / "config.yaml")
    of_run.engine, of_run.data_dir = config.engine, config.data_dir
    training = assemble.prepare(of_run, make_plan(of_run))
    progress, _ = assemble.load(folder / "checkpoint.pt", folder.name, training, print)
    if progress is None:
        raise UserError(f"run={folder} has no whole checkpoint yet; wait for its first epoch")
    eta = config.learning_rate
    if "learning_rate" not in typed:
        eta = progress.records[-1]["eta_m"]
    return training.network, {"run": str(folder), "epoch": progress.epoch}, eta, training


def _measure(instrument: Instrument, training: Any, network: Any, batch_size: int) -> Noise:
    from igo import measure
    from igo.seeds import derive_seed

    network.train(instrument.batchnorm == "train")
    seed = derive_seed(training.config.seed, "instrument")
    if instrument.estimator == "mini_batch":
        return measure.mini_batch(
            training.engine,
            network,
            training.data,
            batch_size=batch_size,
            batches=instrument.batches,
            seed=seed,
            sampling=instrument.sampling,
        )
    import torch.nn.functional as F

    measure.check_per_sample(network)
    samples = instrument.batches * batch_size
    drawn = measure.draw(
        instrument.sampling, n=training.data.n, batch_size=1, batches=samples, seed=seed
    )
    together = list(_joined(drawn, 256))
    return measure.per_sample(
        network,
        F.cross_entropy,
        lambda: training.data.train_batches(together, derive_seed(seed, "augmentation")),
        n=training.data.n,
        sampling=instrument.sampling,
        memory=instrument.memory_mb * 2**20,
    )


def _joined(drawn: list[Any], size: int) -> Iterable[Any]:
    import torch

    yield from torch.cat(drawn).split(size)


def _row(
    instrument: Instrument,
    found: Noise,
    batch_size: int,
    eta: float,
    config: Config,
    of: dict[str, Any],
) -> dict[str, Any]:
    from igo import control

    momentum = config.optimizer.momentum
    return {
        "of": of,
        "variance": found.variance,
        "interval": list(found.interval or ()),
        "gradient_norm": found.gradient_norm,
        "noise_scale": found.noise_scale,
        "batch_size": found.batch_size,
        "batches": found.batches,
        "sampling": found.sampling,
        "estimator": instrument.estimator,
        "batchnorm": instrument.batchnorm,
        "delta": {
            "learning_rate": eta,
            "batch_size": batch_size,
            "optimizer": config.optimizer.name,
            "momentum": momentum,
            "value": control.level(config, eta, batch_size, momentum, found),
        },
        "config": asdict(config),
    }


def table(rows: list[dict[str, Any]], of: dict[str, Any]) -> str:
    """The rows as text, aligned."""
    first = rows[0]
    titles = ["b", "K", "C²", "95 % interval", "‖∇f‖", "B_simple", f"δ at η = {_eta(first):.4g}"]
    cells = [titles]
    for row in rows:
        low, high = row["interval"]
        scale = row["noise_scale"]
        cells.append([
            str(row["batch_size"]),
            str(row["batches"]),
            f"{row['variance']:.5g}",
            f"{low:.5g} to {high:.5g}" if math.isfinite(high) else "not known",
            f"{row['gradient_norm']:.4g}",
            "∞" if scale is None else f"{scale:,.0f}",
            f"{row['delta']['value']:.4g} (b = {row['delta']['batch_size']})",
        ])  # fmt: skip
    widths = [max(len(line[i]) for line in cells) for i in range(len(titles))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    what = ", ".join(f"{key} {value}" for key, value in of.items())
    how = f"{first['estimator']}, {first['sampling']}, BatchNorm {first['batchnorm']}"
    return "\n".join([f"noise of {what} ({how})", *lines])


def _eta(row: dict[str, Any]) -> float:
    return float(row["delta"]["learning_rate"])
