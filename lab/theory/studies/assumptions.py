"""Study: assumptions A1 (L_g-smooth) and A2 (L_f-Lipschitz) at the end of a training."""

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lab.theory import digits
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

EPOCHS, RATE, BATCH = 20, 0.15, 32
NETWORKS = {"ReLU": digits.Network(), "tanh": digits.Network(activation=torch.tanh)}
STEPS = 10.0 ** -np.arange(1, 7)
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0)
PAIRS = 40  # pairs of a sample and a hidden unit; the kink of the unit is crossed
PICTURE = "assumptions.png"


def across_kinks(network: digits.Network, x: Tensor, data: digits.Digits, step: float) -> float:
    """Return the largest ‖∇f(x₊) − ∇f(x₋)‖/‖x₊ − x₋‖ across switches of a unit for a sample.

    x± is x with the unit's bias moved so that its input on that sample is ±step.
    """
    first, second, *_ = network.sizes
    weights = x[:first].view(digits.PIXELS, network.hidden)
    before = data.train_images @ weights + x[first : first + second]
    random = torch.Generator().manual_seed(1)
    samples = torch.randint(len(before), (PAIRS,), generator=random)
    units = torch.randint(network.hidden, (PAIRS,), generator=random)
    sides = []
    for sign in (1, -1):
        moved = x.repeat(PAIRS, 1)
        moved[torch.arange(PAIRS), first + units] += sign * step - before[samples, units]
        sides.append(network.gradient(moved, *data.train))
    return float((sides[0] - sides[1]).norm(dim=1).max()) / (2 * step)


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Train both networks; at their ends cross kinks and scale the parameters."""
    data = digits.load()
    kinks, scaled = [], []
    # labels moved by one, so that the loss does not vanish as the parameters grow
    labels = (data.train_labels + 1) % digits.CLASSES
    for name, network in NETWORKS.items():
        x = digits.after_epochs(data, EPOCHS, RATE, BATCH, settings.seed, network)
        kinks += [
            {"network": name, "step": float(s), "secant": across_kinks(network, x, data, float(s))}
            for s in STEPS
        ]
        for c in SCALES:
            norm = float(network.gradient(c * x, data.train_images, labels).norm())
            scaled.append({"network": name, "scale": c, "gradient_norm": norm})
    return {"kinks": frame(kinks), "scaled": frame(scaled)}


def draw(frames: Frames) -> Figure:
    """Draw the secants across kinks, and ‖∇f‖ of scaled parameters."""
    figure, axes = style.panels(2)
    for name, colour in zip(NETWORKS, (style.BLUE, style.RED), strict=True):
        kinks = frames["kinks"].filter(network=name)
        axes[0].loglog(kinks["step"], kinks["secant"], "o-", color=colour, label=name)
        scaled = frames["scaled"].filter(network=name)
        axes[1].loglog(scaled["scale"], scaled["gradient_norm"], "o-", color=colour, label=name)
    axes[0].set(title="A1: secants of ∇f across kinks", xlabel="distance to the kink")
    axes[1].set(title="A2: ‖∇f(c·x)‖, labels moved", xlabel="c")
    axes[0].legend()
    return figure


RAN = (
    f"digits, 64–32–10 with ReLU and tanh, after SGD with η = {RATE}, b = {BATCH}, {EPOCHS} epochs"
)


@statement("仮定 (A1)", "f is continuously differentiable and L_g-smooth", PICTURE)
def smooth(frames: Frames) -> Seen:
    """Check that secants of ∇f across a kink do not grow for small steps."""

    def growth(name: str) -> Check:
        secants = frames["kinks"].filter(network=name)["secant"]
        what = f"{name}: secant of ∇f across a kink, step {STEPS[-1]:g} over step {STEPS[0]:g}"
        return Check(what, float(secants[-1] / secants[0]), high=10)

    return Seen(
        f"{RAN}; ∇f at both sides of {PAIRS} kinks",
        [growth("tanh"), growth("ReLU")],
        note="ReLU networks are not continuously differentiable: ∇f jumps where a unit switches "
        "for a sample, so no L_g holds.",
        no_control="tanh and ReLU are each other's: the same check holds for one, not for the "
        "other",
    )


@statement("仮定 (A2)", "f is L_f-Lipschitz", PICTURE)
def lipschitz(frames: Frames) -> Seen:
    """Check that ‖∇f‖ is bounded as the parameters grow."""

    def growth(name: str) -> Check:
        norms = frames["scaled"].filter(network=name)["gradient_norm"]
        what = f"{name}: ‖∇f({SCALES[-1]:g}x)‖ over ‖∇f(x)‖"
        return Check(what, float(norms[-1] / norms[0]), high=5)

    return Seen(
        f"{RAN}; parameters scaled by up to {SCALES[-1]:g}, labels moved by one",
        [growth("tanh"), growth("ReLU")],
        [Check("x²/2: |f'(100x)| over |f'(x)|", SCALES[-1] / SCALES[0], high=5)],
        note="With two layers of ReLU the logits grow as the square of the parameters' size, so "
        "‖∇f‖ grows with it; a bounded activation leaves the last layer linear.",
    )


STUDY = Study(measure, ("kinks", "scaled"), {PICTURE: draw}, (smooth, lipschitz))
