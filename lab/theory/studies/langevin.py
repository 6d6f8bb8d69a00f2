"""Study: do score-based models use graduated optimization? A Gaussian mixture in closed form."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lab.theory.functions import Array
from lab.theory.mixture import Mixture
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, rate, rate_gap, statement
from lab.theory.studies import style

CENTRES = np.array([[2.5, 2.0], [-3.0, 3.0], [-3.5, -2.5], [3.0, -3.5], [0.0, -0.5]])
# The first Gaussian has −log p's global minimum: its 0.35/0.5² is largest, the next is 0.2/0.6².
MIXTURE = Mixture(
    np.array([0.35, 0.2, 0.2, 0.15, 0.1]), CENTRES, np.array([0.5, 0.6, 0.7, 0.6, 0.8])
)
CHAINS, STEPS, REACH = 500, 40, 6.0
COPIES = 32  # of each point, for the smoothed −log p that has no closed form
LEVELS = np.geomspace(4.0, 0.05, 16)
SAMPLES = 200
SIGMAS = (0.05, 0.5, 1.0, 2.0, 4.0)
PICTURE = "annealed_langevin.png"
DESCENT = ("annealed descent, −log p_σ", "graduated descent, (−log p) smoothed", "plain descent")
REVERSED = "descent on −log p_σ, σ rising"
LANGEVIN = ("annealed Langevin", "Langevin at the last σ")
METHODS = (*DESCENT, REVERSED, *LANGEVIN)


def gap(sigma: float, rng: np.random.Generator) -> float:
    """Return the relative rms difference of ∇(−log p_σ) and ∇ of the smoothed −log p, over p_σ."""
    x = MIXTURE.sample(SAMPLES, sigma, rng)
    score, smoothed = MIXTURE.slope(x, sigma), MIXTURE.smoothed_slope(x, sigma)
    return float(np.linalg.norm(score - smoothed) / np.linalg.norm(score))


def walk(name: str, start: Array, seed: int) -> Array:
    """Run a method, then plain descent as for all methods, and return the last points."""
    rng, x = np.random.default_rng(seed), start.copy()
    levels = LEVELS if name in (*DESCENT[:2], LANGEVIN[0]) else np.full(len(LEVELS), LEVELS[-1])
    for level in LEVELS[::-1] if name == REVERSED else levels:
        # A fifth of the smallest variance. Smoothing −log p, unlike p, adds no variance.
        step = 0.2 * (0.25 + (0 if name == DESCENT[1] else level**2))
        for _ in range(STEPS):
            if name == DESCENT[1]:
                half = rng.standard_normal((COPIES // 2, *x.shape))
                slope = MIXTURE.slope(x - level * np.concatenate([half, -half])).mean(0)
            else:
                slope = MIXTURE.slope(x, float(level))
            x = x - step * slope
            if name in LANGEVIN:
                x = x + np.sqrt(2 * step) * rng.standard_normal(x.shape)
    for _ in range(100):
        x = x - 0.05 * MIXTURE.slope(x)
    return x


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Compare the two slopes, and the ends of each method."""
    rng = np.random.default_rng(settings.seed)
    start = rng.uniform(-REACH, REACH, (CHAINS, 2))
    records = []
    for name in METHODS:
        ended = MIXTURE.nearest(walk(name, start, settings.seed))
        records += [
            {"method": name, "mode": k, "weight": float(w), "chains": int((ended == k).sum())}
            for k, w in enumerate(MIXTURE.weights)
        ]
    unsmoothed = [{"sigma": s, "gap": gap(s, rng), "without": _without(s, rng)} for s in SIGMAS]
    return {"langevin_modes": frame(records), "langevin_slopes": frame(unsmoothed)}


def _without(sigma: float, rng: np.random.Generator) -> float:
    """Return the gap of ``gap`` for −log p without smoothing."""
    x = MIXTURE.sample(SAMPLES, sigma, rng)
    score, plain = MIXTURE.slope(x, sigma), MIXTURE.slope(x)
    return float(np.linalg.norm(score - plain) / np.linalg.norm(score))


