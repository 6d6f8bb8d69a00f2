"""Study: is the global minimum of a network reachable? Teacher and student, hundreds of starts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lab.theory import teacher
from lab.theory.functions import Array
from lab.theory.kernels import Kernel
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, rate, rate_gap, statement
from lab.theory.studies import style

UNITS, RUNS, ETA, STEPS, STAGES, LAST = 10, 200, 0.15, 2500, 20, 500
REACHED = 1e-3  # f at the end; the other minima of this network lie above 0.01
BATCHES, RADII, TOO_LARGE, LONGER = (8, 32), (0.5, 1.5), 4.5, 3
PHI = ((STAGES - np.arange(STAGES)) / STAGES) ** 0.5
PICTURE = "teacher_student.png"
FORMS = ("constant", "η falls", "b grows")


@dataclass(frozen=True)
class Method:
    """The noise of a run: mini-batches, or the ball around each point."""

    noise: Literal["none", "mini-batch", "ball"]
    form: str = "constant"
    size: float = 0.0  # b_1, or δ_1
    steps: int = STEPS


def methods() -> list[Method]:
    """Return the methods of every noise, size and form."""
    mini_batch = [Method("mini-batch", form, b) for b in BATCHES for form in FORMS]
    ball = [Method("ball", form, r) for r in RADII for form in ("constant", "δ falls")]
    ball.append(Method("ball", "constant", TOO_LARGE))
    longer = [Method("mini-batch", FORMS[2], BATCHES[0], LONGER * STEPS)]
    return [Method("none"), Method("none", steps=LONGER * STEPS), *mini_batch, *ball, *longer]


def run(method: Method, start: Array, seed: int) -> Array:
    """Return the last weights (runs, k, k). All methods end with the same plain descent."""
    rng, w = np.random.default_rng(seed), start.copy()
    for phi in PHI:
        eta = ETA * phi if method.form == "η falls" else ETA
        batch = round(method.size / phi**2) if method.form == "b grows" else int(method.size)
        radius = method.size * (phi if method.form == "δ falls" else 1.0)
        for _ in range(method.steps // STAGES):
            if method.noise == "mini-batch":
                slope = teacher.sampled_gradient(w, batch, rng)
            elif method.noise == "ball":
                u = Kernel("ball").sample(len(w), UNITS**2, rng).reshape(w.shape)
                slope = teacher.gradient(w - radius * u)
            else:
                slope = teacher.gradient(w)
            w = w - eta * slope
    for _ in range(LAST):
        w = w - ETA * teacher.gradient(w)
    return w


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Run every method from the same starts."""
    start = teacher.initial(RUNS, UNITS, settings.seed)
    records = []
    with np.errstate(all="ignore"):  # a diverged run counts as a failure
        for method in methods():
            loss = np.nan_to_num(teacher.loss(run(method, start, settings.seed)), nan=np.inf)
            case = {"noise": method.noise, "form": method.form, "size": float(method.size)}
            end = {"steps": method.steps, "runs": RUNS, "successes": int((loss <= REACHED).sum())}
            records.append(case | end | {"median_loss": float(np.median(loss))})
    return {"teacher_student": frame(records)}


def _wins(frames: Frames, method: Method) -> tuple[int, int]:
    keys = {"noise": method.noise, "form": method.form, "size": float(method.size)}
    row = frames["teacher_student"].filter(**keys, steps=method.steps)
    return int(row["successes"][0]), int(row["runs"][0])


