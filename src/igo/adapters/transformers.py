"""The schedule in Hugging Face's Trainer::

    trainer = GraduatedTrainer(model, arguments, train_dataset=data, plan=plan)
    trainer.train(resume_from_checkpoint=folder)

For TRL's SFT: ``class Mine(GraduatedTrainer, SFTTrainer): ...``. If SFTTrainer packs the data, the
number n of samples is known later: ``plan=lambda n: igo.plan("cosine", n=n, …)``.
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
    """The parts of all epochs' batches in one pass.

    A plan's epochs differ in length, and to Trainer all passes over a loader are equally long.
    """

    def __init__(self, batches: BatchSampler, trainer: Trainer) -> None:
        self.batches, self.trainer = batches, trainer

    def __len__(self) -> int:
        return self.batches.plan.updates  # To Trainer an update is one item, whatever its parts.

    def __iter__(self) -> Iterator[list[int]]:
        # Each time that Trainer iterates, it begins with the plan's first update. So a copy of the
        # sampler counts.
        batches = deepcopy(self.batches)
        for _ in batches.epochs():
            for indices in batches:
                update = batches.advance()
                # After a resume Trainer skips one item for each update that was made, so such an
                # update gives its last part alone.
                if update.is_last_part or update.number > self.trainer.state.global_step:
                    yield indices


class GraduatedTrainer(Trainer):
    """A Trainer with the batches of a plan, and its η_m before each update.

    η_1 is ``TrainingArguments.learning_rate``, or the rate of your own optimizer. To Trainer the
    plan is one epoch: evaluate and save by steps. Trainer's checkpoints have the schedule's state;
    a resume goes on with the next sample and the random numbers that Trainer saves.

    A device has at most ``per_device_train_batch_size`` samples at once (8 unless you set it), and
    larger batches come in parts, whose gradients are accumulated. Mean losses are weighted by
    samples. Losses that Trainer divides by tokens are divided by the tokens of the whole batch,
    over all parts and processes. Trainer divides the losses of models whose ``forward`` has
    ``**named`` arguments; if your model does not use ``num_items_in_batch``, it needs
    ``accepts_loss_kwargs = False``, as for Trainer's own accumulation. ``update`` is the newest
    update, or part of one.

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
        # If each process divides by its own tokens, the average of the processes is no mean over
        # all tokens.
        args.average_tokens_across_devices = True
        # If data were not skipped, a resume would begin with the plan's first batch.
        args.ignore_data_skip = False
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
        # In this loader's data set the columns that the model ignores are left out.
        loader = super().get_train_dataloader()
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
        # Trainer steps its scheduler after an update, and the schedule sets η before an update. So
        # Trainer gets an object whose step does nothing.
        self.lr_scheduler = SimpleNamespace(
            step=lambda: None,
            get_last_lr=schedule.get_last_lr,
            state_dict=schedule.state_dict,
            load_state_dict=schedule.load_state_dict,
        )
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        self.update = self.schedule.step()
        # Trainer takes all parts of the batch, as if it accumulated, and counts their tokens. It
        # trains one item for an update, so it is given the last part.
        parts, items = super().get_batch_samples(epoch_iterator, self.update.parts, device)
        *self._earlier, last = parts
        return [last], items

    def training_step(self, model: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
        loss = 0.0
        # Trainer calls this once for an update, with the last part as ``inputs``. The earlier parts
        # are trained first.
        for part in self._earlier:
            # Gradients are averaged over processes once, after the last part.
            with self.accelerator.no_sync(model):
                loss += super().training_step(model, part, *arguments, **settings)
            # Trainer counts the operations and tokens of the last part itself.
            self.current_flos += float(self.floating_point_ops(part))
            self._track_num_input_tokens(part)
            self.update = self.schedule.step()  # The next part of this batch begins.
        return loss + super().training_step(model, inputs, *arguments, **settings)

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
        loss = super().compute_loss(model, inputs, *arguments, **settings)
        # The loss of an evaluation has no weight. Nor has a loss with ``num_items_in_batch``, which
        # is divided by the tokens of the whole batch.
        if not model.training or settings.get("num_items_in_batch") is not None:
            return loss
        if isinstance(loss, tuple):  # Trainer may ask for the outputs, too.
            return loss[0] * self.update.weight, *loss[1:]
        return loss * self.update.weight
