"""The study of results/which_exchange.md: which growth of b equals a falling η?

Its runs are small: each trains in five stages on images that it sees once. A line of RECORD holds
all runs of a seed. It can be stopped at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igo.config.schema import DatasetConfig, EngineConfig, ModelConfig
from igo.data.readers import Place, read
from igo.ground.seeds import derive_seed, generator
from igo.ground.statistics import LEVEL, Array, mean_of, reach, sign_flip
from igo.train import machine, models
from igo.train.on_device import TensorData
from lab.figures import BLUE, GREY, VERMILION, drawn
from lab.study import ends, table
from lab.study.records import RECORDS

RECORD = RECORDS / "which_exchange.jsonl"
SEEDS, LEAST = range(80), 40  # planned; fewest that are judged
RATES = (0.4, 0.1)  # η_1: the tuned one of Method 2, and a quarter of it
STAGES, UPDATES, B_1, KAPPA = 5, 200, 16, math.sqrt(0.5)
EXPONENTS = (0.0, 1.0, 1.5, 2.0, 2.5)  # of 1/κ in the growth of b; 0 is Method 1
FALLING = "method 2"
DESIGNS = {"equal Σ η": "primary", "equal images": "secondary"}
DATA = DatasetConfig("arrays", 10, 1, 14, 60_000, [0.2860], [0.3301])
ENGINE = EngineConfig("cpu", "fp32", threads=1)
GROUPS = 4  # of GroupNorm
DRAWS, CONFIDENCE = 10_000, 0.975  # of the bootstrap
RANGES = {"1/κ² (2)": (1.75, 2.25), "1/κ (1)": (0.75, 1.25)}  # verdicts
FIGURE = "![The differences by the exponent](which_exchange.png)"

Stage = tuple[float, list[int]]  # η_m/η_1, and the size of each batch


def stages(exponent: float | None, design: str) -> list[Stage]:
    """The stages of an arm: b_m = b_1 κ^(-exponent (m - 1)); None is Method 2, where η falls.

    Method 2 makes UPDATES updates in each. The others make as many as give the same Σ η, or the
    same images.
    """
    found = []
    for fall in (KAPPA**m for m in range(STAGES)):
        if exponent is None:
            found.append((fall, [B_1] * UPDATES))
            continue
        b = B_1 * fall**-exponent
        images = UPDATES * B_1
        updates = round(UPDATES * fall if design == "equal Σ η" else images / b)
        if design == "equal Σ η":
            images = round(updates * b)
        found.append((1.0, [len(part) for part in np.array_split(np.arange(images), updates)]))
    return found


def images() -> TensorData:
    """The images in memory."""
    train, test = read("arrays", Place(Path("data"), file=Path("data/fashion_mnist_14.npz")))
    return TensorData(DATA, train, test, torch.device("cpu"))


def network(seed: int) -> nn.Module:
    """ResNet-8 of width 8 with GroupNorm in place of BatchNorm."""
    torch.manual_seed(derive_seed(seed, "initialisation"))
    made = models.build(ModelConfig("resnet8", width=8), DATA)
    for module in list(made.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(GROUPS, child.num_features))
    return machine.build(ENGINE).prepare(made)


def order(seed: int) -> Tensor:
    """The images in the order in which they are seen."""
    return torch.randperm(DATA.samples, generator=generator(seed, "images"))


def trained(data: TensorData, seed: int, rate: float, plan: Sequence[Stage]) -> nn.Module:
    """Train by plain SGD on the first images of the seed's order."""
    made = network(seed)
    optimizer = torch.optim.SGD(made.parameters(), rate)
    sizes = [size for _, of_stage in plan for size in of_stage]
    shares = [share for share, of_stage in plan for _ in of_stage]
    batches = data.plain_batches(order(seed)[: sum(sizes)].split(sizes))
    for share, (pixels, labels) in zip(shares, batches, strict=True):
        optimizer.param_groups[0]["lr"] = rate * share
        optimizer.zero_grad()
        F.cross_entropy(made(pixels), labels).backward()
        optimizer.step()
    return made


def tune(rates: list[str]) -> None:
    """Print 100 ln of the held-out loss of Method 2 at these η_1: the mean and each seed's."""
    data = images()
    for rate in map(float, rates):
        found = []
        for seed in range(900, 904):
            held = data.plain_batches(order(seed)[-10_000:].split(500))
            made = trained(data, seed, rate, stages(None, ""))
            found.append(100 * math.log(ends.evaluated(made, held)[0]))
        print(f"{rate:g}: {np.mean(found):.2f} {np.round(found, 2)}", flush=True)


def exchange(words: list[str]) -> None:
    """Run each STEP-th of the planned seeds from FIRST on, but for those that RECORD has."""
    first, step = map(int, words or (0, 1))
    data = images()
    for seed in SEEDS[first::step]:
        if seed not in recorded():
            line = {"seed": seed, "cpu": machine.cpu_name(), "torch": torch.__version__,
                    "found": of_seed(data, seed)}  # fmt: skip
            with RECORD.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"seed {seed}: done", flush=True)


def of_seed(data: TensorData, seed: int) -> dict[str, Any]:
    """100 ln of the test loss, and the accuracy in %, of each run by η_1, design and arm."""

    def run(rate: float, plan: Sequence[Stage]) -> list[float]:
        loss, accuracy = ends.evaluated(trained(data, seed, rate, plan), data.test_batches())
        loss = loss if math.isfinite(loss) else math.log(DATA.classes)  # chance
        return [round(100 * math.log(loss), 4), round(accuracy, 2)]

    found: dict[str, Any] = {}
    for rate in RATES:
        falling = run(rate, stages(None, ""))
        found[f"{rate:g}"] = {
            design: {FALLING: falling} | {f"{e:g}": run(rate, stages(e, design)) for e in EXPONENTS}
            for design in DESIGNS
        }
    return found


