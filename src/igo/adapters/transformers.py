"""The schedule in Hugging Face's Trainer::

    trainer = GraduatedTrainer(model, arguments, train_dataset=data, plan=plan)
    trainer.train(resume_from_checkpoint=folder)

For TRL's SFT: ``class Mine(GraduatedTrainer, SFTTrainer): ...``. If it packs the data, their number
is known later: ``plan=lambda n: igo.plan("cosine", n=n, …)``.
"""

import warnings
from collections.abc import Callable, Iterator
from copy import copy, deepcopy
from types import SimpleNamespace
from typing import Any

from torch.utils.data import DataLoader, RandomSampler, Sampler
from transformers import Trainer

from igo.ground.errors import UserError
from igo.loop.counter import Counter
from igo.loop.sampler import BatchSampler
from igo.loop.schedule import Schedule
from igo.plans.arguments import PlanWarning
from igo.plans.plan import Plan


class WholePlan(Sampler[list[int]]):
    """The parts of all epochs' batches: for Trainer each pass over a loader has the same length."""

    def __init__(self, batches: BatchSampler, trainer: Trainer) -> None:
        self.batches, self.trainer = batches, trainer

    def __len__(self) -> int:
        return self.batches.plan.updates

    def __iter__(self) -> Iterator[list[int]]:
        # Trainer may iterate again, and each time begins with the plan, so a copy counts.
        batches = deepcopy(self.batches)
        for _ in batches.epochs():
            for indices in batches:
                update = batches.advance()
                # After a resume Trainer skips one item for each update that was made.
                if update.is_last_part or update.number > self.trainer.state.global_step:
                    yield indices


class GraduatedTrainer(Trainer):
    """A Trainer with the batches of a plan, and its η_m before each update.

    η_1 is ``TrainingArguments.learning_rate``, or that of your own optimizer. To Trainer the plan
    is one epoch: evaluate and save by steps. Its checkpoints have the schedule's state; a resume
    goes on with the next sample and the random numbers that Trainer saves.

    A device has at most ``per_device_train_batch_size`` samples at once (8 unless you set it), and
    larger batches come in parts, whose gradients are accumulated. Mean losses are weighted by
    samples. Losses that Trainer divides by tokens are divided by those of the whole batch, over all
    parts and processes. To Trainer these are the losses of models whose ``forward`` has ``**named``
    arguments; if yours does not use ``num_items_in_batch``, it needs ``accepts_loss_kwargs =
    False``, as for Trainer's own accumulation. ``update`` is the newest update, or part of one.

    Args:
        plan: what ``igo.plan`` returns, for the n samples of ``train_dataset``, or a function of n
            that returns it.
        arguments, settings: Trainer's. ``max_steps`` is the plan's updates unless you give fewer.
            ``gradient_accumulation_steps`` has no effect: the plan says how many parts there are.
            Nor has ``ignore_data_skip``: a resume goes on with the plan.

    Raises:
        PlanError: in ``train``, if the data set does not have n samples.
        UserError: ``max_steps`` is above the plan's updates, or the trainer orders the samples
            itself, as TRL's GRPO and ``group_by_length`` do.
    """

    def __init__(
        self, *arguments: Any, plan: Plan | Callable[[int], Plan], **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.args: Any = copy(self.args)  # The arguments that were given stay as they are.
        plan = plan(len(self.train_dataset)) if callable(plan) else plan
        args, self.plan = self.args, plan
        args.gradient_accumulation_steps = 1
        # Processes that divide by their own tokens have an average that is no mean over all.
        args.average_tokens_across_devices = True
        args.ignore_data_skip = False  # With it a resume would begin with the plan's first batch.
        if args.max_steps > plan.updates:
            raise UserError(f"max_steps={args.max_steps}: the plan has {plan.updates} updates")
        args.max_steps = args.max_steps if args.max_steps > 0 else plan.updates
        if args.max_steps < plan.updates:
            warnings.warn(
                f"the trainer ends after {args.max_steps} of the plan's {plan.updates} updates",
                PlanWarning,
                stacklevel=2,
            )

    def get_train_dataloader(self) -> DataLoader[Any]:
        sampler = self._get_train_sampler()
        if not isinstance(sampler, RandomSampler | None):
            raise UserError(
                f"{type(sampler).__name__} orders the samples of this trainer, and a plan orders"
                " them anew: leave out what asks for it; if the trainer needs it, as GRPO does, use"
                " igo.Schedule and igo.Counter in a loop of your own"
            )
        loader = super().get_train_dataloader()  # It lacks the columns that the model ignores.
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        micro = self.get_total_train_batch_size(self.args)
        batches = BatchSampler(self.plan, loader.dataset, seed=seed, micro_batch_size=micro)
        names = ("collate_fn", "num_workers", "pin_memory", "persistent_workers", "worker_init_fn")
        return DataLoader(
            loader.dataset,
            batch_sampler=WholePlan(batches, self),
            **{name: getattr(loader, name) for name in names},
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        counter = Counter(self.plan, micro_batch_size=self.get_total_train_batch_size(self.args))
        schedule = self.schedule = Schedule(optimizer or self.optimizer, counter)
        # Trainer steps its scheduler after an update, and η is set before one, by the schedule: so
        # this object only answers.
        self.lr_scheduler = SimpleNamespace(
            step=lambda: None,
            get_last_lr=schedule.get_last_lr,
            state_dict=schedule.state_dict,
            load_state_dict=schedule.load_state_dict,
        )
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        self.update = self.schedule.step()
        # Trainer counts the tokens of all parts, as if it accumulated. To it one item is an update.
        parts, items = super().get_batch_samples(epoch_iterator, self.update.parts, device)
        *self._earlier, last = parts
        return [last], items

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
        loss = 0.0
        # Trainer calls this once for what it takes for a batch, which is the last part. The others
        # are trained first.
        for part in self._earlier:
            with self.accelerator.no_sync(model):  # Only the last part's averages.
                loss += super().training_step(model, part, *arguments, **settings)
            # Trainer does this itself for the last part.
            self.current_flos += float(self.floating_point_ops(part))
            self._track_num_input_tokens(part)
            self.update = self.schedule.step()
        return loss + super().training_step(model, inputs, *arguments, **settings)

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
        loss = super().compute_loss(model, inputs, *arguments, **settings)
        # An evaluation has no weight, nor has a loss over the tokens of the whole batch.
        if not model.training or settings.get("num_items_in_batch") is not None:
            return loss
        if isinstance(loss, tuple):  # Trainer may ask for the outputs, too.
            return loss[0] * self.update.weight, *loss[1:]
        return loss * self.update.weight