def draw(frames: Frames) -> Figure:
    """Draw success against the size of the noise, a line for each form."""
    figure, axes = style.panels(2, width=4.8)
    plain = _wins(frames, Method("none"))[0] / RUNS
    for axis, noise, sizes in (
        (axes[0], "mini-batch", BATCHES),
        (axes[1], "ball", (*RADII, TOO_LARGE)),
    ):
        table = frames["teacher_student"].filter(noise=noise, steps=STEPS)
        for rows in table.partition_by("form", maintain_order=True):
            checks = [rate("", w, n) for w, n in rows.select("successes", "runs").iter_rows()]
            values = np.array([c.value for c in checks])
            bars = np.abs(np.array([c.interval for c in checks]).T - values)
            axis.errorbar(rows["size"], values, bars, fmt="o-", capsize=3, label=rows["form"][0])
        axis.axhline(plain, color=style.BLACK, linestyle="--", label="gradient descent")
        axis.set(xscale="log", ylim=(0, 1.03), ylabel="share that reaches the minimum 0")
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes], minor=False)
        axis.minorticks_off()
        axis.legend()
    axes[0].set(xlabel=r"batch size $b_1$", title="its own mini-batch noise")
    axes[0].invert_xaxis()
    axes[1].set(xlabel=r"radius $\delta_1$", title="noise of the ball, as in the definition")
    return figure


RAN = (
    f"student and teacher of {UNITS} ReLU units on N(0, I) inputs, f in closed form with minimum "
    f"0, {RUNS} starts N(0, 1/{UNITS}), η = {ETA}, {STEPS:,} steps in {STAGES} stages (p = 1/2), "
    f"then {LAST:,} of plain descent for all; reached: f ≤ {REACHED:g}"
)


@statement(
    "slide: 結論",
    "with enough computing, plain SGD makes global optimization of networks possible",
    PICTURE,
)
def sgd_reaches_the_minimum(frames: Frames) -> Seen:
    """Check that nearly all runs reach the minimum, and more of them with more steps."""
    short, long = Method("mini-batch", FORMS[2], BATCHES[0]), methods()[-1]
    best = max(methods()[2:-1], key=lambda m: _wins(frames, m)[0])
    constant = Method("mini-batch", FORMS[0], BATCHES[0])
    plain, plain_long = methods()[:2]
    name = f"{best.noise}, {best.form}, {'δ_1' if best.noise == 'ball' else 'b_1'} = {best.size:g}"
    return Seen(
        RAN,
        [
            rate(f"SGD, b_1 = {BATCHES[0]}, constant", *_wins(frames, constant), low=0.95),
            rate(f"SGD, b_1 = {BATCHES[0]}, b grows", *_wins(frames, short), low=0.95),
            rate(f"the same with {LONGER} times the steps", *_wins(frames, long), low=0.95),
            rate(f"the best of all noises: {name}", *_wins(frames, best), low=0.95),
        ],
        [
            rate("gradient descent", *_wins(frames, plain), low=0.95),
            rate(
                f"gradient descent, {LONGER} times the steps", *_wins(frames, plain_long), low=0.95
            ),
        ],
    )


@statement(
    "slide: SGDの挙動についての理論的洞察",
    "networks: noise finds the global minimum more often than none, falling noise than constant",
    PICTURE,
)
def falling_beats_constant(frames: Frames) -> Seen:
    """Compare success with and without noise, and of falling and constant noise."""
    plain = _wins(frames, Method("none"))
    parts: list[Check] = []
    for noise, sizes, falling in (
        ("mini-batch", BATCHES, FORMS[1:]),
        ("ball", RADII, ("δ falls",)),
    ):
        for size in sizes:
            symbol = f"{noise}, {'b_1' if noise == 'mini-batch' else 'δ_1'} = {size:g}"
            constant = _wins(frames, Method(noise, "constant", size))  # type: ignore[arg-type]
            parts.append(rate_gap(f"{symbol}: constant less none", constant, plain))
            for form in falling:
                wins = _wins(frames, Method(noise, form, size))  # type: ignore[arg-type]
                parts.append(rate_gap(f"{symbol}: {form} less constant", wins, constant))
    wild = _wins(frames, Method("ball", "constant", TOO_LARGE))
    return Seen(
        RAN,
        parts,
        [
            rate_gap(
                f"far too much noise, ball, δ_1 = {TOO_LARGE:g}: constant less none", wild, plain
            )
        ],
    )


STUDY = Study(
    measure,
    ("teacher_student",),
    {PICTURE: draw},
    (sgd_reaches_the_minimum, falling_beats_constant),
)
