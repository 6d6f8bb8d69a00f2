"""Study: do Adam and large batches generalise worse than SGD? Digits, several seeds."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from lab.theory import digits
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, mean, statement
from lab.theory.studies import style

EPOCHS, SEEDS, SMALL, LARGE, FULL = 15, 8, 16, 256, 10**6
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
RATES = {SGD: (0.05, 0.15, 0.5), ADAM: (0.001, 0.003, 0.01)}
PICTURE = "optimizers.png"


@dataclass(frozen=True)
class Way:
    """An optimizer, its batch size and its number of epochs."""

    optimizer: type[torch.optim.Optimizer]
    batch: int
    epochs: int = EPOCHS


WAYS = {
    f"SGD, b = {SMALL}": Way(SGD, SMALL),
    f"SGD, b = {LARGE}": Way(SGD, LARGE),
    "SGD, b = n": Way(SGD, FULL),
    f"SGD, b = {LARGE}, as many updates": Way(SGD, LARGE, EPOCHS * LARGE // SMALL),
    f"Adam, b = {SMALL}": Way(ADAM, SMALL),
    f"Adam, b = {LARGE}": Way(ADAM, LARGE),
}


def run(way: Way, rate: float, start: torch.Tensor, data: digits.Digits, seed: int) -> torch.Tensor:
    """Return the last parameters of every run."""
    batch = np.array([way.batch])
    recipe = digits.Recipe(np.array([rate]), batch, np.zeros(1), optimizer=way.optimizer)
    return digits.train(data, recipe, start, way.epochs * len(data.train_labels), seed)[-1]


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Train every way with its best learning rate: of lowest training loss on two seeds."""
    data, network, records = digits.load(settings.seed), digits.NETWORK, []
    trial = network.initial(2, settings.seed + 999)
    start = network.initial(SEEDS, settings.seed)
    for name, way in WAYS.items():
        rates = RATES[way.optimizer]
        losses = [
            network.loss(run(way, r, trial, data, settings.seed), *data.train).mean() for r in rates
        ]
        rate = rates[int(torch.stack(losses).nan_to_num(torch.inf).argmin())]
        end = run(way, rate, start, data, settings.seed)
        loss = network.loss(end, *data.train)
        right = 100 * network.accuracy(end, data.test_images, data.test_labels)
        updates = round(
            way.epochs * len(data.train_labels) / min(way.batch, len(data.train_labels))
        )
        case = {"way": name, "learning_rate": rate, "updates": updates}
        records += [
            case
            | {"seed": settings.seed + s, "train_loss": float(value), "test_accuracy": float(share)}
            for s, (value, share) in enumerate(zip(loss, right, strict=True))
        ]
    return {"optimizers": frame(records)}


def draw(frames: Frames) -> Figure:
    """Draw training loss and test accuracy of every seed."""
    figure, (left, right) = style.panels(2, width=5.4, height=3.4, sharey=True)
    for index, name in enumerate(WAYS):
        rows, colour = frames["optimizers"].filter(way=name), style.COLOURS[index]
        left.semilogx(rows["train_loss"], [index] * len(rows), "o", color=colour, alpha=0.6)
        right.plot(rows["test_accuracy"], [index] * len(rows), "o", color=colour, alpha=0.6)
    left.set_yticks(range(len(WAYS)), list(WAYS))
    left.invert_yaxis()
    left.set(xlabel="training loss at the end")
    right.set(xlabel="test accuracy at the end, %", title="each dot a seed")
    return figure


def _gap(frames: Frames, first: str, second: str, low: float = 0.0) -> Check:
    """Check the mean difference in test accuracy over seeds, paired."""
    accuracy = [frames["optimizers"].filter(way=w)["test_accuracy"] for w in (first, second)]
    return mean(f"test accuracy, “{first}” less “{second}”, points", accuracy[0] - accuracy[1], low)


RAN = (
    f"digits, 64–32–10, {EPOCHS} epochs, learning rate tuned for each by training loss, {SEEDS} "
    "seeds on one split (360 test images, so one of them is 0.28 points)"
)


@statement(
    "slide: 背景, SGDの挙動についての理論的洞察", "too large a batch generalises worse", PICTURE
)
def large_batches_generalise_worse(frames: Frames) -> Seen:
    """Compare small and large batches at equal epochs and at equal updates."""
    small, large, full, longer, *_ = WAYS
    return Seen(
        RAN,
        [
            _gap(frames, small, large),
            _gap(frames, small, full),
            _gap(frames, small, longer),
        ],
        [_gap(frames, large, small)],
        note="At equal epochs a batch of n takes fewer updates; the last part gives the large "
        "batch as many updates as the small one has.",
    )


@statement("slide: 背景", "SGD generalises well, sometimes better than Adam", PICTURE)
def adam_generalises_worse(frames: Frames) -> Seen:
    """Compare SGD and Adam at the same batch sizes."""
    small, large, full, _, adam, adam_large = WAYS
    return Seen(
        RAN,
        [_gap(frames, small, adam), _gap(frames, large, adam_large)],
        [_gap(frames, full, small)],
    )


STUDY = Study(
    measure,
    ("optimizers",),
    {PICTURE: draw},
    (large_batches_generalise_worse, adam_generalises_worse),
)
