"""The items of a stream: how many are left, and whether they are samples or micro-batches."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from igo.plans.plan import Plan
from igo.plans.rows import Update


def next_of(stream: Iterator[Any], number: int, update: Update, plan: Plan) -> list[Any]:
    """The next ``number`` items of a stream; an error names the update of the plan they are for.

    Raises:
        RuntimeError: the stream has fewer than ``number`` items left.
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

    A guess, as nothing else tells them apart. All tensors of a micro-batch have one number of rows:
    ``part_size``, the number of samples in a part of the plan; or, of a loader whose micro-batches
    are smaller, a number that divides ``part_size``. The second holds only for several tensors that
    are not all vectors, since tensors of a sample may have such a number of rows by chance.
    """
    if isinstance(item, list) and len(item) == 1:
        item = item[0]  # DALI has lists of one batch.
    # The fields of an item are the values of a dictionary, the elements of a tuple or list, or
    # else the item itself.
    fields = item.values() if isinstance(item, Mapping) else item
    if hasattr(item, "shape") or not isinstance(fields, Iterable):
        fields = [item]
    # A list, such as one of words, says nothing: a sample or a micro-batch may have it as a field.
    shapes: list[Any] = [
        getattr(field, "shape", ()) for field in fields if not isinstance(field, list)
    ]
    if not shapes or not all(map(len, shapes)):
        return False  # Only a sample has a number or a text, which has no rows.
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
    """The number of samples that a batch shows; None if it has no tensor, array or list.

    It is the rows of the first tensor or array, also inside dictionaries, lists and tuples. If what
    comes first is neither, as a text, it is the length of the innermost list around that.
    """
    length = None
    # Go down into the first element, until it holds no others.
    while isinstance(batch, Mapping | list | tuple) and batch:
        length = len(batch)
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return len(batch) if getattr(batch, "ndim", 0) else length
