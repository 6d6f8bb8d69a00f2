"""The plan's batches for any DataLoader, and the one count of where training stands.

A DataLoader with workers asks for batches long before they are trained, so what it has been given
says nothing about where training stands. Therefore the position of a ``BatchSampler`` is the number
of updates that training has counted, by ``advance`` (``Schedule.step`` calls it). From that number
everything else follows: the epoch, its permutation, the batch in it, and η_m. Each iteration goes
from there to the end of the epoch. An epoch is of one stage, so the batch size changes between two
iterations and no batch is prefetched across the change.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch.utils.data import Sampler

from igo.method import batches
from igo.method.arguments import PlanError
from igo.method.plan import Plan, Stage


@dataclass(frozen=True, slots=True)
class Update:
    """One parameter update, as training makes it.

    ``number``, ``epoch`` and ``batch`` (in the epoch) count from 1. ``batch_size`` is that of the
    batch over all ranks, ``own`` this rank's share of it.
    """

    number: int
    epoch: int
    batch: int
    stage: Stage
    batch_size: int
    own: int
    ranks: int

    @property
    def weight(self) -> float:
        """What a rank's mean loss is multiplied by where ranks average gradients (DDP).

        1 where all ranks have equal shares; in general own · ranks / batch_size, which makes the
        average the gradient of the mean over the whole batch.
        """
        return self.own * self.ranks / self.batch_size

    @property
    def ends_epoch(self) -> bool:
        """Whether it is its epoch's last."""
        return self.batch == self.stage.batches


class BatchSampler(Sampler[list[int]]):
    """The batches of a plan: each iteration is an epoch, or what is left of it.

    Every epoch is a permutation of all n samples, cut into its stage's k_m equal batches; both
    depend on (seed, epoch) alone. Where several processes train together, rank r of R gets
    the samples r, r + R, r + 2R, … of each batch, so sizes differ by at most one.

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
        rank, ranks: this process among those that train together; by default those of
            torch.distributed, if it is initialised when an iteration begins.

    Attributes:
        updates: how many have been trained. ``state_dict`` holds it: a checkpoint in mid-epoch
            goes on with the very next sample, on any number of ranks, workers or not.
    """

    def __init__(
        self, plan: Plan, seed: int = 0, rank: int | None = None, ranks: int | None = None
    ) -> None:
        if (rank is None) != (ranks is None):
            missing = "rank" if rank is None else "ranks"
            raise PlanError(missing, None, "rank and ranks go together")
        if rank is not None and ranks is not None and not 0 <= rank < ranks:
            raise PlanError("rank", rank, f"it must be in [0, {ranks}), counted from 0")
        self.plan, self.seed, self.updates = plan, seed, 0
        self._rank, self._ranks = rank, ranks
        self._smallest = plan.batch_sizes[-1]
        self._given: int | None = None  # where an iteration began that has given out its epoch
        self._check_shares()

    @property
    def rank(self) -> int:
        """This process, from 0."""
        if self._rank is not None:
            return self._rank
        return dist.get_rank() if _together() else 0

    @property
    def ranks(self) -> int:
        """How many processes share each batch."""
        if self._ranks is not None:
            return self._ranks
        return dist.get_world_size() if _together() else 1

    @property
    def done(self) -> bool:
        """Whether all updates of the plan are trained."""
        return self.updates >= self.plan.updates

    def __len__(self) -> int:
        """Batches of the epoch in progress, those already trained included; 0 at the end."""
        return 0 if self.done else self.plan.locate(self.updates + 1)[0].batches

    def __iter__(self) -> Iterator[list[int]]:
        self._check_shares()
        if self._given == self.updates and not self.done:
            warnings.warn(
                "this epoch's batches are given out once more, as no update was counted since:"
                " call schedule.step() (or advance() of the sampler) before each update",
                stacklevel=2,
            )
        return self.epoch_from(self.updates)

    def epoch_from(self, start: int) -> Iterator[list[int]]:
        """This rank's batches from after ``start`` updates to the end of that epoch."""
        if start >= self.plan.updates:
            return
        stage, epoch, first = self.plan.locate(start + 1)
        rank, ranks = self.rank, self.ranks
        drawn = batches.epoch_batches(self.plan.n, stage.batches, self.seed, epoch)
        for batch in drawn[first - 1 :]:
            share = batches.share(len(batch), rank, ranks)
            yield batch[share.start :: share.step].tolist()
        self._given = start

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, from 1; after a resume the first is the one in progress.

        Raises:
            RuntimeError: an epoch in which no update was counted.
        """
        while not self.done:
            before = self.updates
            epoch = self.plan.locate(before + 1)[1]
            yield epoch
            if self.updates == before:
                raise RuntimeError(
                    f"no update was counted in epoch {epoch}:"
                    " call schedule.step() (or advance() of the sampler) before each update"
                )

    def advance(self) -> Update:
        """Count one update, to be made with the batch at hand.

        Raises:
            RuntimeError: the plan has no more.
        """
        if self.done:
            raise RuntimeError(f"all {self.plan.updates:,} updates of the plan are done")
        self.updates += 1
        stage, epoch, batch = self.plan.locate(self.updates)
        large, small = batches.sizes(self.plan.n, stage.batches)
        larger = self.plan.n - small * stage.batches  # that many have one sample more
        size = large if batch <= larger else small
        own = len(batches.share(size, self.rank, self.ranks))
        return Update(self.updates, epoch, batch, stage, size, own, self.ranks)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: updates counted, not batches that workers fetched ahead."""
        return {"updates": self.updates, "seed": self.seed, **self.plan.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, with its seed.

        Raises:
            PlanError: it was taken with another plan.
        """
        if not self.plan.is_that_of(state):
            allowed = "the checkpoint was made with another one; give igo.plan the same arguments"
            raise PlanError("plan", state["plan"], allowed)
        self.updates, self.seed, self._given = state["updates"], state["seed"], None

    def _check_shares(self) -> None:
        if self.ranks > self._smallest:
            allowed = f"the plan has batches of {self._smallest}, fewer samples than ranks"
            raise PlanError("ranks", self.ranks, allowed)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
