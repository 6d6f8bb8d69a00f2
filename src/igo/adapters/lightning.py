"""The schedule as a Lightning callback, and its loader::

    graduated = Graduated(plan, seed=0)
    trainer = Trainer(max_epochs=plan.epochs, callbacks=[graduated], use_distributed_sampler=False)
    trainer.fit(model, graduated.loader(data, num_workers=4))

A DataModule returns ``graduated.loader(data)`` from ``train_dataloader``.
On several devices ``use_distributed_sampler=False`` is needed: the loader shares each batch itself.
"""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from igo.ground.errors import UserError
from igo.loop.sampler import BatchSampler, check_length
from igo.loop.schedule import Schedule
from igo.plans.arguments import PlanWarning
from igo.plans.plan import Plan


class Loader(DataLoader[Any]):
    """A DataLoader with the sampler's state, from which Lightning can resume in mid-epoch."""

    batch_sampler: BatchSampler

    def __len__(self) -> int:
        # Lightning asks for the length of an epoch before it iterates. The sampler's length is that
        # of the newest epoch that has begun, so the epoch of the next update begins here.
        next(self.batch_sampler.epochs(), None)
        return super().__len__()

    # Lightning learns by these two methods where in the epoch the loader is.

    def state_dict(self) -> dict[str, Any]:
        return self.batch_sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batch_sampler.load_state_dict(state)


class Graduated(Callback):
    """Sets η_m before each update; its state in Lightning's checkpoints is the sampler's.

    ``eta_m`` and ``b_m``, the rate and batch size of the update, are logged. Return the plain mean
    loss: if processes have unequal shares of a batch, the callback weights their gradients so that
    the average is the whole batch's gradient. ``batches`` is the sampler, ``update`` the newest
    update.

    With ``micro_batch_size`` batches come in parts. Automatic optimization steps at each k-th batch
    of an epoch, but each of the plan's batches has its own number of parts. So use manual
    optimization, with ``self.automatic_optimization = False``::

        def training_step(self, batch):
            optimizer, last = self.optimizers(), graduated.update.is_last_part
            with optimizer.toggle_model(sync_grad=last):
                self.manual_backward(self.loss_of(batch))  # a mean over samples
            if last:
                optimizer.step()
                optimizer.zero_grad()

    Args:
        plan: what ``igo.plan`` returns.
        seed: of the permutations.
        micro_batch_size: the most samples at once, over all devices; see ``igo.BatchSampler``.

    Raises:
        UserError: at ``fit``, if the trainer outlasts the plan, or accumulates by itself.
        RuntimeError: at the first update, if the batches are not those of ``loader``.
    """

    def __init__(self, plan: Plan, seed: int = 0, micro_batch_size: int | None = None) -> None:
        self._in_parts = micro_batch_size is not None
        self.batches = BatchSampler(
            plan, range(plan.n), seed=seed, micro_batch_size=micro_batch_size
        )

    def loader(self, data: Any, **settings: Any) -> Loader:
        """The training loader of the plan's n samples; ``settings`` are those of a DataLoader.

        Raises:
            PlanError: the data set does not have n samples.
        """
        check_length(self.batches.plan, data)
        return Loader(data, batch_sampler=self.batches, **settings)

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches.load_state_dict(state_dict)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning has counted an epoch that max_steps cut short as processed, and would resume
        # with the next one. The plan goes on in the cut one.
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        next_epoch = next(self.batches.epochs(), math.inf)  # inf once the plan is done
        if progress["current"]["processed"] >= next_epoch:
            for counts in progress.values():  # "current" and "total"
                counts["processed"] -= 1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        epochs = self.batches.plan.epochs
        # A trainer without an end has max_epochs=-1.
        if stage == "fit" and not 0 <= trainer.max_epochs <= epochs:
            problem = f"max_epochs={trainer.max_epochs}: the plan has {epochs}"
            raise UserError(f"{problem}; set max_epochs=plan.epochs")
        if self._in_parts and pl_module.automatic_optimization:
            raise UserError(
                "micro_batch_size needs manual optimization: set automatic_optimization = False in"
                " the module; the lines for its training_step are in help(Graduated)"
            )
        # Epochs differ in their number of batches, and Lightning would ask for that number once.
        trainer.reload_dataloaders_every_n_epochs = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The trainer has its optimizers only now, and not yet in `setup`.
        self._schedule = Schedule(trainer.optimizers, self.batches)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.accumulate_grad_batches != 1:  # A callback may set it in any epoch.
            raise UserError(
                "accumulate_grad_batches must be 1: the plan sets the batch sizes, and"
                " micro_batch_size their parts"
            )
        self.update = self._schedule.step()
        values = {"eta_m": self._schedule.learning_rate, "b_m": float(self.update.batch_size)}
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=self.update.samples)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        # DDP averages the gradients of unequal shares as if the shares were equal.
        weight = self.update.weight
        loss.register_hook(lambda gradient: gradient * weight)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        updates, planned_updates = self.batches.updates, self.batches.plan.updates
        if updates < planned_updates:
            rank_zero_warn(
                f"the trainer ended after {updates} of the plan's {planned_updates} updates:"
                " max_epochs, max_steps, limit_train_batches or overfit_batches is too small",
                category=PlanWarning,
            )
