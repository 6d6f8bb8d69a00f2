"""Study: the allowed band of the decay rate γ_m, and the rates of every schedule."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from igo.method.plan import plan
from igo.method.profiles import PROFILES, Position
from lab.theory import propositions as props
from lab.theory.explicit import optimal_levels
from lab.theory.functions import Array
from lab.theory.implicit import length_shares
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

STAGES = 200
PICTURE = "decay_rate_band.png"
A_SHADED = 2.0
ROUNDING = 1e-6  # above the rounding of the numbers in the frames
LENGTHS, EPOCHS, LENGTHENED = "stage_lengths.png", 2000, 20
CASES = ((0.5, 0.0), (0.5, 0.15), (1.0, 0.0), (1.0, 0.03))  # p and h, all decay in η
SCHEDULES: dict[str, tuple[str, dict[str, Any]]] = {  # profiles with their parameters
    **{f"p = {p:g}": ("polynomial", {"p": p}) for p in (0.1, 0.5, 0.9, 1, 2, 4, 8)},
    "cosine": ("cosine", {}),
    "cosine power 10": ("cosine_power", {"power": 10}),
    "exponential 0.9": ("exponential", {"decay": 0.9}),
    "1/√m": ("diminishing", {"form": "inverse_sqrt"}),
    "1/(1 + 10t)": ("diminishing", {"form": "inverse_time", "a": 10}),
    "γ = 1/2 (Alg. 1)": ("step", {"gamma": 0.5}),
    "γ = 1/√2 (Methods 2–4)": ("step", {"gamma": 2**-0.5}),
}


def decay_rates(profile: str, stages: int, **parameters: Any) -> Array:
    """γ_m = φ_{m+1}/φ_m, m = 1..M−1, of a profile with one stage an epoch."""
    phi = PROFILES[profile]
    levels = np.array([phi(Position(m, stages, m - 1), **parameters) for m in range(1, stages + 1)])
    return np.asarray(levels[1:] / levels[:-1])


def stage_lengths(power: float, h: float) -> list[dict[str, Any]]:
    """Return the share of updates of each stage: equal, of a training plan, and by the formula."""
    phi = optimal_levels(1.0, LENGTHENED, power)
    planned = plan(
        "graduated",
        n=50_000,
        epochs=EPOCHS,
        learning_rate=0.1,
        batch_size=128,
        split=1.0,
        stages=LENGTHENED,
        algorithm3={"h": h},
        p=power,
    )
    shares = zip(planned.stages, length_shares(phi, phi, h), strict=True)
    case = {"p": power, "h": h, "equal": 1 / LENGTHENED}
    return [
        case | {"m": s.stage, "plan": s.updates / planned.updates, "formula": float(share)}
        for s, share in shares
    ]


def measure(_settings: Settings) -> dict[str, pl.DataFrame]:
    """Return γ_m of every schedule, and the product of the optimal ones."""
    rates = [
        {"schedule": name, "m": m, "gamma": float(gamma)}
        for name, (profile, parameters) in SCHEDULES.items()
        for m, gamma in enumerate(decay_rates(profile, STAGES, **parameters), 1)
    ]
    telescoped = [
        {"M": stages, "p": p, "m": m, "product": float(value), "phi": (1 - m / stages) ** p}
        for stages in (5, 50)
        for p in (0.1, 0.5, 1.0)
        for m, value in enumerate(np.cumprod(props.optimal_decay_rates(stages, p)), 1)
    ]
    lengths = [length for power, h in CASES for length in stage_lengths(power, h)]
    return {
        "decay_rates": frame(rates),
        "telescoped": frame(telescoped),
        "stage_lengths": frame(lengths),
    }


def draw(frames: Frames) -> Figure:
    """Draw every schedule's γ_m, and the band of 1/d_m against a_m."""
    figure, (left, right) = style.panels(2, width=5.4, height=4)
    _draw_rates(left, frames["decay_rates"])
    _draw_band(right)
    return figure


def _draw_rates(left: Axes, table: pl.DataFrame) -> None:
    for index, rows in enumerate(table.partition_by("schedule", maintain_order=True)):
        line, colour = "-" if index < 8 else "--", style.COLOURS[index % 8]
        left.plot(rows["m"], rows["gamma"], line, label=rows["schedule"][0], color=colour)
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


