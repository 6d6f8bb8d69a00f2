"""Counts the updates of a plan, and makes the batches of a stream."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch.distributed as dist

from igo.method import batches
from igo.method.arguments import PlanError
from igo.method.plan import Plan
from igo.method.stages import Place

STEP = "call schedule.step() (or advance() of the sampler) before each update"


@dataclass(frozen=True)
class Update(Place):
    """One parameter update, or one part of it. The gradients of the parts add up.

    ``number``, ``epoch`` and ``batch`` (in the epoch, of ``batches``) count from 1, and so does
    ``part`` of ``parts``. ``own`` is the number of samples of this part on this rank.
    """

    own: int
    ranks: int
    part: int = 1
    parts: int = 1

    @property
    def batch_size(self) -> int:
        """Samples of the batch over all ranks and parts."""
        return self.size

    @property
    def weight(self) -> float:
        """The factor of a part's mean loss if ranks average gradients (DDP).

        It is own · ranks / batch_size: 1 for one part and equal shares. With it, the average over
        ranks, summed over parts, is the gradient of the whole batch's mean loss.
        """
        return self.own * self.ranks / self.batch_size

    @property
    def ends(self) -> bool:
        """Whether this is the last part. Call ``optimizer.step()`` after the last part only."""
        return self.part == self.parts

    @property
    def ends_epoch(self) -> bool:
        """Whether this is the last part of the epoch's last update."""
        return self.ends and self.batch == self.batches


