"""The plan's batches for any DataLoader.

Each iteration yields the batches from the next update to the end of its epoch. Their sizes are
planned before the first batch is taken. So b changes at the planned update, also inside an epoch,
however many batches workers fetch ahead.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator, Sized
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler as InOrder
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from igo.method import batches, orders
from igo.method.arguments import PlanError, PlanWarning
from igo.method.counter import STEP, Counter
from igo.method.plan import Plan
from igo.method.stages import Place
from igo.method.update import Update

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


WRAPPED = (
    "a {} wraps the sampler, and would shard or skip its batches again: the sampler itself shares"
    " each batch among processes and continues after a resume. With Accelerate use"
    " igo.adapters.accelerate.prepare(accelerator, loader) instead of"
    " accelerator.prepare(loader), and leave skip_first_batches out"
)
STATEFUL = (
    "a loaded StatefulDataLoader with workers goes back to the start of its epoch, and the sampler"
    " does not: use torch.utils.data.DataLoader and save batches.state_dict(), with which training"
    " continues with the next sample"
)


class BatchSampler(Counter, Sampler[list[int]]):
    """The batches of a plan: each iteration is an epoch, or the rest of one.

    Each epoch is a permutation of all n samples. A stage's segment of it is cut into k_m equal
    batches. The permutation depends on (seed, epoch) alone. With several processes, rank r of R
    gets the samples r, r + R, r + 2R, … of each batch.

    >>> plan = igo.plan("step", gamma=0.7, n=10, epochs=2, learning_rate=0.1, batch_size=4, split=0)
    >>> batches = igo.BatchSampler(plan, seed=0)
    >>> loader = torch.utils.data.DataLoader(torch.arange(10.0), batch_sampler=batches)
    >>> for epoch in batches.epochs():
    ...     for batch in loader:
    ...         update = batches.advance()  # with a Schedule: schedule.step()
    ...         print(update.epoch, update.number, len(batch))
    1 1 4
    1 2 3
    1 3 3
    2 4 5
    2 5 5

    Args:
        plan: what ``igo.plan`` returns.
        seed: of the permutations.
        data: the data set. Its length is checked against the plan's n at the start of each epoch.
            It can also be set later, as an attribute.
        rank, ranks, group, mesh, parts: see ``igo.Counter``. With ``parts`` a loader yields parts
            of batches, and ``update.ends`` says when to call ``optimizer.step()``.

    Attributes:
        updates: how many have been made. ``state_dict`` holds it: a checkpoint in mid-epoch
            continues with the next sample, on any number of ranks, with workers or without.
    """

    def __init__(
        self,
        plan: Plan,
        seed: int = 0,
        *,
        data: Sized | None = None,
        rank: int | None = None,
        ranks: int | None = None,
        group: Any = None,
        mesh: DeviceMesh | None = None,
        parts: int | None = None,
    ) -> None:
        super().__init__(plan, rank=rank, ranks=ranks, group=group, mesh=mesh, parts=parts)
        self.seed = seed
        self.data: object = data
        self._begun: Place | None = None  # where the newest epoch began, or was resumed
        self._pass: Pass | None = None  # the newest iteration
        self.check_data()

    def __len__(self) -> int:
        """All batches (or parts) of the newest epoch."""
        begun = self._begun or self.plan.at(min(self.updates + 1, self.plan.updates))
        count = 0
        for row in self.plan.segments(begun.epoch):
            sizes = batches.counts(row.samples, row.batches)
            count += sum(number * self.parts_of(size) for size, number in sizes.items())
        return count

    def __iter__(self) -> Iterator[list[int]]:
        if not torch.is_grad_enabled():
            raise RuntimeError(
                "the training loader was iterated with gradients disabled: it yields the batches of"
                " the updates to come, until the end of the epoch. To evaluate, or for update_bn,"
                " use DataLoader(data, batch_sampler=batches.evaluation(batch_size))"
            )
        caller = sys._getframe(1)
        wrapper = caller.f_locals.get("self")
        if isinstance(wrapper, Sampler):
            raise RuntimeError(WRAPPED.format(type(wrapper).__name__))
        if type(wrapper).__module__.startswith("torchdata."):
            raise RuntimeError(STATEFUL)
        self.check_shares()
        self.check_data()
        self.check_epoch()
        if self.done:
            warnings.warn(
                f"all {self.plan.updates:,} updates of the plan are done, so there are no batches:"
                " to evaluate, use batches.evaluation(batch_size)",
                PlanWarning,
                stacklevel=2,
            )
        elif self._pass is not None and self._pass.ended and self._pass.start == self._start:
            warnings.warn(f"this epoch's batches are given out again: {STEP}", stacklevel=2)
        self.begin_epoch()
        self._pass = Pass(self, self._start, _fetched_ahead(caller))
        return self._pass

    def begin_epoch(self) -> None:
        """Note that an epoch begins; ``len`` is then its length."""
        self._begun = self.plan.at(min(self.updates + 1, self.plan.updates))

    def epoch_from(self, start: int, part: int = 0) -> Iterator[list[int]]:
        """Yield this rank's batches after ``start`` updates and ``part`` parts, in that epoch."""
        if start >= self.plan.updates:
            return
        place = self.plan.at(start + 1)
        rank, ranks = self.rank, self.ranks
        order = orders.of_epoch(self.plan.n, self.seed, place.epoch)
        for update in range(start + 1, start + 2 + place.batches - place.batch):
            place = self.plan.at(update)
            share = order.part(place.start, place.start + place.size)[rank::ranks]
            parts = self.parts_of(place.size)
            for index in range(part, parts):
                low, high = batches.bounds(len(share), parts, index)
                yield share[low:high]
            part = 0

    def advance(self) -> Update:
        """Count the update, or the part of one, that is about to be made. Call it before each.

        Raises:
            RuntimeError: all updates of the plan are made, or an earlier batch was not counted.
        """
        if self._pass is not None:
            self._pass.count()
        elif self._begun is not None and self._begun.number == self.updates + 1:
            warnings.warn(
                "no loader has taken batches from this sampler: give the DataLoader"
                " batch_sampler=batches, or use igo.Counter for a loader of your own",
                PlanWarning,
                stacklevel=3,
            )
        return super().advance()

    def check_epoch(self) -> None:
        """Check an epoch that has ended, or was left early.

        Raises:
            RuntimeError: batches were taken and not counted.
        """
        if self._pass is not None:
            self._pass.check_end()

    def evaluation(self, batch_size: int) -> Sampler[list[int]]:
        """Batches of all samples in order, alike on each rank, for evaluation and ``update_bn``."""
        return InOrder(SequentialSampler(range(self.plan.n)), batch_size, drop_last=False)

    def state_dict(self) -> dict[str, Any]:
        """The number of updates made, the identity of their plan, and the seed."""
        return {**super().state_dict(), "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was called, with its seed.

        Raises:
            PlanError: it is of another plan.
        """
        super().load_state_dict(state)
        self.seed = state.get("seed", self.seed)
        self._pass = self._begun = None

    def check_data(self) -> None:
        """Refuse a data set of another length than the plan's n."""
        if self.data is None:
            return
        if not isinstance(self.data, Sized):
            raise PlanError("data", "…", "a stream has no length; use igo.Counter for it")
        if len(self.data) != self.plan.n:
            allowed = f"the data set has {len(self.data)} samples; make the plan with n=len(data)"
            raise PlanError("n", self.plan.n, allowed)


class Pass(Iterator[list[int]]):
    """One iteration. It notices batches that were taken and not counted.

    A loader fetches a constant number of batches ahead. At the first update of an iteration it has
    taken one more than that number. ``usual`` is the number by the loader's settings; if it is
    known and smaller, the first batches were skipped.
    """

    def __init__(self, sampler: BatchSampler, start: tuple[int, int], usual: int | None) -> None:
        self.start, self.ended, self._usual = start, False, usual
        self._batches = sampler.epoch_from(*start)
        self._asked = self._given = self._counted = 0  # asking goes on after the last batch
        self._ahead: int | None = None

    def __next__(self) -> list[int]:
        self._asked += 1
        try:
            batch = next(self._batches)
        except StopIteration:
            self.ended = True
            raise
        self._given += 1
        return batch

    def count(self) -> None:
        """Count one batch."""
        if self._asked == 0:  # no loader has taken a batch
            return
        self._counted += 1
        if self._ahead is None:
            self._ahead = self._asked - 1
            if self._usual is not None and self._ahead > self._usual:
                warnings.warn(
                    f"{self._ahead - self._usual} of the loader's batches were taken before the"
                    f" first update of this epoch, and are not trained on: {STEP}. Ignore this only"
                    " if your own code fetches batches ahead",
                    PlanWarning,
                    stacklevel=4,
                )
        skipped = self._asked - self._ahead - self._counted
        if skipped > 0:
            self._complain(skipped)
        if self._counted > self._given or (skipped < 0 and self._usual is not None):
            raise RuntimeError(
                f"schedule.step() was called {self._counted} times in this epoch, for"
                f" {min(self._given, self._asked - self._ahead)} of the loader's batches: call it"
                " once for each. To accumulate gradients, give the sampler parts="
            )

    def check_end(self) -> None:
        """Check an iteration that is over. After an early end its last batch may be uncounted."""
        if self._ahead is not None and self._asked - self._ahead - self._counted > 1:
            self._complain(self._asked - self._ahead - self._counted - 1)

    def _complain(self, skipped: int) -> None:
        raise RuntimeError(
            f"{skipped} of the loader's batches were taken and not counted: {STEP}; if a loss is"
            " not finite, skip optimizer.step(), not schedule.step()"
        )


def _fetched_ahead(frame: FrameType | None) -> int | None:
    """The batches that the DataLoader in this frame fetches ahead.

    None if that is not known: there is no DataLoader, or a generator around it may hold batches.
    """
    loader = frame.f_locals.get("loader") if frame else None
    while frame is not None and frame.f_globals.get("__name__") == DataLoader.__module__:
        frame = frame.f_back
    if not isinstance(loader, DataLoader) or frame is None:
        return None
    if frame.f_code.co_flags & inspect.CO_GENERATOR:
        return None
    return loader.num_workers * (loader.prefetch_factor or 0)
