"""Study: does the ball smooth as a network's own noise does, and do η and b set that noise?

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader

import igo
from lab.theory import digits
from lab.theory.digits import CLASSES, HIDDEN, PIXELS, SIZES
from lab.theory.row import Check, Frames, Seen, Study, Tables

STUDY = Study("own_noise")
RATE, BATCH, DRAWS = 0.15, 32, 3200
POINTS = {"start": 0, "after 1 epoch": 1, "after 20 epochs": 20}
FULL, LARGE, SLOW = "its own noise", "its own, 4b", "its own, η/2"  # the others halve δ
SETTINGS = {FULL: (RATE, BATCH), LARGE: (RATE, 4 * BATCH), SLOW: (RATE / 2, BATCH)}
NEAR = 0.25  # how far a ratio may be from 1


def module(x: Tensor) -> nn.Sequential:
    """The network with these parameters (P,), in torch's layers, whose weights are transposed."""
    first, second = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, CLASSES)
    w1, b1, w2, b2 = x.split(SIZES)
    for layer, weight, bias in ((first, w1, b1), (second, w2, b2)):
        layer.weight.data, layer.bias.data = weight.view(layer.in_features, -1).T.contiguous(), bias
    return nn.Sequential(first, nn.ReLU(), second)


def measure(seed: int) -> Tables:
    """Train, and measure the rise of the smoothed loss at three points of the run."""
    data, records = digits.load(), []
    for point, epochs in POINTS.items():
        x = digits.after_epochs(data, epochs, RATE, BATCH, seed)
        for setting, (rate, b) in SETTINGS.items():
            smoothed = igo.smoothed_loss(
                module(x),
                nn.functional.cross_entropy,
                DataLoader(data, batch_size=b, shuffle=True, drop_last=True),
                [data.tensors],
                n=len(data),
                learning_rate=rate,
                draws=DRAWS,
                seed=seed,
            )
            records.append({"point": point, "setting": setting, **vars(smoothed)})
    return (records,)


def ratio(frames: Frames, point: str, noise: str, setting: str, rival: str = FULL) -> Check:
    """Check that one noise raises the loss as SGD's own noise does at the rival setting.

    `noise` is a column of the table: own or ball. The ratio's relative error is the root of the sum
    of squares of the relative errors.
    """
    table = frames["own_noise"].filter(point=point)
    row, rival_row = (table.filter(setting=name).row(0, named=True) for name in (setting, rival))
    value = row[noise] / rival_row["own"]
    errors = row[f"{noise}_error"] / row[noise], rival_row["own_error"] / rival_row["own"]
    reach = 1.96 * abs(value) * np.hypot(*errors)
    quantity = f"loss raised by {'ball' if noise == 'ball' else setting} over {rival}, {point}"
    return Check(quantity, value, 1 - NEAR, 1 + NEAR, (value - reach, value + reach))


@STUDY.statement("SGDの平滑化特性")
def ball_smooths_as_sgd(frames: Frames) -> Seen:
    """on a network, too, SGD smooths as the ball"""
    return Seen(
        "digits",
        [ratio(frames, point, "ball", FULL) for point in POINTS],
        [ratio(frames, point, "own", LARGE) for point in POINTS],
        "SGD's noise lies in steep directions",
    )


@STUDY.statement("SGDの挙動についての理論的洞察")
def rate_and_batch_lower_the_noise(frames: Frames) -> Seen:
    """to lower η or to raise b is equivalent to lowering the noise level"""
    return Seen(
        "digits; both halve δ",
        [ratio(frames, point, "own", SLOW, LARGE) for point in POINTS],
        [ratio(frames, point, "own", FULL, LARGE) for point in POINTS],
        "Without replacement (n − b)/(n − 4b) = 1.07 is expected [derived]",
    )