def draw(frames: Frames) -> Figure:
    """Draw −log p_σ with both slopes, and the ends of the chains."""
    figure, axes = style.panels(4, width=3.9, height=3.6)
    fine = np.linspace(-REACH, REACH, 120)
    coarse = np.linspace(-5.5, 5.5, 12)
    grid, arrows = (np.stack(np.meshgrid(g, g), -1).reshape(-1, 2) for g in (fine, coarse))
    for axis, level in zip(axes, (0.0, 1.0, 3.0), strict=False):
        image = MIXTURE.energy(grid, level).reshape(120, 120)
        axis.contourf(fine, fine, image, levels=25, cmap="viridis_r")
        for slope, colour in ((MIXTURE.slope, "white"), (MIXTURE.smoothed_slope, style.RED)):
            down = -slope(arrows, level) if level else -MIXTURE.slope(arrows)
            axis.quiver(*arrows.T, *down.T, color=colour, width=0.005)
        axis.set(title=f"−log p_σ, σ = {level:g}", xticks=[], yticks=[], aspect="equal")
    figure.suptitle("arrows: white −∇(−log p_σ), red −∇ of the smoothed −log p", fontsize=10)
    table = frames["langevin_modes"]
    left = np.zeros(len(METHODS))
    for mode, colour in zip(range(len(CENTRES)), style.COLOURS, strict=False):
        share = table.filter(mode=mode)["chains"].to_numpy() / CHAINS
        axes[3].barh(METHODS, share, left=left, color=colour, label=f"mode {mode + 1}")
        left += share
    axes[3].invert_yaxis()
    axes[3].set(title="ends; blue: global minimum", xlabel="share of the chains")
    return figure


def _global(frames: Frames, method: str) -> tuple[int, int]:
    return int(frames["langevin_modes"].filter(method=method, mode=0)["chains"][0]), CHAINS


RAN = (
    f"five Gaussians in the plane, {CHAINS} starts uniform in [−{REACH:g}, {REACH:g}]², σ from "
    f"{LEVELS[0]:g} to {LEVELS[-1]:g} in {len(LEVELS)} stages of {STEPS} steps"
)


@statement(
    "slide: なぜ段階的最適化なのか",
    "the score of the noised density is the slope of a smoothed −log p",
    PICTURE,
)
def score_is_smoothed_slope(frames: Frames) -> Seen:
    """Check that the two slopes differ by at most 5 %."""
    table = frames["langevin_slopes"]
    rows = table.select("sigma", "gap").iter_rows()
    without = table.filter(sigma=1.0)["without"][0]
    return Seen(
        "rms over 200 samples of p_σ of the difference between ∇(−log p_σ) and ∇ of (−log p) "
        "smoothed by N(0, σ²), over that of the first",
        [Check(f"relative difference, σ = {sigma:g}", gap, high=0.05) for sigma, gap in rows],
        [Check("the same for −log p itself, σ = 1", without, high=0.05)],
        note="log E p(x − σu) is not E log p(x − σu): they differ by (σ²/2)‖∇log p‖² + O(σ⁴) "
        "[derived]. A diffusion model smooths the density, graduated optimization its logarithm.",
    )


@statement(
    "slide: なぜ段階的最適化なのか",
    "score-based models use graduated optimization implicitly: falling σ leads to the global "
    "minimum",
    PICTURE,
)
def annealing_finds_the_mode(frames: Frames) -> Seen:
    """Compare the share of chains in the highest mode with and without annealing."""
    plain, last = _global(frames, DESCENT[2]), _global(frames, LANGEVIN[1])
    return Seen(
        f"{RAN}, then plain descent for all; the share that ends in the mode of the highest "
        "density",
        [
            rate_gap(f"{name} less plain descent", _global(frames, name), plain)
            for name in DESCENT[:2]
        ]
        + [
            rate_gap(
                "annealed Langevin less Langevin at the last σ", _global(frames, LANGEVIN[0]), last
            )
        ],
        [rate_gap(f"{REVERSED}, less plain descent", _global(frames, REVERSED), plain)],
    )


@statement(
    "slide: なぜ段階的最適化なのか",
    "annealed Langevin dynamics minimises −log p",
    PICTURE,
)
def langevin_optimizes(frames: Frames) -> Seen:
    """Check that nearly all chains of the sampler end in the mode of the global minimum."""
    shares = frames["langevin_modes"].filter(method=LANGEVIN[0])
    distance = float((shares["chains"] / CHAINS - shares["weight"]).abs().sum()) / 2
    return Seen(
        RAN,
        [
            rate(
                "annealed Langevin, chains in the highest mode",
                *_global(frames, LANGEVIN[0]),
                low=0.9,
            )
        ],
        [rate("plain descent, the same", *_global(frames, DESCENT[2]), low=0.9)],
        note="Its noise never falls below that of its target, so it ends with samples of p: the "
        f"shares of the modes differ from their weights by {distance:.3f} in total variation.",
    )


STUDY = Study(
    measure,
    ("langevin_modes", "langevin_slopes"),
    {PICTURE: draw},
    (score_is_smoothed_slope, annealing_finds_the_mode, langevin_optimizes),
)
