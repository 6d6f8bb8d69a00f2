"""Study: assumptions A1 (L_g-smooth), A2 (L_f-Lipschitz), A3 (unbiased, one C²) on a network.

``measure`` gives the lines of each table of STUDY. A function under ``STUDY.statement`` has a
statement of the source as its docstring, and checks it in these tables. Its ``Seen`` has in order:
how the statement was run, its checks, the same checks where they must fail, and a note.
"""

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from igo.ground.statistics import mean_of
from lab.study.cifar100 import STUDY as CIFAR100
from lab.theory import digits
from lab.theory.digits import NETWORK, Network
from lab.theory.row import Check, Frames, Records, Seen, Study, Tables

STUDY = Study("kinks", "scaled", "variance_on_the_way", "unseen_samples", "variance_cifar100")
EPOCHS, RATE, BATCH = 20, 0.15, 32
NETWORKS = {"ReLU": Network(), "tanh": Network(activation=torch.tanh)}
STEPS = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
SCALES = (1.0, 3.0, 10.0, 30.0, 100.0)  # factors of the second layer
AHEAD = 1e-5  # length of a step along ∇f, for a secant of ∇f
PAIRS = 40  # pairs of a sample and a hidden unit; the kink of the unit is crossed
TIMES = (0, 1, 2, 5, 10, 20)  # epochs at which C² is taken
HALVES, SEEDS = (1, 5, 20), 20  # epochs in whose middle unseen samples are compared with all


def across_kinks(network: Network, x: Tensor, data: TensorDataset, step: float) -> float:
    """Return the largest ‖∇f(x₊) − ∇f(x₋)‖/‖x₊ − x₋‖ across switches of a unit for a sample.

    x± is x with the unit's bias moved so that its input on that sample is ±step.
    """
    weights, biases, *_ = x.split(digits.SIZES)
    inputs = data.tensors[0] @ weights.view(digits.PIXELS, digits.HIDDEN) + biases
    random = torch.Generator().manual_seed(1)
    samples = torch.randint(len(inputs), (PAIRS,), generator=random)
    units = torch.randint(digits.HIDDEN, (PAIRS,), generator=random)
    jumps = []
    for sample, unit in zip(samples, units, strict=True):
        gradients = []
        for side in (step, -step):
            point = x.clone()
            point[len(weights) + unit] += side - inputs[sample, unit]  # its bias
            gradients.append(network.gradient(point, *data.tensors))
        jumps.append(float((gradients[0] - gradients[1]).norm()))
    return max(jumps) / (2 * step)


def unseen_over_all(data: TensorDataset, seed: int) -> list[float]:
    """Train by permuted epochs; return ⟨E[G | x_t], ∇f⟩/‖∇f‖² − 1 in the middle of some epochs.

    With each sample once an epoch, G is the gradient of a sample that the epoch has not used yet.
    """
    random = torch.Generator().manual_seed(seed)
    x, excess = NETWORK.initial(seed), []
    for epoch in range(1, max(HALVES) + 1):
        batches = torch.randperm(len(data), generator=random).split(BATCH)
        for number, rows in enumerate(batches):
            if number == len(batches) // 2 and epoch in HALVES:
                unseen = NETWORK.gradient(x, *data[torch.cat(batches[number:])])
                gradient = NETWORK.gradient(x, *data.tensors)
                excess.append(float(unseen @ gradient / (gradient @ gradient) - 1))
            x = x - RATE * NETWORK.gradient(x, *data[rows])
    return excess


def on_cifar100() -> Records:
    """Return a record of each run of the study of results/cifar100.md.

    `largest` is the largest C² of an epoch over C² before training. `later` is the largest C² of
    the second half of the epochs over that of the first half.
    """
    records = []
    runs = CIFAR100.archived()
    for name in sorted(map(CIFAR100.key, CIFAR100.jobs(runs))):
        epochs = runs[name]["epochs"]
        rises = [epoch["gradient_variance"] / epoch["reference_variance"] for epoch in epochs]
        first_half, second_half = map(max, np.split(np.array(rises), 2))
        records.append({"run": name, "largest": max(rises), "later": second_half / first_half})
    return records


