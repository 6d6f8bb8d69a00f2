"""The results in sentences, each computed from the numbers that it states."""

from __future__ import annotations

from dataclasses import dataclass

from igo.analysis import statistics
from igo.analysis.report import comparison, delta, published
from igo.analysis.report.band import Rates, floor
from igo.analysis.report.comparison import Pair
from igo.analysis.report.curves import TITLES, seeds_of
from igo.analysis.report.families import Family
from igo.analysis.report.phrases import (
    MINUS,
    accuracy,
    capital,
    gap,
    listed,
    p_is,
    signed,
    tally,
)  # fmt: skip
from igo.analysis.report.results import Results, Row
from igo.analysis.report.sharpness import Found
from igo.analysis.statistics import LEVEL
from igo.words import counted

BAND = 2.0  # the a_m at which the page says which schedules are in the band


@dataclass(frozen=True)
class Finding:
    """One result: where it belongs, one sentence, and the numbers behind it."""

    kicker: str
    headline: str
    details: tuple[str, ...]


def findings(
    results: Results, family: Family, pairs: list[Pair], margin: float, where: str = ""
) -> Finding:
    """What a family of settings showed; ``pairs`` of test accuracy, margin in points of it.

    ``where`` says what the family is about, if not the data that it is on.
    """
    where = where or family.shared.split(", ")[0]
    if family.kind == "constant":
        return _constant(results, family, where)
    ranked = ranking(results, family)
    title = f"{TITLES[family.kind]}, {where}"
    if not ranked:
        return Finding(title, "No setting has a final test accuracy.", ())
    own: list[str] = []
    if family.kind == "methods":
        own = _methods(family, pairs, margin)
    elif family.kind == "schedules":
        own = _schedules(results, ranked, margin)
    elif family.kind == "grid":
        own = [_levels(results, ranked, "p", "split"), _levels(results, ranked, "split", "p")]
    top = {family.labels[row["setting"]] for row in ranked[:2]}
    if family.kind != "methods" or "Method 1" not in top:  # else it is said below
        own.insert(0, _second(family, ranked, pairs, margin))
    return Finding(
        title, _headline(results, family, ranked, pairs), (*own, tally(pairs, margin))
    )  # fmt: skip


