"""Study: Algorithm 1 with its printed rule and with Hazan et al.'s rule; Theorem 5.1's rate."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lab.theory.dented import Dented
from lab.theory.explicit import algorithm1, halving_levels, hazan_steps
from lab.theory.implicit import fitted_exponent
from lab.theory.kernels import Kernel
from lab.theory.nice import check_sigma_nice
from lab.theory.row import Check, Frames, Seen, Settings, Study, frame, statement
from lab.theory.studies import style

FIRST, CONSTANT, CHAINS, SIGMA, STAGES = 0.5, 0.05, 200, 0.7, 7
PROBLEM = Dented()  # nonconvex and σ-nice, and f(x*_δ) is proportional to δ
PICTURE = "algorithm1.png"


def measure(settings: Settings) -> dict[str, pl.DataFrame]:
    """Run Algorithm 1 on a σ-nice function with both iteration rules."""
    levels = halving_levels(FIRST, STAGES)
    nice = check_sigma_nice(PROBLEM.smoothed(), list(levels), SIGMA)
    start = np.random.default_rng(settings.seed).uniform(-FIRST, FIRST, (CHAINS, 1))
    records = []
    for rule in ("printed", "hazan"):
        results = algorithm1(
            PROBLEM.gradient,
            start,
            levels,
            sigma=SIGMA,
            lipschitz=PROBLEM.lipschitz,
            kernel=Kernel("ball"),
            rule=rule,
            constant=CONSTANT,
            seed=settings.seed,
        )
        total = 0
        for m, result in enumerate(results, 1):
            total += result.steps
            error = PROBLEM.value(result.x)
            records.append(
                {
                    "rule": rule,
                    "stage": m,
                    "sigma_nice": nice.holds,
                    "delta": result.noise_level,
                    "steps_asked": SIGMA * result.noise_level**2 / 32
                    if rule == "printed"
                    else float(result.steps),
                    "total_steps": total,
                    "mean_error": float(error.mean()),
                    "standard_error": float(error.std() / np.sqrt(CHAINS)),
                }
            )
    return {"algorithm1": frame(records)}


def draw(frames: Frames) -> Figure:
    """Draw the steps of each stage by both rules, and the steps against the error."""
    printed, hazan = (frames["algorithm1"].filter(rule=rule) for rule in ("printed", "hazan"))
    figure, (left, right) = style.panels(2, width=4.6)
    left.loglog(hazan["delta"], hazan["steps_asked"], "o-", label="c·L²/(σε_m), Hazan et al.")
    dots = {"color": style.RED, "label": "σδ_m²/32, as printed"}
    left.loglog(printed["delta"], printed["steps_asked"], "s-", **dots)
    left.axhline(1, linestyle=":", color=style.RED, label="one step")
    left.invert_xaxis()
    left.set(xlabel=r"$\delta_m$", ylabel=r"$T_m$", title="SGD steps of stage m")
    left.legend()
    right.loglog(hazan["mean_error"], hazan["total_steps"], "o-", label="Algorithm 1")
    error, steps = hazan["mean_error"].to_numpy(), hazan["total_steps"].to_numpy()
    guide = steps[-1] * (error / error[-1]) ** -2.0
    right.loglog(error, guide, "--", color=style.BLACK, label="1/ε²")
    dots = {"color": style.RED, "label": "as printed"}
    right.loglog(printed["mean_error"], printed["total_steps"], "s", **dots)
    right.invert_xaxis()
    right.set(xlabel="error ε", ylabel="total steps", title="Theorem 5.1")
    right.legend()
    return figure


@statement("Algorithm 1", "T_m := σδ_m²/32 is the number of SGD steps of stage m", PICTURE)
def printed_step_rule(frames: Frames) -> Seen:
    """Check that the stages of the printed rule have steps, and that its error falls with δ."""
    printed, hazan = (frames["algorithm1"].filter(rule=rule) for rule in ("printed", "hazan"))

    def checks(rows: pl.DataFrame, name: str) -> list[Check]:
        fall = rows["mean_error"][-1] / rows["mean_error"][0] / 0.5 ** (STAGES - 1)
        least = float(rows["steps_asked"].to_numpy().min())
        return [
            Check(f"fewest steps of a stage, {name}", least, low=1),
            Check(f"fall of the error over that of δ, {name}", fall, high=2),
        ]

    nice = bool(printed["sigma_nice"].all())
    counter = checks(hazan, "c·L²/(σε_m)")
    first, last = (
        hazan_steps(SIGMA, PROBLEM.lipschitz, d, CONSTANT) for d in hazan["delta"][[0, -1]]
    )
    return Seen(
        f"a dented bowl (row 10: nonconvex; σ = {SIGMA:g}, L_f = {PROBLEM.lipschitz:g} on [−1, 1]; "
        f"σ-nice by the checker: {nice}), δ_1 = {FIRST}, {STAGES} halvings, {CHAINS} chains; a "
        "stage takes at least 1 step",
        checks(printed, "as printed"),
        note="In Hazan et al. σδ_m²/32 is ε_m, the accuracy of stage m, not a count. With "
        f"c·L²/(σε_m) steps (c = {CONSTANT}: {first:,} to {last:,}) the same checks find "
        + " and ".join(f"{check.number} ({check.asked})" for check in counter)
        + ".",
        no_control="the rule that Hazan et al. mean is the contrast, in the note",
    )


@statement(
    "定理 5.1 (Hazan et al. 2016)", "O(1/ε²) iterations reach the ε-neighbourhood of x*", PICTURE
)
def theorem_5_1(frames: Frames) -> Seen:
    """Fit the exponent of total steps against the error."""
    hazan = (
        frames["algorithm1"]
        .filter(
            rule="hazan",
        )
        .filter(pl.col("stage") > 2)
    )
    error = hazan["mean_error"].to_numpy()
    slope, spread = fitted_exponent(hazan["total_steps"].to_numpy(), error)
    stages, _ = fitted_exponent(2.0 ** hazan["stage"].to_numpy(), error)
    interval = (slope - 1.96 * spread, slope + 1.96 * spread)
    return Seen(
        "the same runs with c·L²/(σε_m) steps: total steps against the error reached, stages 3–7",
        [Check("fitted exponent", slope, 1.7, 2.3, interval)],
        [Check("exponent of 2^m, rounds, instead of steps", stages, 1.7, 2.3)],
        note="The minimum is a kink, so the error is proportional to δ_m. The function is "
        "nonconvex: f″ = −2 in the dents, which the first stages' samples see.",
    )


STUDY = Study(measure, ("algorithm1",), {PICTURE: draw}, (printed_step_rule, theorem_5_1))
