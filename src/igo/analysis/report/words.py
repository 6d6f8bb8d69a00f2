"""The results in sentences, each computed from the numbers that it states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from igo.analysis.report import delta, published
from igo.analysis.report.band import Rates, floor
from igo.analysis.report.curves import TITLES, seeds_of
from igo.analysis.report.families import Family
from igo.analysis.report.numbers import Pair, holm, rank_agreement
from igo.analysis.report.runs import Material, Row
from igo.analysis.report.sharpness import Found

LEVEL = 0.05
BAND = 2.0  # the a_m at which the page says which schedules are in the band
MINUS = "−"


@dataclass(frozen=True)
class Finding:
    """One result: where it belongs, one sentence, and the numbers behind it."""

    kicker: str
    headline: str
    details: tuple[str, ...]


def findings(material: Material, family: Family, pairs: list[Pair]) -> Finding:
    """What a family of settings showed; ``pairs`` of test accuracy."""
    if family.kind == "constant":
        return _constant(material, family)
    ranked = ranking(material, family)
    title = f"{TITLES[family.kind]}, {family.ground.split(', ')[0]}"
    if not ranked:
        return Finding(title, "No setting has a final test accuracy.", ())
    first = ranked[0]
    headline = (
        f"{_capital(family.labels[first['setting']])} ends with the highest mean test accuracy,"
        f" {accuracy(first)} ({seeds_of(material, (first['setting'],))})"
        f"{_reservation(ranked, pairs)}."
    )
    own: list[str] = []
    if family.kind == "methods":
        own = _methods(material, family, pairs)
    elif family.kind == "schedules":
        own = _schedules(ranked)
    elif family.kind == "grid":
        own = [_levels(ranked, "p", "p"), _levels(ranked, "split", "split")]
    top = {family.labels[row["setting"]] for row in ranked[:2]}
    if family.kind != "methods" or "Method 1" not in top:  # else it is said below
        own.insert(0, _second(family, ranked, pairs))
    return Finding(title, headline, (*own, _significant(pairs)))


def ranking(material: Material, family: Family) -> list[Row]:
    """The family's settings by final test accuracy, best first; those without one left out."""
    rows = [material.of(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    return sorted(rows, key=lambda row: -row["test/accuracy_mean"])


def accuracy(row: Row) -> str:
    """``91.21 % [90.97, 91.45]``; without an interval where there is one seed."""
    mean, low, high = (row[f"test/accuracy_{what}"] for what in ("mean", "low", "high"))
    shown = f"{100 * mean:.2f} %"
    return shown if low is None else f"{shown} [{100 * low:.2f}, {100 * high:.2f}]"


def p_value(p: float | None) -> str:
    """Two digits, no false zero."""
    return "–" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _p_is(p: float | None) -> str:
    return "not testable" if p is None else "p < 0.0001" if p < 1e-4 else f"p = {p_value(p)}"


def signed(value: float, form: str = ".2f") -> str:
    """With its sign, a true minus."""
    return f"{value:+{form}}".replace("-", MINUS)


def _capital(text: str) -> str:
    return text if "=" in text else text[:1].upper() + text[1:]


def _reservation(ranked: list[Row], pairs: list[Pair]) -> str:
    """What a headline must not hide: that the best is not significantly above the others."""
    best = ranked[0]["setting"]
    above = [
        pair for pair in pairs
        if best in (pair.first, pair.second) and pair.p_holm is not None and pair.p_holm <= LEVEL
    ]  # fmt: skip
    others = len(ranked) - 1
    if not others or not any(pair.p_holm is not None for pair in pairs):
        return ""
    if len(above) == others:
        return ", significantly above " + ("every other" if others > 1 else "the other")
    if others == 1:
        return ", not significantly above the other"
    return f", significantly above {len(above) or 'none'} of the {others} others"


def _second(family: Family, ranked: list[Row], pairs: list[Pair]) -> str:
    """The best against the next, with its test."""
    if len(ranked) < 2:
        return ""
    ids = ranked[0]["setting"], ranked[1]["setting"]
    found = next(pair for pair in pairs if {pair.first, pair.second} == set(ids))
    return (
        f"Next is {family.labels[ids[1]]} with {accuracy(ranked[1])}; the difference is"
        f" {_gap(found, ids[0])}."
    )


def _gap(pair: Pair, minuend: int) -> str:
    """A difference seen from one of its settings: points, interval, adjusted p, n."""
    if pair.difference is None:
        return "no seed in common, so no paired comparison"
    sign = 1 if pair.first == minuend else -1
    points = f"{signed(100 * sign * pair.difference)} points"
    if pair.low is None or pair.high is None:
        why = "one seed" if pair.n < 2 else "no spread over seeds"
        return f"{points} ({why}, so no interval and no test)"
    ends = sorted((100 * sign * pair.low, 100 * sign * pair.high))
    interval = f"[{signed(ends[0])}, {signed(ends[1])}]"
    return f"{points} {interval}, adjusted {_p_is(pair.p_holm)}, n = {pair.n}"


def _significant(pairs: list[Pair]) -> str:
    tested = [pair for pair in pairs if pair.p_holm is not None]
    if not tested:
        return "No pair of settings has two seeds or more in common: nothing can be tested."
    clear = sum(pair.p_holm <= LEVEL for pair in tested if pair.p_holm is not None)
    return (
        f"{clear} of {len(tested)} differences in test accuracy are significant at 5 % (paired t"
        " tests over seeds, p adjusted by Holm for all of these pairs)."
    )


def _methods(material: Material, family: Family, pairs: list[Pair]) -> list[str]:
    """Against Method 1; and whether one noise curve means one result."""
    by_label = {label: setting for setting, label in family.labels.items()}
    said = []
    base = by_label.get("Method 1")
    for label in ("Method 2", "Method 3", "Method 4"):
        if base is not None and label in by_label:
            pair = next(p for p in pairs if {p.first, p.second} == {base, by_label[label]})
            said.append(f"{label} less Method 1: {_gap(pair, by_label[label])}")
    sentences = [f"{'; '.join(said)}."] if said else []
    same = [by_label[label] for label in by_label if label != "Method 1"]
    means = [material.of(s)["test/accuracy_mean"] for s in same]
    means = [mean for mean in means if mean is not None]
    if len(means) > 1:
        among = [p for p in pairs if {p.first, p.second} <= set(same) and p.p_holm is not None]
        least = min((p.p_holm for p in among if p.p_holm is not None), default=None)
        tested = "" if least is None else f" (smallest adjusted {_p_is(least)})"
        numbers = sorted(label.removeprefix("Method ") for label in by_label)
        sentences.append(
            f"Methods {_listed(n for n in numbers if n != '1')} have one planned noise curve; their"
            f" means differ by at most {100 * (max(means) - min(means)):.2f} points{tested}."
        )
    return sentences


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last


def _schedules(ranked: list[Row]) -> list[str]:
    """The source's message, p ≤ 1 and cosine before faster decays; and its order."""
    sentences = []
    # graduated at split 1 is polynomial once more: the same curve must not count twice
    ranked = list({published.name_of(row) or id(row): row for row in ranked}.values())
    slow = [row for row in ranked if row["p"] is not None and row["p"] <= 1]
    fast = [row for row in ranked if row["p"] is not None and row["p"] > 1]
    if slow and fast:
        gap = _mean(slow) - _mean(fast)
        verdict = "as published" if gap > 0 else "unlike what is published"
        sentences.append(
            f"p ≤ 1 averages {100 * _mean(slow):.2f} %, p > 1 {100 * _mean(fast):.2f} %:"
            f" {'slower' if gap > 0 else 'faster'} decay is better here, {verdict}."
        )
    named = [(row, name) for row in ranked if (name := published.name_of(row))]
    agreement = rank_agreement(
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
            f" one (ResNet18, CIFAR-100): Kendall's τ = {signed(tau)}, {_p_is(p)}."
        )
    return sentences


def _mean(rows: list[Row]) -> float:
    return float(sum(row["test/accuracy_mean"] for row in rows) / len(rows))


def _levels(rows: list[Row], name: str, label: str) -> str:
    """Mean accuracy at each level of p or split, over the other."""
    groups: dict[float, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[name]].append(row)
    told = [f"{100 * _mean(groups[level]):.2f} % at {level:.4g}" for level in sorted(groups)]
    return f"By {label}, averaged over the other: {', '.join(told)}."


def _constant(material: Material, family: Family) -> Finding:
    title = f"Constant noise, {family.ground.split(', ')[0]}"
    shares = delta.explained(material, family)
    groups = delta.equal_noise(material, family)
    told = [f"{name} {share:.0%}" for name, share in shares.items() if share is not None]
    details = []
    if told:
        details.append(
            f"Share of the variance among the {len(family.settings)} settings' mean test accuracies"
            f" between levels ({seeds_of(material, family.settings)}; ε², corrected for the number"
            f" of levels): {', '.join(told).replace('-', MINUS)}."
        )
    known = {name: share for name, share in shares.items() if share is not None}
    headline = "Too few settings share a level to say what decides the accuracy."
    if "δ" in known and len(known) > 1:
        best = max(known, key=lambda name: known[name])
        headline = f"{best} tells the final accuracy better than {_others(known, best)} alone."
        if best != "δ":
            headline = f"{best} alone tells the final accuracy better than δ does."
        elif any(one.p_holm is not None and one.p_holm <= LEVEL for one in groups):
            headline = f"{headline[:-1]}, but equal δ does not always mean equal accuracy."
    if groups:
        clear = [one for one in groups if one.p_holm is not None and one.p_holm <= LEVEL]
        wide = max(groups, key=lambda one: max(one.means) - min(one.means))
        high, low = max(wide.means), min(wide.means)
        details.append(
            f"{len(groups)} level{'s' if len(groups) > 1 else ''} of δ reached by two or more pairs"
            f" of η and b: accuracies differ significantly at {len(clear)} of them (Alexander and"
            f" Govern's test, Holm); the widest gap is {100 * (high - low):.2f} points, between"
            f" {wide.labels[wide.means.index(high)]} and {wide.labels[wide.means.index(low)]}"
            f" (adjusted {_p_is(wide.p_holm)})."
        )
    return Finding(title, headline, tuple(details))


def _others(known: dict[str, float], best: str) -> str:
    return " or ".join(name for name in known if name != best)


def flatness(found: list[Found]) -> Finding:
    """Which measures of sharpness go with the accuracy of the settings."""
    adjusted = holm([one.p for one in found])
    clear = [
        one for one, p in zip(found, adjusted, strict=True)
        if p is not None and p <= LEVEL
    ]  # fmt: skip
    told = tuple(
        f"{one.figure.title.split(',')[0]}: ρ = {signed(one.rho)}, adjusted {_p_is(p)},"
        f" {one.settings} settings."
        for one, p in zip(found, adjusted, strict=True)
        if one.rho is not None
    )
    if not told:
        return Finding("Sharpness", "Too few settings to tell whether it goes with accuracy.", ())
    headline = "No measure of sharpness clearly goes with the settings' test accuracy."
    if clear:
        names = _listed(one.measure for one in clear)
        headline = f"With test accuracy go: {names} (Spearman over settings)."
    return Finding("Sharpness", headline, told)


def decay_band(found: list[Rates]) -> Finding:
    """Which schedules stay in the band of Proposition 3.3 for a_m = BAND."""
    lowest = floor(BAND)
    out = [one for one in found if one.smallest[0] <= lowest]
    headline = (
        f"γₘ stays in the band of Proposition 3.3 to the end in {len(found) - len(out)} of"
        f" {len(found)} schedules for aₘ = {BAND:g} (γₘ > {lowest:.3f})."
    )
    told = [
        f"{one.label} falls to {one.smallest[0]:.3g} at m = {one.smallest[1]} of {one.stages}"
        for one in out
    ]
    return Finding("Decay rates", headline, (f"{'; '.join(told)}.",) if told else ())
