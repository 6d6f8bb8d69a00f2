"""The schedule as a Lightning callback, and the loader that belongs to it::

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

from igo.errors import UserError
from igo.method.adapters import need, refuse_accumulation, warn_of_early_end
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.method.update import Update

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
    progress bar and end of epoch follow. Logs ``eta_m`` and ``b_m``, as applied. Where processes
    have unequal shares of a batch it weights their gradients, so that their average is that of the
    whole batch: return the plain mean loss.

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
        """The loader for ``train_dataloader``; settings are those of a DataLoader.

        Raises:
            PlanError: the data set has not the plan's n samples.
        """
        self.batches.data = data
        self.batches.check_data()
        self.batches.begin_epoch()  # Lightning asks for its length before it iterates
        return Loader(data, batch_sampler=self.batches, **settings)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the loader asked for at every epoch.

        Raises:
            UserError: the trainer would change what an update is.
        """
        plan = self.batches.plan
        refuse_accumulation("accumulate_grad_batches", trainer.accumulate_grad_batches)
        if trainer.max_epochs is not None and trainer.max_epochs > plan.epochs:
            raise UserError(f"max_epochs={trainer.max_epochs}: the plan has {plan.epochs}")
        if stage == "fit":
            _warn_of_limits(trainer, plan)
        trainer.reload_dataloaders_every_n_epochs = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the optimizers.

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
        """Weight the gradient by this process's share of the batch; the loss stays what it is."""
        assert self.update is not None
        weight = self.update.weight
        if weight != 1:
            loss.register_hook(lambda gradient: gradient * weight)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands."""
        return self.batches.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there."""
        self.batches.load_state_dict(state_dict)


def _warn_of_limits(trainer: Trainer, plan: Plan) -> None:
    limit, epochs = trainer.limit_train_batches, trainer.max_epochs
    short = []
    if limit is not None and limit != 1.0:
        short.append(f"limit_train_batches={limit}")
    if epochs is not None and 0 <= epochs < plan.epochs:
        short.append(f"max_epochs={epochs} of {plan.epochs}")
    warn_of_early_end(short, plan)