def measure(seed: int) -> Tables:
    """Train both networks, take C² on the way; at the end cross kinks and scale the parameters."""
    data = digits.load()
    kinks, scales, variances = [], [], []
    # The labels move by one, so that the loss does not vanish as the parameters grow.
    images, labels = data.tensors
    moved = images, (labels + 1) % digits.CLASSES
    for name, network in NETWORKS.items():
        for epochs in TIMES:
            x = digits.after_epochs(data, epochs, RATE, BATCH, seed, network)
            gradient = network.gradient(x, *data.tensors)
            gradients = network.sample_gradients(x, *data.tensors)
            variances.append(
                {
                    "network": name,
                    "epoch": epochs,
                    "C2": float(((gradients - gradient) ** 2).sum(1).mean()),
                    "bias": float((gradients.mean(0) - gradient).norm() / gradient.norm()),
                }
            )
        kinks += [
            {"network": name, "step": step, "secant": across_kinks(network, x, data, step)}
            for step in STEPS
        ]
        for c in SCALES:
            y = x.clone()
            y[sum(digits.SIZES[:2]) :] *= c  # the second layer
            slope = network.gradient(y, *moved)
            norm = float(slope.norm())
            slope_ahead = network.gradient(y + AHEAD / norm * slope, *moved)
            bend = float((slope_ahead - slope).norm()) / AHEAD
            scales.append({"network": name, "scale": c, "gradient_norm": norm, "secant": bend})
    unseen = [
        {"epoch": epoch, "seed": run_seed, "excess": excess}
        for run_seed in range(seed, seed + SEEDS)
        for epoch, excess in zip(HALVES, unseen_over_all(data, run_seed), strict=True)
    ]
    return kinks, scales, variances, unseen, on_cifar100()


def _growth(
    table: pl.DataFrame, column: str, quantity: str, high: float, network: str = "tanh"
) -> Check:
    """Check that a column grows at most `high`-fold from a network's first line to its last."""
    numbers = table.filter(network=network)[column]
    return Check(f"{network}: {quantity}", numbers[-1] / numbers[0], high=high)


@STUDY.statement("仮定 (A1)")
def smooth(frames: Frames) -> Seen:
    """f is continuously differentiable and L_g-smooth"""
    across = f"secant of ∇f across a kink, step {STEPS[-1]:g} over {STEPS[0]:g}"
    far = f"secant of ∇f, second layer × {SCALES[-1]:g}, over now"
    return Seen(
        f"digits, {PAIRS} kinks",
        [
            *(_growth(frames["kinks"], "secant", across, 10, name) for name in ("tanh", "ReLU")),
            _growth(frames["scaled"], "secant", far, 5),
        ],
        note="∇f jumps where a unit of ReLU switches",
    )


@STUDY.statement("仮定 (A2)")
def lipschitz(frames: Frames) -> Seen:
    """f is L_f-Lipschitz"""
    quantity = f"‖∇f‖ with the second layer × {SCALES[-1]:g}, over ‖∇f‖"
    table = frames["scaled"]
    return Seen(
        "digits",
        [_growth(table, "gradient_norm", quantity, 5, name) for name in ("tanh", "ReLU")],
        [Check("x²/2: |f'(100x)| over |f'(x)|", SCALES[-1] / SCALES[0], high=5)],
        "On a bounded set f is Lipschitz",
    )


@STUDY.statement("仮定 (A3)(i)")
def unbiased(frames: Frames) -> Seen:
    """the stochastic gradient is unbiased at every x_t"""
    bias = frames["variance_on_the_way"]["bias"].to_numpy().max()
    excesses = {
        epoch: mean_of(rows["excess"])
        for (epoch,), rows in frames["unseen_samples"].group_by("epoch", maintain_order=True)
    }
    return Seen(
        "digits; G is of samples not yet used",
        [
            Check("independent draws: ‖E[G] − ∇f‖/‖∇f‖, worst", bias, high=1e-5),
            *(
                Check(
                    f"mid-epoch {epoch}: ⟨E[G], ∇f⟩/‖∇f‖² − 1",
                    x.value,
                    -0.05,
                    0.05,
                    (x.low, x.high),
                )
                for epoch, x in excesses.items()
            ),
        ],
        note="Used samples have smaller gradients",
    )


@STUDY.statement("仮定 (A3)(ii)")
def one_variance(frames: Frames) -> Seen:
    """some C² bounds the variance of the stochastic gradient at all x_t"""
    table, cifar100 = frames["variance_on_the_way"], frames["variance_cifar100"]
    of_networks = {name: table.filter(network=name)["C2"].to_numpy() for name in NETWORKS}
    later, rises = cifar100["later"].to_numpy(), cifar100["largest"].to_numpy()
    over = "largest C² of the second half over that of the first"
    return Seen(
        "digits, and [CIFAR-100](../cifar100.md)",
        [
            *(
                Check(f"{name}: {over}", c2[-1] / c2[:-1].max(), high=1)
                for name, c2 in of_networks.items()
            ),
            Check(f"ResNet-8, {len(later)} runs: {over}", later.max(), high=1),
        ],
        [
            Check(f"{name}: largest C² over that after training", c2.max() / c2[-1], high=1)
            for name, c2 in of_networks.items()
        ],
        f"There C² rises to {rises.min():.2f} to {rises.max():.2f} times its start. A run that "
        "ends has a bound; half a run does not show it",
    )
