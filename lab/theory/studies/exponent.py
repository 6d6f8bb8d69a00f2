"""Study: the exponent of the batch size on quadratics, measured and predicted from curvature."""

from collections.abc import Callable

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.theory import exponent
from lab.theory.exponent import Moments, heavy_ball, predicted, streaming_regression
from lab.theory.functions import Array
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

PICTURE = "exponent.png"
GRID = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.8])  # ηλ_max/(1 + β)
ONE: Array = np.ones(1)  # curvatures, the largest 1
MODES: Array = np.arange(1, 51, dtype=np.float64) ** -1.0
BATCH, LABEL_NOISE = 64, 1.0
BETAS = (0.0, 0.5, 0.9)
WORLDS: dict[str, tuple[Array, Callable[[float, float, float], Moments], tuple[float, ...]]] = {
    "one mode": (ONE, lambda eta, b, beta: heavy_ball(ONE, ONE, eta, b, beta), BETAS),
    "50 modes": (MODES, lambda eta, b, beta: heavy_ball(MODES, MODES, eta, b, beta), BETAS),
    "streaming regression": (
        MODES,
        lambda eta, b, _: streaming_regression(MODES, LABEL_NOISE, eta, b),
        (0.0,),
    ),
}
START = 1.0  # x² at the start of the undertrained runs; the noise has variance 1/b
TIMES = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0)  # ηλ times steps
EXACT, NEAR = 1e-4, 0.02  # criteria: of identities, of the law beside noise that grows with error


def measure(_settings: Settings) -> dict[str, pl.DataFrame]:
    """Solve the moments over the grid, and at finite numbers of steps."""
    stationary = [
        {"world": world, "beta": beta, "eta_lambda": float(h * (1 + beta))}
        | _exponents(make, curvatures, float(h * (1 + beta)), beta)
        for world, (curvatures, make, betas) in WORLDS.items()
        for beta in betas
        for h in GRID
    ]
    finite = [
        {"equal": equal, "noise": noise, "time": time, "eta_lambda": float(h)}
        | {"measured": _undertrained(float(h), time, equal, noise), "predicted": 1 - float(h) / 2}
        for equal in ("steps", "epochs")
        for noise in (1.0, 0.0)
        if noise or equal == "epochs"  # without noise the loss at equal steps is no function of b
        for time in TIMES
        for h in GRID[GRID < 1]  # at ηλ = 1 one step forgets the start
    ]
    return {"exponents": frame(stationary), "exponents_undertrained": frame(finite)}


def _exponents(
    make: Callable[[float, float, float], Moments], curvatures: Array, eta: float, beta: float
) -> dict[str, float]:
    """Return ρ measured and predicted; the largest curvature is 1, so η is ηλ_max."""

    def loss(eta: float, b: float) -> float:
        return float(make(eta, b, beta).stationary().sum())

    shares = make(eta, BATCH, beta).stationary()
    return {
        "measured": exponent.measured(loss, eta, BATCH),
        "predicted": predicted(shares, eta * curvatures, beta),
        "without_momentum": predicted(shares, eta * curvatures) if eta < 2 else float("nan"),
        "largest_curvature_alone": predicted(ONE, eta * ONE, beta),
    }


def _undertrained(eta: float, time: float, equal: str, noise: float) -> float:
    """Return ρ of one mode after time/(ηλ) steps; steps or samples are fixed."""
    start = START * np.ones(3)

    def loss(rate: float, b: float) -> float:
        steps = time / eta * (BATCH / b if equal == "epochs" else 1)
        moments = heavy_ball(ONE, noise * ONE, rate, b)
        # At β = 0 x₋ has no weight. Its zero eigenvalues cannot be raised to a fraction.
        plain = Moments(moments.step[:1, :1], moments.noise[:1], ONE)
        return float(plain.after(steps, start[:1]).sum())

    return exponent.measured(loss, eta, BATCH)


