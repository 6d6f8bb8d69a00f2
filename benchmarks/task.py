"""What every contender trains, and how it tells of its turns: plain data, nothing of igo."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """A training.

    ``file`` is an .npz: images (n, H, W, C) uint8 with labels (n,), or text as bytes (n, T) with
    the bytes that follow (n, T); and a test set of the same form. ``turns`` has the number of equal
    batches and η of each turn. On text η follows half a cosine instead, update by update.
    """

    file: Path
    network: str  # a function of networks
    turns: tuple[tuple[int, float], ...]
    samples: int  # of a turn: an epoch, or a part of one
    crop: int = 0  # pixels; half of all images are mirrored
    rotation: int = 0  # degrees
    settings: tuple[str, ...] = ()  # igo's, which others do not read; text has none

    @property
    def is_text(self) -> bool:
        return not self.settings

    def order(self, turn: int, n: int) -> Tensor:
        """The places of a turn's samples (samples,) among n; turns that are epochs have all n."""
        return turn * self.samples % n + torch.randperm(self.samples)

    def arrays(self, part: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of the training set, or with "test_" of the test set."""
        with np.load(self.file) as arrays:
            return arrays[f"{part}images"], arrays[f"{part}labels"].astype(np.int64)

    def tensors(self, part: str = "") -> tuple[Tensor, Tensor]:
        """The same on the device; images as float32 (n, C, H, W) in [0, 1], text as int64."""
        inputs, targets = (torch.from_numpy(array).to(device()) for array in self.arrays(part))
        return inputs.long() if self.is_text else inputs.permute(0, 3, 1, 2) / 255, targets

    def normalised(self, images: Tensor) -> Tensor:
        """Images without the mean and deviation of the training set's channels."""
        mean, deviation = self._moments
        return (images - mean) / deviation

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        images, _ = self.tensors()
        deviation, mean = torch.std_mean(images, (0, 2, 3), keepdim=True)
        return mean, deviation


class Turns(Protocol):
    """Called by a contender around every turn."""

    def begin(self) -> None:
        """Wait for the turn; the clock starts."""
        ...

    def end(self, images: int, updates: int, seconds: float | None = None) -> None:
        """Stop the clock after so many images and updates.

        ``seconds`` counts in place of the clock's time.
        """
        ...


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise() -> None:
    """Wait until the GPU has finished, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
