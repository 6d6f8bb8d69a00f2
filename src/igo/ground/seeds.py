"""Random streams that depend on the run's seed and their purpose alone.

Each epoch's permutation, augmentation and dropout have seeds derived from (seed, purpose, epoch).
So a resumed run needs no generator states, and no stream influences another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # A plan is made and printed without torch.
    import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2^63) for one purpose: the first 63 bits of a SHA-256."""
    path = "/".join(str(word) for word in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def python_generators() -> Iterator[None]:
    """After the body set ``random`` and ``numpy.random`` back to their states before it."""
    import numpy as np

    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def seed_python(seed: int) -> None:
    """Seed ``random`` and ``numpy.random``."""
    import numpy as np

    random.seed(seed)
    # A seed of NumPy's old generator has 32 bits.
    np.random.seed(seed % 2**32)
