"""What the runs show: for each question the numbers behind the answer, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from igo.analysis import statistics
from igo.analysis.statistics import LEVEL
from igo.ground.words import counted
from igo.report import comparison, delta, published
from igo.report.band import Rates, floor
from igo.report.comparison import Pair
from igo.report.families import Family
from igo.report.phrases import accuracy, in_range, least_seeds, p_value, points, signed
from igo.report.results import Results, Row
from igo.report.sharpness import Correlation

WIDTH = 2.0  # the a_m for which the page says which schedules are in the band
MOST_PAIRS = 6  # of a family, in the section "In brief"
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Verdict:
    """A question with its result, the number of seeds (or settings), p and the verdict."""

    question: str
    result: str
    n: str = ""
    p: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Finding:
    """One short sentence, empty if nothing is compared, and the table of verdicts behind it."""

    sentence: str
    rows: Sequence[Verdict] = ()


def of_family(results: Results, family: Family, pairs: list[Pair], margin: float) -> Finding:
    """What a family of settings shows. ``pairs`` compare test accuracy, ``margin`` is in points."""
    if family.kind == "constant":
        return _constant(results, family)
    ranked = ranking(results, family)
    if not ranked:
        return Finding("No setting has a final test accuracy.")
    baselines = {row["setting"] for row in ranked if row["schedule.profile"] == "constant"}
    shown = sorted(pairs, key=lambda pair: pair.second not in baselines)[:MOST_PAIRS]
    rows = [
        _difference(f"{family.labels[pair.first]} − {family.labels[pair.second]}", pair)
        for pair in shown
    ]
    if family.kind == "schedules":
        rows += _slow_and_fast_decay(results, ranked, margin) + _published_order(ranked)
    elif family.kind == "grid":
        rows += [_levels(results, ranked, "p", "split"), _levels(results, ranked, "split", "p")]
    return Finding(_best_setting(family, ranked, pairs), [*rows, *_power(pairs, margin)])


def ranking(results: Results, family: Family) -> list[Row]:
    """The family's settings that have a final test accuracy, the best first."""
    rows = [results.row(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    return sorted(rows, key=lambda row: -row["test/accuracy_mean"])


def _best_setting(family: Family, ranked: list[Row], pairs: list[Pair]) -> str:
    best = ranked[0]
    name = f"{family.labels[best['setting']]}, {accuracy(best)},"
    if len(ranked) == 1:
        return f"{name} is the only setting: there is nothing to compare it with."
    percentages = [f"{100 * row['test/accuracy_mean']:.2f}" for row in ranked]
    ties = percentages.count(percentages[0])
    if ties > 1:
        return f"{ties} of {len(ranked)} settings are tied at {percentages[0]} %."
    with_best = [pair for pair in pairs if best["setting"] in (pair.first, pair.second)]
    above = sum(pair.decided for pair in with_best)
    least = least_seeds(len(pairs))
    if max((pair.n for pair in with_best), default=0) < least:
        return f"No comparison can be decided: a test needs {least} seeds that two settings share."
    if not above:
        return f"{name} has the highest mean; no test decides whether it is the best."
    if above == len(with_best):
        return f"{name} is above {'the other' if above == 1 else f'all {above} others'} by test."
    return f"{name} has the highest mean and is above {above} of {len(with_best)} others by test."


def _difference(question: str, pair: Pair) -> Verdict:
    result = f"{points(pair)} points" if pair.n else ""
    return Verdict(question, result, str(pair.n), p_value(pair.p_holm), pair.verdict)


def _slow_and_fast_decay(results: Results, ranked: list[Row], margin: float) -> list[Verdict]:
    """The claim of the paper that p ≤ 1 is better than faster decays."""
    with_p = [row for row in ranked if row["p"] is not None]
    slow = [row["setting"] for row in with_p if row["p"] <= 1]
    fast = [row["setting"] for row in with_p if row["p"] > 1]
    if not slow or not fast:
        return []
    values = comparison.by_seed(results.runs, slow + fast, "test/accuracy")
    means = [
        comparison.mean_by_seed([values[setting] for setting in group]) for group in (slow, fast)
    ]
    differences = comparison.differences(*means)
    (pair,) = comparison.compared([(0, 0)], [differences], margin / 100)
    return [_difference("mean of p ≤ 1 − mean of p > 1", pair)]


def _published_order(ranked: list[Row]) -> list[Verdict]:
    """Whether the schedules have the order of the published accuracies."""
    named = [(row, name) for row in ranked if (name := published.name_of(row))]
    agreement = statistics.rank_agreement(
        [row["test/accuracy_mean"] for row, _ in named],
        [published.last_accuracy(name) for _, name in named],
    )
    if agreement is None:
        return []
    tau, p = agreement
    verdict = UNDECIDED if p > LEVEL else "agrees" if tau > 0 else "contradicts"
    question = f"order of {len(named)} schedules, as published (ResNet18, CIFAR-100)"
    return [Verdict(question, f"Kendall’s τ = {signed(tau)}", "", p_value(p), verdict)]


def _levels(results: Results, ranked: list[Row], name: str, other: str) -> Verdict:
    """Mean accuracy at each value of ``name``, over the cells and seeds that all values have."""
    cells = {(row[name], row[other]): row["setting"] for row in ranked}
    levels = sorted({level for level, _ in cells})
    common = [o for o in sorted({o for _, o in cells}) if all((x, o) in cells for x in levels)]
    values = comparison.by_seed(results.runs, list(cells.values()), "test/accuracy")
    by_level = [
        comparison.mean_by_seed([values[cells[level, o]] for o in common]) for level in levels
    ]
    seeds = comparison.mean_by_seed(by_level)
    if not seeds:
        return Verdict(f"mean by {name}", f"no {other} and seed that all have")
    means = [sum(level[seed] for seed in seeds) / len(seeds) for level in by_level]
    shown = [f"{x:.4g}: {100 * mean:.2f} %" for x, mean in zip(levels, means, strict=True)]
    question = f"mean by {name}, over {other} {', '.join(f'{level:.4g}' for level in common)}"
    return Verdict(question, ", ".join(shown), str(len(seeds)))


def _power(pairs: list[Pair], margin: float) -> list[Verdict]:
    """The number of pairs that a test decides, and the difference that these seeds find."""
    tested = [pair for pair in pairs if pair.p is not None]
    decided, equal = sum(pair.decided for pair in pairs), sum(pair.equal for pair in pairs)
    rows = []
    if len(pairs) > 1 and (decided or equal):
        question = f"all pairs: {len(pairs)}, tested: {len(tested)}"
        result = f"{decided} decided at 5 %, {equal} equal within ±{margin:g} points"
        rows.append(Verdict(question, result, in_range([pair.n for pair in pairs])))
    detectable = sorted(100 * pair.detectable for pair in tested if pair.detectable is not None)
    if detectable:
        median = detectable[len(detectable) // 2]
        difference = f"{median:.2f} points with 80 % power (median over pairs)"
        n = in_range([pair.n for pair in tested])
        rows.append(Verdict("difference that these seeds find", difference, n))
    return rows


def _constant(results: Results, family: Family) -> Finding:
    shares = delta.explained(results, family)
    known = {name: share for name, share in shares.by_name.items() if share is not None}
    rows = []
    if known:
        shown = ", ".join(f"{name} {signed(100 * x, '.0f')} %" for name, x in known.items())
        rows.append(
            Verdict(
                "variance of accuracy between levels (ε²)",
                shown,
                in_range([results.row(setting)["n"] for setting in family.settings]),
                verdict=f"{shares.best} explains most" if shares.best else UNDECIDED,
            )
        )
    rows += [_equal_noise(group) for group in delta.equal_noise(results, family)]
    sentence = f"No test decides whether δ, η or b explains the final accuracy best: {shares.why}."
    if shares.best:
        others = " or ".join(name for name in shares.by_name if name != shares.best)
        sentence = f"{shares.best} explains the final accuracy better than {others} alone."
    return Finding(sentence, rows)


def _equal_noise(group: delta.EqualNoise) -> Verdict:
    """The difference between the highest and the lowest mean of settings with one δ."""
    settings = list(zip(group.means, group.labels, strict=True))
    (high, high_label), (low, low_label) = (end(settings, key=itemgetter(0)) for end in (max, min))
    unequal = group.p_holm is not None and group.p_holm <= LEVEL
    return Verdict(
        f"equal δ: {high_label} − {low_label}",
        f"{signed(100 * (high - low))} points",
        "",
        p_value(group.p_holm),
        "not equal" if unequal else UNDECIDED,
    )


def of_sharpness(measures: list[Correlation]) -> Finding:
    """Which measures of sharpness correlate with the accuracy of the settings."""
    known = [measure for measure in measures if measure.rho is not None]
    if not known:
        return Finding("Too few settings for a correlation with accuracy.")
    adjusted = statistics.holm([measure.p for measure in known])
    rows = [
        Verdict(
            f"{measure.name} and test accuracy (Spearman)",
            f"ρ = {signed(measure.rho or 0.0)} over settings"
            + (f"; {signed(measure.within)} over seeds" if measure.within is not None else ""),
            str(measure.settings),
            p_value(p),
            UNDECIDED if p is None or p > LEVEL else "correlated",
        )
        for measure, p in zip(known, adjusted, strict=True)
    ]
    clear = sum(row.verdict != UNDECIDED for row in rows)
    measured = counted(len(rows), "measure")
    return Finding(f"Correlated with test accuracy: {clear} of {measured} of sharpness.", rows)


def of_decay_rates(schedules: list[Rates]) -> Finding:
    """Which schedules stay in the band of Proposition 3.3 for a_m = WIDTH."""
    lowest = floor(WIDTH)
    outside = [
        (*schedule.smallest, schedule) for schedule in schedules if schedule.smallest[0] <= lowest
    ]
    outside.sort(key=lambda fall: fall[0])
    inside = f"{len(schedules) - len(outside)} of {counted(len(schedules), 'schedule')}"
    band = f"In the band of Proposition 3.3 (γₘ > {lowest:.3f} for aₘ = {WIDTH:g}): {inside}."
    return Finding(
        band if len(schedules) > 1 or outside else "",
        [
            Verdict(
                schedule.label, f"γₘ = {gamma:.3g} at m = {m} of {schedule.stages}",
                verdict="outside",
            )
            for gamma, m, schedule in outside[:MOST_PAIRS]
        ],
    )  # fmt: skip
