"""Points within an epoch, one each minute, for those who watch a long one."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from igo.ground.files import Record
from igo.noise.noise import Noise
from igo.plans.rows import Update
from igo.train.record import Training, delta_of

EVERY = 60.0  # seconds


class Minutes:
    """Tells, each minute of an epoch, the mean loss since the minute before, and η, b and δ.

    A point is read from the device. Of several ranks' losses it has this rank's.

    Args:
        run: the training.
        reference: C² and ‖∇f‖ at its start, for δ.
        tell: gets each point; its names are those of records behind ``minute/``.
    """

    def __init__(
        self, run: Training, reference: Noise | None, tell: Callable[[Record], None]
    ) -> None:
        self._run, self._reference, self._tell = run, reference, tell
        self._time, self._batches = time.monotonic(), 0  # The newest point has these.

    def take(self, update: Update, sums: list[Tensor], shares: list[int]) -> None:
        """Take an update; each batch so far has a sum of losses, another one, and its samples."""
        seconds = time.monotonic()
        if seconds - self._time < EVERY:
            return
        loss = torch.stack(sums[2 * self._batches :: 2]).sum() / sum(shares[self._batches :])
        eta, size, config = update.learning_rate, update.batch_size, self._run.config
        delta = delta_of(config, eta, size, config.optimizer.momentum, self._reference)
        self._tell(
            {
                "minute/updates": update.number,
                "minute/train/loss": loss.item(),
                "minute/eta_m": eta,
                "minute/b_m": size,
                "minute/delta_m": delta,
            }
        )
        self._time, self._batches = seconds, len(shares)
