"""Trainings without a run folder: made from a configuration, trained to the end or to an epoch."""

import contextlib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from conftest import configure
from torch import Tensor

from igo.config.load import make_plan, read_config
from igo.config.schema import DatasetConfig
from igo.ground.files import Record
from igo.ground.ranks import ALONE, Ranks
from igo.plans import batches
from igo.runs import checkpoint
from igo.train import loop
from igo.train.assembly import assembled
from igo.train.engine import Engine
from igo.train.on_device import Batch
from igo.train.training import Progress, Training


def dataset(classes: int = 10, channels: int = 3, size: int = 32, **facts: Any) -> DatasetConfig:
    """Facts of a data set; its normalisation is plain x/255."""
    facts = {"samples": 100, "mean": [0.0] * channels, "std": [1.0] * channels, **facts}
    return DatasetConfig("made", classes, channels, size, **facts)


class _Enough(Exception):
    pass


def prepared(*words: str, ranks: Ranks = ALONE) -> Training:
    """The training of these words."""
    config = configure(*words)
    return assembled(config, make_plan(config), ranks)


def in_parts(
    engine: Engine, images: Tensor, labels: Tensor, size: int | None = None
) -> tuple[list[Batch], int]:
    """A rank's share of a batch as ``Engine.backward`` takes it: its parts, and all samples."""
    size = size or len(labels)
    count = batches.parts(size, engine.micro_batch_size, engine.ranks.size)
    return [*zip(images.tensor_split(count), labels.tensor_split(count), strict=True)], size


def loaded(folder: Path) -> Training:
    """A finished run, by its checkpoint."""
    config = read_config(folder / "config.yaml")
    training = assembled(config, make_plan(config))
    state = checkpoint.load(folder / "checkpoint.pt", folder.name)
    assert state
    training.network.load_state_dict(state["model"])
    return training


def train(
    training: Training,
    progress: Progress | None = None,
    until: int | None = None,
    bar: Any = None,
) -> Progress:
    """Train to the end, or until an epoch is recorded."""

    def epoch_done(record: Record) -> None:
        if record["epoch"] == until:
            raise _Enough

    progress = progress or Progress()
    with contextlib.suppress(_Enough):
        loop.train(training, progress, bar or Mock(), epoch_done, lambda: None)
    return progress
