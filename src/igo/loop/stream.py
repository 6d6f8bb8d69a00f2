"""The items of a stream: how many are left, and whether they are samples or micro-batches."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from igo.plans.plan import Plan
from igo.plans.rows import Update


def next_of(stream: Iterator[Any], number: int, update: Update, plan: Plan) -> list[Any]:
    """The next ``number`` items of a stream, for an update of a plan.

    Raises:
        RuntimeError: the stream has fewer.
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
    """Whether an item of a stream is a micro-batch and no sample, by the rows of its tensors.

    All tensors of a micro-batch have one number of rows. It is ``part_size``, the number of samples
    in a part; or, if there are several tensors, not all of them vectors, a number that divides
    ``part_size``.
    """
    if isinstance(item, list) and len(item) == 1:
        item = item[0]  # DALI has lists of one batch.
    values = item.values() if isinstance(item, Mapping) else item
    is_one_field = hasattr(item, "shape") or not isinstance(values, Iterable)
    fields = [item] if is_one_field else [*values]
    # A list, such as one of words, may be a field of a sample or of a batch.
    arrays = [field for field in fields if not isinstance(field, list)]
    shapes: list[Any] = [getattr(array, "shape", ()) for array in arrays]
    if not shapes or not all(map(len, shapes)):
        return False  # Only a sample has a field without rows.
    size = int(shapes[0][0])
    if any(shape[0] != size for shape in shapes):
        return False
    # A sample may have one tensor with any number of rows, or vectors of one length, such as its
    # tokens and their mask; and one row divides any size. So here the size itself must agree.
    are_all_vectors = all(len(shape) == 1 for shape in shapes)
    if len(shapes) == 1 or are_all_vectors or size <= 1:
        return size == part_size
    return part_size % size == 0


def shown_size(batch: Any) -> int | None:
    """The rows of the first tensor or array in a batch; without one, the length of its first list.

    None if the batch has no tensor, array or list.
    """
    length = None
    while isinstance(batch, Mapping | list | tuple) and batch:
        length = len(batch)
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return len(batch) if getattr(batch, "ndim", 0) else length
