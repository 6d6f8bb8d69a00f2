"""The sections of a report: a headline, a table of differences, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from igo.report import figures
from igo.report.comparison import Pair, compare
from igo.report.draw import Figure
from igo.report.families import Family, families, noise_ratio
from igo.report.figures import TITLES
from igo.report.results import Results, commands
from igo.report.statistics import least_seeds
from igo.report.table import Row

MOST_FAMILIES = 4  # of one kind
MOST_SETTINGS = 12  # compared and drawn: more pairs decide nothing, more lines look alike
MOST_PAIRS = 6  # in the section "In brief"
MARGIN = 0.5  # points of test accuracy, within which settings may be called equal


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        where: how it differs from other sections of its title; "" if there are none.
        shared: what all its settings have in common.
        headline: what was found, a sentence; "" if nothing is compared.
        brief: the pairs of "In brief", in accuracy.
        pairs: all pairs of settings, by the metric that is compared.
    """

    name: str
    title: str
    figures: Sequence[Figure]
    where: str = ""
    shared: str = ""
    headline: str = ""
    labels: dict[int, str] = field(default_factory=dict)
    brief: Sequence[Pair] = ()
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    commands: Sequence[str] = ()

    @property
    def detectable(self) -> float | None:
        """The median over pairs of the smallest difference that the seeds detect, in points."""
        known = sorted(p.detectable for p in self.pairs.get("test/accuracy", ()) if p.detectable)
        return 100 * known[len(known) // 2] if known else None


def compose(results: Results, margin: float = MARGIN) -> list[Section]:
    """Every section that the runs allow; ``margin`` of equivalence in points of accuracy."""
    sections = compared(results, margin)
    if measured := figures.sharpness(results):
        sections.append(
            Section("sharpness", "Sharpness", measured, shared="measured after training")
        )
    return sections


def compared(results: Results, margin: float = MARGIN, *, draw: bool = True) -> list[Section]:
    """A section for each family of settings; ``draw=False`` leaves the figures out."""
    all_families = families(results.settings)
    sections = []
    for whole in all_families:
        if whole.number > MOST_FAMILIES:
            continue
        rows = ranking(results, whole)
        kept = {row["setting"] for row in rows[:MOST_SETTINGS]} or set(whole.settings)
        family = replace(whole, settings=tuple(s for s in whole.settings if s in kept))
        shared = ", ".join(family.shared)
        if len(kept) < len(whole.settings):
            shared += f"; the {len(kept)} of highest accuracy of {len(whole.settings)} settings"
        # In a difference constant noise comes second, else the setting of lower mean.
        settings = [row["setting"] for row in rows[:MOST_SETTINGS]]
        settings.sort(key=lambda s: bool(results.row(s)["schedule.profile"] == "constant"))
        pairs = {
            "test/accuracy": compare(results.runs, settings, "test/accuracy", margin / 100),
            "train/loss": compare(results.runs, settings, "train/loss"),
        }
        others = [f for f in all_families if f.kind == family.kind and f is not whole]
        sections.append(
            Section(
                family.name, TITLES[family.kind], _figures(results, whole, family) if draw else (),
                _where(family, others) if others else "", shared,
                headline(family, rows[:MOST_SETTINGS], pairs["test/accuracy"], margin),
                family.labels, _brief(results, family, pairs["test/accuracy"]), pairs,
                commands(results.runs, family.settings),
            )
        )  # fmt: skip
    return sections


def headlines(sections: Sequence[Section]) -> list[str]:
    """What each section found, in a line."""
    return [
        f"{section.title}{f', {section.where}' if section.where else ''}: {section.headline}"
        for section in sections
        if section.headline
    ]


def ranking(results: Results, family: Family) -> list[Row]:
    """The family's settings that have a final test accuracy, the best first."""
    rows = [results.row(setting) for setting in family.settings]
    rows = [row for row in rows if row["test/accuracy_mean"] is not None]
    return sorted(rows, key=lambda row: -row["test/accuracy_mean"])


def headline(family: Family, ranked: list[Row], pairs: list[Pair], margin: float) -> str:
    """What the pairs of test accuracies say of the best setting, in the words of their verdicts."""
    if len(ranked) < 2:
        return ""
    within = f"within ±{margin:g} points"
    if all(pair.equal and not pair.decided for pair in pairs):
        names = [family.labels[row["setting"]] for row in ranked]
        every = " and ".join(names) if len(names) == 2 else f"All {len(names)} settings"
        return f"{every} are equal {within}."
    least = least_seeds(len(pairs))
    best = ranked[0]["setting"]
    of_best = [pair for pair in pairs if best in (pair.first, pair.second)]
    if max(pair.n for pair in of_best) < least and not any(pair.equal for pair in pairs):
        return f"No comparison can be decided: it needs {least} seeds that two settings share."
    name = f"{family.labels[best]}, {_accuracy(ranked[0])},"
    above = [pair for pair in of_best if pair.decided]
    equal = sum(pair.equal and not pair.decided for pair in of_best)
    if len(above) == len(of_best):
        small = f", {within}" if all(pair.equal for pair in above) else ""
        others = "the other" if len(above) == 1 else f"all {len(above)} others"
        return f"{name} is higher than {others}{small}."
    counts = {"lower": len(above), f"equal {within}": equal}
    counts["undecided"] = len(of_best) - len(above) - equal
    found = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    others = "the other" if len(of_best) == 1 else f"the {len(of_best)} others"
    return f"{name} has the highest mean. Against {others}: {found}."


def _accuracy(row: Row) -> str:
    """``91.21 % [90.97, 91.45]``; one seed has no interval."""
    mean, low, high = (row[f"test/accuracy_{what}"] for what in ("mean", "low", "high"))
    shown = f"{100 * mean:.2f} %"
    return shown if low is None else f"{shown} [{100 * low:.2f}, {100 * high:.2f}]"


def _brief(results: Results, family: Family, pairs: list[Pair]) -> list[Pair]:
    """Pairs with constant noise first; of constant noise those of equal δ first."""
    rows = {setting: results.row(setting) for setting in family.settings}

    def later(pair: Pair) -> bool:
        first, second = rows[pair.first], rows[pair.second]
        if family.kind == "constant":
            return noise_ratio(first) != noise_ratio(second)
        return bool(second["schedule.profile"] != "constant")

    return sorted(pairs, key=later)[:MOST_PAIRS]


def _where(family: Family, others: Sequence[Family]) -> str:
    """What a family shares and the others of its kind do not."""
    common = set.intersection(*(set(other.shared) for other in others))
    particular = [phrase for phrase in family.shared if phrase not in common]
    return ", ".join(particular) or f"group {family.number}"


def _figures(results: Results, whole: Family, family: Family) -> list[Figure]:
    """The figures of a family; a map has all of its settings."""
    if family.kind == "constant":
        return [figures.constant(results, whole)]
    maps = [figures.grid(results, whole)] if family.kind == "grid" else []
    if results.curves.filter(setting=family.settings[0])["epoch"].n_unique() == 1:
        return maps  # a point is no curve
    return [*maps, figures.training(results, family), figures.applied(results, family)]
