"""An update whose loss or gradient is not finite is not made; the host does not wait to find out.

The device decides, as with GradScaler: a fused optimizer reads a flag there. For another optimizer
the host reads the flag, and waits for a GPU. The loss that the update returns is then not finite,
which is noticed at once on a CPU, and at the end of the epoch on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from igo.ground.ranks import ALONE, Ranks
from igo.train import optim


class NotFinite(ArithmeticError):
    """A number is not finite. ``reason`` is a message, or the update's number in its epoch."""

    def __init__(self, reason: int | str) -> None:
        if isinstance(reason, int):
            reason = f"the loss or its gradient is not finite at update {reason}"
        super().__init__(reason)


def mark_gradient(network: nn.Module, totals: Tensor) -> None:
    """Make a gradient not finite if the loss (``totals[0]``) is not, so that all ranks notice."""
    gradient = next((p.grad for p in network.parameters() if p.grad is not None), None)
    if gradient is not None:
        gradient[(0,) * gradient.dim()] += totals[0] * 0


@contextmanager
def checked(optimizer: torch.optim.Optimizer, totals: Tensor) -> Iterator[bool]:
    """Check that gradients and loss are finite; if not, the loss becomes not finite.

    Args:
        optimizer: with gradients. A fused one skips the update itself, in the body.
        totals: (2,) the loss and the correct answers of the batch, changed in place.

    Yields:
        Whether the optimizer is to make its step.
    """
    # GradScaler's operation multiplies by the scale, here 1, and sets the flag. It takes 13 µs for
    # a ResNet-8 on a CPU; a norm takes 90.
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = [p.grad for p in parameters if p.grad is not None]
    flag, scale = totals.new_zeros(()), totals.new_ones(())
    torch._amp_foreach_non_finite_check_and_unscale_([*gradients, totals], flag, scale)
    totals /= 1 - flag
    if not optim.takes_flag(optimizer):
        yield not flag.item()
        return
    optimizer.found_inf = flag  # type: ignore[attr-defined]
    try:
        yield True
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[list[Tensor]]:
    """Restore BatchNorm's statistics if the loss that the body appends is not finite."""
    before = [buffer.clone() for buffer in network.buffers()]
    losses: list[Tensor] = []
    yield losses
    with torch.no_grad():
        for buffer, old in zip(network.buffers(), before, strict=True):
            buffer.copy_(torch.where(losses[0].isfinite(), buffer, old))


class Tally:
    """Losses and correct answers of an epoch's updates, on the device."""

    def __init__(self, updates: int, device: torch.device, skip: bool) -> None:
        self._rows = torch.zeros(updates, 2, device=device)
        self._skip = skip
        self._direct = device.type == "cpu"  # reading does not wait

    def add(self, update: int, totals: Tensor) -> None:
        """Add the totals of an update, which counts from 0.

        Raises:
            NotFinite: on a CPU, unless such updates are skipped.
        """
        self._rows[update] = totals
        if self._direct and not self._skip and not math.isfinite(totals[0].item()):
            raise NotFinite(update + 1)

    def sums(self, ranks: Ranks = ALONE) -> tuple[Tensor, Tensor]:
        """This rank's sums (2,) over the finite updates, and which updates are finite.

        They are added one after the other in float32, without the skipped ones.

        Raises:
            NotFinite: an update is not finite, and such updates are not skipped.
        """
        rows = self._rows.cpu()
        finite = rows[:, 0].isfinite()
        if ranks.size > 1:
            finite = ranks.sum_((~finite).double()) == 0
        if not self._skip and not finite.all():
            raise NotFinite(int((~finite).nonzero()[0]) + 1)
        if not finite.any():
            return torch.zeros(2), finite
        running = np.add.accumulate(rows[finite].numpy(), axis=0)
        return torch.from_numpy(running[-1]), finite
