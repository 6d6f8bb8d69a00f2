"""The schedule in Hugging Face's Trainer.

    trainer = Trainer(model, TrainingArguments("out", learning_rate=plan.stages[0].eta_m),
                      train_dataset=data, plan=plan)
    trainer.train()

Hugging Face's loop takes every pass of its loader for as long as the first, so one pass of this
loader is the whole plan, and the callback ends the epochs: ``eval_strategy``, ``save_strategy`` and
``logging_strategy`` ``"epoch"`` mean the plan's epochs, and ``state.epoch`` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler

from igo.errors import UserError
from igo.method.adapters import need
from igo.method.counter import Update
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler
from igo.method.schedule import check_rate

if TYPE_CHECKING:
    import transformers
else:
    transformers = need("transformers")
prepare_data_loader = need("accelerate.data_loader").prepare_data_loader
KEPT = ("collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn", "generator",
        "multiprocessing_context", "prefetch_factor", "persistent_workers")  # fmt: skip


class WholePlan(Sampler[list[int]]):
    """All batches of all epochs in one iteration, from the first: Trainer skips what is trained."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches.plan.updates

    def __iter__(self) -> Iterator[list[int]]:
        start = 0
        for stage in self.batches.plan.stages:
            for _ in stage.epoch_range:
                yield from self.batches.epoch_from(start)
                start += stage.batches


class Epochs(transformers.TrainerCallback):
    """Counts updates and ends the plan's epochs."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches
        self.update: Update | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on where the checkpoint was made."""
        self.batches.updates = state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the update that begins."""
        self.update = self.batches.advance()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say where training is, in epochs, and do what is to be done at their ends."""
        update = self.update
        assert update is not None
        state.epoch = update.epoch - 1 + update.batch / update.stage.batches
        if update.ends_epoch and update.number < self.batches.plan.updates:  # Trainer ends the last
            control.should_evaluate |= args.eval_strategy == "epoch"
            control.should_save |= args.save_strategy == "epoch"
            control.should_log |= args.logging_strategy == "epoch"


class Trainer(transformers.Trainer):
    """``transformers.Trainer`` with a plan, which says batch sizes and epochs instead of ``args``.

    Args:
        plan: what ``igo.plan`` returns. ``learning_rate`` in TrainingArguments must be its own.
        data_seed, seed: of TrainingArguments; the permutations follow from them.

    Raises:
        UserError: accumulation, or skipping that is not wanted, would change what an update is.
        PlanError: another learning rate than the plan's.
    """

    def __init__(self, *arguments: Any, plan: Plan, **named: Any) -> None:
        super().__init__(*arguments, **named)
        args = self.args
        if args.gradient_accumulation_steps != 1:
            raise UserError("gradient_accumulation_steps must be 1: the plan has the batch sizes")
        if args.ignore_data_skip:
            raise UserError("ignore_data_skip must be false: a resumed run goes on in its epoch")
        args.num_train_epochs = 1  # one pass of the loader
        seed = args.seed if args.data_seed is None else args.data_seed
        self.batches = BatchSampler(plan, seed)
        self.epochs = Epochs(self.batches)
        self.add_callback(self.epochs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The plan's batches, with the workers and collator of TrainingArguments."""
        made = super().get_train_dataloader()
        kept: dict[str, Any] = {name: getattr(made, name) for name in KEPT}
        loader = DataLoader(made.dataset, batch_sampler=WholePlan(self.batches), **kept)
        prepared: DataLoader[Any] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True,
            dispatch_batches=False,
        )  # fmt: skip
        return prepared

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """η of each update as a PyTorch scheduler, which Trainer steps, logs and saves."""
        plan = self.batches.plan
        first = plan.stages[0].eta_m
        chosen = optimizer or self.optimizer
        check_rate([chosen], first)

        def factor(done: int) -> float:
            return plan.locate(min(done + 1, plan.updates))[0].eta_m / first

        if getattr(self, "lr_scheduler", None) is None:
            self.lr_scheduler: LambdaLR = LambdaLR(chosen, factor)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        """Beside the learning rate, the batch size of the newest update."""
        if "loss" in logs and self.epochs.update is not None:
            logs = {**logs, "b_m": self.epochs.update.batch_size}
        super().log(logs, *arguments, **named)

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        """Weighted where processes have unequal shares of a batch and average their gradients."""
        found = super().compute_loss(*arguments, **named)
        update = self.epochs.update
        if self.model.training and update is not None and not self.model_accepts_loss_kwargs:
            if isinstance(found, tuple):
                return (found[0] * update.weight, *found[1:])
            return found * update.weight
        return found
