"""(b) Lightning's Trainer, tuned by its documentation: AMP, persistent workers, pinned memory.

It also has channels_last and cuDNN's autotuner, and no checkpoints, model summary or logger. Its
progress bar is on, as that of this project.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.worker import Turns
from igo.config.load import make_plan
from igo.config.schema import Config
from igo.plans.plan import Plan

PRECISION = {None: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def train(config: Config, turns: Turns) -> nn.Module:
    engine = peers.engine(config)
    plan = make_plan(config)
    batches = peers.EpochBatches(config)
    loader = peers.loader(config, batches, peers.to_float(config.dataset))
    network: Any = peers.network(config).to(memory_format=torch.channels_last)
    trainer = lightning.Trainer(
        max_epochs=plan.epochs,
        accelerator="cpu" if engine.device.type == "cpu" else "gpu",
        devices=1,
        precision=PRECISION[engine.autocast],  # type: ignore[arg-type]
        benchmark=True,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[Epochs(plan, batches, turns)],
    )
    trainer.fit(Classifier(network, config.learning_rate), loader)
    return network


class Classifier(lightning.LightningModule):
    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network, self.learning_rate = network, learning_rate

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        logits = self.network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


class Epochs(lightning.Callback):
    """Sets η and b of each epoch, and waits for its turn."""

    def __init__(self, plan: Plan, batches: peers.EpochBatches, turns: Turns) -> None:
        self._plan, self._batches, self._turns = plan, batches, turns
        self._n = plan.n

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, _: lightning.LightningModule
    ) -> None:
        epoch = trainer.current_epoch + 1
        stage = self._plan.rows_of_epoch(epoch)[0]
        self._batches.count, self._batches.epoch = stage.batches, epoch
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = stage.eta_m
        self._turns.begin()

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        self._turns.end(self._n, float(trainer.callback_metrics["train_loss"]))
