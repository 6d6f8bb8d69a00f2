"""Where stages begin, counted in samples, and the part of each epoch that a stage has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from igo.method.arguments import PlanError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
SAMPLES_AND_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMBT]?):(\d+)", re.IGNORECASE)


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


def ramp(text: str, total: int) -> tuple[list[int], list[int]]:
    """The starts and the batch sizes of ``0:768 250M:1536``, batch sizes by samples as in Megatron.

    A size begins where the last batch of the previous size ends, at or after its samples.

    Raises:
        PlanError: the text is wrong.
    """
    starts, sizes = [0], list[int]()
    for entry in text.replace(",", " ").split():
        match = SAMPLES_AND_SIZE.fullmatch(entry)
        if match is None:
            allowed = f"{entry!r} is not SAMPLES:SIZE, such as 250M:1536, with K, M, B or T"
            raise PlanError("batch_size", repr(text), allowed)
        after, size = round(float(match[1]) * UNITS[match[2].upper()]), int(match[3])
        if not sizes and after:
            raise PlanError("batch_size", repr(text), f"it must begin with 0:SIZE, not {entry}")
        if sizes and (size <= sizes[-1] or after <= starts[-1]):
            raise PlanError("batch_size", repr(text), f"at {entry}: samples and sizes must rise")
        if sizes:
            starts.append(starts[-1] - (starts[-1] - after) // sizes[-1] * sizes[-1])
        sizes.append(size)
    if not sizes or sizes[0] < 1 or starts[-1] + sizes[-1] > total:
        allowed = f"it needs sizes of 1 or more, each with a whole batch in {total:,} samples"
        raise PlanError("batch_size", repr(text), allowed)
    return starts, sizes
