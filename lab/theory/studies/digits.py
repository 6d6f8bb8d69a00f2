"""Study: the cost of explicit graduated optimization for a small network on digits."""

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from lab.theory.digits import NETWORK, Recipe, load, train
from lab.theory.explicit import halving_levels, optimal_levels
from lab.theory.row import Frames, Seen, Settings, Study, frame, mean, statement
from lab.theory.studies import style

EPOCHS, STAGES, SEEDS, BATCH = 20, 10, 5, 32
RATES = (0.05, 0.15, 0.5)
IMPLICIT = ("SGD, constant", "implicit, η decays", "implicit, b grows")
EXPLICIT = ("explicit, k = 2", "explicit, k = 8", "explicit, k = 8, halving")
METHODS = ("gradient descent", *IMPLICIT, *EXPLICIT)
PICTURE = "digits.png"


def recipe(method: str, rate: float) -> Recipe:
    """Return a method's learning rates, batch sizes and noise levels by stage."""
    ones, none = np.ones(STAGES), np.zeros(STAGES)
    fixed, decay = np.full(STAGES, BATCH), optimal_levels(1.0, STAGES, 0.5)
    if method == "gradient descent":
        return Recipe(rate * ones, np.full(STAGES, 10**6), none)
    if method == "SGD, constant":
        return Recipe(rate * ones, fixed, none)
    if method == "implicit, η decays":
        return Recipe(rate * decay, fixed, none)
    if method == "implicit, b grows":
        return Recipe(rate * ones, np.round(BATCH / decay**2).astype(int), none)
    copies = int(method.split("k = ")[1].split(",", maxsplit=1)[0])
    falling = halving_levels(0.1, STAGES) if method.endswith("halving") else 0.1 * decay
    return Recipe(rate * ones, fixed, falling, copies)


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Train every method on the same number of sample gradients, learning rate tuned for each."""
    data, records = load(), []
    budget = EPOCHS * len(data.train_labels)

    def losses(method: str, rate: float, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = train(data, recipe(method, rate), start, budget, settings.seed)
        return points[-1], torch.stack([NETWORK.loss(x, *data.train) for x in points])

    trial = NETWORK.initial(2, settings.seed + 999)
    start = NETWORK.initial(SEEDS, settings.seed)
    for method in METHODS:
        ends = [losses(method, rate, trial)[1][-1].mean().nan_to_num(torch.inf) for rate in RATES]
        rate = RATES[int(torch.stack(ends).argmin())]
        end, curve = losses(method, rate, start)
        right = NETWORK.accuracy(end, data.test_images, data.test_labels)
        records += [
            {
                "method": method,
                "learning_rate": rate,
                "seed": settings.seed + s,
                "stage": m + 1,
                "train_loss": float(curve[m, s]),
                "test_accuracy": float(right[s]) if m + 1 == STAGES else None,
            }
            for s in range(SEEDS)
            for m in range(STAGES)
        ]
    return {"digits": frame(records)}


def draw(frames: Frames) -> Figure:
    """Draw the training loss against the cost, and the test accuracy of every seed."""
    figure, (left, right) = style.panels(2, width=5.2, height=3.8)
    for index, method in enumerate(METHODS):
        rows = frames["digits"].filter(method=method)
        curve = rows.group_by("stage", maintain_order=True).agg(pl.col("train_loss").mean())
        spent, colour = EPOCHS / STAGES * curve["stage"], style.COLOURS[index]
        line = "--" if "explicit" in method else "-"
        left.semilogy(spent, curve["train_loss"], line, color=colour, label=method)
        last = rows.filter(stage=STAGES)["test_accuracy"]
        right.plot(100 * last, [index] * SEEDS, "o", alpha=0.6, color=colour)
    left.set(xlabel="sample gradients spent, in epochs", ylabel="training loss (mean of 5 seeds)")
    left.set_ylim(top=40)
    left.legend(fontsize=8, ncols=2, loc="upper center")
    right.set_yticks(range(len(METHODS)), METHODS)
    right.invert_yaxis()
    right.set(xlabel="test accuracy, %", title="each dot a seed")
    return figure


@statement(
    "slide: 目的関数の平滑化, 貢献",
    "SGD's own noise does for a network, for free, what sampling f̂_δ does at a cost",
    PICTURE,
)
def noise_is_free(frames: Frames) -> Seen:
    """Compare the best explicit run with the best implicit one at equal cost, seed by seed."""
    last = frames["digits"].filter(stage=STAGES)
    loss = {m: last.filter(method=m)["train_loss"] for m in METHODS}
    best, rival = (
        min(names, key=lambda m: float(loss[m].mean()))  # type: ignore[arg-type]
        for names in (IMPLICIT, EXPLICIT)
    )
    accuracy = {m: last.filter(method=m)["test_accuracy"] for m in (best, rival)}
    copies = int(rival.split("k = ")[1].split(",", maxsplit=1)[0])
    earlier = {
        k: frames["digits"].filter(method=best, stage=k)["train_loss"]
        for k in (STAGES // copies, 1)
    }
    return Seen(
        f"scikit-learn's digits, {NETWORK.parameters:,} parameters, {EPOCHS} epochs' worth of "
        f"sample gradients for every method, learning rate tuned for each, {SEEDS} seeds; "
        "explicit: k Gaussian copies of all parameters a step, δ_1 = 0.1",
        [
            mean(
                f"equal cost: log of the training loss, “{rival}” over “{best}”",
                (loss[rival] / loss[best]).log(),
                0,
            ),
            mean(
                f"equal updates: the same, “{best}” after 1/{copies} of the cost",
                (loss[rival] / earlier[STAGES // copies]).log(),
                0,
            ),
            mean(
                f"test accuracy, “{best}” less “{rival}”, at most half a point worse",
                accuracy[best] - accuracy[rival],
                -0.005,
            ),
        ],
        [
            mean(
                f"log of the training loss, “{rival}” over “{best}” after 1/{STAGES} of the cost",
                (loss[rival] / earlier[1]).log(),
                0,
            )
        ],
        note="k copies a step leave 1/k of the steps at equal cost. What the explicit runs gain "
        "by smoothing shows at equal updates.",
    )


STUDY = Study(measure, ("digits",), {PICTURE: draw}, (noise_is_free,))
