"""Where stages begin, counted in samples, and what each has of every epoch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from igo.method.arguments import PlanError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
PAIR = re.compile(r"(\d+(?:\.\d+)?)([KMBT]?):(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Segments:
    """``epochs`` equal segments of one stage in as many epochs in a row; both count from 1.

    Each is ``samples`` of its epoch, from its sample ``start`` on.
    """

    stage: int
    first_epoch: int
    epochs: int
    start: int
    samples: int


def cut(starts: Sequence[int], total: int, n: int) -> Iterator[Segments]:
    """The segments of stages that begin at samples ``starts`` of ``total``; an epoch has n."""
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
    """The samples at which equal stages begin, the first of them at 0, with the warm-up before it.

    They are whole epochs where there is one for each stage, ``None``: a stage an epoch; otherwise
    stage m + 1 begins after m/M of what is left after the warm-up.
    """
    epochs, rest = divmod(total, n)
    warm = warmup // n  # its last epoch, if not a whole one, belongs to the first stage
    if not rest and (stages is None or stages <= epochs - warm):
        count, left = stages or epochs - warm, epochs - warm
        return [0, *((warm + m * left // count) * n for m in range(1, count))]
    count = stages or epochs - warm + bool(rest)
    left = total - warmup
    return [0, *(warmup + (2 * m * left + count) // (2 * count) for m in range(1, count))]


def ramp(text: str, total: int) -> tuple[list[int], list[int]]:
    """The starts and the batch sizes of ``0:768 250M:1536``: sizes by samples, as Megatron's.

    A size begins with the first whole batch of the one before that reaches its samples.

    Raises:
        PlanError: says what is wrong with the text.
    """
    starts, sizes = [0], list[int]()
    for word in text.replace(",", " ").split():
        pair = PAIR.fullmatch(word)
        if pair is None:
            allowed = f"{word!r} is not SAMPLES:SIZE, such as 250M:1536, with K, M, B or T"
            raise PlanError("batch_size", repr(text), allowed)
        after, size = round(float(pair[1]) * UNITS[pair[2].upper()]), int(pair[3])
        if not sizes and after:
            raise PlanError("batch_size", repr(text), f"it must begin with 0:SIZE, not {word}")
        if sizes and (size <= sizes[-1] or after <= starts[-1]):
            raise PlanError("batch_size", repr(text), f"at {word}: samples and sizes must rise")
        if sizes:
            starts.append(starts[-1] - (starts[-1] - after) // sizes[-1] * sizes[-1])
        sizes.append(size)
    if not sizes or sizes[0] < 1 or starts[-1] + sizes[-1] > total:
        allowed = f"it needs sizes of 1 or more, each of a batch at least within {total:,} samples"
        raise PlanError("batch_size", repr(text), allowed)
    return starts, sizes
