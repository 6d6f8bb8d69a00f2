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
    later_stages = range(1, stages)
    warm_epochs = warmup // n
    epochs = total // n - warm_epochs
    if total % n == 0 and stages <= epochs:
        return [0, *((warm_epochs + m * epochs // stages) * n for m in later_stages)]
    samples = total - warmup
    # Half a sample is rounded in whole numbers: floats could differ between machines.
    return [0, *(warmup + (2 * m * samples + stages) // (2 * stages) for m in later_stages)]


def cut(args: Arguments, stages: Sequence[Stage]) -> Iterator[Row]:
    """Yield the rows of all stages; they have no η and no φ yet.

    No piece of an epoch is shorter than a batch of its stage: it belongs to its neighbour. So a
    stage that is shorter than its batch has one batch, and nothing is left of the stages that this
    batch covers. At the end of the plan such a piece is left out.
    """
    starts = [stage.start for stage in stages]
    total, n = args.total, args.per_epoch
    # b of a part of an epoch is a multiple where one is asked.
    whole_sizes = [_size(args, stage.share) for stage in stages]
    sizes = [size - size % args.batch_multiple or size for size in whole_sizes]
    of_epochs = _batches_of_epochs(args, stages)
    thresholds = args.thresholds
    on_grid = args.n is None and args.batch_multiple > 1  # The last piece, too, is whole batches.
    place = 0
    for m, (size, end) in enumerate(zip(sizes, [*starts[1:], total], strict=True)):
        has_batches = ends_inside = False
        while place < end and not ends_inside:
            epoch, start = divmod(place, n)
            room = min(n - start, total - place)  # The epoch may end after the plan.
            epochs, samples = 1, room
            ends_inside = end - place < room
            if ends_inside:
                # A batch that is cut short would have another noise. So the stage ends with the
                # whole batch that is nearest to its end. The size of a table holds from the first
                # batch at or after its place, as in Megatron-LM.
                k = round((end - place) / size)
                if end in thresholds:
                    k = batches.count(end - place, size)
                samples = size * max(k, not has_batches)
                next_stage = max(bisect_right(starts, place + samples) - 1, m + 1)
                # The rest of the epoch holds no batch of the stage that follows, so it is trained
                # here.
                if room - samples < sizes[next_stage]:
                    samples = room
            if on_grid:
                samples -= samples % size
            k = batches.count(samples, size)
            if args.n and samples == n:
                epochs, k = max((end - place) // n, 1), of_epochs[m]
            if samples < size:
                break
            yield Row(
                stage=m + 1,
                first_epoch=epoch + 1,
                epochs=epochs,
                batches=k,
                start=start,
                samples=samples,
            )
            place += epochs * samples
            has_batches = True


def _size(args: Arguments, share: float) -> int:
    """b as a whole number: at most b_1/share, and at most what is allowed."""
    return int(min(args.batch_size / share * (1 + batches.CLOSE), args.largest))


def _batches_of_epochs(args: Arguments, stages: Sequence[Stage]) -> list[int]:
    """k of a whole epoch in each stage; k never grows.

    It is ⌈n/b⌉ where b itself is given, and else ⌈k_1 b_1/b⌉ with k_1 = ⌈n/b_1⌉. It is at least
    ⌈n/max_batch_size⌉. With ``batch_multiple`` it is the next k whose larger batch is
    a multiple, if there is one.
    """
    n, multiple, ks = args.per_epoch, args.batch_multiple, []
    least_k, k_1 = batches.count(n, args.largest), batches.count(n, args.batch_size)
    most_k = k_1
    for stage in stages:
        if args.sizes:
            k = batches.count(n, _size(args, stage.share))
        else:
            k = batches.whole(k_1 * stage.share)
        k = min(max(k, least_k), most_k)
        on_grid = (j for j in range(k, most_k + 1) if batches.larger_size(n, j) % multiple == 0)
        most_k = next(on_grid, k)
        ks.append(most_k)
    return ks