def ranking(results: Results, family: Family) -> list[Row]:
    """The family's settings by final test accuracy, best first; those without one left out."""
    rows = [results.of(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    return sorted(rows, key=lambda row: -row["test/accuracy_mean"])


def _headline(results: Results, family: Family, ranked: list[Row], pairs: list[Pair]) -> str:
    """Which setting is best, as far as a test says so."""
    best = ranked[0]
    name = family.labels[best["setting"]]
    reached = f"{accuracy(best)} (last epoch, {seeds_of(results, (best['setting'],))})"
    if len(ranked) == 1:
        return f"{capital(name)}: test accuracy {reached}; nothing here is alike enough to compare."
    tied = [row for row in ranked if _shown(row) == _shown(best)]
    if len(tied) == len(ranked):
        return f"All {len(ranked)} settings are tied at a mean test accuracy of {_shown(best)} %."
    if len(tied) > 1:
        names = [family.labels[row["setting"]] for row in tied]
        names = names if len(names) < 4 else [*names[:2], f"{len(names) - 2} others"]
        return f"{capital(listed(names))} are tied at the highest mean, {_shown(best)} %."
    own = [pair for pair in pairs if best["setting"] in (pair.first, pair.second)]
    above = sum(pair.decided for pair in own)
    others = "the other" if len(own) == 1 else f"the {len(own)} others"
    if own and above == len(own):
        return f"{capital(name)} ends highest, {reached}, above {others} by test."
    start = f"{capital(name)} has the highest mean test accuracy, {reached}"
    if above:
        return f"{start}: above {above} of {others} by test, undecided against the rest."
    return f"Undecided which is best: {name} has the highest mean test accuracy, {reached}."


def _shown(row: Row) -> str:
    return f"{100 * row['test/accuracy_mean']:.2f}"


def _second(family: Family, ranked: list[Row], pairs: list[Pair], margin: float) -> str:
    """The best against the next, with its test."""
    if len(ranked) < 2:
        return ""
    ids = ranked[0]["setting"], ranked[1]["setting"]
    found = next(pair for pair in pairs if {pair.first, pair.second} == set(ids))
    return (
        f"Next is {family.labels[ids[1]]} with {accuracy(ranked[1])}; the difference is"
        f" {gap(found, ids[0], margin)}."
    )


def _methods(family: Family, pairs: list[Pair], margin: float) -> list[str]:
    """Against Method 1; and whether one noise curve means one result."""
    by_label = {label: setting for setting, label in family.labels.items()}
    sentences = []
    base = by_label.get("Method 1")
    for label in ("Method 2", "Method 3", "Method 4"):
        if base is not None and label in by_label:
            pair = next(p for p in pairs if {p.first, p.second} == {base, by_label[label]})
            sentences.append(f"{label} less Method 1: {gap(pair, by_label[label], margin)}.")
    same = {by_label[label] for label in by_label if label != "Method 1"}
    among = [p for p in pairs if {p.first, p.second} <= same and p.difference is not None]
    if among:
        numbers = sorted(label.removeprefix("Method ") for label in by_label)
        widest = max(among, key=lambda pair: abs(pair.difference or 0))
        names = f"{family.labels[widest.first]} less {family.labels[widest.second]}"
        equal = sum(pair.equal for pair in among)
        sentences.append(
            f"Methods {listed(n for n in numbers if n != '1')} have one planned noise curve:"
            f" {equal} of their {counted(len(among), 'difference')} {'is' if equal == 1 else 'are'}"
            f" equal within ±{margin:g} points by test. The widest is {names},"
            f" {gap(widest, widest.first, margin)}."
        )
    return sentences


def _schedules(results: Results, ranked: list[Row], margin: float) -> list[str]:
    """The source's message, p ≤ 1 before faster decays; and its order."""
    sentences = []
    slow = [row["setting"] for row in ranked if row["p"] is not None and row["p"] <= 1]
    fast = [row["setting"] for row in ranked if row["p"] is not None and row["p"] > 1]
    values = comparison.by_seed(results.runs, slow + fast, "test/accuracy")
    means = [comparison.mean_by_seed([values[one] for one in some]) for some in (slow, fast)]
    pair = comparison.alone(comparison.differences(*means), margin / 100)
    if slow and fast and pair.n:
        both = means[0].keys() & means[1].keys()
        first, second = (100 * sum(one[s] for s in both) / len(both) for one in means)
        sentences.append(
            f"Over the {counted(pair.n, 'seed')} that all of these have, p ≤ 1 averages"
            f" {first:.2f} % and p > 1 {second:.2f} %: {gap(pair, 0, margin)}."
        )
    named = [(row, name) for row in ranked if (name := published.name_of(row))]
    agreement = statistics.rank_agreement(
        [row["test/accuracy_mean"] for row, _ in named],
        [published.last_accuracy(name) for _, name in named],
    )
    if agreement:
        tau, p = agreement
        how = "neither clearly agrees with nor contradicts"
        if p <= LEVEL:
            how = "agrees with" if tau > 0 else "contradicts"
        sentences.append(
            f"The order of the {len(named)} schedules that are published too {how} the published"
            f" one (ResNet18, CIFAR-100): Kendall's τ = {signed(tau)}, {p_is(p)}."
        )
    return sentences


def _levels(results: Results, ranked: list[Row], name: str, other: str) -> str:
    """Mean accuracy at each level of ``name``, over the cells and seeds that all levels have."""
    cells = {(row[name], row[other]): row["setting"] for row in ranked}
    levels = sorted({level for level, _ in cells})
    common = [o for o in sorted({o for _, o in cells}) if all((x, o) in cells for x in levels)]
    values = comparison.by_seed(results.runs, list(cells.values()), "test/accuracy")
    used = [values[cells[level, o]] for level in levels for o in common]
    seeds = comparison.mean_by_seed(used)
    if not seeds:
        return f"By {name}: no {other} and seed that all have, so no fair average."
    means = [
        100 * sum(values[cells[level, o]][seed] for o in common for seed in seeds)
        / (len(common) * len(seeds))
        for level in levels
    ]  # fmt: skip
    shown = ", ".join(f"{mean:.2f} % at {x:.4g}" for x, mean in zip(levels, means, strict=True))
    over = ", ".join(f"{one:.4g}" for one in common)
    return (
        f"By {name}, over {other} {over} and {counted(len(seeds), 'seed')}, which all have:"
        f" {shown}."
    )


def _constant(results: Results, family: Family, where: str) -> Finding:
    title = f"Constant noise, {where}"
    shares = delta.explained(results, family)
    groups = delta.equal_noise(results, family)
    known = {name: share for name, share in shares.of.items() if share is not None}
    details = []
    if known:
        shown = ", ".join(f"{name} {share:.0%}" for name, share in known.items())
        details.append(
            f"Share of the variance among the {len(family.settings)} settings' mean test accuracies"
            f" between levels ({seeds_of(results, family.settings)}; ε², corrected for the number"
            f" of levels): {shown.replace('-', MINUS)}. At equal epochs b is the number of updates"
            " as well, which this comparison cannot tell from it."
        )
    clear = [one for one in groups if one.p_holm is not None and one.p_holm <= LEVEL]
    if groups:
        wide = max(groups, key=lambda one: max(one.means) - min(one.means))
        high, low = max(wide.means), min(wide.means)
        details.append(
            f"{counted(len(groups), 'level')} of δ reached by two or more pairs"
            f" of η and b: accuracies differ significantly at {len(clear)} of them (Alexander and"
            f" Govern's test, Holm); the widest gap is {100 * (high - low):.2f} points, between"
            f" {wide.labels[wide.means.index(high)]} and {wide.labels[wide.means.index(low)]}"
            f" (adjusted {p_is(wide.p_holm)})."
        )
    return Finding(title, _constant_headline(shares, clear), tuple(details))


def _constant_headline(shares: delta.Shares, clear: list[delta.EqualNoise]) -> str:
    if shares.best:
        others = " or ".join(name for name in shares.of if name != shares.best)
        end = " equal δ does not always mean equal accuracy" if clear else ""
        end = end and (", but" if shares.best == "δ" else ", and") + end
        return f"{shares.best} tells the final accuracy better than {others} alone{end}."
    if clear:
        return "Equal δ does not always mean equal accuracy."
    if not shares.of or shares.of.get("δ") is None:
        return "Too few settings share a level to say what decides the accuracy."
    return f"Undecided whether δ, η or b tells the final accuracy best: {shares.why}."


def flatness(found: list[Found]) -> Finding:
    """Which measures of sharpness go with the accuracy of the settings."""
    adjusted = statistics.holm([one.p for one in found])
    clear = [
        one for one, p in zip(found, adjusted, strict=True)
        if p is not None and p <= LEVEL
    ]  # fmt: skip
    sentences = tuple(
        f"{one.figure.title.split(',')[0]}: ρ = {signed(one.rho)}, adjusted {p_is(p)},"
        f" {one.settings} settings{_within(one)}."
        for one, p in zip(found, adjusted, strict=True)
        if one.rho is not None
    )
    if not sentences:
        return Finding("Sharpness", "Too few settings to tell whether it goes with accuracy.", ())
    headline = "No measure of sharpness clearly goes with the settings' test accuracy."
    if clear:
        names = listed(one.measure for one in clear)
        headline = f"With test accuracy go: {names} (Spearman over settings)."
    return Finding("Sharpness", headline, sentences)


def _within(one: Found) -> str:
    """Over the seeds of one setting the same last step moves both: no word about settings."""
    return "" if one.within is None else f"; over the seeds within settings {signed(one.within)}"


def decay_band(found: list[Rates]) -> Finding:
    """Which schedules stay in the band of Proposition 3.3 for a_m = BAND."""
    lowest = floor(BAND)
    out = [one for one in found if one.smallest[0] <= lowest]
    headline = (
        f"γₘ stays in the band of Proposition 3.3 to the end in {len(found) - len(out)} of"
        f" {len(found)} schedules for aₘ = {BAND:g} (γₘ > {lowest:.3f})."
    )
    falls = [
        f"{one.label} falls to {one.smallest[0]:.3g} at m = {one.smallest[1]} of {one.stages}"
        for one in out
    ]
    return Finding("Decay rates", headline, (f"{'; '.join(falls)}.",) if falls else ())
