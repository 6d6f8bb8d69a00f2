"""Study: assumptions A1 (L_g-smooth) and A2 (L_f-Lipschitz) along real training runs."""

from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lab.theory import digits
from lab.theory.implicit import Constants, rounds_for
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

EPOCHS, RATE, BATCH, SEEDS = 20, 0.15, 32, 3
NETWORKS = {"ReLU": digits.Network(), "tanh": digits.Network(activation=torch.tanh)}
STEPS = 10.0 ** -np.arange(1, 7)
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0)
PAIRS = 40  # pairs of a sample and a hidden unit; the kink of the unit is crossed
PICTURE = "assumptions.png"


def trained(name: str, data: digits.Digits, seed: int) -> tuple[list[dict[str, Any]], Tensor]:
    """Train; return a record of each epoch with secants to the epoch before, and the last point."""
    network = NETWORKS[name]
    recipe = digits.Recipe(np.full(EPOCHS, RATE), np.full(EPOCHS, BATCH), np.zeros(EPOCHS))
    start = network.initial(1, seed)
    budget = EPOCHS * len(data.train_labels)
    points = [start, *digits.train(data, recipe, start, budget, seed, network)]
    losses = [float(network.loss(x, *data.train)) for x in points]
    slopes = [network.gradient(x, *data.train) for x in points]
    records = []
    for epoch, (x, loss, slope) in enumerate(zip(points, losses, slopes, strict=True)):
        back = max(epoch - 1, 0)
        moved = float((x - points[back]).norm()) or np.nan
        records.append(
            {
                "network": name,
                "seed": seed,
                "epoch": epoch,
                "loss": loss,
                "gradient_norm": float(slope.norm()),
                "largest_curvature": digits.largest_curvature(network, x[0], data),
                "secant_f": abs(loss - losses[back]) / moved,
                "secant_gradient": float((slope - slopes[back]).norm()) / moved,
                "C2": _variance(network, x[0], data),
            }
        )
    return records, points[-1][0]


def _variance(network: digits.Network, x: Tensor, data: digits.Digits) -> float:
    gradients = digits.sample_gradients(network, x, data)
    return float((gradients - gradients.mean(0)).square().sum(1).mean())


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
    """Record runs of both networks; at their ends cross kinks and scale the parameters."""
    data = digits.load()
    runs, kinks, scaled = [], [], []
    for name, network in NETWORKS.items():
        for seed in range(settings.seed, settings.seed + SEEDS):
            records, x = trained(name, data, seed)
            runs += records
        kinks += [
            {"network": name, "step": float(s), "secant": across_kinks(network, x, data, float(s))}
            for s in STEPS
        ]
        for c in SCALES:
            # labels moved by one, so that the loss does not vanish as the parameters grow
            labels = (data.train_labels + 1) % digits.CLASSES
            norm = float(network.gradient(c * x, data.train_images, labels).norm())
            scaled.append({"network": name, "scale": c, "gradient_norm": norm})
    return {"assumptions": frame(runs), "kinks": frame(kinks), "scaled": frame(scaled)}


def draw(frames: Frames) -> Figure:
    """Draw ‖∇f‖ and the largest curvature over the epochs, the kinks and the scaled parameters."""
    figure, axes = style.panels(4, width=3.7)
    for name, colour in zip(NETWORKS, (style.BLUE, style.RED), strict=True):
        for run in frames["assumptions"].filter(network=name).partition_by("seed"):
            axes[0].semilogy(run["epoch"], run["gradient_norm"], color=colour)
            axes[1].semilogy(run["epoch"], run["largest_curvature"].abs(), color=colour)
            axes[1].semilogy(run["epoch"], run["secant_gradient"], ":", color=colour)
        kinks = frames["kinks"].filter(network=name)
        axes[2].loglog(kinks["step"], kinks["secant"], "o-", color=colour, label=name)
        scaled = frames["scaled"].filter(network=name)
        axes[3].loglog(scaled["scale"], scaled["gradient_norm"], "o-", color=colour, label=name)
    axes[0].set(title="A2 on the run: ‖∇f‖", xlabel="epoch")
    axes[1].set(title="A1 on the run: |λ_max|, dotted: secants", xlabel="epoch")
    axes[2].set(title="A1: secants of ∇f across kinks", xlabel="distance to the kink")
    axes[3].set(title="A2: ‖∇f(c·x)‖, labels moved", xlabel="c")
    axes[2].legend()
    axes[3].legend()
    return figure


