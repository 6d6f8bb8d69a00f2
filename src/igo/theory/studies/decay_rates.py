"""Study: the band allowed for the decay rate γ_m, with every schedule's rates in it."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from igo.method.profiles import PROFILES, Position
from igo.theory import propositions as props
from igo.theory.functions import Array
from igo.theory.studies import style
from igo.theory.studies.report import Row, Settings, write_csv

STAGES = 200
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


def run(settings: Settings) -> list[Row]:
    """Draw every schedule's γ_m against the band, and list the smallest."""
    schedules = {
        name: decay_rates(profile, STAGES, **own) for name, (profile, own) in SCHEDULES.items()
    }
    records = [
        {
            "schedule": name,
            "smallest_gamma": rates.min(),
            "at_stage": int(rates.argmin()) + 1,
            "largest_a_printed": props.largest_a(rates.min()),
            "largest_a_exact": props.largest_a(rates.min(), printed=False),
        }
        for name, rates in schedules.items()
    ]
    write_csv(settings.output / "decay_rates.csv", records)
    _draw(schedules, settings.output)
    return _band_rows(schedules)


def _draw(schedules: dict[str, Array], folder: Path) -> None:
    figure, (left, right) = style.panels(2, width=5.4, height=4)
    _draw_rates(left, schedules)
    _draw_band(right)
    style.save(figure, folder / "decay_rate_band.png")


def _draw_rates(left: Axes, schedules: dict[str, Array]) -> None:
    stage = np.arange(1, STAGES)
    for index, (name, rates) in enumerate(schedules.items()):
        left.plot(
            stage[: rates.size],
            rates,
            "-" if index < 8 else "--",
            label=name,
            color=style.COLOURS[index % 8],
        )
    floor = float((np.sqrt(2.0**2 - 1) - 1) / 2.0)
    left.axhspan(floor, 1, color=style.GREEN, alpha=0.1, linewidth=0)
    left.set(
        xlabel="stage m (M = 200)",
        ylabel=r"$\gamma_m$",
        ylim=(0, 1.03),
        title="Decay rates; shaded: allowed at best, $a_m = 2$",
    )
    left.legend(ncols=2, fontsize=7.5, loc="lower left")


def _draw_band(right: Axes) -> None:
    a = np.linspace(np.sqrt(2) + 1e-6, 6, 300)
    right.fill_between(
        a,
        (np.sqrt(a**2 - 1) - 1) / a,
        1,
        color=style.GREEN,
        alpha=0.15,
        label="printed range of $1/d_m$",
    )
    right.fill_between(
        a,
        (a - 1) / a,
        np.sqrt(a**2 - 1) / a,
        color=style.BLUE,
        alpha=0.25,
        label="exact range, θ < π/2",
    )
    for p, colour in zip(
        (0.5, 1, 2, 4), (style.BLACK, style.RED, style.ORANGE, style.PINK), strict=True
    ):
        right.hlines(0.5**p, 1.2, 6, color=colour, linestyle="--", linewidth=1.2)
        right.text(6.1, 0.5**p, f"p = {p:g}", color=colour, va="center", fontsize=9)
    right.set(
        xlim=(1.2, 6.9),
        xlabel=r"$a_m$",
        ylabel=r"$1/d_m$",
        title=r"$\gamma_m$ must exceed $1/d_{m+1}$",
    )
    right.legend(
        title="dashed: smallest $\\gamma_m$ of p",
        fontsize=8.5,
        loc="center right",
        bbox_to_anchor=(1.0, 0.4),
    )


def _band_rows(schedules: dict[str, Array]) -> list[Row]:
    smallest = {name: float(rates.min()) for name, rates in schedules.items()}
    a_max = {name: props.largest_a(g) for name, g in smallest.items()}
    exact = {name: props.largest_a(g, printed=False) for name, g in smallest.items()}
    listed = "; ".join(
        f"{name}: {smallest[name]:.3g} (a_m < {a_max[name]:.3g}, exactly {exact[name]:.3g})"
        for name in smallest
    )
    gamma = props.optimal_decay_rates(5, 0.5)
    telescoped = np.cumprod(gamma[:-1])
    expected = ((5 - np.arange(1, 5)) / 5) ** 0.5
    return [
        Row(
            "slide: 最適なノイズスケジューリング",
            "Prop. 3.3 needs γ_m ∈ (1/d_{m+1}, 1), (√(a_m² − 1) − 1)/a_m ≤ 1/d_m ≤ 1; "
            "p ∈ (0, 1] is allowed",
            f"the smallest γ_m, m < M = {STAGES}, of every schedule, and the largest a_m for which "
            "it can still be in the band",
            f"{listed}. For p ≤ 1 γ_m ≥ 1/2; p > 1, and cosine at its very end, need smaller a_m. "
            "At m = M γ_M = 0 is outside every band, as the proposition says (m ≤ M − 1)",
            "agrees",
            "decay_rate_band.png decay_rates.csv",
        ),
        Row(
            "Algorithm 3",
            "γ_m = ((M − m)/(M − m + 1))^p",
            "its product for M = 5, p = 1/2 against (1 − m/M)^p",
            f"largest difference {np.abs(telescoped - expected).max():.1e}: δ_m = "
            "δ_1((M − m + 1)/M)^p, the polynomial decay of PyTorch's PolynomialLR",
            "agrees" if np.allclose(telescoped, expected) else "disagrees",
        ),
    ]