class Counter:
    """Counts the updates of a plan, for your own loaders and for streams.

    >>> plan = igo.plan("constant", samples=10, batch_size=4)
    >>> counter = igo.Counter(plan)
    >>> for batch in counter.batches(range(100)):  # a stream of samples, in the plan's batches
    ...     update = counter.advance()  # with a Schedule: schedule.step()
    ...     print(update.number, batch.tolist())
    1 [0, 1, 2, 3]
    2 [4, 5, 6]
    3 [7, 8, 9]

    Args:
        plan: what ``igo.plan`` returns.
        rank, ranks: this process, from 0, and the number of processes that share each batch.
        group: instead, the process group that shares each batch; by default all processes of
            torch.distributed.
        parts: the most samples that go through the model at once. A larger share of a batch is cut
            into parts, the same number on each rank. Call ``advance`` before each part.

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
        parts: int | None = None,
    ) -> None:
        if not isinstance(plan, Plan):
            kind = type(plan).__name__
            raise TypeError(f"the first argument must be a plan, as igo.plan returns, not a {kind}")
        if parts is not None and not (isinstance(parts, int) and parts >= 1):
            raise PlanError("parts", parts, "it must be a whole number of samples, 1 or more")
        if (rank is None) != (ranks is None):
            raise PlanError("rank" if rank is None else "ranks", None, "rank and ranks go together")
        if rank is not None and not 0 <= rank < (ranks or 0):
            raise PlanError("rank", rank, f"it must be in [0, {ranks}), counted from 0")
        if rank is not None and group is not None:
            raise PlanError("group", "…", "give rank and ranks, or group, not both")
        self.plan, self.updates = plan, 0
        self._rank, self._ranks, self._group = rank, ranks, group
        self._limit = parts
        self._part = 0  # parts of the update in progress that have been counted
        self.owner: weakref.ref[object] | None = None  # the Schedule

    @property
    def rank(self) -> int:
        """This process, from 0."""
        if self._rank is not None:
            return self._rank
        return dist.get_rank(self._group) if _is_distributed() else 0

    @property
    def ranks(self) -> int:
        """How many processes share each batch."""
        if self._ranks is not None:
            return self._ranks
        return dist.get_world_size(self._group) if _is_distributed() else 1

    @property
    def samples(self) -> int:
        """How many samples have been trained on, over all ranks."""
        if not self.updates:
            return 0
        place = self.plan.at(self.updates)
        return (place.epoch - 1) * self.plan.n + place.start + place.size

    @property
    def _start(self) -> tuple[int, int]:
        """The updates that are counted, and the counted parts of the next one."""
        return self.updates, self._part

    @property
    def done(self) -> bool:
        """Whether all updates of the plan are made."""
        return self.updates >= self.plan.updates

    def parts_of(self, size: int) -> int:
        """The number of parts of each rank's share of a batch of ``size`` samples."""
        if self._limit is None:
            return 1
        return batches.count(batches.count(size, self.ranks), self._limit)

    def advance(self) -> Update:
        """Count the update, or the part of one, that is about to be made. Call it before each.

        Raises:
            RuntimeError: all updates of the plan are made.
        """
        if self.done:
            raise RuntimeError(
                f"all {self.plan.updates:,} updates of the plan are done; if that is too early,"
                " the loader does not use the plan's batches: give it batch_sampler=batches"
            )
        update = self._next()
        self.updates, self._part = (
            (update.number, 0) if update.ends else (self.updates, update.part)
        )
        return update

    def _next(self) -> Update:
        """The update to come, or its next part."""
        place = self.plan.at(self.updates + 1)
        parts = self.parts_of(place.size)
        share = len(range(self.rank, place.size, self.ranks))
        low, high = batches.bounds(share, parts, self._part)
        return Update(
            **vars(place), own=high - low, ranks=self.ranks, part=self._part + 1, parts=parts
        )

    def epochs(self) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, counted from 1.

        After a resume the first is the epoch in progress.

        Raises:
            RuntimeError: no update was counted in an epoch.
        """
        while not self.done:
            before = self._start
            epoch = self.plan.at(self.updates + 1).epoch
            self.begin_epoch()
            yield epoch
            if before == self._start:
                raise RuntimeError(f"no update was counted in epoch {epoch}: {STEP}")
            self.check_epoch()

    def begin_epoch(self) -> None:
        """Called when an epoch begins."""

    def check_epoch(self) -> None:
        """Called when an epoch has ended or was left early."""

    def batches(
        self, samples: Iterable[Any], collate: Callable[[list[Any]], Any] | None = None
    ) -> Iterator[Any]:
        """Group this rank's samples of a stream into its shares of the plan's batches.

        Each batch has the size of the next update. Samples are grouped in this process, so workers
        of the stream may fetch ahead: give a DataLoader with ``batch_size=None``. With ``parts``
        each part is yielded as a batch.

        Args:
            samples: this rank's samples; after a resume those that come next.
            collate: makes a batch from a list, by default PyTorch's ``default_collate``.

        Raises:
            RuntimeError: the stream ends before the plan, or an update was not counted.
        """
        from torch.utils.data import default_collate

        if getattr(samples, "batch_size", None) is not None:
            allowed = "the loader makes batches of its own; give it batch_size=None"
            raise PlanError("samples", "DataLoader", allowed)
        self.check_shares()
        stream, make = iter(samples), collate or default_collate
        while not self.done:
            update, before = self._next(), self._start
            batch = list(islice(stream, update.own))
            if len(batch) < update.own:
                raise RuntimeError(
                    f"the stream ended in update {update.number:,} of {self.plan.updates:,}, before"
                    f" all {self.plan.samples:,} samples of the plan"
                )
            yield make(batch)
            if before == self._start:
                raise RuntimeError(f"a batch was taken and no update was counted: {STEP}")

    def state_dict(self) -> dict[str, Any]:
        """The number of updates made, and the identity of their plan."""
        return {"updates": self.updates, **self.plan.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was called.

        Raises:
            PlanError: the state is of another plan, or of no sampler.
        """
        if "rates" not in state:
            held = ", ".join(map(str, state)) or "nothing"
            allowed = f"the state has {held}; give what the sampler's state_dict() returned"
            raise PlanError("plan", "…", allowed)
        if not self.plan.is_that_of(state):
            ours = self.plan.arguments
            theirs = state.get("arguments", ours)
            differ = [
                f"{name}={theirs.get(name)!r} (here {ours.get(name)!r})"
                for name in {**ours, **theirs}
                if theirs.get(name) != ours.get(name)
            ]
            other = f"a plan with {', '.join(differ)}" if differ else "another plan"
            allowed = f"the checkpoint is of {other}; give igo.plan the same arguments"
            raise PlanError("plan", "…", allowed)
        self.updates, self._part = state["updates"], 0

    def check_shares(self) -> None:
        """Refuse more ranks than an update to come has samples."""
        sizes = self.plan.sizes_from(min(self.updates + 1, self.plan.updates))
        if self.ranks > min(sizes):
            allowed = f"the plan has batches of {min(sizes)}, fewer samples than ranks"
            raise PlanError("ranks", self.ranks, allowed)
        if self._limit == 1 and any(size % self.ranks for size in sizes):
            allowed = (
                f"a batch that is no multiple of {self.ranks} ranks has unequal shares, and so"
                " unequal numbers of parts; use parts=2"
            )
            raise PlanError("parts", 1, allowed)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
