"""The schedule in Hugging Face's Trainer::

    trainer = GraduatedTrainer(model, arguments, train_dataset=data, plan=plan)
    trainer.train(resume_from_checkpoint=folder)

For another trainer, such as TRL's: ``class Mine(GraduatedTrainer, SFTTrainer): ...``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import copy, deepcopy
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer

from igo.ground.errors import UserError
from igo.method.arguments import PlanWarning
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
        # A copy, as Trainer may iterate again, and each time begins with the plan.
        batches = deepcopy(self.batches)
        for _ in batches.epochs():
            for indices in batches:
                batches.advance()
                yield indices


class GraduatedTrainer(Trainer):
    """A Trainer with the batches of a plan, and its η_m before each update.

    η_1 is ``TrainingArguments.learning_rate``, or that of your own optimizer. To Trainer the plan
    is one epoch: evaluate and save by steps. Its checkpoints have the schedule's state; a resume
    goes on with the next sample and the random numbers that Trainer saves. If processes have
    unequal shares of a batch, their mean losses are weighted, so that the average is the whole
    batch's; a loss that Trainer divides by the tokens of all is left as it is. ``update`` is the
    newest update.

    Args:
        plan: what ``igo.plan`` returns, for the n samples of ``train_dataset``.
        arguments, named: Trainer's. ``max_steps`` is the plan's updates unless you give fewer.

    Raises:
        PlanError: in ``train``, if the data set does not have n samples.
        UserError: gradients are accumulated, or ``max_steps`` is above the plan's updates.
    """

    def __init__(self, *arguments: Any, plan: Plan, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.args: Any = copy(self.args)  # yours stay as they are
        args, self.plan = self.args, plan
        if args.gradient_accumulation_steps != 1:
            wrong = f"gradient_accumulation_steps={args.gradient_accumulation_steps}"
            raise UserError(f"{wrong} must be 1: the plan sets the batch sizes")
        if args.max_steps > plan.updates:
            raise UserError(f"max_steps={args.max_steps}: the plan has {plan.updates} updates")
        args.max_steps = args.max_steps if args.max_steps > 0 else plan.updates
        if args.max_steps < plan.updates:
            early = f"the trainer ends after {args.max_steps} of the plan's {plan.updates} updates"
            warnings.warn(early, PlanWarning, stacklevel=2)

    def get_train_dataloader(self) -> DataLoader[Any]:
        theirs = super().get_train_dataloader()  # without the columns that the model does not take
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        same = ("collate_fn", "num_workers", "pin_memory", "persistent_workers", "worker_init_fn")
        return DataLoader(
            theirs.dataset,
            batch_sampler=WholePlan(BatchSampler(self.plan, theirs.dataset, seed=seed)),
            **{name: getattr(theirs, name) for name in same},
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        schedule = self.schedule = Schedule(optimizer or self.optimizer, Counter(self.plan))
        self.lr_scheduler = SimpleNamespace(
            step=lambda: None,  # Trainer calls it after the update
            get_last_lr=schedule.get_last_lr,
            state_dict=schedule.state_dict,
            load_state_dict=schedule.load_state_dict,
        )
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
        if isinstance(result, tuple):  # with the outputs
            return result[0] * self.update.weight, *result[1:]
        return result * self.update.weight
