"""The batches of a plan, of a data set: shuffled, cut and shared among processes.

A sampler's iteration yields the batches from the next update to the end of its epoch. The sizes of
all batches are planned before the first batch is taken. So the batch size b changes at the planned
update, also inside an epoch, however many batches workers fetch ahead.
"""

import warnings
from collections.abc import Iterator, Mapping, Sized
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from igo.ground.seeds import generator
from igo.loop.counter import Counter
from igo.loop.seeded import Indices
from igo.plans import batches
from igo.plans.arguments import PlanError, PlanWarning
from igo.plans.plan import Plan


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's samples, (n,) int64: it depends on (seed, epoch) alone."""
    return torch.randperm(n, generator=generator(seed, "permutation", epoch))


class BatchSampler(Counter, Sampler[list[int]]):
    """The batches of a plan: each iteration is an epoch, or the rest of one.

    An iteration yields lists of indices into the data, one list for each batch, for a DataLoader's
    ``batch_sampler``. After the plan's end an iteration is the last epoch again. Each epoch is a
    permutation of all n samples. The segment of the permutation that belongs to stage m is cut into
    k_m equal batches. The permutation depends on (seed, epoch) alone. With several processes,
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
        rank, ranks, micro_batch_size: see ``igo.Counter``. With ``micro_batch_size`` a
            loader yields parts of batches; step the optimizer after ``update.is_last_part``.

    Attributes:
        updates: how many updates have been made. ``state_dict`` holds it: a checkpoint in mid-epoch
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
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__(plan, rank=rank, ranks=ranks, micro_batch_size=micro_batch_size)
        check_length(plan, data)
        self.seed, self._delivers = index(seed), True
        self.sampler = range(plan.n)  # Trainers look for a ``sampler`` in batch samplers.
        # The updates counted when the newest pass gave the last batch of its epoch. It is -1 for a
        # pass that skips nothing: by then none of its batches was counted, or all.
        self._updates_at_end = -1

    def __len__(self) -> int:
        """The batches, each counted by its parts, of the newest epoch, or else of the first one."""
        rows = self.plan.rows_of_epoch(self._epoch or self._next_epoch)
        return sum(
            batch_count * self.parts_of(size)
            for row in rows
            for size, batch_count in batches.counts_by_size(row.samples, row.batches).items()
        )

    def __iter__(self) -> Iterator[list[int]]:
        """The batches left of the epoch in progress; after the plan, its whole last epoch again."""
        self._epoch, updates = self._next_epoch, self.updates
        if self.done:  # The last epoch comes again, for BatchNorm's statistics and the like.
            updates -= self.plan.batches_of_epoch(self._epoch)
        elif self._has_skipped_end():
            warnings.warn(
                f"a pass over the loader ended, and {len(self._delivered)} of its batches were not"
                " counted: leave out what skips batches after a resume (Composer:"
                " spin_dataloaders=False), and give PyTorch's own DataLoader, which does not repeat"
                " its sampler by itself, batch_sampler=batches",
                PlanWarning,
                stacklevel=2,
            )
        return self._pass(self._epoch, updates)

    def _has_skipped_end(self) -> bool:
        """Whether the loop took the last batch of an epoch and did not count that batch.

        A loop that is left early does not count the last batch either, if workers had fetched that
        batch ahead. But such a loop counts an update after the last batch was fetched. A loader
        that repeats its sampler by itself begins the next pass before any update is counted.
        """
        gave_end = any(update.ends_epoch for update in self._delivered.values())
        counted_none_since = self._updates_at_end == self.updates
        # After a resume, a trainer that skips batches may take the rest of the epoch in progress
        # before it counts an update. ``schedule(loader)`` counts each batch, and then sets 0 here.
        is_resumed = self._resumed_epoch == self._epoch
        return gave_end and (counted_none_since or is_resumed)

    def _pass(self, epoch: int, updates: int) -> Iterator[list[int]]:
        """Yield this rank's indices of each batch, or part of one, to the end of an epoch.

        The first batch is that of the epoch's update after the plan's first ``updates`` updates.
        """
        order = permutation(self.plan.n, self.seed, epoch)
        updates_at_start = self.updates
        for update in self._parts_after(updates):
            self._deliver(update)
            # This rank has every R-th sample of the order, and ``stop`` is after its last one.
            stop = update.start + update.samples * update.ranks
            # A worker does not have the sampler, so the list itself carries what igo.Seeded needs.
            indices = Indices(order[update.start : stop : update.ranks].tolist())
            indices.seed, indices.epoch = self.seed, epoch
            yield indices
            if update.ends_epoch:
                # A pass whose batches were not counted so far evaluates, and skips nothing.
                is_mid_pass = updates_at_start < self.updates < update.number
                self._updates_at_end = self.updates if is_mid_pass else -1
                return

    def state_dict(self) -> dict[str, Any]:
        """The number of updates made, the identity of their plan, and the seed."""
        return {**super().state_dict(), "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called, with its seed.

        Raises:
            PlanError: the state is of another plan.
        """
        super().load_state_dict(state)
        self.seed = state.get("seed", self.seed)  # A Counter's state has no seed.


def check_length(plan: Plan, data: object) -> None:
    """Raise a PlanError unless the data set has the plan's n samples."""
    if isinstance(data, DataLoader):
        raise PlanError("data", type(data).__name__, "give the data set of the loader")
    samples = len(data) if isinstance(data, Sized) else "no number of"
    if samples != plan.n:
        cure = "make the plan with n=len(data); a stream, without a length, takes igo.Counter"
        raise PlanError("n", plan.n, f"the data set has {samples} samples; {cure}")
