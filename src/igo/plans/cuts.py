"""Where stages begin and end, and how they are cut into batches.

A whole epoch of a data set is cut into k equal batches, whose sizes differ by at most one sample.
A stage that ends inside an epoch, or in a stream, ends with a whole batch.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from igo.plans import batches
from igo.plans.arguments import Arguments
from igo.plans.curves import Stage
from igo.plans.rows import Row


def equal_starts(args: Arguments, stages: int) -> list[int]:
    """The samples at which equal stages begin; the warm-up belongs to the first stage.

    Stages are whole epochs if each can have one. Otherwise stage m + 1 begins after m/M of the
    samples that follow the warm-up, rounded.
    """
    total, n, warmup = args.total, args.per_epoch, args.warmup_samples
    warm_epochs = warmup // n
    epochs = total // n - warm_epochs
    if total % n == 0 and stages <= epochs:
        later_starts = [(warm_epochs + m * epochs // stages) * n for m in range(1, stages)]
    else:
        samples = total - warmup
        # Half a sample is rounded in whole numbers: floats could differ between machines.
        later_starts = [
            warmup + (2 * m * samples + stages) // (2 * stages) for m in range(1, stages)
        ]
    return [0, *later_starts]


def cut(args: Arguments, stages: Sequence[Stage]) -> Iterator[Row]:
    """Yield the rows of all stages; they have no η and no φ yet.

    A piece of an epoch that is shorter than a batch of its stage joins the piece beside it. So a
    stage that is shorter than its batch has one batch, and nothing is left of the stages that this
    batch covers. At the end of the plan such a piece is left out.
    """
    starts = [stage.start for stage in stages]
    total, n = args.total, args.per_epoch
    sizes = [_size_inside_epoch(args, stage) for stage in stages]
    batches_of_epochs = _batches_of_epochs(args, stages)
    in_whole_batches = args.n is None and args.batch_multiple > 1  # of a stream on a grid
    place = 0
    for m, (size, end) in enumerate(zip(sizes, [*starts[1:], total], strict=True)):
        stage_place = place
        while place < end:
            epoch, start = divmod(place, n)
            rest = min(n - start, total - place)  # to the end of the epoch or of the plan
            epochs, samples = 1, rest
            ends_inside = end - place < rest  # This is never so in the last stage.
            if ends_inside:
                k = _batches_until(args, end, end - place, size)
                if place == stage_place:
                    k = max(k, 1)  # A stage has one batch at least.
                samples = k * size
                next_stage = max(bisect_right(starts, place + samples) - 1, m + 1)
                if rest - samples < sizes[next_stage]:  # No batch of that stage would fit.
                    samples = rest
            if in_whole_batches:
                samples -= samples % size
            if samples < size:
                break
            k = batches.count(samples, size)
            if args.n and samples == n:
                epochs, k = max((end - place) // n, 1), batches_of_epochs[m]
            yield Row(
                stage=m + 1,
                first_epoch=epoch + 1,
                epochs=epochs,
                batches=k,
                start=start,
                samples=samples,
            )
            place += epochs * samples
            if ends_inside:
                break


def _size_inside_epoch(args: Arguments, stage: Stage) -> int:
    """b of a stage in a part of an epoch: a multiple of ``batch_multiple`` if there is one."""
    size = _whole_size(args, stage)
    return size - size % args.batch_multiple or size


def _whole_size(args: Arguments, stage: Stage) -> int:
    """b as a whole number, at most what is allowed."""
    return int(min(stage.batch_size * (1 + batches.CLOSE), args.largest))


def _batches_until(args: Arguments, end: int, samples: int, size: int) -> int:
    """The batches of the last ``samples`` of a stage, which ends inside an epoch, at ``end``.

    A batch that is cut short would have another noise, so the stage ends with a whole batch: the
    one that is nearest to its end.
    """
    # The size of a table holds from the first batch at or after its place, as in Megatron-LM.
    return batches.count(samples, size) if end in args.thresholds else round(samples / size)


def _batches_of_epochs(args: Arguments, stages: Sequence[Stage]) -> list[int]:
    """k of a whole epoch in each stage; k never grows.

    It is ⌈n/b⌉ where b itself is given, and else ⌈k_1 b_1/b⌉ with k_1 = ⌈n/b_1⌉. It is at least
    ⌈n/max_batch_size⌉. With ``batch_multiple`` it is the next k whose larger batch is
    a multiple, if there is one.
    """
    n, ks = args.per_epoch, []
    least_k, k_1 = batches.count(n, args.largest), batches.count(n, args.batch_size)
    most_k = k_1
    for stage in stages:
        if args.sizes:
            k = batches.count(n, _whole_size(args, stage))
        else:
            k = batches.whole(k_1 * args.batch_size / stage.batch_size)
        k = min(max(k, least_k), most_k)
        for larger_k in range(k, most_k + 1):
            if batches.larger_size(n, larger_k) % args.batch_multiple == 0:
                k = larger_k
                break
        most_k = k
        ks.append(k)
    return ks
