"""The items of a stream: how many are left, and whether they are samples or micro-batches."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from igo.plans.plan import Plan
from igo.plans.rows import Update


def next_of(stream: Iterator[Any], number: int, update: Update, plan: Plan) -> list[Any]:
    """The next items of a stream.

    Raises:
        RuntimeError: it has fewer.
    """
    items = list(islice(stream, number))
    if len(items) < number:
        raise RuntimeError(
            f"the stream ended in update {update.number:,} of {plan.updates:,}, before"
            f" all {plan.samples:,} samples of the plan; give igo.plan fewer samples=,"
            " or a stream that goes on"
        )
    return items


def is_batch(item: Any, part_size: int) -> bool:
    """Whether an item of a stream of samples is a micro-batch: all its tensors have as many rows.

    These are as many as a part has samples; of several that are not all vectors, a number that
    divides it.
    """
    if isinstance(item, list) and len(item) == 1:
        item = item[0]  # DALI has lists of one batch.
    values = item.values() if isinstance(item, Mapping) else item
    fields = [item] if hasattr(item, "shape") or not isinstance(values, Iterable) else [*values]
    # A list, such as one of words, may be a field of a sample or of a batch.
    shapes = [getattr(field, "shape", ()) for field in fields if not isinstance(field, list)]
    rows = {tuple(shape[:1]) for shape in shapes}
    if len(rows) != 1 or () in rows:
        return False
    ((size,),) = rows
    divides = len(shapes) > 1 < size and max(map(len, shapes)) > 1 and part_size % size == 0
    return size == part_size or divides


def shown_size(batch: Any) -> int | None:
    """The rows of the first tensor or array in a batch; without one, the length of its first list.

    It is None if the batch has neither.
    """
    length = None
    while isinstance(batch, Mapping | list | tuple) and batch:
        length = len(batch)
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return len(batch) if getattr(batch, "ndim", 0) else length
