"""Study: the size of SGD's noise, and what a decaying learning rate and a growing batch share."""

from itertools import combinations, product

import numpy as np

from igo.theory.functions import Array, get_function
from igo.theory.studies import style
from igo.theory.studies.report import Row, Settings, wilson, write_csv

CHAINS, STEPS, NOISE = 2000, 2000, 400.0  # SGD chains, steps, and C of the controlled gradient


def run(settings: Settings) -> list[Row]:
    """Check Lemma 2.1 by enumeration, and SGD of different batch sizes and schedules."""
    return [_lemma(settings), *_batches(settings)]


def minibatch_variances(gradients: Array, batch: int) -> tuple[float, float]:
    """Return E‖∇f_S − ∇f‖² with and without replacement, every mini-batch enumerated.

    `gradients` (n, d) of the n samples; n^batch must be small.
    """
    centred = gradients - gradients.mean(0)
    index = range(len(gradients))
    drawn = [centred[list(s)].mean(0) for s in product(index, repeat=batch)]
    subsets = [centred[list(s)].mean(0) for s in combinations(index, batch)]
    return float((np.array(drawn) ** 2).sum(1).mean()), float(
        (np.array(subsets) ** 2).sum(1).mean()
    )


def _lemma(settings: Settings) -> Row:
    rng = np.random.default_rng(settings.seed)
    gradients = rng.exponential(size=(7, 3))
    c2 = float(((gradients - gradients.mean(0)) ** 2).sum(1).mean())
    records = []
    for b in (1, 2, 3, 4, 5, 6):
        drawn, subset = minibatch_variances(gradients, b)
        records.append(
            {
                "b": b,
                "with_replacement": drawn,
                "without_replacement": subset,
                "C2/b": c2 / b,
                "C2/b*(n-b)/(n-1)": c2 / b * (7 - b) / 6,
            }
        )
    write_csv(settings.output / "lemma_2_1.csv", records)
    worst = max(abs(r["with_replacement"] / r["C2/b"] - 1) for r in records)
    without = max(abs(r["without_replacement"] / r["C2/b*(n-b)/(n-1)"] - 1) for r in records)
    return Row(
        "補題 2.1",
        "E‖∇f_S − ∇f‖² ≤ C²/b",
        "every mini-batch of 7 samples enumerated, b = 1…6, with and without replacement",
        f"with replacement it equals C²/b (relative difference {worst:.0e}); without, "
        f"(C²/b)(n − b)/(n − 1) ({without:.0e}): the bound holds and is loose near b = n, where "
        "δ = η√(C²/b) overstates the noise",
        "agrees" if worst < 1e-9 and without < 1e-9 else "disagrees",
        "lemma_2_1.csv",
    )


def controlled_sgd(start: Array, rates: Array, batches: Array, seed: int) -> Array:
    """Run SGD on one-dimensional Rastrigin with noise (C/√b)·uniform[−1, 1]; rates a step.

    Returns the last points; both sequences have one entry a step.
    """
    gradient = get_function("rastrigin").gradient
    rng = np.random.default_rng(seed)
    x = start.copy()
    for rate, b in zip(rates, batches, strict=True):
        noise = NOISE / np.sqrt(b) * rng.uniform(-1, 1, x.shape)
        x = x - rate * (gradient(x) + noise)
    return x


def _success(x: Array) -> tuple[int, str]:
    wins = int((np.abs(x) < 0.5).sum())
    low, high = wilson(wins, x.size)
    return wins, f"{wins / x.size:.0%} [{low:.0%}, {high:.0%}]"


