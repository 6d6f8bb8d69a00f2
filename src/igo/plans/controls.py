"""The rows of what a plan is compared with: one of its curves as it is, on the same samples."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from operator import attrgetter

from igo.plans import batches
from igo.plans.rows import Row, linked, rated

CONTROLS = ("rate", "noise", "reversed")


def rows_of(kind: str, rows: Sequence[Row], n: int, unit: int) -> tuple[Row, ...]:
    """The rows of one of CONTROLS, see ``Plan.control``; batches are multiples of ``unit``."""
    if kind == "reversed":
        return linked([*_reversed(rows, n)])
    eta_1 = rows[0].eta_m / rows[0].phi_m
    if kind == "rate":  # As many updates as the plan has, at its η.
        updates = sum(row.updates for row in rows)
        samples = sum(row.epochs * row.samples for row in rows)
        cut_rows = [*_cut(rows, updates, samples, unit)]
        rates = [row.eta_m / eta_1 for row in cut_rows]
        return rated(cut_rows, rates, eta_1, by_rate=True)
    cut_rows = [*_cut(rows, rows[0].batches, rows[0].samples, unit)]  # b stays at b_1.
    return rated(cut_rows, [row.phi_m for row in cut_rows], eta_1, by_rate=False)


def _reversed(rows: Sequence[Row], n: int) -> Iterator[Row]:
    """Yield the rows from the last to the first, each at its new place and stage."""
    place, last_stage = 0, rows[-1].stage
    for row in reversed(rows):
        epoch, start = divmod(place, n)
        stage = last_stage - row.stage + 1
        yield replace(row, stage=stage, first_epoch=epoch + 1, start=start)
        place += row.epochs * row.samples


def _cut(rows: Sequence[Row], updates: int, samples: int, unit: int) -> Iterator[Row]:
    """Yield the rows cut anew into equal batches: ``updates`` of them for each ``samples``.

    An epoch is cut as a whole, and a batch belongs to the row in which it begins. Sizes differ by
    what is rounded: the updates of an epoch, and the samples of a batch.
    """
    samples_done = updates_done = 0
    for epoch, group in groupby(rows, attrgetter("first_epoch")):
        epoch_rows = list(group)  # Several rows share one epoch; a row alone may have several.
        epochs, length = epoch_rows[0].epochs, sum(row.samples for row in epoch_rows)
        samples_done += epochs * length
        # The share of the updates that is due after these epochs, rounded in whole numbers.
        updates_due = (2 * updates * samples_done + samples) // (2 * samples)
        new_updates = max(updates_due - updates_done, epochs)  # Each epoch has one at least.
        updates_done += new_updates
        first_epoch = epoch
        # Of equal epochs some have k updates, and the others one less.
        for k, count in batches.counts_by_size(new_updates, epochs).items():
            for row in _cut_epoch(epoch_rows, length, k, unit):
                yield replace(row, first_epoch=first_epoch, epochs=count)
            first_epoch += count


def _cut_epoch(rows: Sequence[Row], length: int, k: int, unit: int) -> Iterator[Row]:
    """Yield what each row of an epoch has of its k batches, which are multiples of ``unit``."""

    def start_of(batch: int) -> int:
        """The samples of the epoch before a batch, counted from 0."""
        return unit * (length // unit * batch // k)

    ends = accumulate(row.samples for row in rows)
    first_batches = [0, *(bisect_left(range(k), end, key=start_of) for end in ends)]
    for row, (batch, next_batch) in zip(rows, pairwise(first_batches), strict=True):
        count = next_batch - batch
        if not count:  # No batch begins in this row.
            continue
        start = rows[0].start + start_of(batch)
        samples = start_of(next_batch) - start_of(batch)
        if unit == 1:  # A row may have batches of two sizes.
            yield replace(row, batches=count, start=start, samples=samples)
            continue
        for units, count_of_size in batches.counts_by_size(samples // unit, count).items():
            samples_of_size = unit * units * count_of_size
            yield replace(row, batches=count_of_size, start=start, samples=samples_of_size)
            start += samples_of_size