def draw(frames: Frames) -> Figure:
    """Draw level sets with their slopes, ρ against curvature, and ρ of undertrained runs."""
    figure, (levels, law, finite) = style.panels(3, width=4.6, height=3.8)
    _draw_levels(levels)
    table = frames["exponents"]
    for (world, beta), colour in zip(
        [("one mode", 0.0), ("one mode", 0.9), ("50 modes", 0.0), ("streaming regression", 0.0)],
        style.COLOURS,
        strict=False,
    ):
        at = table.filter(world=world, beta=beta)
        label = world if beta == 0 else f"{world}, β = {beta:g}"
        law.plot(at["eta_lambda"], at["predicted"], color=colour, label=label)
        law.plot(at["eta_lambda"], at["measured"], "o", color=colour, markersize=4)
    for constant in (0.5, 1.0):
        law.axhline(constant, color=style.BLACK, linewidth=0.8, linestyle=":")
    law.set(title="line: predicted, dot: exact moments", xlabel=r"$\eta\lambda_{max}$", ylabel="ρ")
    law.legend()
    under = frames["exponents_undertrained"]
    for (equal, noise), colour in zip(
        [("steps", 1.0), ("epochs", 1.0), ("epochs", 0.0)], style.COLOURS, strict=False
    ):
        at = under.filter(equal=equal, noise=noise, eta_lambda=0.25)
        label = f"equal {equal}" + ("" if noise else ", no noise at all")
        finite.semilogx(at["time"], at["measured"], "o-", color=colour, label=label)
    finite.axhline(1 - 0.25 / 2, color=style.BLACK, linewidth=0.8, label="predicted")
    finite.set(title="one mode, ηλ = 0.25, not yet stationary", xlabel="ηλ × steps", ylim=(-1, 3))
    finite.legend()
    return figure


def _draw_levels(axis: Axes) -> None:
    eta, b = np.geomspace(0.03, 1.95, 80), np.geomspace(8, 512, 60)
    loss = eta / (2 * b[:, None] * (2 - eta))
    axis.contour(eta, b, np.log(loss), levels=14, cmap="viridis", linewidths=1)
    axis.set(xscale="log", yscale="log", xlabel="ηλ", ylabel="b", title="one mode: equal loss")
    for h, rho in ((0.1, 0.95), (1.0, 0.5), (1.8, 0.1)):
        x = h * np.exp(np.array([-0.15, 0.15]))
        axis.plot(x, 64 * (x / h) ** (1 / rho), color=style.RED, linewidth=2.5)


def _gap(table: pl.DataFrame, rival: str | float = "predicted") -> float:
    """Return the largest |measured − rival|, a column or a constant."""
    other = table[rival] if isinstance(rival, str) else rival
    return float((table["measured"] - other).abs().max())  # type: ignore[arg-type]


def _checks(tables: dict[str, pl.DataFrame], most: float) -> tuple[list[Check], list[Check]]:
    """Return the law's checks and, as controls, those of a constant ½ and a constant 1."""
    parts = [
        Check(f"largest |measured − predicted|, {n}", _gap(t), 0, most) for n, t in tables.items()
    ]
    controls = [
        Check(f"the same with ρ = {constant:g}, {name}", _gap(table, constant), 0, most)
        for name, table in tables.items()
        for constant in (0.5, 1.0)
    ]
    return parts, controls


RAN = (
    f"exact second moments, ηλ_max/(1 + β) in {{{', '.join(f'{h:g}' for h in GRID)}}}, "
    f"b = {BATCH}; measured: −(∂ ln loss/∂ ln b)/(∂ ln loss/∂ ln η) of the stationary excess loss"
)
DERIVED = "derived here (docs/exponent.md)"


@statement(DERIVED, "one quadratic mode: η b^(−ρ) with ρ = 1 − ηλ/2, not a constant", PICTURE)
def one_mode(frames: Frames) -> Seen:
    """Compare the level sets' slopes with the prediction, ½ and 1."""
    table = frames["exponents"].filter(world="one mode", beta=0.0)
    parts, controls = _checks({"one mode": table}, EXACT)
    half = float(table.filter(eta_lambda=1.0)["measured"][0])
    parts.append(Check("ρ at ηλ = 1, where the paper's ½ is exact", half, 0.5 - EXACT, 0.5 + EXACT))
    return Seen(
        RAN,
        parts,
        controls,
        note="ρ is 1 for small steps, ½ where a step forgets the last point, and 0 at ηλ = 2.",
    )


