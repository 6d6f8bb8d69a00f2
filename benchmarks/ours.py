"""(d) This project: igo.runs.assemble and igo.train.loop as in a run, with the progress bar.

The seconds are those of the epoch's updates in its record: from the permutation until the last
result is read from the device. Evaluation and the record are not in them. Where an epoch is a turn,
the first turn, which is not counted, has ten epochs more: in these C² has more twins than later.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from benchmarks.worker import Turns
from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground.files import Record
from igo.runs import assemble
from igo.runs.terminal import Terminal
from igo.train import loop, measure
from igo.train.record import Progress


def train(config: Config, turns: Turns) -> nn.Module:
    early_epochs = measure.EARLY if config.schedule.profile == "constant" else 0
    config = replace(config, epochs=early_epochs + config.epochs)
    plan = make_plan(config)
    training = assemble.prepare(config, plan)

    def epoch_done(record: Record) -> None:
        if record["epoch"] <= early_epochs:
            return
        seconds = plan.n / record["images_per_second"]
        turns.end(plan.n, record["train/loss"], seconds)
        if record["epoch"] < plan.epochs:
            turns.begin()

    with Terminal().progress(plan, 0) as bar:
        turns.begin()
        loop.train(training, Progress(), bar, epoch_done, lambda: None)
    return training.network
