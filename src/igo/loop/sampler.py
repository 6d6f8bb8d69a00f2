"""Counts the updates of a plan, and makes its batches: of a data set or of a stream.

A sampler's iteration yields the batches from the next update to the end of its epoch. Their sizes
are planned before the first batch is taken. So b changes at the planned update, also inside an
epoch, however many batches workers fetch ahead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from itertools import islice
from operator import index
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler, default_collate

from igo.ground.seeds import generator
from igo.loop.seeded import Indices
from igo.plans import batches
from igo.plans.arguments import PlanError
from igo.plans.plan import Plan
from igo.plans.stages import Update

GIVE = (
    "give the DataLoader batch_sampler=batches, and keep it from accelerator.prepare and"
    " skip_first_batches (in Lightning it is graduated.loader())"
)
NOT_GIVEN = (
    f"an update was counted and the sampler gave no batch for it: {GIVE}, and count each batch"
    " once, by schedule(loader) or by schedule.step(); to accumulate gradients, give the sampler"
    " micro_batch_size="
)


class Counter:
    """Counts the updates of a plan, for your own loaders and for streams.

    >>> plan = igo.plan("constant", samples=10, batch_size=4)
    >>> counter = igo.Counter(plan)
    >>> for batch in counter.batches(range(100)):  # a stream of samples, in the plan's batches
    ...     update = counter.advance()  # schedule(counter.batches(…)) does it
    ...     print(update.number, batch.tolist())
    1 [0, 1, 2, 3]
    2 [4, 5, 6]
    3 [7, 8, 9]

    Args:
        plan: what ``igo.plan`` returns.
        rank, ranks: this process, from 0, and the number of processes that share each batch.
        group: instead, the process group that shares each batch; by default all processes of
            torch.distributed.
        micro_batch_size: the most samples that go through the model at once, over all ranks. A
            larger batch is cut into parts, the same number on each rank, and each part is counted.

    Attributes:
        updates: how many have been made, with all of their parts. ``state_dict`` holds it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        rank: int | None = None,
        ranks: int | None = None,
        group: Any = None,
        micro_batch_size: int | None = None,
    ) -> None:
        if not isinstance(plan, Plan):
            kind = type(plan).__name__
            raise TypeError(f"the first argument must be a plan, as igo.plan returns, not a {kind}")
        micro = plan.n if micro_batch_size is None else index(micro_batch_size)
        if micro < 1:
            raise PlanError("micro_batch_size", micro, "it must be 1 or more")
        # Unless rank and ranks are given, the process group is asked at each use, because
        # torch.distributed may be started after the sampler is made.
        self._place: tuple[int, int] | None = None
        if rank is not None or ranks is not None:
            if rank is None or ranks is None or group is not None or not 0 <= rank < ranks:
                advice = f"give rank in [0, ranks={ranks}) and ranks together, or group, or none"
                raise PlanError("rank", rank, advice)
            self._place = rank, ranks
        self.plan, self._group, self._micro = plan, group, micro
        # The position is whole updates, and the parts that were counted of the next one.
        self.updates, self._parts_made = 0, 0
        self._epoch = 0  # the newest epoch that has begun; 0 at the start and after a resume
        # Whether batches come from here. A loader of your own takes none. Then each call of
        # ``advance`` counts what the plan has next.
        self._delivers = False
        # Workers fetch ahead. These updates, by (number, part), were delivered and are not counted.
        self._delivered: dict[tuple[int, int], Update] = {}
        # All batches after so many updates are known to have a sample for each rank.
        self._ranks_fit_after = plan.updates

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return self._of_ranks[0]

    @property
    def ranks(self) -> int:
        """How many processes share each batch."""
        return self._of_ranks[1]

    @property
    def _of_ranks(self) -> tuple[int, int]:
        if self._place is None and dist.is_available() and dist.is_initialized():
            return dist.get_rank(self._group), dist.get_world_size(self._group)
        return self._place or (0, 1)

    @property
    def samples(self) -> int:
        """How many samples have been trained on, over all ranks."""
        return self.plan.samples_of(self.updates)

    @property
    def done(self) -> bool:
        """Whether all updates of the plan are made."""
        return self.updates >= self.plan.updates

    def advance(self) -> Update:
        """Count the update, or the part of one, that is about to be made.

        Raises:
            RuntimeError: all updates of the plan are made, or the sampler gave no batch for it.
        """
        if self.done:
            raise RuntimeError(
                f"all {self.plan.updates:,} updates of the plan are done; loop over"
                " batches.epochs(), or begin with a new sampler and schedule"
            )
        update = self._delivered.pop((self.updates + 1, self._parts_made + 1), None)
        if update is None:
            if self._delivers:
                raise RuntimeError(NOT_GIVEN)
            update = next(self._updates_after(self.updates, self._parts_made))
        # Half of a gradient is in no checkpoint, so an update counts once its last part is counted,
        # and a resume begins it again.
        self.updates = update.number if update.is_last_part else update.number - 1
        self._parts_made = 0 if update.is_last_part else update.part
        return update

    def _updates_after(self, updates: int, parts_made: int) -> Iterator[Update]:
        """Yield this rank's parts of the plan that follow a position, each as an ``Update``."""
        rank, ranks = self._of_ranks
        if ranks > 1 and updates < self._ranks_fit_after:
            # The rows are searched once and not at each pass, as there may be many.
            rows_left = self.plan.rows[self.plan.rows.index(self.plan.at(updates + 1).row) :]
            smallest_batch = min(row.samples // row.batches for row in rows_left)
            if ranks > smallest_batch:
                problem = f"the plan has batches of {smallest_batch} samples"
                raise PlanError("ranks", ranks, problem)
            self._ranks_fit_after = updates
        for number in range(updates + 1, self.plan.updates + 1):
            update = self.plan.at(number)
            parts = batches.parts(update.batch_size, self._micro, ranks)
            if parts == ranks == 1:
                yield update
                continue
            # A rank has each R-th sample of the batch. Shares differ by one sample at most, and any
            # number of ranks trains the same batch.
            share = len(range(rank, update.batch_size, ranks))
            for part in range(parts_made, parts):
                low, high = batches.bounds(share, parts, part)
                start, samples = update.start + rank + ranks * low, high - low
                yield replace(
                    update, start=start, samples=samples, ranks=ranks, part=part + 1, parts=parts
                )
            parts_made = 0  # The updates that follow begin with their first part.

    def epochs(self) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, counted from 1, not from 0 as by range.

        So the last one is ``plan.epochs``. After a resume the first is the epoch in progress.

        Raises:
            RuntimeError: no update was counted in an epoch.
        """
        while not self.done:
            position = self.updates, self._parts_made
            self._epoch = epoch = self._next_epoch
            yield epoch
            # Nothing was counted, so nothing ever will be, and the loop would not end.
            if position == (self.updates, self._parts_made):
                raise RuntimeError(
                    f"no update was counted in epoch {epoch}: loop over schedule(loader), or call"
                    " schedule.step() before each update"
                )

    @property
    def _next_epoch(self) -> int:
        """The epoch of the next update; after the last one, the last epoch."""
        return self.plan.at(min(self.updates + 1, self.plan.updates)).epoch

    def batches(
        self, samples: Iterable[Any], collate: Callable[[list[Any]], Any] | None = None
    ) -> Iterator[Any]:
        """Group this rank's samples of a stream into its shares of the plan's batches.

        Samples are grouped in this process, so workers of the stream may fetch ahead: give a
        DataLoader with ``batch_size=None``. With ``micro_batch_size`` each part is a batch.

        A DataLoader with a ``batch_size`` makes micro-batches by itself, and each is a part as it
        is. The plan's batches must be whole ones: ``micro_batch_size`` and the plan's
        ``batch_multiple`` are the loader's ``batch_size`` times the ranks. Give the loader
        ``drop_last=True``.

        Args:
            samples: this rank's samples, or micro-batches; after a resume those that come next.
            collate: makes a batch from a list, by default PyTorch's ``default_collate``.

        Raises:
            PlanError: the loader's micro-batches are not the plan's parts.
            RuntimeError: the stream ends before the plan.
        """
        size = getattr(samples, "batch_size", None)
        if size is not None:  # The loader makes micro-batches of this size on each rank.
            micro = size * self.ranks
            ragged = any(row.samples % (row.batches * micro) for row in self.plan.rows)
            if ragged or self._micro != micro:
                advice = (
                    f"it makes micro-batches of {size} on each rank, which are no parts of the"
                    f" plan's batches; make these multiples of {micro}, and give igo.Counter"
                    f" micro_batch_size={micro}, or give the loader batch_size=None"
                )
                raise PlanError("samples", "DataLoader", advice)
        stream, make = iter(samples), collate or default_collate
        self._delivers = True
        for update in self._updates_after(self.updates, self._parts_made):
            # A micro-batch is a part already, and is not collated again.
            length = update.samples if size is None else 1
            batch = list(islice(stream, length))
            if len(batch) < length:
                raise RuntimeError(
                    f"the stream ended in update {update.number:,} of {self.plan.updates:,}, before"
                    f" all {self.plan.samples:,} samples of the plan"
                )
            self._delivered[update.number, update.part] = update
            yield make(batch) if size is None else batch[0]

    def state_dict(self) -> dict[str, Any]:
        """The number of updates made, and the identity of their plan."""
        return {"updates": self.updates, **self.plan.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called.

        Raises:
            PlanError: the state is of another plan, or of no sampler.
        """
        if "rates" not in state:
            keys = ", ".join(map(str, state)) or "nothing"
            advice = f"the state has {keys}; give what state_dict() returned"
            raise PlanError("plan", "…", advice)
        if not self.plan.is_that_of(state):
            arguments = self.plan.arguments
            saved_arguments = state.get("arguments", arguments)  # an earlier version had fewer
            differences = [
                f"{name}={saved!r} (here {arguments.get(name)!r})"
                for name, saved in saved_arguments.items()
                if saved != arguments.get(name)
            ]
            saved_plan = f"a plan with {', '.join(differences)}" if differences else "another plan"
            advice = f"the checkpoint is of {saved_plan}; give igo.plan the same arguments"
            raise PlanError("plan", "…", advice)
        self.updates, self._parts_made = state["updates"], 0
        self._epoch, self._delivered = 0, {}


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's samples, (n,) int64: it depends on (seed, epoch) alone."""
    return torch.randperm(n, generator=generator(seed, "permutation", epoch))


class BatchSampler(Counter, Sampler[list[int]]):
    """The batches of a plan: each iteration is an epoch, or the rest of one; at last, the last.

    It yields lists of indices into the data, one list for each batch, for a DataLoader's
    ``batch_sampler``. Each epoch is a permutation of all n samples. A stage's segment of it is cut
    into k_m equal batches. The permutation depends on (seed, epoch) alone. With several processes,
    rank r of R gets the samples r, r + R, r + 2R, … of each batch.

    >>> data = torch.arange(10.0)
    >>> plan = igo.plan("step", gamma=0.7, n=len(data), epochs=2, batch_size=4, split=0)
    >>> batches = igo.BatchSampler(plan, data, seed=0)
    >>> loader = torch.utils.data.DataLoader(data, batch_sampler=batches)
    >>> for epoch in batches.epochs():
    ...     for batch in loader:
    ...         update = batches.advance()  # schedule(loader) does it
    ...         print(update.epoch, update.number, len(batch))
    1 1 4
    1 2 3
    1 3 3
    2 4 5
    2 5 5

    Args:
        plan: what ``igo.plan`` returns.
        data: the data set, which has the plan's n samples.
        seed: of the permutations, the same on all processes.
        rank, ranks, group, micro_batch_size: see ``igo.Counter``. With ``micro_batch_size`` a
            loader yields parts of batches; step the optimizer after ``update.is_last_part``.

    Attributes:
        updates: how many have been made. ``state_dict`` holds it: a checkpoint in mid-epoch
            continues with the next sample, on any number of ranks, with workers or without.

    Raises:
        PlanError: the data set has another length.
    """

    def __init__(
        self,
        plan: Plan,
        data: Sized,
        *,
        seed: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
        group: Any = None,
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            plan, rank=rank, ranks=ranks, group=group, micro_batch_size=micro_batch_size
        )
        check_length(plan, data)
        self.seed, self._delivers = index(seed), True

    def __len__(self) -> int:
        """All batches (or parts) of the newest epoch."""
        length = 0
        for row in self.plan.rows_of_epoch(self._epoch or self._next_epoch):
            for size, count in batches.counts(row.samples, row.batches).items():
                length += count * batches.parts(size, self._micro, self.ranks)
        return length

    def __iter__(self) -> Iterator[list[int]]:
        self._epoch, updates = self._next_epoch, self.updates
        if self.done:  # The last epoch comes again, for BatchNorm's statistics and the like.
            updates -= self.plan.batches_of_epoch(self._epoch)
        return self._pass(self._epoch, self._updates_after(updates, self._parts_made))

    def _pass(self, epoch: int, next_updates: Iterator[Update]) -> Iterator[list[int]]:
        """Yield this rank's indices of each batch, or part of one, to the end of the epoch."""
        order = permutation(self.plan.n, self.seed, epoch)
        for update in next_updates:
            self._delivered[update.number, update.part] = update
            start, ranks = update.start, update.ranks
            # A worker does not have the sampler, so the list itself carries what igo.Seeded needs.
            indices = Indices(order[start : start + update.samples * ranks : ranks].tolist())
            indices.seed, indices.epoch = self.seed, epoch
            yield indices
            if update.ends_epoch:
                return

    def state_dict(self) -> dict[str, Any]:
        """The number of updates made, the identity of their plan, and the seed."""
        return {**super().state_dict(), "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called, with its seed.

        Raises:
            PlanError: it is of another plan.
        """
        super().load_state_dict(state)
        self.seed = state.get("seed", self.seed)


def check_length(plan: Plan, data: object) -> None:
    """Raise a PlanError unless the data set has the plan's n samples."""
    samples = len(data) if isinstance(data, Sized) else "no number of"
    if samples != plan.n:
        cure = "make the plan with n=len(data); a stream, without a length, takes igo.Counter"
        raise PlanError("n", plan.n, f"the data set has {samples} samples; {cure}")
