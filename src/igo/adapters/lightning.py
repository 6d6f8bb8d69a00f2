"""The schedule as a Lightning callback, and its loader::

    graduated = Graduated(plan, seed=0)

    class Data(LightningDataModule):
        def train_dataloader(self):
            return graduated.loader(data, num_workers=4)

    trainer = Trainer(max_epochs=plan.epochs, callbacks=[graduated], use_distributed_sampler=False)

``use_distributed_sampler=False`` is needed: the loader shares each batch among the ranks itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

from igo.adapters import need, refuse_accumulation, warn_of_early_end
from igo.ground.errors import UserError
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.method.update import Update

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = need("lightning.pytorch").Callback


class Loader(DataLoader[Any]):
    """A DataLoader with the sampler's state, from which Lightning can resume in mid-epoch."""

    batch_sampler: BatchSampler

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state."""
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the sampler's state."""
        self.batch_sampler.load_state_dict(state)


class Graduated(Callback):
    """Sets η_m before each update, and adds the sampler's state to Lightning's checkpoints.

    Epochs differ in length, so Lightning asks for the loader at every epoch, for its progress bar
    and the epoch's end. ``eta_m`` and ``b_m`` are logged, as applied. Return the plain mean loss:
    if processes have unequal shares of a batch, the callback weights their gradients so that the
    average is the whole batch's gradient.

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
        """The loader for ``train_dataloader``; ``settings`` are those of a DataLoader.

        Raises:
            PlanError: the data set does not have the plan's n samples.
        """
        self.batches.data = data
        self.batches.check_data()
        self.batches.begin_epoch()  # Lightning asks for its length before it iterates
        return Loader(data, batch_sampler=self.batches, **settings)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the trainer ask for the loader at every epoch.

        Raises:
            UserError: the trainer accumulates gradients, or has more epochs than the plan.
        """
        plan = self.batches.plan
        refuse_accumulation("accumulate_grad_batches", trainer.accumulate_grad_batches)
        if trainer.max_epochs is not None and trainer.max_epochs > plan.epochs:
            raise UserError(f"max_epochs={trainer.max_epochs}: the plan has {plan.epochs}")
        if stage == "fit":
            _warn_of_limits(trainer, plan)
        trainer.reload_dataloaders_every_n_epochs = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the schedule for the trainer's optimizers.

        Raises:
            UserError: the trainer has another loader.
        """
        loaders = tree_leaves(trainer.train_dataloader)
        if not any(getattr(loader, "batch_sampler", None) is self.batches for loader in loaders):
            raise UserError(
                "the trainer has another training loader, whose batches are not the plan's: return"
                " graduated.loader(data) from train_dataloader of a LightningDataModule"
            )
        self._schedule = Schedule(trainer.optimizers, self.batches)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set η and count the update."""
        assert self._schedule is not None
        self.update = self._schedule.step()
        rate, size = self._schedule.learning_rate, float(self.update.batch_size)
        values = {"eta_m": rate, "b_m": size}
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=self.update.own)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Weight the gradient by this process's share of the batch; the loss does not change."""
        assert self.update is not None
        weight = self.update.weight
        if weight != 1:
            loss.register_hook(lambda gradient: gradient * weight)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state."""
        return self.batches.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the sampler's state."""
        self.batches.load_state_dict(state_dict)


def _warn_of_limits(trainer: Trainer, plan: Plan) -> None:
    batches, epochs = trainer.limit_train_batches, trainer.max_epochs
    limits = []
    if batches is not None and batches != 1.0:
        limits.append(f"limit_train_batches={batches}")
    if epochs is not None and 0 <= epochs < plan.epochs:
        limits.append(f"max_epochs={epochs} of {plan.epochs}")
    warn_of_early_end(limits, plan)
