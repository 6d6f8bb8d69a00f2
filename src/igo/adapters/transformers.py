"""The schedule in Hugging Face's Trainer::

    trainer = GraduatedTrainer(model, arguments, train_dataset=data, plan=plan)
    trainer.train(resume_from_checkpoint=folder)

For another trainer, such as TRL's: ``class Mine(GraduatedTrainer, SFTTrainer): ...``.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer

from igo.ground.errors import UserError
from igo.method.plan import Plan
from igo.method.sampler import BatchSampler, Counter
from igo.method.schedule import Schedule


class WholePlan(Sampler[list[int]]):
    """The batches of all epochs: for Trainer each pass over a loader has the same length."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches.plan.updates

    def __iter__(self) -> Iterator[list[int]]:
        batches = deepcopy(self.batches)
        for _ in batches.epochs():
            for indices in batches:
                batches.advance()
                yield indices


class Scheduler:
    """The schedule as Trainer's scheduler, whose step comes after the update and does nothing."""

    def __init__(self, schedule: Schedule) -> None:
        self.get_last_lr, self.state_dict = schedule.get_last_lr, schedule.state_dict
        self.load_state_dict = schedule.load_state_dict

    def step(self) -> None: ...


class GraduatedTrainer(Trainer):
    """A Trainer with the batches of a plan, and its η_m before each update.

    η_1 is ``TrainingArguments.learning_rate``, or the rates of your own optimizer. ``max_steps`` is
    the plan's updates unless you give fewer. For Trainer the plan is one epoch, so evaluate and
    save by steps. Trainer's checkpoints have the schedule's state; a resume goes on with the next
    sample, with the random numbers that Trainer saves.

    If processes have unequal shares of a batch, their mean losses are weighted so that the average
    is the whole batch's; a loss that Trainer itself divides by all tokens is left as it is.

    Args:
        plan: what ``igo.plan`` returns, for the n samples of ``train_dataset``.
        arguments, named: Trainer's.

    Attributes:
        update: the newest update.

    Raises:
        PlanError: the data set does not have n samples.
        UserError: gradients are accumulated, or ``max_steps`` is above the plan's updates.
    """

    def __init__(self, *arguments: Any, plan: Plan, **named: Any) -> None:
        super().__init__(*arguments, **named)
        args, self.plan = self.args, plan
        if args.gradient_accumulation_steps != 1:
            wrong = f"gradient_accumulation_steps={args.gradient_accumulation_steps}"
            raise UserError(f"{wrong} must be 1: the plan sets the batch sizes")
        if args.max_steps > plan.updates:
            raise UserError(f"max_steps={args.max_steps}: the plan has {plan.updates} updates")
        args.max_steps = args.max_steps if args.max_steps > 0 else plan.updates

    def get_train_dataloader(self) -> DataLoader[Any]:
        theirs = super().get_train_dataloader()  # without the columns that the model does not take
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        same = (
            "collate_fn", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor",
            "multiprocessing_context", "worker_init_fn",
        )  # fmt: skip
        return DataLoader(
            theirs.dataset,
            batch_sampler=WholePlan(BatchSampler(self.plan, theirs.dataset, seed=seed)),
            **{name: getattr(theirs, name) for name in same},
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Scheduler:
        self.schedule = Schedule(optimizer or self.optimizer, Counter(self.plan))
        self.lr_scheduler = Scheduler(self.schedule)
        return self.lr_scheduler

    def training_step(self, *given: Any, **named: Any) -> Tensor:
        self.update = self.schedule.step()
        loss: Tensor = super().training_step(*given, **named)
        return loss

    def compute_loss(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        result = super().compute_loss(model, inputs, *given, **named)
        of_all = self.args.average_tokens_across_devices  # divided by the tokens of all ranks
        if not model.training or (of_all and named.get("num_items_in_batch") is not None):
            return result
        return result * self.update.weight