def _batches(settings: Settings) -> list[Row]:
    start = np.random.default_rng(settings.seed).uniform(-5.12, 5.12, CHAINS)
    ones, eta = np.ones(STEPS), 0.002
    sizes = 2 ** np.arange(0, 15, 2)
    records: list[dict[str, object]] = []
    share: list[float] = []
    text: dict[object, str] = {}
    for b in sizes:
        x = controlled_sgd(start, eta * ones, b * ones, settings.seed)
        wins, text[int(b)] = _success(x)
        share.append(wins / CHAINS)
        records.append(
            {
                "schedule": "constant",
                "b": int(b),
                "delta_1": eta * NOISE / np.sqrt(b),
                "in_global_basin": share[-1],
                "median_f": _median(x),
            }
        )
    stage = np.repeat(np.arange(5), STEPS // 5)
    methods = {
        "1 constant": (ones, ones),
        "2 decaying learning rate": (np.asarray(0.5 ** (stage / 2), float), ones),
        "3 increasing batch": (ones, np.asarray(2.0**stage, float)),
        "4 hybrid": (np.asarray((np.sqrt(3) / 2) ** stage, float), 1.5**stage),
        "polynomial p = 1/2": ((1 - stage / 5) ** 0.5, ones),
    }
    for name, (rate, growth) in methods.items():
        x = controlled_sgd(start, eta * rate, growth, settings.seed)
        wins, text_of = _success(x)
        text[name] = text_of
        records.append(
            {
                "schedule": name,
                "b": 1,
                "delta_1": eta * NOISE,
                "in_global_basin": wins / CHAINS,
                "median_f": _median(x),
            }
        )
    write_csv(settings.output / "noise_and_batch.csv", records)
    _draw(settings, eta * NOISE / np.sqrt(sizes), share, records[len(sizes) :])
    best = int(sizes[int(np.argmax(share))])
    named = {r["schedule"]: r for r in records[len(sizes) :]}
    ran = f"{CHAINS:,} SGD chains of {STEPS} steps on Rastrigin, d = 1, noise (C/√b)·u"
    medians = {n: float(r["median_f"]) for n, r in named.items()}  # type: ignore[arg-type]
    decays = [medians[n] for n in list(methods)[1:4]]
    return [
        Row(
            "slide: 背景 (gradient methods cannot climb)",
            "large batches follow the original function and stay in bad local minima",
            f"{ran}, η = {eta}, b = 1 … {sizes[-1]}",
            f"in the global basin at the end: {text[1]} (b = 1, δ = {eta * NOISE:.2g}), "
            f"{text[best]} (b = {best}, the best), {text[int(sizes[-1])]} (b = {sizes[-1]}, "
            f"δ = {eta * NOISE / np.sqrt(sizes[-1]):.2g}; plain gradient descent)"
            + (". Too much noise, b = 1, is no better" if share[0] < max(share) / 1.5 else ""),
            "agrees" if share[-1] < max(share) / 1.5 else "disagrees",
            "noise_and_batch.png noise_and_batch.csv",
        ),
        Row(
            "slide: SGDの挙動についての理論的洞察",
            "a decaying learning rate or a growing batch is better than constants; both lower δ",
            f"{ran}; Methods 1–4 in 5 stages from b = 1 with equal δ_m for 2–4",
            "median f at the end: "
            + ", ".join(f"{n}: {v:.3g}" for n, v in medians.items())
            + ". Equal δ_m do not give equal results: a larger η_m also moves farther. Share "
            "in the global basin: " + ", ".join(f"{n}: {text[n]}" for n in methods),
            "agrees" if max(decays) < medians["1 constant"] else "in part",
            "noise_and_batch.png noise_and_batch.csv",
        ),
    ]


def _median(x: Array) -> float:
    return float(np.median(get_function("rastrigin").value(x[:, None])))


def _draw(settings: Settings, levels: Array, share: list[float], methods: list[dict]) -> None:  # type: ignore[type-arg]
    figure, (left, right) = style.panels(2, width=4.8)
    left.semilogx(levels, share, "o-", color=style.BLUE)
    left.set(
        xlabel="δ = ηC/√b",
        ylabel="share in the global basin",
        ylim=(0, 0.3),
        title="SGD on Rastrigin, constant η and b",
    )
    names = [m["schedule"] for m in methods]
    right.barh(names, [m["median_f"] for m in methods], color=style.COLOURS[: len(names)])
    right.invert_yaxis()
    right.set(xlabel="median f at the end", title=r"Schedules; 2–4 have the same $\delta_m$")
    style.save(figure, settings.output / "noise_and_batch.png")