def draw_lengths(frames: Frames) -> Figure:
    """Draw Algorithm 3's stage lengths beside equal ones; dots are a plan's whole epochs."""
    figure, axes = style.panels(2, width=4.6)
    for axis, p in zip(axes, (0.5, 1.0), strict=True):
        table = frames["stage_lengths"].filter(p=p)
        for rows, colour in zip(
            table.partition_by("h", maintain_order=True), style.COLOURS, strict=False
        ):
            label = f"algorithm3, h = {rows['h'][0]:g}"
            axis.step(rows["m"], rows["formula"], where="mid", color=colour, label=label)
            axis.plot(rows["m"], rows["plan"], "o", color=colour, markersize=3)
        axis.axhline(1 / LENGTHENED, color=style.BLACK, label="equal")
        axis.set(title=f"p = {p:g}", xlabel="stage m", ylabel="share of all updates", yscale="log")
        axis.legend()
    figure.suptitle(r"Stage lengths $\propto 1/(\varphi_m^2 - h\,\eta_m/\eta_1)$, decay in η")
    return figure


@statement(
    "Algorithm 3",
    "T_F = H_4/(ε_m − H_3 η_m): later stages are longer, and a training plan has these lengths",
    LENGTHS,
)
def later_stages_are_longer(frames: Frames) -> Seen:
    """Compare lengths of neighbouring stages, and a plan's updates with the formula."""
    parts, equal = [], 0.0
    for (p, h), rows in frames["stage_lengths"].group_by(["p", "h"], maintain_order=True):
        formula, planned = rows["formula"].to_numpy(), rows["plan"].to_numpy()
        name = f"p = {p:g}, h = {h:g}"
        parts.append(Check(f"least T_F of a stage over the one before, {name}",
                           (formula[1:] / formula[:-1]).min(), low=1))  # fmt: skip
        gap = EPOCHS * float(np.abs(planned - formula).max())
        parts.append(Check(f"plan less formula, in epochs of {EPOCHS:,}, {name}", gap, high=1.5))
        equal = EPOCHS * float(np.abs(rows["equal"].to_numpy() - formula).max())
    return Seen(
        f"M = {LENGTHENED}, all of the decay in η, shares of the updates ∝ 1/(φ_m² − h·η_m/η_1), "
        f"and the plan of `schedule.lengths=algorithm3` with {EPOCHS:,} epochs",
        parts,
        [Check("equal lengths less formula, in epochs", equal, high=1.5)],
        note="h stands for H_3 η_1/(σδ_1)². Lengths exist only while φ_m² > h·η_m/η_1.",
    )


@statement(
    "slide: 最適なノイズスケジューリング",
    "Prop. 3.3 needs γ_m ∈ (1/d_{m+1}, 1), (√(a_m² − 1) − 1)/a_m ≤ 1/d_m ≤ 1; p ∈ (0, 1] is "
    "allowed",
    PICTURE,
)
def powers_are_allowed(frames: Frames) -> Seen:
    """Compare each schedule's smallest γ_m with the exact band, at a_m = 2 and at any a_m."""
    floor = 1 / float(props.exact_width_bounds(A_SHADED)[1])
    rates = frames["decay_rates"].group_by("schedule", maintain_order=True)
    smallest = dict(rates.agg(pl.col("gamma").min()).iter_rows())

    def checks(name: str) -> list[Check]:
        above, widest = smallest[name] - floor, props.largest_a(smallest[name], printed=False)
        return [
            Check(f"smallest γ_m less {floor:g}, {name}, a_m = {A_SHADED:g}", above, ROUNDING),
            Check(f"largest a_m, which must be above √2, {name}", widest, 2**0.5 + ROUNDING),
        ]

    allowed, others = ("p = 0.1", "p = 0.5", "p = 0.9", "p = 1"), ("p = 2", "p = 4", "p = 8")
    return Seen(
        f"γ_m for m < M = {STAGES} against the exact band's floor, (a_m − 1)/a_m (row 16)",
        [check for name in allowed for check in checks(name)],
        [check for name in others for check in checks(name)],
        note="The band is open: γ_m must be above its floor. γ_m of p is smallest at m = M − 1, "
        "where it is 2^{−p}, so p needs a_m < 1/(1 − 2^{−p}): p = 1 needs a_m < 2, and p = 2 has "
        "no a_m > √2. At m = M γ_M = 0 is outside every band, as the proposition says (m ≤ M − 1).",
    )


@statement(
    "Algorithm 3", "γ_m = ((M − m)/(M − m + 1))^p: the noise decays as a polynomial", PICTURE
)
def rates_telescope(frames: Frames) -> Seen:
    """Compare the product of γ with (1 − m/M)^p."""
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
    measure,
    ("decay_rates", "telescoped", "stage_lengths"),
    {PICTURE: draw, LENGTHS: draw_lengths},
    (powers_are_allowed, rates_telescope, later_stages_are_longer),
)
