"""The rows of what a plan is compared with: one of its curves as it is, on the same samples."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from igo.plans import batches
from igo.plans.rows import Row, linked, rated

CONTROLS = ("rate", "noise", "reversed")


def rows_of(kind: str, rows: Sequence[Row], n: int, unit: int) -> tuple[Row, ...]:
    """The rows of one of CONTROLS, see ``Plan.control``; batches are multiples of ``unit``."""
    if kind == "reversed":
        return linked([*_reversed(rows, n)])
    first_row = rows[0]
    eta_1 = first_row.eta_m / first_row.phi_m
    if kind == "noise":
        cut_rows = [*_cut(rows, first_row.batches, first_row.samples, unit)]
        return rated(cut_rows, [row.phi_m for row in cut_rows], eta_1, by_rate=False)
    updates = sum(row.updates for row in rows)
    cut_rows = [*_cut(rows, updates, sum(row.epochs * row.samples for row in rows), unit)]
    return rated(cut_rows, [row.eta_m / eta_1 for row in cut_rows], eta_1, by_rate=True)


def _reversed(rows: Sequence[Row], n: int) -> Iterator[Row]:
    place, last_stage = 0, rows[-1].stage
    for row in reversed(rows):
        epoch, start = divmod(place, n)
        stage = last_stage - row.stage + 1
        yield replace(row, stage=stage, first_epoch=epoch + 1, start=start)
        place += row.epochs * row.samples


def _cut(rows: Sequence[Row], updates: int, samples: int, unit: int) -> Iterator[Row]:
    """Yield the rows in equal batches, ``updates`` of them in so many ``samples``.

    Their sizes differ by what is rounded: the updates of a row, and the samples of a batch.
    """
    samples_done = updates_done = 0
    for row in rows:
        samples_done += row.epochs * row.samples
        planned_updates = (2 * updates * samples_done + samples) // (2 * samples)  # This rounds.
        row_updates = max(planned_updates - updates_done, row.epochs)
        updates_done += row_updates
        epoch = row.first_epoch
        for k, epochs in batches.counts(row_updates, row.epochs).items():
            start = row.start
            for piece, count in _pieces(row.samples, k, unit):
                yield replace(
                    row,
                    first_epoch=epoch,
                    epochs=epochs,
                    batches=count,
                    start=start,
                    samples=piece,
                )
                start += piece
            epoch += epochs


def _pieces(samples: int, k: int, unit: int) -> list[tuple[int, int]]:
    """Samples and batches of each piece, of k batches in multiples of ``unit``."""
    if unit == 1:
        return [(samples, k)]
    counts = batches.counts(samples // unit, k)
    return [(unit * size * count, count) for size, count in counts.items()]
