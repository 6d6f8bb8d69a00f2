"""The plan's batches for any DataLoader.

Each iteration yields the batches from the next update to the end of its epoch. Their sizes are
planned before the first batch is taken. So b changes at the planned update, also inside an epoch,
however many batches workers fetch ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from igo.ground.seeds import generator
from igo.method import batches
from igo.method.arguments import PlanError
from igo.method.counter import Counter
from igo.method.plan import Plan
from igo.method.stages import Update


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
            loader yields parts of batches, and ``update.ends`` says when to step the optimizer.

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
        micro_batch_size: int | None = None,
    ) -> None:
        super().__init__(
            plan, rank=rank, ranks=ranks, group=group, micro_batch_size=micro_batch_size
        )
        check_length(plan, data)
        given: Any = seed  # NumPy's integers are no int
        if not isinstance(given, Integral):
            raise PlanError("seed", seed, "it must be a whole number")
        self.seed, self._gives = int(given), True

    def __len__(self) -> int:
        """All batches (or parts) of the newest epoch."""
        count = 0
        for row in self.plan.rows_of_epoch(self._epoch or self._coming):
            for size, number in batches.counts(row.samples, row.batches).items():
                count += number * batches.parts(size, self._micro, self.ranks)
        return count

    def __iter__(self) -> Iterator[list[int]]:
        self._epoch, made = self._coming, self.updates
        if self.done:  # the last epoch again, for BatchNorm's statistics and the like
            made -= self.plan.batches_of_epoch(self._epoch)
        return self._pass(self._epoch, self._to_come(made, self._part))

    def _pass(self, epoch: int, to_come: Iterator[Update]) -> Iterator[list[int]]:
        """Yield this rank's indices of each batch, or part of one, to the end of the epoch."""
        order = permutation(self.plan.n, self.seed, epoch)
        for update in to_come:
            self._given[update.number, update.part] = update
            start, ranks = update.start, update.ranks
            yield order[start : start + update.own * ranks : ranks].tolist()
            if update.ends_epoch:
                return

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


def check_length(plan: Plan, data: object) -> None:
    """Raise a PlanError unless the data set has the plan's n samples."""
    if not isinstance(data, Sized):
        raise PlanError("data", "…", "a stream has no length; use igo.Counter for it")
    if len(data) != plan.n:
        allowed = f"the data set has {len(data)} samples; make the plan with n=len(data)"
        raise PlanError("n", plan.n, allowed)
