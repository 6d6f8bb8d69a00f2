"""The schedule as a Lightning callback, and its loader::

    graduated = Graduated(plan, data, seed=0)
    trainer = Trainer(max_epochs=plan.epochs, callbacks=[graduated], use_distributed_sampler=False)
    trainer.fit(model, graduated.loader(num_workers=4))

``use_distributed_sampler=False`` is needed: the loader shares each batch among the ranks itself.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from igo.ground.errors import UserError
from igo.method.counter import Update
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule


class Loader(DataLoader[Any]):
    """A DataLoader with the sampler's state, from which Lightning can resume in mid-epoch."""

    batch_sampler: BatchSampler

    def state_dict(self) -> dict[str, Any]:
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batch_sampler.load_state_dict(state)


class Graduated(Callback):
    """Sets η_m before each update, and adds the sampler's state to Lightning's checkpoints.

    ``eta_m`` and ``b_m`` are logged, as applied. Return the plain mean loss: if processes have
    unequal shares of a batch, the callback weights their gradients so that the average is the whole
    batch's gradient. ``batches`` is the sampler, ``update`` the newest update.

    Args:
        plan: what ``igo.plan`` returns.
        data: the training data, of the plan's n samples.
        seed: of the permutations.

    Raises:
        PlanError: the data set does not have the plan's n samples.
        UserError: at ``fit``, if the trainer accumulates gradients or outlasts the plan.
    """

    update: Update

    def __init__(self, plan: Plan, data: Sized, seed: int = 0) -> None:
        self.batches, self._data = BatchSampler(plan, data, seed=seed), data

    def loader(self, **settings: Any) -> Loader:
        """The training loader; ``settings`` are those of a DataLoader."""
        self.batches.begin_epoch()  # Lightning asks for its length before it iterates
        return Loader(self._data, batch_sampler=self.batches, **settings)  # type: ignore[arg-type]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        epochs = self.batches.plan.epochs
        if trainer.max_epochs is None or not 0 <= trainer.max_epochs <= epochs:
            raise UserError(f"max_epochs={trainer.max_epochs}: the plan has {epochs}")
        trainer.reload_dataloaders_every_n_epochs = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._schedule = Schedule(trainer.optimizers, self.batches)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.accumulate_grad_batches != 1:  # a callback may set it in any epoch
            raise UserError("accumulate_grad_batches must be 1: the plan sets the batch sizes")
        self.update = self._schedule.step()
        values = {"eta_m": self._schedule.learning_rate, "b_m": float(self.update.batch_size)}
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=self.update.own)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        weight = self.update.weight  # of this process's share
        loss.register_hook(lambda gradient: gradient * weight)
