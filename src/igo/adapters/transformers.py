"""The schedule in Hugging Face's Trainer::

    trainer = Trainer(model, TrainingArguments("out", learning_rate=plan.stages[0].eta_m),
                      train_dataset=data, plan=plan)
    trainer.train()

Hugging Face's loop assumes that all passes of a loader have the same length. So one pass of this
loader is the whole plan, and a callback ends the epochs: ``"epoch"`` as ``eval_strategy``,
``save_strategy`` or ``logging_strategy`` means the plan's epochs, and ``state.epoch`` counts them.
Checkpoints contain the plan's identity and the seed.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler

from igo.adapters import need, refuse_accumulation, warn_of_early_end
from igo.ground.errors import UserError
from igo.method.arguments import PlanError, PlanWarning
from igo.method.groups import check_rate
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler
from igo.method.update import Update

if TYPE_CHECKING:
    import transformers
else:
    transformers = need("transformers")
LOADER_SETTINGS = (
    "collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn", "generator",
    "multiprocessing_context", "prefetch_factor", "persistent_workers",
)  # fmt: skip

STATE = "igo"  # the key in a checkpoint's state
IN_PLAN = {  # TrainingArguments that have no effect, and what takes their place
    "per_device_train_batch_size": "batch_size= of igo.plan is b_1, over all processes",
    "auto_find_batch_size": "the plan has the batch sizes",
    "dataloader_drop_last": "every sample of an epoch is trained on",
    "warmup_steps": "use warmup= of igo.plan, in samples",
    "warmup_ratio": "use warmup= of igo.plan, a share of all samples",
    "lr_scheduler_type": "the plan is the schedule",
    "lr_scheduler_kwargs": "the plan is the schedule",
    "train_sampling_strategy": "each epoch is a permutation of all samples",
    "group_by_length": "each epoch is a permutation of all samples",
}


class WholePlan(Sampler[list[int]]):
    """All batches of all epochs in one iteration. After a resume Trainer skips trained batches."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches.plan.updates

    def __iter__(self) -> Iterator[list[int]]:
        start, plan = 0, self.batches.plan
        for epoch in range(1, plan.epochs + 1):
            self.batches.check_data()
            yield from self.batches.epoch_from(start)
            start += plan.batches_of_epoch(epoch)


class Epochs(transformers.TrainerCallback):
    """Counts updates and ends the plan's epochs."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches
        self.update: Update | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Continue where the checkpoint was made.

        Raises:
            PlanError: it was made with another plan or seed.
        """
        saved = state.stateful_callbacks.get(STATE)
        if saved is not None and state.global_step:
            if saved["seed"] != self.batches.seed:
                allowed = f"the checkpoint was made with {saved['seed']}; use the same"
                raise PlanError("seed", self.batches.seed, allowed)
            self.batches.load_state_dict(saved)
        elif state.global_step:
            warnings.warn(
                "the checkpoint does not say which plan and seed it was made with: give the same",
                PlanWarning,
                stacklevel=2,
            )
        self.batches.updates = state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the update that begins."""
        self.update = self.batches.advance()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set ``state.epoch``; at the end of an epoch ask Trainer to evaluate, save and log."""
        update = self.update
        assert update is not None
        state.epoch = update.epoch - 1 + update.batch / update.batches
        state.stateful_callbacks[STATE] = self.batches.state_dict()
        if update.ends_epoch and update.number < self.batches.plan.updates:  # Trainer ends the last
            control.should_evaluate |= args.eval_strategy == "epoch"
            control.should_save |= args.save_strategy == "epoch"
            control.should_log |= args.logging_strategy == "epoch"


class Trainer(transformers.Trainer):
    """``transformers.Trainer`` with a plan, which sets batch sizes and epochs instead of ``args``.

    Args:
        plan: what ``igo.plan`` returns. ``learning_rate`` in TrainingArguments must be the plan's.
        data_seed, seed: of TrainingArguments; the permutations follow from them.

    Raises:
        UserError: an argument would have no effect beside the plan, or accumulates gradients.
        PlanError: the learning rate is not the plan's.
    """

    def __init__(self, *arguments: Any, plan: Plan, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.lr_scheduler is not None:
            raise UserError("optimizers= has a scheduler, and the plan is one: (optimizer, None)")
        _check(self.args, plan)
        args: Any = copy.copy(self.args)
        args.num_train_epochs = 1  # one pass of the loader
        self.args: Any = args
        seed = args.seed if args.data_seed is None else args.data_seed
        self.batches: BatchSampler = BatchSampler(plan, seed, data=self.train_dataset)
        self.epochs: Epochs = Epochs(self.batches)
        self.add_callback(self.epochs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The plan's batches, with the workers and collator of TrainingArguments."""
        original = super().get_train_dataloader()
        settings: dict[str, Any] = {name: getattr(original, name) for name in LOADER_SETTINGS}
        loader = DataLoader(original.dataset, batch_sampler=WholePlan(self.batches), **settings)
        from igo.adapters.accelerate import unsharded  # here: transformers is needed first

        return unsharded(loader, self.args.device)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """η of each update as a PyTorch scheduler, which Trainer steps, logs and saves."""
        plan = self.batches.plan
        first = plan.stages[0].eta_m
        chosen = optimizer or self.optimizer
        check_rate([chosen], first)

        def factor(done: int) -> float:
            return plan.at(min(done + 1, plan.updates)).learning_rate / first

        if getattr(self, "lr_scheduler", None) is None:
            self.lr_scheduler: LambdaLR = LambdaLR(chosen, factor)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        """Log the batch size of the newest update beside the learning rate."""
        if "loss" in logs and self.epochs.update is not None:
            logs = {**logs, "b_m": self.epochs.update.batch_size}
        super().log(logs, *arguments, **named)

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        """Weight the loss by this process's share of the batch, if Trainer averages gradients."""
        result = super().compute_loss(*arguments, **named)
        update = self.epochs.update
        if self.model.training and update is not None and not self.model_accepts_loss_kwargs:
            if isinstance(result, tuple):
                return (result[0] * update.weight, *result[1:])
            return result * update.weight
        return result


def _check(args: Any, plan: Plan) -> None:
    """Refuse arguments that would have no effect, and gradient accumulation."""
    refuse_accumulation("gradient_accumulation_steps", args.gradient_accumulation_steps)
    if args.ignore_data_skip:
        raise UserError("ignore_data_skip must be false: a resumed run continues in its epoch")
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    for name, instead in IN_PLAN.items():
        value = getattr(args, name, None)
        if name in defaults and (value or 0) != (defaults[name] or 0):
            raise UserError(f"{name}={value} would be ignored: {instead}; leave it out")
    if args.num_train_epochs not in (defaults["num_train_epochs"], plan.epochs):
        raise UserError(f"num_train_epochs={args.num_train_epochs}: the plan has {plan.epochs}")
    if args.max_steps > plan.updates:
        raise UserError(f"max_steps={args.max_steps}: the plan has {plan.updates} updates")
    if 0 < args.max_steps < plan.updates:
        warn_of_early_end([f"max_steps={args.max_steps}"], plan)
