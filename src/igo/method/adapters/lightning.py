"""The schedule as a Lightning callback, and the loader that belongs to it.

graduated = Graduated(plan, seed=0)

class Data(LightningDataModule):
    def train_dataloader(self):
        return graduated.loader(data, num_workers=4)

trainer = Trainer(max_epochs=plan.epochs, callbacks=[graduated], use_distributed_sampler=False)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset

from igo.errors import UserError
from igo.method.adapters import need
from igo.method.counter import Update
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = need("lightning.pytorch").Callback


class Loader(DataLoader[Any]):
    """A DataLoader that tells Lightning where training stands, so that it can resume mid-epoch."""

    batch_sampler: BatchSampler

    def state_dict(self) -> dict[str, Any]:
        """The sampler's."""
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The sampler's."""
        self.batch_sampler.load_state_dict(state)


class Graduated(Callback):
    """Sets η_m before each update; Lightning's checkpoints hold where the plan stands.

    Each epoch has a length of its own: Lightning asks for the loader anew at every epoch, and its
    progress bar, ``limit_train_batches`` and end of epoch follow. Logs ``eta_m`` and ``b_m``, as
    applied. With several processes multiply the loss of a batch by ``graduated.update.weight``.

    Args:
        plan: what ``igo.plan`` returns.
        seed: of the permutations.

    Attributes:
        batches: the sampler.
        update: the newest update, None before the first.
    """

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        self.batches = BatchSampler(plan, seed)
        self.update: Update | None = None
        self._schedule: Schedule | None = None

    def loader(self, data: Dataset[Any], **settings: Any) -> Loader:
        """The loader for ``train_dataloader``; settings are those of a DataLoader."""
        self.batches.begin_epoch()  # Lightning asks for its length before it iterates
        return Loader(data, batch_sampler=self.batches, **settings)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the loader asked for at every epoch.

        Raises:
            UserError: the trainer would change what an update is.
        """
        plan = self.batches.plan
        if trainer.accumulate_grad_batches != 1:
            raise UserError("accumulate_grad_batches must be 1: the plan has the batch sizes")
        if trainer.max_epochs is not None and trainer.max_epochs > plan.epochs:
            raise UserError(f"max_epochs={trainer.max_epochs}: the plan has {plan.epochs}")
        trainer.reload_dataloaders_every_n_epochs = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the optimizer.

        Raises:
            UserError: there are several.
        """
        if len(trainer.optimizers) != 1:
            raise UserError(f"{len(trainer.optimizers)} optimizers: a plan is for one")
        self._schedule = Schedule(trainer.optimizers[0], self.batches)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set η and count the update."""
        assert self._schedule is not None
        self.update = self._schedule.step()
        rate, size = self._schedule.learning_rate, float(self.update.batch_size)
        values = {"eta_m": rate, "b_m": size}
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=self.update.own)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands."""
        return self.batches.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there."""
        self.batches.load_state_dict(state_dict)
