"""The chapters of results/noise/README.md: what holds and what does not."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import norm

from igo.analysis.statistics import LEVEL, Estimate, least_p
from igo.report.phrases import p_value
from lab.noise import Findings, Row

SLOPES = {  # the name of each fit, and its words
    "with": "with replacement",
    "without_factored": "without replacement, divided by (n − b)/(n − 1)",
    "without": "without replacement, as it is",
    "without_small": "without replacement, as it is, b ≤ n/20",
    "batchnorm_2": "train-mode BatchNorm, divided by the factor, b ≥ 2",
    "batchnorm_32": "train-mode BatchNorm, divided by the factor, b ≥ 32",
}


def p_is(p: float | None) -> str:
    """``p = 0.031``."""
    return "not testable" if p is None else "p < 0.0001" if p < 1e-4 else f"p = {p_value(p)}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def verdict(holds: bool) -> str:
    """Whether a statement holds, as Markdown."""
    return "**holds**" if holds else "**does not hold**"


def lemma(findings: Findings, dataset: str) -> tuple[str, str]:
    """The chapter of Lemma 2.1: slopes, agreement, and train-mode BatchNorm."""
    facts = findings.facts
    slopes = facts["slopes"]
    rows = [(SLOPES[name], slope, _slope_verdict(name, slope)) for name, slope in slopes.items()]
    draws = findings.tables["lemma"][0]["draws"]
    points, score = facts["points"], facts["farthest"]
    bound, usual = (norm.isf(share / 2 / points) for share in (0.05, 1.0))
    bn = [
        (r["b"], Estimate(r["c2"], r["c2_low"], r["c2_high"]), r["mean"],
         r["bias_square"] / r["mean"])
        for r in findings.tables["lemma_batchnorm"]
    ]  # fmt: skip
    body = [
        f"C² = {facts['variance']:.5g} from all n = {facts['n']:,} one-sample gradients (BatchNorm"
        " in eval mode with the statistics of the training images, images not augmented)."
        f" Each mean is over {draws:,} draws.",
        table(["fit", "log–log slope", "−1 ± 0.02"], rows),
        f"E‖∇f_S − ∇f‖² is C²/b with replacement, (C²/b)(n − b)/(n − 1) without: of {points} points"
        f" the farthest is {score:.2f} standard errors from it ({verdict(score < bound)}: about"
        f" {usual:.1f} is expected of so many, above {bound:.1f} would be 1 in 20). Without"
        f" replacement and at b = n it is {facts['at_n']:.1e}{_zero(facts)}. The lemma is a bound,"
        f" so both are within it{_steeper(slopes)}.",
        "**Train-mode BatchNorm**, the gradients that SGD uses. f_S is then no mean of one-sample"
        " losses, the lemma's premise fails, and E∇f_S need not be ∇f (the gradient of all n as one"
        " batch). The distance is without replacement, C²(b) has that factor taken out:",
        table(["b", "C²(b)", "E‖∇f_S − ∇f‖²", "share of it that is bias², ‖E∇f_S − ∇f‖²"], bn),
        _batchnorm_verdict(findings.tables["lemma_batchnorm"], facts["variance"]),
    ]
    return f"Lemma 2.1 on {dataset}", "\n\n".join(body)


def _zero(facts: Row) -> str:
    return ": zero, to rounding" if facts["at_n"] < 1e-6 * facts["variance"] / facts["n"] else ""


def _steeper(slopes: dict[str, Estimate]) -> str:
    if slopes["without"].high >= -1:
        return ""
    return (
        "; that the slope without replacement is steeper than −1 before it is divided by the"
        " factor is the sampling and no failure"
    )


def _slope_verdict(name: str, slope: Estimate) -> str:
    within = abs(slope.value + 1) <= 0.02
    if name not in ("with", "without_factored"):
        return "yes" if within else "no, nor need it be"
    return "yes" if within else "no"


def _batchnorm_verdict(rows: list[Row], frozen: float) -> str:
    values = {row["b"]: row["c2"] for row in rows}
    least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    biased = [row["b"] for row in rows if row["bias_square"] > 0.1 * row["mean"]]
    where = f"more than a tenth of the distance at b = {', '.join(map(str, biased))}"
    return (
        f"C²(b) is no constant: from {values[least]:.4g} at b = {least} to {values[most]:.4g} at"
        f" b = {most}, a factor of {values[most] / values[least]:.2f}; the bias is"
        f" {where if biased else 'below a tenth of the distance at every b'}. A C² belongs to the"
        " batch size that it was measured at. Nor is it that of eval mode, where BatchNorm's"
        f" statistics do not move with the parameters: {frozen:.4g}, {frozen / rows[-1]['c2']:.2f}"
        f" times the {rows[-1]['c2']:.4g} at b = {rows[-1]['b']}. The two must not be mixed."
    )


def omega(findings: Findings, dataset: str) -> tuple[str, str]:
    """The chapter of ω: radius, directions, normality, tails."""
    rows, shares = findings.tables["omega"], findings.tables["omega_directions"]
    radius = [
        (r["epoch"], r["b"],
         Estimate(r["radius_mean"], r["radius_mean_low"], r["radius_mean_high"]),
         r["radius_sd"], Estimate(r["tail"], r["tail_low"], r["tail_high"]),
         r["not_gaussian"], r["not_gaussian_ks"], r["excess_kurtosis_random"],
         r["excess_kurtosis_leading"], r["ks_to_ball_median"])
        for r in rows
    ]  # fmt: skip
    directions = [
        (s["epoch"], s["c2"], s["share_1"], s["share_10"], s["effective_rank"],
         s["isotropic_rank"],
         f"{s['sd_along_random_least']:.2f} to {s['sd_along_random_most']:.2f}",
         Estimate(s["sample_tail"], s["sample_tail_low"], s["sample_tail_high"]),
         s["sample_largest"])
        for s in shares
    ]  # fmt: skip
    body = [
        f"ω = ∇f_S − ∇f of {rows[0]['draws']:,} mini-batches for each b, with replacement, from all"
        f" n = {findings.facts['n']:,} one-sample gradients (BatchNorm in eval mode, images not"
        " augmented; statistics of the training images at the same parameters); epoch 0 is the"
        " initialisation."
        " If ω is (C/√b)·u, ‖ω‖√b/C is 1 on the sphere and d/(d + 1) on average in the ball.",
        table(["epoch", "b", "mean ‖ω‖√b/C", "its sd", "tail index of ‖ω‖",
               "random directions of 20 not Gaussian: skewness and kurtosis", "… KS",
               "excess kurtosis, random (median)", "…, leading direction",
               "KS distance to the isotropic ball's marginal (median)"], radius),
        table(["epoch", "C²", "share of C² in the first direction", "in the first 10",
               "effective rank", "of an isotropic one",
               "sd along 20 random directions, isotropic = 1",
               "tail index of one-sample ‖g − ∇f‖", "the largest of them, in C"], directions),
        "Tests at 5 % for the whole table (Holm); KS with the exact variance along each direction."
        " In d dimensions the ball's marginal is near the Gaussian N(0, 1/(d + 2)), the nearer the"
        " larger d: projections hardly tell the ball from a Gaussian, the radius does.",
        _omega_verdict(rows, shares),
    ]  # fmt: skip
    return f"The noise ω on {dataset}", "\n\n".join(body)


def _omega_verdict(rows: list[Row], shares: list[Row]) -> str:
    def spread(some: list[Row], key: str, form: str = ".3g") -> str:
        values = [row[key] for row in some]
        return f"{min(values):{form}} to {max(values):{form}}"

    largest = max(row["b"] for row in rows)
    small = [r for r in rows if r["b"] < largest]
    big = [r for r in rows if r["b"] == largest]
    isotropic = all(s["effective_rank"] > 0.5 * s["isotropic_rank"] for s in shares)
    shell = all(r["radius_sd"] < 0.05 for r in rows)
    sds = [(2 * s["effective_rank"]) ** -0.5 for s in shares]
    gaussian = ", ".join(f"{sd:.3f}" for sd in sds) + " at these epochs"
    lines = [
        f"- Size: E‖ω‖² = C²/b {verdict(all(abs(r['radius_rms'] - 1) < 0.1 for r in rows))}"
        f" (rms of ‖ω‖√b/C {spread(rows, 'radius_rms')}).",
        f"- One radius, as for u in a ball of many dimensions: {verdict(shell)}; the sd of ‖ω‖√b/C"
        f" is {spread(rows, 'radius_sd')}, and its mean {spread(rows, 'radius_mean')}. Gaussian"
        f" noise of the same spectrum has about 1/√(2r) for an effective rank r: {gaussian}; at"
        f" b = {largest} the sd is {spread(big, 'radius_sd')}.",
        f"- Isotropy: {verdict(isotropic)}; the effective rank of the noise is"
        f" {spread(shares, 'effective_rank')}, and its first direction alone has"
        f" {spread(shares, 'share_1')} of C².",
        "- Gaussian along random directions (skewness and kurtosis): rejected for"
        f" {sum(r['not_gaussian'] for r in small)} of {20 * len(small)} below b = {largest}, and"
        f" for {sum(r['not_gaussian'] for r in big)} of {20 * len(big)} at it.",
        f"- Heavy tails: the tail index of ‖ω‖ is {spread(rows, 'tail')} and of one-sample"
        f" gradients {spread(shares, 'sample_tail')}; infinite variance (below 2)"
        f" {_heavy(rows, shares)}.",
    ]
    return "\n".join(lines)


def _heavy(rows: list[Row], shares: list[Row]) -> str:
    lows = [r["tail_low"] for r in rows] + [s["sample_tail_low"] for s in shares]
    highs = [r["tail_high"] for r in rows] + [s["sample_tail_high"] for s in shares]
    if min(highs) < 2:
        return "is seen somewhere: an interval lies below it"
    if min(lows) < 2:
        return "cannot be excluded everywhere: an interval reaches below it"
    return "is excluded by every interval"


def feedback(findings: Findings, dataset: str) -> tuple[str, str]:
    """The chapter of the feedback: deviation from the target, accuracy and loss."""
    facts, ends = findings.facts, findings.tables["feedback_seeds"]
    names = {
        "largest_deviation": "largest abs(δ_measured/δ_target − 1), stages 2..M",
        "mean_deviation": "mean δ_measured/δ_target − 1",
        "test/accuracy": "test accuracy at the end", "train/loss": "training loss at the end",
        "updates": "updates",
    }  # fmt: skip
    rows = [
        (label, facts["means"][name, "none"], facts["means"][name, "measured"],
         f"{facts['differences'][name]}, {p_is(facts['p'][name])}" if name in facts["p"] else "")
        for name, label in names.items()
    ]  # fmt: skip
    seeds = [
        (r["seed"], r["feedback"], r["largest_deviation"], r["last_b_m"],
         r["test/accuracy"], r["train/loss"])
        for r in ends
    ]  # fmt: skip
    worst = facts["worst"]
    body = [
        f"Target δ_m = δ_1 φ_m with the C² of the initialisation; {len(ends) // 2} seeds, mean and"
        " 95 % interval (Student), exact sign-flip test of paired differences"
        f" (its least p with {len(ends) // 2} seeds is {least_p(len(ends) // 2):.2g}).",
        table(["", "open loop", "feedback", "feedback − open loop (paired)"], rows),
        f"The demand, ≤ 0.15 with feedback: {verdict(worst <= 0.15)} (worst seed {worst:.3f})."
        " δ_measured is of each epoch's own pieces, which the feedback never saw.",
        table(["seed", "schedule.feedback", "largest deviation", "last b_m",
               "test accuracy", "training loss"], seeds),
        _feedback_verdict(facts),
    ]  # fmt: skip
    return f"Feedback on {dataset}", "\n\n".join(body)


def _feedback_verdict(facts: Row) -> str:
    lines = []
    for name, label, better in (
        ("test/accuracy", "test accuracy", 1),
        ("train/loss", "training loss", -1),
    ):
        gap, p = facts["differences"][name], facts["p"][name]
        how = "better" if gap.value * better > 0 else "worse"
        decided = p is not None and p <= LEVEL
        lines.append(f"- {label}: {f'{how} with feedback' if decided else 'undecided'}"
                     f" ({gap}, {p_is(p)}).")  # fmt: skip
    updates = {kind: facts["means"]["updates", kind].value for kind in ("none", "measured")}
    growth = {kind: facts["growth"][kind].value for kind in ("none", "measured")}
    change = "as many" if updates["measured"] == updates["none"] else (
        "fewer" if updates["measured"] < updates["none"] else "more")  # fmt: skip
    lines.append(
        f"- At the end C² is {growth['none']:.3g} times that before training in open loop and"
        f" {growth['measured']:.3g} times with feedback. To hold δ on its curve the feedback makes"
        f" {change} updates: {updates['measured']:,.0f}, in open loop {updates['none']:,.0f} in"
        " the same epochs."
    )
    return "\n".join(lines)


def online_cost(findings: Findings, dataset: str) -> tuple[str, str]:
    """The chapter of the cost: shares of training time, by call and by epoch."""
    facts = findings.facts
    rows = [
        (f"b = {b}, {clock}",
         f"{call['pieces']} of {call['size']} samples in {call['updates']:,} updates",
         f"{100 * call['samples']:.2f} %", call["step_ms"], call["measure_ms"],
         _percent(call["cost"]))
        for (b, clock), call in facts["calls"].items()
    ]  # fmt: skip
    epochs = [
        (f"b = {b}, {clock}", ratio, facts["seconds"][b, clock])
        for (b, clock), ratio in facts["ratios"].items()
    ]
    worst = max(call["cost"].high for (_, clock), call in facts["calls"].items() if clock == "cpu")
    starts = ", ".join(f"{seconds:.2f} s at b = {b}" for b, seconds in facts["starts"].items())
    body = [
        "Training steps and measurements on the same batches, in turns in one process; medians with"
        " bootstrap intervals, and the cost of an epoch's measurements as a share of its steps."
        " Other programs share these cores: process CPU time is the fair clock, wall time beside"
        " it.",
        table(["b, clock", "measured pieces", "samples measured once more", "ms of a step",
               "ms of a measurement", "cost"], rows),
        f"At most 3 % of training time: {verdict(worst <= 0.03)} (highest end of the intervals, CPU"
        f" time: {100 * worst:.2f} %). The measurement at a stage's start is apart from this, the"
        f" same however long the stage is: {starts} (CPU time).",
        "The same as whole epochs with and without, in turns: a check, as these ratios vary by"
        f" {_widest(facts['ratios'])} on cores that others share:",
        table(["b, clock", "time with / without", "seconds of an epoch without"], epochs),
    ]  # fmt: skip
    return f"What measuring C² online costs on {dataset}", "\n\n".join(body)


def _widest(ratios: dict[tuple[int, str], Estimate]) -> str:
    return f"up to ±{50 * max(ratio.high - ratio.low for ratio in ratios.values()):.1f} %"


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:.2f} % [{100 * share.low:.2f}, {100 * share.high:.2f}]"
