"""One parameter update of a plan, as a process makes it."""

from __future__ import annotations

from dataclasses import dataclass

from igo.method.stages import Place


@dataclass(frozen=True)
class Update(Place):
    """One parameter update, or one of the parts that its gradient is the sum of.

    ``number``, ``epoch`` and ``batch`` (in the epoch, of ``batches``) count from 1, and so does
    ``part`` of ``parts``. ``own`` are the samples of this part on this rank.
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
        """What a part's mean loss is multiplied by where ranks average gradients (DDP).

        own · ranks / batch_size: 1 where there is one part and all ranks have equal shares. It
        makes the sum over parts of the average over ranks the gradient of the whole batch's mean.
        """
        return self.own * self.ranks / self.batch_size

    @property
    def ends(self) -> bool:
        """Whether it is the last part: ``optimizer.step()`` comes after it, and only then."""
        return self.part == self.parts

    @property
    def ends_epoch(self) -> bool:
        """Whether it is the last part of its epoch's last update."""
        return self.ends and self.batch == self.batches
