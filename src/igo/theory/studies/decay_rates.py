"""Study: the band allowed for the decay rate γ_m, with every schedule's rates in it."""

from types import SimpleNamespace as Schedule
from typing import Any, cast

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igo.method.schedule import PROFILES, Position
from igo.theory import propositions as props
from igo.theory.functions import Array
from igo.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from igo.theory.studies import style

STAGES = 200
PICTURE = "decay_rate_band.png"
A_SHADED = 2.0
SCHEDULES = {  # the profiles of conf/schedule with their parameters
    **{f"p = {p:g}": Schedule(profile="polynomial", p=p) for p in (0.1, 0.5, 0.9, 1, 2, 4, 8)},
    "cosine": Schedule(profile="cosine"),
    "cosine power 10": Schedule(profile="cosine_power", power=10),
    "exponential 0.9": Schedule(profile="exponential", decay=0.9),
    "1/√m": Schedule(profile="diminishing", form="inverse_sqrt"),
    "1/(1 + 10t)": Schedule(profile="diminishing", form="inverse_time", a=10),
    "γ = 1/2 (Alg. 1)": Schedule(profile="step", gamma=0.5),
    "γ = 1/√2 (Methods 2–4)": Schedule(profile="step", gamma=2**-0.5),
}


def decay_rates(schedule: Schedule, stages: int) -> Array:
    """γ_m = φ_{m+1}/φ_m, m = 1..M−1, of a schedule of src/train.py with one stage an epoch."""
    profile = PROFILES[schedule.profile]
    levels = np.array(
        [profile(Position(m, stages, m - 1), cast(Any, schedule)) for m in range(1, stages + 1)]
    )
    return np.asarray(levels[1:] / levels[:-1])


def measure(_settings: Settings) -> dict[str, pl.DataFrame]:
    """Return γ_m of every schedule, and the product of the optimal ones."""
    rates = [
        {"schedule": name, "m": m, "gamma": float(gamma)}
        for name, one in SCHEDULES.items()
        for m, gamma in enumerate(decay_rates(one, STAGES), 1)
    ]
    telescoped = [
        {"M": stages, "p": p, "m": m, "product": float(value), "phi": (1 - m / stages) ** p}
        for stages in (5, 50)
        for p in (0.1, 0.5, 1.0)
        for m, value in enumerate(np.cumprod(props.optimal_decay_rates(stages, p)), 1)
    ]
    return {"decay_rates": frame(rates), "telescoped": frame(telescoped)}


def draw(frames: Frames) -> Figure:
    """Draw every schedule's γ_m, and the band of 1/d_m against a_m."""
    figure, (left, right) = style.panels(2, width=5.4, height=4)
    _draw_rates(left, frames["decay_rates"])
    _draw_band(right)
    return figure


def _draw_rates(left: Axes, table: pl.DataFrame) -> None:
    for index, one in enumerate(table.partition_by("schedule", maintain_order=True)):
        line, colour = "-" if index < 8 else "--", style.COLOURS[index % 8]
        left.plot(one["m"], one["gamma"], line, label=one["schedule"][0], color=colour)
    floor = 1 / float(props.printed_width_bounds(A_SHADED)[1])
    left.axhspan(floor, 1, color=style.GREEN, alpha=0.1, linewidth=0)
    left.set(
        xlabel=f"stage m (M = {STAGES})",
        ylabel=r"$\gamma_m$",
        ylim=(0, 1.03),
        title="Decay rates; shaded: allowed at best, $a_m = 2$",
    )
    left.legend(ncols=2, fontsize=7.5, loc="lower left")


def _draw_band(right: Axes) -> None:
    a = np.linspace(np.sqrt(2) + 1e-6, 6, 300)
    low, high = (1 / bound for bound in props.printed_width_bounds(a)[::-1])
    right.fill_between(
        a, low, high, color=style.GREEN, alpha=0.15, label="printed range of $1/d_m$"
    )
    low, high = (1 / bound for bound in props.exact_width_bounds(a)[::-1])
    right.fill_between(a, low, high, color=style.BLUE, alpha=0.25, label="exact range, θ < π/2")
    colours = (style.BLACK, style.RED, style.ORANGE, style.PINK)
    for p, colour in zip((0.5, 1, 2, 4), colours, strict=True):
        right.hlines(0.5**p, 1.2, 6, color=colour, linestyle="--", linewidth=1.2)
        right.text(6.1, 0.5**p, f"p = {p:g}", color=colour, va="center", fontsize=9)
    title = r"$\gamma_m$ must exceed $1/d_{m+1}$"
    right.set(xlim=(1.2, 6.9), xlabel=r"$a_m$", ylabel=r"$1/d_m$", title=title)
    text = "dashed: smallest $\\gamma_m$ of p"
    right.legend(title=text, fontsize=8.5, loc="center right", bbox_to_anchor=(1.0, 0.4))


@statement(
    "slide: 最適なノイズスケジューリング",
    "Prop. 3.3 needs γ_m ∈ (1/d_{m+1}, 1), (√(a_m² − 1) − 1)/a_m ≤ 1/d_m ≤ 1; p ∈ (0, 1] is "
    "allowed",
    PICTURE,
)
def powers_are_allowed(frames: Frames) -> Seen:
    """Hold the smallest γ_m of each schedule against the band's floor at a_m = 2."""
    floor = 1 / float(props.printed_width_bounds(A_SHADED)[1])
    rates = frames["decay_rates"].group_by("schedule", maintain_order=True)
    smallest = dict(rates.agg(pl.col("gamma").min()).iter_rows())

    def check(name: str) -> Check:
        widest = props.largest_a(smallest[name])
        return Check(
            f"smallest γ_m, {name} (allowed up to a_m = {widest:.3g})", smallest[name], floor
        )

    allowed = ("p = 0.1", "p = 0.5", "p = 0.9", "p = 1")
    return Seen(
        f"γ_m for m < M = {STAGES} against the lowest 1/d at a_m = {A_SHADED:g}",
        [check(name) for name in allowed],
        [check(name) for name in ("p = 2", "p = 4", "p = 8")],
        note="γ_m of p is smallest at m = M − 1, where it is 2^{−p}; cosine's is 1/4 there, that "
        "of "
        "p = 2. At m = M γ_M = 0 is outside every band, as the proposition says (m ≤ M − 1).",
    )


@statement(
    "Algorithm 3", "γ_m = ((M − m)/(M − m + 1))^p: the noise decays as a polynomial", PICTURE
)
def rates_telescope(frames: Frames) -> Seen:
    """Hold the product of γ against (1 − m/M)^p."""
    table = frames["telescoped"]
    gap = float((table["product"] - table["phi"]).abs().max())  # type: ignore[arg-type]
    half = table.filter(p=0.5)
    other = float((half["product"] - half["phi"] ** 2).abs().max())  # type: ignore[arg-type]
    return Seen(
        "its products for M = 5, 50 and p = 0.1, 1/2, 1 against (1 − m/M)^p",
        [Check("largest difference", gap, high=1e-6)],
        [Check("p = 1/2 against 1 − m/M", other, high=1e-6)],
        note="δ_m = δ_1((M − m + 1)/M)^p is the polynomial decay of PyTorch's PolynomialLR.",
    )


STUDY = Study(
    measure, ("decay_rates", "telescoped"), {PICTURE: draw}, (powers_are_allowed, rates_telescope)
)
