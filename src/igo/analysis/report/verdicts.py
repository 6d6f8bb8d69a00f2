"""What the runs show: a row for each question, with the numbers behind it and a verdict."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from igo.analysis import statistics
from igo.analysis.report import comparison, delta, published
from igo.analysis.report.band import Rates, floor
from igo.analysis.report.comparison import Pair
from igo.analysis.report.families import Family
from igo.analysis.report.phrases import accuracy, in_range, least_seeds, p_value, points, signed
from igo.analysis.report.results import Results, Row
from igo.analysis.report.sharpness import Found
from igo.analysis.statistics import LEVEL
from igo.words import counted

WIDTH = 2.0  # the a_m at which the page says which schedules are in the band
MOST_PAIRS = 6  # of a family, in the brief
UNDECIDED = "undecided"


@dataclass(frozen=True)
class Verdict:
    """One question: what was found, over how many seeds (or settings), p and the verdict."""

    question: str
    found: str
    n: str = ""
    p: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Finding:
    """One short sentence and the table of verdicts behind it."""

    sentence: str
    rows: Sequence[Verdict] = ()


def of_family(results: Results, family: Family, pairs: list[Pair], margin: float) -> Finding:
    """What a family of settings shows; ``pairs`` of test accuracy, margin in points of it."""
    if family.kind == "constant":
        return _constant(results, family)
    ranked = ranking(results, family)
    if not ranked:
        return Finding("No setting has a final test accuracy.")
    ids = [row["setting"] for row in ranked]
    shown = list(itertools.combinations(ids, 2))  # the best against all others first
    by_pair = {(pair.first, pair.second): pair for pair in pairs}
    rows = [_difference(family, by_pair, *two) for two in shown[:MOST_PAIRS]]
    if family.kind == "schedules":
        rows += _schedules(results, ranked, margin)
    elif family.kind == "grid":
        rows += [_levels(results, ranked, "p", "split"), _levels(results, ranked, "split", "p")]
    return Finding(_sentence(family, ranked, pairs), [*rows, *_reach(pairs, margin)])


def ranking(results: Results, family: Family) -> list[Row]:
    """The family's settings by final test accuracy, best first; those without one left out."""
    rows = [results.of(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    return sorted(rows, key=lambda row: -row["test/accuracy_mean"])


def _sentence(family: Family, ranked: list[Row], pairs: list[Pair]) -> str:
    """Which setting is best, as far as a test says so."""
    best = ranked[0]
    name = f"{family.labels[best['setting']]}, {accuracy(best)},"
    shown = [f"{100 * row['test/accuracy_mean']:.2f}" for row in ranked]
    own = [pair for pair in pairs if best["setting"] in (pair.first, pair.second)]
    above = sum(pair.decided for pair in own)
    if len(ranked) == 1:
        return f"{name} is the only setting: there is nothing to compare it with."
    if shown.count(shown[0]) > 1:
        return f"{shown.count(shown[0])} of {len(ranked)} settings are tied at {shown[0]} %."
    if own and above == len(own):
        return f"{name} is above {'the other' if above == 1 else f'all {above} others'} by test."
    if above:
        return f"{name} has the highest mean and is above {above} of {len(own)} others by test."
    return f"{name} has the highest mean; no test decides whether it is the best."


def _difference(
    family: Family, pairs: dict[tuple[int, int], Pair], first: int, second: int
) -> Verdict:
    """One setting less another, with its test."""
    sign = 1 if (first, second) in pairs else -1
    pair = pairs[(first, second) if sign > 0 else (second, first)]
    turned = {"higher": "lower", "lower": "higher"} if sign < 0 else {}
    word, comma, rest = pair.verdict.partition(",")
    return Verdict(
        f"{family.labels[first]} − {family.labels[second]}",
        f"{points(pair, sign)} points" if pair.n else "",
        str(pair.n),
        p_value(pair.p_holm),
        turned.get(word, word) + comma + rest,
    )


def _schedules(results: Results, ranked: list[Row], margin: float) -> list[Verdict]:
    """The source's message, p ≤ 1 before faster decays; and its order."""
    rows = []
    slow = [row["setting"] for row in ranked if row["p"] is not None and row["p"] <= 1]
    fast = [row["setting"] for row in ranked if row["p"] is not None and row["p"] > 1]
    values = comparison.by_seed(results.runs, slow + fast, "test/accuracy")
    means = [comparison.mean_by_seed([values[one] for one in some]) for some in (slow, fast)]
    if slow and fast:
        apart = comparison.differences(*means)
        (pair,) = comparison.compared([(0, 0)], [apart], margin / 100)
        found = f"{points(pair)} points" if pair.n else ""
        p = p_value(pair.p_holm)
        rows.append(Verdict("mean of p ≤ 1 − mean of p > 1", found, str(pair.n), p, pair.verdict))
    named = [(row, name) for row in ranked if (name := published.name_of(row))]
    agreement = statistics.rank_agreement(
        [row["test/accuracy_mean"] for row, _ in named],
        [published.last_accuracy(name) for _, name in named],
    )
    if agreement:
        tau, p_tau = agreement
        verdict = UNDECIDED if p_tau > LEVEL else "agrees" if tau > 0 else "contradicts"
        question = f"order of {len(named)} schedules, as published (ResNet18, CIFAR-100)"
        found = f"Kendall’s τ = {signed(tau)}"
        rows.append(Verdict(question, found, "", p_value(p_tau), verdict))
    return rows


def _levels(results: Results, ranked: list[Row], name: str, other: str) -> Verdict:
    """Mean accuracy at each level of ``name``, over the cells and seeds that all levels have."""
    cells = {(row[name], row[other]): row["setting"] for row in ranked}
    levels = sorted({level for level, _ in cells})
    common = [o for o in sorted({o for _, o in cells}) if all((x, o) in cells for x in levels)]
    values = comparison.by_seed(results.runs, list(cells.values()), "test/accuracy")
    by_level = [
        comparison.mean_by_seed([values[cells[level, o]] for o in common]) for level in levels
    ]
    seeds = comparison.mean_by_seed(by_level)
    question = f"mean by {name}, over {other} {', '.join(f'{one:.4g}' for one in common)}"
    if not seeds:
        return Verdict(f"mean by {name}", f"no {other} and seed that all have")
    means = [sum(one[seed] for seed in seeds) / len(seeds) for one in by_level]
    shown = [f"{x:.4g}: {100 * mean:.2f} %" for x, mean in zip(levels, means, strict=True)]
    return Verdict(question, ", ".join(shown), str(len(seeds)))


def _reach(pairs: list[Pair], margin: float) -> list[Verdict]:
    """How many differences a test decides, of how many, and what these seeds can show."""
    if not pairs:
        return []
    tested = [pair for pair in pairs if pair.p is not None]
    decided, equal = (sum(getattr(p, what) for p in pairs) for what in ("decided", "equal"))
    n = in_range([pair.n for pair in pairs])
    all_of_them = Verdict(
        f"all pairs: {len(pairs)}, tested: {len(tested)}",
        f"{decided} decided at 5 %, {equal} equal within ±{margin:g} points",
        n,
    )
    seen = sorted(100 * pair.detectable for pair in tested if pair.detectable is not None)
    if not tested:
        return [all_of_them]
    if not seen:
        least = f"at least {least_seeds(len(tested))} seeds are needed"
        return [all_of_them, Verdict("what these seeds can show", least, n, "", "too few seeds")]
    found = f"{seen[len(seen) // 2]:.2f} points with 80 % power (median over pairs)"
    return [all_of_them, Verdict("difference that these seeds find", found, n)]


def _constant(results: Results, family: Family) -> Finding:
    shares = delta.explained(results, family)
    groups = delta.equal_noise(results, family)
    known = {name: share for name, share in shares.of.items() if share is not None}
    rows = []
    if known:
        shown = ", ".join(f"{name} {signed(100 * x, '.0f')} %" for name, x in known.items())
        rows.append(
            Verdict(
                "variance of accuracy between levels (ε²)",
                shown,
                in_range([results.of(setting)["n"] for setting in family.settings]),
                verdict=f"{shares.best} tells most" if shares.best else UNDECIDED,
            )
        )
    for one in groups:
        high, low = (end(range(len(one.means)), key=one.means.__getitem__) for end in (max, min))
        clear = one.p_holm is not None and one.p_holm <= LEVEL
        rows.append(
            Verdict(
                f"equal δ: {one.labels[high]} − {one.labels[low]}",
                f"{signed(100 * (one.means[high] - one.means[low]))} points",
                "",
                p_value(one.p_holm),
                "not equal" if clear else UNDECIDED,
            )
        )
    return Finding(_what_decides(shares), rows)


def _what_decides(shares: delta.Shares) -> str:
    if shares.best:
        others = " or ".join(name for name in shares.of if name != shares.best)
        return f"{shares.best} tells the final accuracy better than {others} alone."
    return f"No test decides whether δ, η or b tells the final accuracy best: {shares.why}."


def of_sharpness(found: list[Found]) -> Finding:
    """Which measures of sharpness go with the accuracy of the settings."""
    known = [one for one in found if one.rho is not None]
    adjusted = statistics.holm([one.p for one in known])
    rows = [
        Verdict(
            f"{one.measure} and test accuracy (Spearman)",
            f"ρ = {signed(one.rho or 0.0)} over settings"
            + (f"; {signed(one.within)} over seeds" if one.within is not None else ""),
            str(one.settings),
            p_value(p),
            UNDECIDED if p is None or p > LEVEL else "correlated",
        )
        for one, p in zip(known, adjusted, strict=True)
    ]
    clear = sum(row.verdict != UNDECIDED for row in rows)
    some = (
        f"Correlated with test accuracy: {clear} of {counted(len(rows), 'measure')} of sharpness."
    )
    return Finding(some if rows else "Too few settings for a correlation with accuracy.", rows)


def of_decay_rates(found: list[Rates]) -> Finding:
    """Which schedules stay in the band of Proposition 3.3 for a_m = WIDTH."""
    lowest = floor(WIDTH)
    falls = [(*one.smallest, one) for one in found if one.smallest[0] <= lowest]
    return Finding(
        f"In the band of Proposition 3.3 (γₘ > {lowest:.3f} for aₘ = {WIDTH:g}):"
        f" {len(found) - len(falls)} of {counted(len(found), 'schedule')}.",
        [
            Verdict(one.label, f"γₘ = {least:.3g} at m = {m} of {one.stages}", verdict="outside")
            for least, m, one in sorted(falls, key=lambda fall: fall[0])[:MOST_PAIRS]
        ],
    )
