"""Put a run together from its configuration, and load and save its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from igo.config.load import make_plan, read_config
from igo.config.schema import Config, place_of
from igo.data.identity import Identity, identify
from igo.ground import seeds
from igo.ground.errors import ConfigError, UserError, first_line
from igo.ground.ranks import ALONE, Ranks
from igo.ground.words import counted
from igo.method.plan import Plan
from igo.runs import checkpoint, manifest
from igo.runs.folder import RunFolder, read_status
from igo.train import datasets, machine, measure, models, optimizers
from igo.train.engine import distributed
from igo.train.record import Progress, Training


def prepare(config: Config, plan: Plan, ranks: Ranks = ALONE) -> Training:
    """Read the data, build model and optimizer, and check that they fit."""
    sizes = [*plan.batch_sizes, measure.size_at_start(config)]
    if min(sizes) < ranks.size:
        allowed = (
            f"the smallest batch, or batch to measure C², has {counted(min(sizes), 'sample')},"
            f" fewer than the {ranks.size} processes; take larger batches or fewer processes"
        )
        raise ConfigError("batch_size", config.batch_size, allowed)
    built = machine.build(config.engine, config.dataset.image_size, ranks)
    images = datasets.open_data(config, built.device)
    torch.manual_seed(seeds.derive_seed(config.seed, "initialisation"))
    network = models.build(config.model, config.dataset)
    built = replace(built, micro_batch_size=models.micro_batch_size(config, network))
    smallest = built.smallest_part(sizes)
    if models.check_model(network, config.model.name, config.dataset, smallest):
        built = machine.without_bf16(built)
    network = built.prepare(network)
    built, network = distributed(built, network)
    optimizer = optimizers.build(config.optimizer, network.parameters(), config.learning_rate)
    return Training(config, plan, images, network, optimizer, built, _identity(config, ranks))


def _identity(config: Config, ranks: Ranks) -> Identity:
    """Which data were read; all ranks must have the same."""
    here = identify(config.dataset.name, place_of(config))
    first: str = ranks.broadcast(here.fingerprint)
    if here.fingerprint != first:
        raise UserError(f"process {ranks.rank} has other data than the first: {here}, not {first}")
    return here


def state_of(signature: str, run: Training, now: Progress) -> dict[str, Any]:
    """All that a bit-identical resume needs; its tensors are those of the run.

    Random streams need no state, see igo.ground.seeds.
    """
    return {
        "signature": signature,
        "model": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.engine.scaler.state_dict(),
        "progress": asdict(replace(now, records=[])),  # metrics.jsonl has them
    }


def load(path: Path, signature: str, run: Training) -> Progress | None:
    """Bring a run to its checkpoint. Only rank 0 reads the file.

    Its recorded data and plan must be those of the training.

    Returns:
        The run's progress without its records, None where there is no checkpoint.
    """
    ranks = run.engine.ranks
    state = checkpoint.load(path, signature) if ranks.first else None
    if state and run.identity:
        recorded = read_status(path.parent)
        if recorded.get("run") == signature:  # else it is another run's
            manifest.check_data(path.parent, recorded, run.identity)
            manifest.check_plan(path.parent, recorded, run.plan)
    state = ranks.broadcast(state)
    if state is None:
        return None
    try:
        run.network.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the device needed no scaling
            run.engine.scaler.load_state_dict(state["scaler"])
        return Progress.of_state(state["progress"])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a checkpoint that this program wrote ({first_line(error)}); it is left"
            " as it is. fresh=true starts over"
        ) from None


def load_folder(folder: Path, move: Callable[[Config], None] = lambda _: None) -> Training:
    """Load a finished run, to measure it.

    Args:
        folder: the run's folder.
        move: changes the device and the precision in the run's configuration.
    """
    config = read_config(folder / "config.yaml")
    name = RunFolder(config).path.name  # before `move`: named as trained
    move(config)
    training = prepare(config, make_plan(config))
    progress = load(folder / "checkpoint.pt", name, training)
    if progress is None or progress.epoch < training.plan.epochs:
        raise UserError(f"{folder} has no checkpoint of its last epoch; the same command trains it")
    return training
