"""One parameter update of a plan, as one process makes it."""

from __future__ import annotations

from dataclasses import dataclass

from igo.method.stages import Place


@dataclass(frozen=True)
class Update(Place):
    """One parameter update, or one part of it. The gradients of the parts add up.

    ``number``, ``epoch`` and ``batch`` (in the epoch, of ``batches``) count from 1, and so does
    ``part`` of ``parts``. ``own`` is the number of samples of this part on this rank.
    """

    own: int
    ranks: int
    part: int = 1
    parts: int = 1

    @property
    def batch_size(self) -> int:
        """Samples of the batch over all ranks and parts."""
        return self.size

    @property
    def weight(self) -> float:
        """The factor of a part's mean loss if ranks average gradients (DDP).

        It is own · ranks / batch_size: 1 for one part and equal shares. With it, the average over
        ranks, summed over parts, is the gradient of the whole batch's mean loss.
        """
        return self.own * self.ranks / self.batch_size

    @property
    def ends(self) -> bool:
        """Whether this is the last part. Call ``optimizer.step()`` after the last part only."""
        return self.part == self.parts

    @property
    def ends_epoch(self) -> bool:
        """Whether this is the last part of the epoch's last update."""
        return self.ends and self.batch == self.batches