def recorded() -> dict[int, Any]:
    """What was found, by seed."""
    lines = RECORD.read_text().splitlines() if RECORD.is_file() else []
    return {line["seed"]: line["found"] for line in map(json.loads, lines)}


def differences(found: Sequence[Any], rate: float, design: str) -> Array:
    """100 ln test loss of each arm of EXPONENTS less that of Method 2, (seeds, arms)."""
    arms = [of_seed[f"{rate:g}"][design] for of_seed in found]
    return np.array([[arm[f"{e:g}"][0] - arm[FALLING][0] for e in EXPONENTS] for arm in arms])


def zero(means: Array) -> Array:
    """The first zero of the line through the mean differences (…, arms), as an exponent.

    Without a zero it is above all exponents (inf) where all are positive, else below them (-inf).
    """
    changes = np.sign(means[..., 1:]) != np.sign(means[..., :-1])
    first = changes.argmax(axis=-1)[..., None]
    low, high = (np.take_along_axis(means, first + i, axis=-1)[..., 0] for i in (0, 1))
    e = np.asarray(EXPONENTS)
    left, right = e[first[..., 0]], e[first[..., 0] + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        met = left + (right - left) * low / (low - high)
    return np.where(changes.any(axis=-1), met, np.where(means[..., 0] > 0, np.inf, -np.inf))


def estimate(sample: Array) -> tuple[float, float, float]:
    """ê with its interval: differences (seeds, arms) drawn again by seeds."""
    n = len(sample)
    often = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    zeros = zero(often @ sample / n)
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(zeros, ends, method="inverted_cdf")
    return float(zero(sample.mean(axis=0))), float(low), float(high)


def verdict(low: float, high: float, p: float | None) -> str:
    """Which rule the interval of ê confirms; p is of Method 1 against Method 2."""
    if p is None or p > LEVEL:
        return "not judged: Method 1 does not differ"
    for rule, (least, most) in RANGES.items():
        if least <= low and high <= most:
            return rule
    return "neither"


def counted(found: Mapping[int, Any]) -> list[Any]:
    """The planned seeds up to the first that is missing; none if too few to be judged."""
    n = next((seed for seed in SEEDS if seed not in found), len(SEEDS))
    return [found[seed] for seed in SEEDS[: n if n >= LEAST else 0]]


def summary(found: Sequence[Any]) -> str:
    """A line for each design and η_1: the differences with 95 % intervals, ê, the verdict."""
    if not found:
        return "**Not run yet.**\n"
    arms = [f"e = {e:g}{' (Method 1)' * (e == 0)}" for e in EXPONENTS]
    head, lines = ["design", "η₁", "seeds", *arms, f"ê, {CONFIDENCE:.1%}", "verdict"], []
    for design, role in DESIGNS.items():
        for rate in RATES:
            sample = differences(found, rate, design)
            e, low, high = estimate(sample)
            said = verdict(low, high, sign_flip(sample[:, 0])) if role == "primary" else "–"
            means = [mean_of(arm) for arm in sample.T]
            cells = [table.with_interval(mean.value, mean.low, mean.high) for mean in means]
            exponent = "none" if math.isinf(e) else f"{e:.2f} [{low:.2f}, {high:.2f}]"
            lines.append([f"{design} ({role})", f"{rate:g}", f"{len(found)}", *cells,
                          exponent, said])  # fmt: skip
    return f"{table.markdown(head, lines)}\n{FIGURE}\n"


def readme(found: Sequence[Any]) -> str:
    """README's row: the primary design at both η_1."""
    if not found:
        return ""
    samples = [differences(found, rate, "equal Σ η") for rate in RATES]
    estimates = [estimate(sample) for sample in samples]
    said = {verdict(low, high, sign_flip(sample[:, 0]))
            for sample, (_, low, high) in zip(samples, estimates, strict=True)}  # fmt: skip
    exponents = ", ".join(f"{e:.2f} [{low:.2f}, {high:.2f}]" for e, low, high in estimates)
    others = [estimate(differences(found, rate, "equal images"))[0] for rate in RATES]
    none = "; equal images: none" if all(map(math.isinf, others)) else ""
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    return (
        "| One network's first pass: b times κ^(−e), equal Σ η, for η times κ: e = 1 or 2? η₁ = "
        f"{rates} | {len(found)} | e = {exponents} (97.5 %){none} | {', '.join(sorted(said))} |\n"
    )


def draw(found: Sequence[Any], path: Path) -> None:
    """The mean differences by the exponent, with 95 % intervals."""
    if not found:
        return
    with drawn(path, len(DESIGNS), 4.7, 3.2) as axes:
        for ax, design in zip(axes, DESIGNS, strict=True):
            for rate, colour in zip(RATES, (BLUE, VERMILION), strict=True):
                sample = differences(found, rate, design)
                half = reach(sample.std(axis=0, ddof=1), len(sample))
                ax.errorbar(EXPONENTS, sample.mean(axis=0), half, color=colour, capsize=2,
                            label=f"η₁ = {rate:g}")  # fmt: skip
            ax.axhline(0, color=GREY, lw=0.8)
            ax.set_title(design)
            ax.set_xlabel("e, where b grows by κ^(−e)")
        axes[0].set_ylabel("test loss less Method 2's, 100 ln")
        axes[0].legend()
