"""Study: heavy-tailed gradient noise: how δ falls with the batch size."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy import stats

from lab.noise.quantities import tail_index
from lab.theory import digits
from lab.theory.functions import Array
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

ALPHAS = (1.2, 1.5, 1.8, 2.0)
SIZES, DRAWS = 2 ** np.arange(0, 10), 2000
NETWORK_SIZES = 2 ** np.arange(0, 8)
EPOCHS, RATE, BATCH = {"start": 0, "after 1 epoch": 1, "after 20 epochs": 20}, 0.15, 32
TOLERANCE = 0.04
PICTURE = "noise_against_batch.png"


def typical_noise(alpha: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return the median size of the mean of b draws of the symmetric α-stable law, for every b."""
    return [
        {"noise": f"stable, α = {alpha}", "b": int(b), "size": float(np.median(np.abs(mean)))}
        for b in SIZES
        for mean in [stats.levy_stable.rvs(alpha, 0, size=(DRAWS, b), random_state=rng).mean(1)]
    ]


def network_noise(name: str, gradients: Array, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return median and rms of ‖∇f_S − ∇f‖ over mini-batches with replacement, for every b."""
    centred = gradients - gradients.mean(0)
    n = len(centred)
    return [
        {"noise": f"digits, {name}{kind}", "b": int(b), "size": float(size)}
        for b in NETWORK_SIZES
        for counts in [rng.multinomial(b, np.full(n, 1 / n), size=1000)]
        for sizes in [np.linalg.norm(counts @ centred / b, axis=1)]
        for kind, size in ((", rms", np.sqrt((sizes**2).mean())), ("", np.median(sizes)))
    ]


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Measure the size of averaged noise against b, for stable laws and a network in training."""
    rng = np.random.default_rng(settings.seed)
    records = [record for alpha in ALPHAS for record in typical_noise(alpha, rng)]
    data, tails = digits.load(), []
    for name, epochs in EPOCHS.items():
        x = digits.after_epochs(data, epochs, RATE, BATCH, settings.seed)
        gradients = digits.sample_gradients(digits.NETWORK, x, data).numpy()
        records += network_noise(name, gradients, rng)
        sizes = np.linalg.norm(gradients - gradients.mean(0), axis=1)
        hill = tail_index(sizes).value
        tails.append({"point": name, "hill": hill, "kurtosis": float(stats.kurtosis(sizes))})
    return {"noise_against_batch": frame(records), "network_tails": frame(tails)}


def slope(frames: Frames, noise: str) -> tuple[float, tuple[float, float]]:
    """Return the slope of log δ on log b with its 95 % interval, least squares."""
    rows = frames["noise_against_batch"].filter(noise=noise)
    fit = stats.linregress(np.log(rows["b"].to_numpy()), np.log(rows["size"].to_numpy()))
    reach = float(stats.t.ppf(0.975, len(rows) - 2) * fit.stderr)
    return float(fit.slope), (fit.slope - reach, fit.slope + reach)


def draw(frames: Frames) -> Figure:
    """Draw the typical size of the noise against b, over its size at b = 1."""
    figure, axes = style.panels(2, width=4.8, sharey=True)
    table = frames["noise_against_batch"]
    for axis, kind in zip(axes, ("stable", "digits"), strict=True):
        groups = table.filter(pl.col("noise").str.starts_with(kind))
        for rows in groups.partition_by("noise", maintain_order=True):
            name = rows["noise"][0]
            if name.endswith("rms"):
                continue
            label = f"{name}: slope {slope(frames, name)[0]:.2f}"
            axis.loglog(rows["b"], rows["size"] / rows["size"][0], "o-", markersize=4, label=label)
        b = np.array([1, 512])
        axis.loglog(b, b**-0.5, "--", color=style.BLACK, label="1/√b")
        axis.set(xlabel="b")
        axis.legend()
    axes[0].set(title="symmetric α-stable noise", ylabel="typical size over that at b = 1")
    axes[1].set(title="a network's own noise")
    return figure


def _check(frames: Frames, noise: str, asked: float) -> Check:
    fitted, interval = slope(frames, noise)
    what = f"slope of δ in b, {noise}; asked {asked:.3f} ± {TOLERANCE}"
    return Check(what, fitted, asked - TOLERANCE, asked + TOLERANCE, interval)


@statement(
    "paper, version 7 [derived]",
    "noise of tail index α: δ ∝ η b^{−(α − 1)/α}",
    PICTURE,
)
def heavy_tails_change_the_exponent(frames: Frames) -> Seen:
    """Fit the exponent for stable noise."""
    return Seen(
        f"median size of the mean of b draws of symmetric α-stable noise, {DRAWS:,} means for each "
        f"b up to {SIZES[-1]}, least squares in log–log",
        [_check(frames, f"stable, α = {alpha}", -(alpha - 1) / alpha) for alpha in ALPHAS],
        [_check(frames, "stable, α = 1.5", -0.5)],
        note="The mean of b stable draws has the law of one of them times b^{1/α − 1}. C² is "
        "infinite "
        "for α < 2, so δ = η√(C²/b) does not exist there.",
    )


@statement("slide: SGDの平滑化特性", "δ = η√(C²/b): a network's noise falls as 1/√b", PICTURE)
def network_noise_falls_as_root(frames: Frames) -> Seen:
    """Fit the exponent for a network's own mini-batches."""
    tails = ", ".join(
        f"{h:.1f} {point}"
        for point, h in frames["network_tails"].select("point", "hill").iter_rows()
    )
    return Seen(
        "digits, 64–32–10: rms and median ‖∇f_S − ∇f‖ over 1,000 mini-batches drawn with "
        f"replacement, b up to {NETWORK_SIZES[-1]}",
        [
            _check(frames, f"digits, {name}{kind}", -0.5)
            for name in EPOCHS
            for kind in (", rms", "")
        ],
        [_check(frames, "stable, α = 1.5", -0.5)],
        note="The rms is what C²/b bounds; it falls as 1/√b exactly, as n is finite. The median, "
        "the size of a usual step's noise, need not: late in training most samples have next to "
        f"no gradient. Hill's tail index of ‖∇l_i − ∇f‖ (largest 5 %): {tails}.",
    )


STUDY = Study(
    measure,
    ("noise_against_batch", "network_tails"),
    {PICTURE: draw},
    (heavy_tails_change_the_exponent, network_noise_falls_as_root),
)
