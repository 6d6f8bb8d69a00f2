"""Where stages begin, counted in samples, and the part of each epoch that a stage has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Segments:
    """Equal segments of one stage in ``epochs`` consecutive epochs; stage and epoch count from 1.

    Each segment has ``samples`` of its epoch, from sample ``start`` on.
    """

    stage: int
    first_epoch: int
    epochs: int
    start: int
    samples: int


def cut(starts: Sequence[int], total: int, n: int) -> Iterator[Segments]:
    """Yield the segments of stages that begin at samples ``starts`` of ``total``; epochs have n."""
    for stage, (start, end) in enumerate(pairwise([*starts, total]), 1):
        place = start
        while place < end:
            epoch, offset = divmod(place, n)
            epochs = (end - place) // n if offset == 0 else 0
            samples = n if epochs else min(end - place, n - offset)
            epochs = max(epochs, 1)
            yield Segments(stage, epoch + 1, epochs, offset, samples)
            place += epochs * samples


def starts_of_stages(total: int, n: int, stages: int | None, warmup: int) -> list[int]:
    """The samples at which equal stages begin; the warm-up belongs to the first stage.

    Stages are whole epochs if each can have one; ``None`` makes each epoch a stage. Otherwise stage
    m + 1 begins after m/M of the samples that follow the warm-up.
    """
    epochs, rest = divmod(total, n)
    warm = warmup // n  # whole epochs of warm-up
    if not rest and (stages is None or stages <= epochs - warm):
        count, left = stages or epochs - warm, epochs - warm
        return [0, *((warm + m * left // count) * n for m in range(1, count))]
    count = stages or epochs - warm + bool(rest)
    left = total - warmup
    return [0, *(warmup + (2 * m * left + count) // (2 * count) for m in range(1, count))]
