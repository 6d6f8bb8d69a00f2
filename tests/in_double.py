"""src/train.py with the network in float64: runs that rounding alone tells apart end as one.

In float32 the sums of several ranks are rounded otherwise than those of one, and each update
carries it on, so far that no bound would tell it from a mistake. Here the last step before the loss
alone is float32: where it rounds a logit otherwise, runs are 2⁻²⁴ of that logit apart.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from igo.train import models

Build = Callable[..., nn.Module]
PROGRAM = Path(__file__).parents[1] / "src" / "train.py"


def main(*arguments: str) -> None:
    """Train as this command line says."""
    models.build = doubled(models.build)
    sys.argv = [str(PROGRAM), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def doubled(build: Build) -> Build:
    """The same networks in float64; they take float32 images."""

    def built(*given: Any) -> nn.Module:
        network = build(*given).double()
        network.register_forward_pre_hook(lambda _, inputs: tuple(x.double() for x in inputs))
        return network

    return built


if __name__ == "__main__":
    main(*sys.argv[1:])
