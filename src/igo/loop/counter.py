"""Counts the updates of a plan, and makes its batches of a stream.

The sizes of all batches are planned before the first batch is taken. So the batch size b changes at
the planned update, however many batches workers fetch ahead.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from operator import index
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader, default_collate

from igo.loop.state import check_plan
from igo.loop.stream import is_batch, next_of, shown_size
from igo.plans import batches
from igo.plans.arguments import PlanError
from igo.plans.plan import Plan
from igo.plans.rows import Update

GIVE = (
    "give PyTorch's own DataLoader batch_sampler=batches, and keep it from accelerator.prepare and"
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
        rank, ranks: this process, from 0, and the number of processes that share each batch; by
            default those of torch.distributed.
        micro_batch_size: the most samples that go through the model at once, over all ranks. A
            larger batch is cut into parts, the same number on each rank, and each part is counted.

    Attributes:
        updates: how many updates have been made, with all of their parts. ``state_dict`` holds it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        rank: int | None = None,
        ranks: int | None = None,
        micro_batch_size: int | None = None,
    ) -> None:
        if not isinstance(plan, Plan):
            kind = type(plan).__name__
            raise TypeError(f"the first argument must be a plan, as igo.plan returns, not a {kind}")
        # No batch has more than n samples, so with a micro-batch of n no batch is cut into parts.
        micro = plan.n if micro_batch_size is None else index(micro_batch_size)
        if micro < 1:
            raise PlanError("micro_batch_size", micro, "it must be 1 or more")
        # (rank, ranks) as given. If they are None, torch.distributed is asked at each use, because
        # torch.distributed may be started after the sampler is made.
        self._given_ranks: tuple[int, int] | None = None
        if rank is not None or ranks is not None:
            if rank is None or ranks is None or not 0 <= rank < ranks:
                advice = f"give rank in [0, ranks={ranks}) and ranks together, or none"
                raise PlanError("rank", rank, advice)
            self._given_ranks = rank, ranks
        self.plan, self._micro = plan, micro
        # Where the training is in the plan: the whole updates that were counted, and the parts of
        # the next update that were counted.
        self.updates, self._parts_made = 0, 0
        self._epoch = 0  # the newest epoch that has begun; 0 if none has, as after a resume
        # Whether the batches come from this counter: ``advance`` then refuses an update whose batch
        # was not delivered. With a loader of your own ``advance`` counts what the plan has next.
        self._delivers = False
        # Each part of a batch that was delivered and is not counted yet, by the update's number
        # and the part's. There are several such parts if workers fetch ahead.
        self._delivered: dict[tuple[int, int], Update] = {}
        # The epoch in progress when a state was loaded; 0 once ``schedule(loader)`` counts. The
        # sampler reads it to notice a loop that skips batches after a resume.
        self._resumed_epoch = 0

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return self._rank_and_ranks[0]

    @property
    def ranks(self) -> int:
        """How many processes share each batch."""
        return self._rank_and_ranks[1]

    @property
    def _rank_and_ranks(self) -> tuple[int, int]:
        """This rank and the number of ranks: as given, else torch.distributed's, else 0 of 1."""
        if self._given_ranks is None and dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        return self._given_ranks or (0, 1)

    @property
    def samples(self) -> int:
        """How many samples have been trained on, over all ranks."""
        return self.plan.samples_of(self.updates)

    @property
    def unmeasurable(self) -> str:
        """Why ``igo.measure_noise`` must not use this counter's batches now; empty if it may.

        The text goes on from the word "loader", which begins the line of the error.
        """
        if self.updates == 0 or self.done:
            return ""
        return (
            "gives the batches of a training in progress, which this would disturb: measure with"
            " another loader, e.g. DataLoader(data, b, shuffle=True, drop_last=True)"
        )

    @property
    def done(self) -> bool:
        """Whether all updates of the plan are made."""
        return self.updates >= self.plan.updates

    def advance(self) -> Update:
        """Count the update, or the part of one, that is about to be made, and return it.

        Raises:
            RuntimeError: all updates of the plan are made, or the sampler gave no batch for the
                next one.
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
            update = next(self._parts_after(self.updates))
        # ``updates``, which a checkpoint holds, counts an update with its last part only: no
        # checkpoint has the gradients of the earlier parts, so a resume must begin with the first.
        self.updates = update.number if update.is_last_part else update.number - 1
        self._parts_made = 0 if update.is_last_part else update.part
        return update

    def parts_of(self, batch_size: int) -> int:
        """How many parts a batch has whose size over all ranks is ``batch_size``."""
        return batches.parts(batch_size, self._micro, self.ranks)

    def _parts_after(self, updates: int) -> Iterator[Update]:
        """Yield this rank's part of each batch after the first ``updates`` updates of the plan.

        A batch larger than the micro-batch has several parts on this rank, one after the other.
        Those parts of the next update that were counted already are left out.

        Raises:
            PlanError: a batch that comes has fewer samples than there are ranks.
        """
        rank, ranks = self._rank_and_ranks
        if ranks > 1 and updates < self.plan.updates:
            self._check_ranks(ranks, self.plan.at(updates + 1).stage)
        parts_made = self._parts_made
        for number in range(updates + 1, self.plan.updates + 1):
            update = self.plan.at(number)
            parts = self.parts_of(update.batch_size)
            # With one rank and one part the plan's own update is right as it is. To copy it would
            # take time in each step.
            if parts == ranks == 1:
                yield update
                continue
            # A rank has each R-th sample of the batch. Shares differ by one sample at most, and any
            # number of ranks trains the same batch.
            share = len(range(rank, update.batch_size, ranks))
            for part in range(parts_made, parts):
                low, high = batches.bounds(share, parts, part)
                # Sample i of this rank's share is sample rank + ranks * i of the batch.
                start, samples = update.start + rank + ranks * low, high - low
                yield replace(
                    update, start=start, samples=samples, ranks=ranks, part=part + 1, parts=parts
                )
            parts_made = 0  # The updates that follow begin with their first part.

    def _check_ranks(self, ranks: int, stage: int) -> None:
        """Refuse more ranks than the smallest batch from a stage on has samples.

        With fewer samples than ranks, a rank would have none. Stages that are done do not count:
        a plan whose batches grow may go on with more ranks.
        """
        rows_left = (row for row in self.plan.rows if row.stage >= stage)
        # The batches of a row differ by one sample at most, so rounding down gives the smallest.
        smallest_batch = min(row.samples // row.batches for row in rows_left)
        if ranks > smallest_batch:
            raise PlanError("ranks", ranks, f"the plan has batches of {smallest_batch} samples")

    def epochs(self) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, counted from 1, not from 0 as by range.

        So the last number is ``plan.epochs``. After a resume the first is the epoch in progress.

        Raises:
            RuntimeError: no update was counted in an epoch.
        """
        while not self.done:
            position = self.updates, self._parts_made
            self._epoch = epoch = self._next_epoch
            yield epoch
            # The loop's body counted nothing. A body that never counts would be repeated for ever.
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
        """Group this rank's samples of a stream into this rank's shares of the plan's batches.

        Samples are grouped in this process, so workers of the stream may fetch ahead: give a
        DataLoader with ``batch_size=None``. With ``micro_batch_size`` each part of a batch is
        yielded by itself. For a stream of micro-batches there is ``parts``.

        Args:
            samples: this rank's samples; after a resume the samples that come next.
            collate: makes a batch from a list, by default PyTorch's ``default_collate``.

        Raises:
            PlanError: the stream has micro-batches, not samples. This is so if it is a DataLoader
                with a batch size, or, without ``collate``, if all tensors of an item have as many
                rows as a part has samples. Where an item has several tensors, not all of them
                vectors, the rows may also be a number that divides the samples of a part.
            RuntimeError: the stream ends before the plan.
        """
        advice = (
            "it gives micro-batches, which counter.parts takes; if each is one sample, give"
            " collate=torch.utils.data.default_collate, and a DataLoader batch_size=None"
        )
        refusal = PlanError("samples", type(samples).__name__, advice)
        if isinstance(samples, DataLoader) and samples.batch_size is not None:
            raise refusal
        # If the items are micro-batches, this is the number of samples in the first one.
        part_size = min(self._micro, self.plan.at(1).batch_size) // self.ranks
        stream = iter(samples)
        for update in self._parts_after(self.updates):
            part = next_of(stream, update.samples, update, self.plan)
            # Who gives ``collate`` says by that that the items are samples.
            if not collate and is_batch(part[0], part_size):
                raise refusal
            batch = (collate or default_collate)(part)
            self._deliver(update)
            yield batch

    def parts(
        self,
        loader: Iterable[Any] | Callable[[Update], Any],
        size_of: Callable[[Any], int] | None = None,
    ) -> Iterator[Any]:
        """Take each micro-batch of a loader as a part of one of the plan's batches, as it is.

        The loader may be any iterable, also an endless one: a DataLoader with a ``batch_size`` and
        ``drop_last=True``, a generator, a loader of another library. Of R ranks each has its own
        loader. The plan's batches must be whole micro-batches of all ranks: the plan's
        ``batch_multiple`` and the counter's ``micro_batch_size`` are the samples of a micro-batch
        times R. In place of a loader a function of the update, such as one around nanoGPT's
        ``get_batch``, may make the ``update.samples`` samples of each part, for any plan.

        >>> plan = igo.plan("constant", samples=24, batch_size=8, batch_multiple=4)
        >>> counter = igo.Counter(plan, micro_batch_size=4)
        >>> endless = iter(lambda: torch.zeros(4, 3), None)
        >>> for micro_batch in counter.parts(endless):
        ...     update = counter.advance()  # schedule(counter.parts(…)) does it
        ...     print(update.number, f"{update.part} of {update.parts}", micro_batch.shape)
        1 1 of 2 torch.Size([4, 3])
        1 2 of 2 torch.Size([4, 3])
        2 1 of 2 torch.Size([4, 3])
        2 2 of 2 torch.Size([4, 3])
        3 1 of 2 torch.Size([4, 3])
        3 2 of 2 torch.Size([4, 3])

        Args:
            loader: this rank's micro-batches; after a resume the micro-batches that come next.
            size_of: counts the samples of a micro-batch, such as ``len`` for a list of samples.
                Without ``size_of`` the number of samples is the rows of the first tensor or array,
                or the length of a list.

        Raises:
            PlanError: a micro-batch is no part of the plan, or does not show its size.
            RuntimeError: the loader ends before the plan.
        """
        micro, ranks = self._micro, self.ranks
        stream = iter(loader) if isinstance(loader, Iterable) else None
        get_batch: Any = loader  # It is called only where the argument is no stream.
        # The micro-batches of a stream have one size. So all parts of the plan must have one size,
        # the same on each rank. A function makes parts of any size.
        are_sizes_right = stream is None or (
            micro % ranks == 0 and all(size % micro == 0 for size in self.plan.batch_sizes)
        )
        for update in self._parts_after(self.updates):
            if stream is None:
                part = get_batch(update)
            else:
                part = next_of(stream, 1, update, self.plan)[0]
            size = (size_of or shown_size)(part)
            if size is None:
                advice = "it does not show how many samples it has: give counter.parts size_of="
                raise PlanError("loader", type(part).__name__, advice)
            if size != update.samples or not are_sizes_right:
                advice = (
                    "its micro-batches are no equal parts of the plan's batches: make both"
                    f" micro_batch_size, here {micro}, and the plan's batch_multiple"
                    f" {size * ranks}, the samples of a micro-batch on all ranks, and give a"
                    f" DataLoader drop_last=True; if {size} is not its samples, give size_of="
                )
                if stream is None:
                    advice = f"it made {size} samples here: make update.samples, or give size_of="
                raise PlanError("loader", type(loader).__name__, advice)
            self._deliver(update)
            yield part

    def _deliver(self, update: Update) -> None:
        """Note that the batch, or part, of an update is given to the loop, for ``advance``."""
        self._delivers = True
        self._delivered[update.number, update.part] = update

    def state_dict(self) -> dict[str, Any]:
        """The number of updates made, and the identity of their plan."""
        return {"updates": self.updates, **self.plan.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was called.

        Raises:
            PlanError: the state is of another plan, of no sampler, or damaged.
        """
        check_plan(state, self.plan)
        self.updates, self._parts_made = state["updates"], 0
        self._epoch, self._delivered = 0, {}
        self._resumed_epoch = self._next_epoch
