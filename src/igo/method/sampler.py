"""The plan's batches for any DataLoader.

Each iteration yields the batches from the next update to the end of its epoch. Their sizes are
planned before the first batch is taken. So b changes at the planned update, also inside an epoch,
however many batches workers fetch ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from igo.ground.seeds import generator
from igo.method import batches
from igo.method.arguments import PlanError
from igo.method.counter import STEP, Counter, Update
from igo.method.plan import Plan
from igo.method.stages import Place


def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's samples, (n,) int64: it depends on (seed, epoch) alone."""
    return torch.randperm(n, generator=generator(seed, "permutation", epoch))


class BatchSampler(Counter, Sampler[list[int]]):
    """The batches of a plan: each iteration is an epoch, or the rest of one.

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
    ...         update = batches.advance()  # with a Schedule: schedule.step()
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
        rank, ranks, group, parts: see ``igo.Counter``. With ``parts`` a loader yields parts of
            batches, and ``update.ends`` says when to call ``optimizer.step()``.

    Attributes:
        updates: how many have been made. ``state_dict`` holds it: a checkpoint in mid-epoch
            continues with the next sample, on any number of ranks, with workers or without.

    Raises:
        PlanError: the data set has another length, or the seed is no whole number.
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
        parts: int | None = None,
    ) -> None:
        super().__init__(plan, rank=rank, ranks=ranks, group=group, parts=parts)
        if not isinstance(data, Sized):
            raise PlanError("data", "…", "a stream has no length; use igo.Counter for it")
        if len(data) != plan.n:
            allowed = f"the data set has {len(data)} samples; make the plan with n=len(data)"
            raise PlanError("n", plan.n, allowed)
        if not isinstance(seed, int):
            raise PlanError("seed", seed, "it must be a whole number")
        self.seed = seed
        self._begun: Place | None = None  # where the newest epoch began, or was resumed
        self._pass = _Pass(iter(()))

    def __len__(self) -> int:
        """All batches (or parts) of the newest epoch."""
        begun = self._begun or self.plan.at(min(self.updates + 1, self.plan.updates))
        count = 0
        for row in self.plan.segments(begun.epoch):
            sizes = batches.counts(row.samples, row.batches)
            count += sum(number * self.parts_of(size) for size, number in sizes.items())
        return count

    def __iter__(self) -> Iterator[list[int]]:
        self.check_shares()
        self.check_epoch()
        self.begin_epoch()
        self._pass = _Pass(self.epoch_from(*self._start))
        return self._pass

    def begin_epoch(self) -> None:
        """Note that an epoch begins; ``len`` is then its length."""
        self._begun = self.plan.at(min(self.updates + 1, self.plan.updates))

    def epoch_from(self, start: int, part: int = 0) -> Iterator[list[int]]:
        """Yield this rank's batches after ``start`` updates and ``part`` parts, in that epoch."""
        if start >= self.plan.updates:
            return
        place = self.plan.at(start + 1)
        order = permutation(self.plan.n, self.seed, place.epoch)
        for update in range(start + 1, start + 2 + place.batches - place.batch):
            place = self.plan.at(update)
            indices: list[int] = order[place.start : place.start + place.size].tolist()
            share = indices[self.rank :: self.ranks]
            parts = self.parts_of(place.size)
            for index in range(part, parts):
                low, high = batches.bounds(len(share), parts, index)
                yield share[low:high]
            part = 0

    def advance(self) -> Update:
        """Count the update, or the part of one, that is about to be made. Call it before each.

        Raises:
            RuntimeError: all updates of the plan are made, or no loader took the batch.
        """
        if self._begun is not None:
            self._pass.count()
        return super().advance()

    def check_epoch(self) -> None:
        """Check an epoch that has ended, or was left early.

        Raises:
            RuntimeError: batches were taken and not counted.
        """
        self._pass.check_end()

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
        self._begun, self._pass = None, _Pass(iter(()))


class _Pass(Iterator[list[int]]):
    """One iteration: how many batches a loader asked for, and how many of them were counted.

    A loader fetches a constant number of batches ahead, and asks on after the last one. So the
    batches that are asked for and not counted grow in number only if some are never counted.
    """

    def __init__(self, given_out: Iterator[list[int]]) -> None:
        self._batches = given_out
        self._asked = self._given = self._counted = self._skipped = 0
        self._ahead: int | None = None  # fetched ahead at the first count

    def __next__(self) -> list[int]:
        self._asked += 1
        batch = next(self._batches)
        self._given += 1
        return batch

    def count(self) -> None:
        """Count one batch."""
        self._counted += 1
        if self._counted > self._given:
            raise RuntimeError(
                f"schedule.step() was called {self._counted} times for {self._given} batches of the"
                " loader: call it once for each, and give the DataLoader batch_sampler=batches. To"
                " accumulate gradients, give the sampler parts="
            )
        if self._ahead is None:
            self._ahead = self._asked - self._counted
        self._skipped = self._asked - self._counted - self._ahead

    def check_end(self) -> None:
        """Check a pass that is over, or was left early: then its last batch may be uncounted."""
        if self._ahead is None or self._counted == self._given:
            return
        skipped = max(self._skipped, self._asked - self._counted - self._ahead - 1)
        if skipped > 0:
            raise RuntimeError(
                f"{skipped} of the loader's batches were taken and not counted: {STEP}; if a loss"
                " is not finite, skip optimizer.step(), not schedule.step()"
            )