@statement(DERIVED, "several modes: ρ = 1/Σ w_i · 2/(2 − ηλ_i), w_i shares of excess loss", PICTURE)
def several_modes(frames: Frames) -> Seen:
    """Compare slopes and prediction for 50 modes, with two laws of the noise."""
    table = frames["exponents"].filter(beta=0.0)
    fixed, streaming = (table.filter(world=w) for w in ("50 modes", "streaming regression"))
    parts, controls = _checks({"50 modes": fixed}, EXACT)
    more, others = _checks({"streaming regression": streaming}, NEAR)
    alone = [
        Check(f"1 − ηλ_max/2 alone, {name}", _gap(t, "largest_curvature_alone"), 0, NEAR)
        for name, t in (("50 modes", fixed), ("streaming regression", streaming))
    ]
    return Seen(
        f"{RAN}; curvatures 1/i, i = 1…50; streaming regression: Gaussian inputs, label noise 1",
        parts + more,
        controls + others + alone,
        note="In streaming regression the noise grows with the error. What is common to all modes "
        "cancels from ρ; the rest is of order 1/b, and nothing for one mode.",
    )


@statement(DERIVED, "momentum β: ρ = 1 − ηλ/(2(1 + β)) for one mode", PICTURE)
def momentum(frames: Frames) -> Seen:
    """Compare the same for heavy ball with β = 0.5 and 0.9, with one mode and with 50."""
    table = frames["exponents"]
    cases = {
        f"{world}, β = {beta:g}": table.filter(world=world, beta=beta)
        for world in ("one mode", "50 modes")
        for beta in BETAS[1:]
    }
    parts, controls = _checks(cases, EXACT)
    plain = [
        Check(
            f"the law without β, {name}",
            _gap(case.filter(pl.col("eta_lambda") < 2), "without_momentum"),
            0,
            EXACT,
        )
        for name, case in cases.items()
    ]
    return Seen(RAN, parts, controls + plain)


def _at(frames: Frames, equal: str, noise: float, time: float) -> pl.DataFrame:
    return frames["exponents_undertrained"].filter(equal=equal, noise=noise, time=time)


@statement(
    DERIVED, "the law is of stationary loss: it does not hold while the start is felt", PICTURE
)
def stationary_only(frames: Frames) -> Seen:
    """Check the law late in training, at equal steps; early it must fail."""
    late, early = (_at(frames, "steps", 1.0, time) for time in (TIMES[-1], TIMES[2]))
    wrong = _gap(early)
    return Seen(
        f"one mode from x² = {START:g}, C² = 1, b = {BATCH}, ηλ < 1, equal steps",
        [Check(f"largest |measured − predicted|, ηλ × steps = {TIMES[-1]:g}", _gap(late), 0, NEAR)],
        [Check(f"the same, ηλ × steps = {TIMES[2]:g}", wrong, 0, NEAR)],
        note="While the start dominates, a larger step lowers the loss, so ρ is negative.",
    )


@statement(
    DERIVED, "at equal epochs undertraining without noise imitates the law for small ηλ", PICTURE
)
def epochs_imitate(frames: Frames) -> Seen:
    """Compare gradient descent without noise, at equal epochs, with the prediction."""
    bare = _at(frames, "epochs", 0.0, TIMES[2])
    small, large = (
        bare.filter(where) for where in (pl.col("eta_lambda") <= 0.25, pl.col("eta_lambda") > 0.5)
    )
    return Seen(
        f"one mode, C² = 0, after ηλ × steps = {TIMES[2]:g}, steps = samples/b",
        [Check("largest |measured − predicted|, ηλ ≤ 0.25", _gap(small), 0, NEAR)],
        [Check("the same, 0.5 < ηλ < 1", _gap(large), 0, NEAR)],
        note="Its loss is (1 − ηλ)^(2N/b) with N the samples seen, so ρ = −ln(1 − ηλ)(1 − ηλ)/(ηλ) "
        "= 1 − ηλ/2 − (ηλ)²/6 − … So a grid at equal epochs cannot test the law at small ηλ.",
    )


STUDY = Study(
    measure,
    ("exponents", "exponents_undertrained"),
    {PICTURE: draw},
    (one_mode, several_modes, momentum, stationary_only, epochs_imitate),
)
