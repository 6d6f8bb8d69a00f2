"""src/train.py with a small network in float64: runs that rounding alone tells apart end as one.

In float32 the sums of several ranks are rounded otherwise than those of one, and each update
carries it on, so far that no bound would tell it from a mistake. Here the last step before the loss
alone is float32: where it rounds a logit otherwise, runs are 2⁻²⁴ of that logit apart. The network
has no BatchNorm, whose statistics are of each rank's share on CPUs.
"""

import runpy
import sys
from pathlib import Path

from torch import nn

from igo.train import models

PROGRAM = Path(__file__).parents[1] / "src" / "train.py"


def main(*arguments: str) -> None:
    """Train as this command line says."""
    models.build = lambda *_: network()
    sys.argv = [str(PROGRAM), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def network(*before_the_last: nn.Module) -> nn.Module:
    """10 logits of 8x8 images; it takes float32."""
    layers = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        *before_the_last,
        nn.Linear(96, 10),
    ).double()
    layers.register_forward_pre_hook(lambda _, inputs: tuple(x.double() for x in inputs))
    return layers


if __name__ == "__main__":
    main(*sys.argv[1:])
