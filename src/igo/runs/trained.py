"""The trained model of a run folder, for predictions or as a plain file of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from igo.config.load import read_config
from igo.config.schema import Config
from igo.ground.errors import UserError
from igo.ground.files import Record, durable, partial_of
from igo.runs import checkpoint
from igo.runs.folder import RunFolder, read_records
from igo.train import models

FILE = "model.pt"


@dataclass(frozen=True)
class TrainedRun:
    """A run at its newest checkpoint.

    ``model`` maps normalised images (b, C, H, W) float32 to logits (b, classes); it is on the CPU,
    in eval mode. ``records`` has an entry for each epoch.
    """

    model: nn.Module
    config: Config
    records: list[Record]


def load_run(folder: str | Path) -> TrainedRun:
    """The trained model of a run folder, its configuration and its records. Needs no data.

    For a run that is not finished, it is the model of the last complete epoch::

        run = igo.load_run("runs/digits-resnet8-…")
        logits = run.model(images)  # normalised (b, C, H, W) float32 to (b, classes)

    Raises:
        UserError: no run folder, no usable checkpoint, or one of an earlier version.
    """
    folder = Path(folder).resolve()
    config = read_config(folder / "config.yaml")
    with torch.random.fork_rng(devices=[]):  # the parameters drawn here are replaced below
        network = models.build(config.model, config.dataset)
    try:
        network.load_state_dict(_parameters(folder, config))
    except RuntimeError:
        raise UserError(f"{folder} holds another model than {config.model.name}") from None
    return TrainedRun(network.eval(), config, read_records(folder))


def export(folder: RunFolder, config: Config) -> Path:
    """Write the model's state_dict as FILE; return its path.

    ``torch.load(path, weights_only=True)`` reads it.
    """
    file = folder.path / FILE
    state = _parameters(folder.path, config)
    with folder.writing():
        with durable(partial := partial_of(file)) as output:
            torch.save(state, output)
        partial.replace(file)
    return file


def _parameters(folder: Path, config: Config) -> dict[str, Tensor]:
    state = checkpoint.load(folder / "checkpoint.pt", RunFolder(config).path.name)
    if state is None:
        raise UserError(f"{folder} has no checkpoint yet")
    return {name: tensor.contiguous() for name, tensor in state["model"].items()}
