"""Where stages begin and end, and how they are cut into batches.

A whole epoch of a data set is cut into k equal batches, whose sizes differ by at most one sample.
A stage that ends inside an epoch, or in a stream, ends with a whole batch.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from igo.plans import batches
from igo.plans.arguments import Arguments
from igo.plans.curves import Stage


@dataclass(frozen=True)
class Segments:
    """Equal segments of one stage in ``epochs`` consecutive epochs; stage and epoch count from 1.

    Each segment has ``samples`` of its epoch, from sample ``start`` on, in ``batches`` batches.
    """

    stage: int
    first_epoch: int
    epochs: int
    start: int
    samples: int
    batches: int


def equal_starts(given: Arguments, stages: int) -> list[int]:
    """The samples at which equal stages begin; the warm-up belongs to the first stage.

    Stages are whole epochs if each can have one. Otherwise stage m + 1 begins after m/M of the
    samples that follow the warm-up, rounded.
    """
    total, n, warmup = given.total, given.per_epoch, given.warmup_samples
    warm, later = warmup // n, range(1, stages)  # whole epochs of warm-up; m of stages 2 to M
    left = total // n - warm
    if total % n == 0 and stages <= left:
        return [0, *((warm + m * left // stages) * n for m in later)]
    left = total - warmup
    # Half a sample is rounded in whole numbers: floats could differ between machines.
    return [0, *(warmup + (2 * m * left + stages) // (2 * stages) for m in later)]


def cut(given: Arguments, stages: Sequence[Stage]) -> Iterator[Segments]:
    """Yield the segments of all stages.

    No piece of an epoch is shorter than a batch of its stage: it belongs to its neighbour. So a
    stage that is shorter than its batch has one batch, and nothing is left of the stages that this
    batch covers. At the end of the plan such a piece is left out.
    """
    starts = [stage.start for stage in stages]
    total, n = given.total, given.per_epoch
    sizes = [_size_inside(given, stage.share) for stage in stages]
    of_epochs = _batches_of_epochs(given, stages)
    on_grid = given.n is None and given.batch_multiple > 1  # the last piece, too, is whole batches
    place = 0
    for m, (size, end) in enumerate(zip(sizes, [*starts[1:], total], strict=True)):
        begun = inside = False
        while place < end and not inside:
            epoch, start = divmod(place, n)
            room = min(n - start, total - place)  # to the end of the epoch, or of the plan
            epochs, samples = 1, room
            inside = end - place < room
            if inside:
                # Whole batches, as one that is cut short would have another noise. So the stage
                # ends at the batch that is nearest to its end.
                samples = size * max(round((end - place) / size), not begun)
                after = max(bisect_right(starts, place + samples) - 1, m + 1)
                # The rest of the epoch holds no batch of the stage that follows, so it is trained
                # here.
                if room - samples < sizes[after]:
                    samples = room
            if on_grid:
                samples -= samples % size
            k = batches.count(samples, size)
            if given.n and samples == n:
                epochs, k = max((end - place) // n, 1), of_epochs[m]
            if samples < size:
                break
            yield Segments(m + 1, epoch + 1, epochs, start, samples, k)
            place += epochs * samples
            begun = True


def _size_inside(given: Arguments, share: float) -> int:
    """b of a stage inside an epoch: whole, at most b_1/share, and a multiple where one is asked."""
    size = int(min(given.batch_size / share * (1 + batches.CLOSE), given.largest))
    return size - size % given.batch_multiple or size


def _batches_of_epochs(given: Arguments, stages: Sequence[Stage]) -> list[int]:
    """k of a whole epoch in each stage: ⌈k_1 b_1/b⌉ with k_1 = ⌈n/b_1⌉; k never grows.

    k is at least ⌈n/max_batch_size⌉. With ``batch_multiple`` it is the next k whose larger batch is
    a multiple, if there is one.
    """
    n, ks = given.per_epoch, []
    least, k_1 = batches.count(n, given.largest), batches.count(n, given.batch_size)
    before = k_1
    for stage in stages:
        k = min(max(batches.whole(k_1 * stage.share), least), before)
        if given.batch_multiple > 1:
            fitting = (j for j in range(k, before + 1)
                       if batches.count(n, j) % given.batch_multiple == 0)  # fmt: skip
            k = next(fitting, k)
        ks.append(k)
        before = k
    return ks