def _most(frames: Frames, column: str, name: str) -> float:
    """Return the largest value of a column, divided by its mean at the start of the runs."""
    rows = frames["assumptions"].filter(network=name)
    first = rows.filter(epoch=0 if column == "gradient_norm" else 1)[column].abs().to_numpy()
    return float(rows[column].abs().fill_nan(0.0).to_numpy().max() / first.mean())


RAN = (
    f"digits, 64–32–10 with ReLU and tanh, SGD η = {RATE}, b = {BATCH}, {EPOCHS} epochs, {SEEDS} "
    "seeds"
)


@statement("仮定 (A1)", "f is continuously differentiable and L_g-smooth", PICTURE)
def smooth(frames: Frames) -> Seen:
    """Check that secants of ∇f stay bounded on the run, and across a kink for small steps."""

    def growth(name: str) -> Check:
        secants = frames["kinks"].filter(network=name)["secant"]
        what = f"{name}: secant of ∇f across a kink, step {STEPS[-1]:g} over step {STEPS[0]:g}"
        return Check(what, float(secants[-1] / secants[0]), high=10)

    parts = [
        Check(
            f"{name}: largest secant of ∇f on the run over the first epoch's",
            _most(frames, "secant_gradient", name),
            high=10,
        )
        for name in NETWORKS
    ]
    table = frames["assumptions"]
    curvatures = {
        n: float(table.filter(network=n)["largest_curvature"].to_numpy().max()) for n in NETWORKS
    }
    return Seen(
        f"{RAN}; ∇f at both sides of {PAIRS} kinks where the last run ends",
        [*parts, growth("tanh"), growth("ReLU")],
        note="ReLU networks are not continuously differentiable: ∇f jumps where a unit switches "
        "for a sample, so no L_g holds. Largest curvature on the run by power iteration: "
        + ", ".join(f"{v:.3g} ({n})" for n, v in curvatures.items())
        + f"; 2/η = {2 / RATE:.3g}.",
        no_control="tanh and ReLU are each other's: the same check holds for one, not for the "
        "other",
    )


@statement("仮定 (A2)", "f is L_f-Lipschitz", PICTURE)
def lipschitz(frames: Frames) -> Seen:
    """Check that ‖∇f‖ is bounded on the run, and far from it."""

    def growth(name: str) -> Check:
        norms = frames["scaled"].filter(network=name)["gradient_norm"]
        what = f"{name}: ‖∇f({SCALES[-1]:g}x)‖ over ‖∇f(x)‖"
        return Check(what, float(norms[-1] / norms[0]), high=5)

    parts = [
        Check(
            f"{name}: largest ‖∇f‖ on the run over the start's",
            _most(frames, "gradient_norm", name),
            high=2,
        )
        for name in NETWORKS
    ]
    return Seen(
        f"{RAN}; parameters scaled by up to {SCALES[-1]:g}, labels moved by one",
        [*parts, growth("tanh"), growth("ReLU")],
        [Check("x²/2: |f'(100x)| over |f'(x)|", SCALES[-1] / SCALES[0], high=5)],
        note="With two layers of ReLU the logits grow as the square of the parameters' size, so "
        "‖∇f‖ grows with it; a bounded activation leaves the last layer linear.",
    )


@statement("Algorithm 3", "M = (1/(α_0 ε))^{1/p} rounds: so many a network can be trained for")
def rounds_of_a_network(frames: Frames) -> Seen:
    """Compute M from the L_f and C of the runs, and check that it is at most 1,000."""
    table = frames["assumptions"].filter(network="ReLU")
    lipschitz_f = float(table["gradient_norm"].to_numpy().max())
    noise = float(table.filter(epoch=0)["C2"].to_numpy().mean()) ** 0.5
    constants = Constants(1.0, lipschitz_f, noise, RATE, float(BATCH), 1.0, 0.0, 1.0)
    cases = [(epsilon, p) for epsilon in (1.0, 0.1, 0.01) for p in (1.0, 0.5)]
    return Seen(
        f"L_f = {lipschitz_f:.3g}, the largest ‖∇f‖, C = {noise:.3g} at the start, so δ_1 = "
        f"{constants.noise_level:.3g}; σ = 1 and d̄ = 1 assumed: α_0 = {constants.alpha0:.3g}",
        [
            Check(f"M, ε = {e:g}, p = {p:g}", rounds_for(constants, e, p), high=1000)
            for e, p in cases
        ],
        [Check("M, ε = 0.001, p = 1/2", rounds_for(constants, 0.001, 0.5), high=1000)],
    )


STUDY = Study(
    measure,
    ("assumptions", "kinks", "scaled"),
    {PICTURE: draw},
    (smooth, lipschitz, rounds_of_a_network),
)
