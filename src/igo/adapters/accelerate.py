"""The plan's batches under Accelerate, without a second sharding::

    accelerator = Accelerator()
    batches = igo.BatchSampler(plan, seed=0)
    model, optimizer = accelerator.prepare(model, optimizer)
    loader = prepare(accelerator, DataLoader(data, batch_sampler=batches))
    schedule = igo.Schedule(optimizer, batches)

``accelerator.prepare(loader)`` would give each process a whole batch: R processes would use R times
the planned samples. The sampler shares each batch among processes itself, and refuses that call.
For batches too large for the memory use ``parts=`` of the sampler. The accelerator's ``save_state``
and ``load_state`` include the sampler, also in mid-epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from igo.adapters import need, refuse_accumulation
from igo.ground.errors import UserError
from igo.method.sampler import BatchSampler

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

_data_loader = need("accelerate.data_loader")


def prepare(accelerator: Accelerator, loader: DataLoader[Any]) -> DataLoader[Any]:
    """Put batches on the accelerator's device, without sharding; register the sampler's state.

    Args:
        accelerator: made before the sampler, which then knows its rank.
        loader: a DataLoader with ``batch_sampler=igo.BatchSampler(…)``.

    Raises:
        UserError: another sampler, or gradient accumulation.
        PlanError: the data set does not have the plan's n samples.
    """
    batches = loader.batch_sampler
    if not isinstance(batches, BatchSampler):
        raise UserError("the loader needs batch_sampler=igo.BatchSampler(plan)")
    refuse_accumulation("gradient_accumulation_steps", accelerator.gradient_accumulation_steps, "")
    batches.data = loader.dataset
    batches.check_data()
    accelerator.register_for_checkpointing(batches)
    return unsharded(loader, accelerator.device, accelerator.device_placement)


def unsharded(loader: DataLoader[Any], device: Any, put: bool = True) -> DataLoader[Any]:
    """Accelerate's loader for batches that are already shared among processes."""
    prepared: DataLoader[Any] = _data_loader.prepare_data_loader(
        loader, device, num_processes=1, process_index=0, put_on_device=put, dispatch_batches=False
    )
    return prepared
