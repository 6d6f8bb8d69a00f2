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
    by_rate, eta_1 = kind == "rate", rows[0].eta_m / rows[0].phi_m
    updates, samples = rows[0].batches, rows[0].samples
    if by_rate:
        updates = sum(row.updates for row in rows)
        samples = sum(row.epochs * row.samples for row in rows)
    cut_rows = [*_cut(rows, updates, samples, unit)]
    factors = [row.eta_m / eta_1 if by_rate else row.phi_m for row in cut_rows]
    return rated(cut_rows, factors, eta_1, by_rate=by_rate)


def _reversed(rows: Sequence[Row], n: int) -> Iterator[Row]:
    place, last_stage = 0, rows[-1].stage
    for row in reversed(rows):
        epoch, start = divmod(place, n)
        stage = last_stage - row.stage + 1
        yield replace(row, stage=stage, first_epoch=epoch + 1, start=start)
        place += row.epochs * row.samples


def _cut(rows: Sequence[Row], updates: int, samples: int, unit: int) -> Iterator[Row]:
    """Yield the rows in equal batches, ``updates`` of them in so many ``samples``.

    An epoch is cut as a whole, and a batch belongs to the row in which it begins. Sizes differ by
    what is rounded: the updates of an epoch, and the samples of a batch.
    """
    samples_done = updates_done = 0
    for epoch, group in groupby(rows, attrgetter("first_epoch")):
        parts = list(group)  # Several rows are parts of one epoch.
        epochs, length = parts[0].epochs, sum(row.samples for row in parts)
        samples_done += epochs * length
        # The share of the updates that is due after these epochs, rounded in whole numbers.
        updates_due = (2 * updates * samples_done + samples) // (2 * samples)
        new_updates = max(updates_due - updates_done, epochs)  # Each epoch has one at least.
        updates_done += new_updates
        first_epoch = epoch
        # Of equal epochs some have k updates, and the others one less.
        for k, count in batches.counts_by_size(new_updates, epochs).items():
            for row in _parts_in(parts, length, k, unit):
                yield replace(row, first_epoch=first_epoch, epochs=count)
            first_epoch += count


def _parts_in(parts: Sequence[Row], length: int, k: int, unit: int) -> Iterator[Row]:
    """Yield what the rows of an epoch have of its k batches, which are multiples of ``unit``."""

    def start_of(index: int) -> int:
        return unit * (length // unit * index // k)

    first = parts[0].start
    ends = accumulate(row.samples for row in parts)
    indices = [0, *(bisect_left(range(k), end, key=start_of) for end in ends)]
    for row, (index, next_index) in zip(parts, pairwise(indices), strict=True):
        units = (start_of(next_index) - start_of(index)) // unit
        sizes = batches.counts_by_size(units, next_index - index) if index < next_index else {}
        start = first + start_of(index)
        if unit == 1 and sizes:  # A row may have batches of two sizes.
            yield replace(row, batches=next_index - index, start=start, samples=units)
            continue
        for size, count in sizes.items():
            piece = unit * size * count
            yield replace(row, batches=count, start=start, samples=piece)
            start += piece
