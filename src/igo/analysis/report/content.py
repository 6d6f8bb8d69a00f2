"""What a report says: its sections, made of the runs, and what it leaves out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from igo.analysis.report import band, curves, delta, grid, words
from igo.analysis.report.chart import Figure
from igo.analysis.report.comparison import Pair, compare
from igo.analysis.report.families import Family, families
from igo.analysis.report.results import SHARPNESS, Results, Row, commands
from igo.analysis.report.sharpness import sharpness
from igo.analysis.report.words import Finding
from igo.config.schema import NO_EFFECT

MOST_FAMILIES = 4  # of one kind
MOST_TESTED = 16  # settings compared pair by pair
MOST_COMMANDS = 60
MOST_NUMBERS = 8  # shown large where there is a single epoch
MARGIN = 0.5  # points of test accuracy that settings may differ by and be called equal
TESTED = {"test/accuracy": "Test accuracy, last epoch", "train/loss": "Training loss, last epoch"}
KINDS = {**curves.TITLES, "constant": "Constant noise: is it δ that decides?"}
# What a kind of section needs, for a reader who misses it.
NEEDED = {
    "methods": "Methods 1–4: no two of them have finished runs that are alike in all else"
    " (make sweep SWEEP=methods).",
    "schedules": "Learning-rate schedules: fewer than two schedules with split=1 have finished runs"
    " that are alike in all else (make sweep SWEEP=schedules).",
    "grid": "The map over p × split: there are no two values of each with finished runs that are"
    " alike in all else (make sweep SWEEP=p_split).",
    "constant": "Accuracy against δ: there are no three finished settings of constant noise at two"
    " levels of η/√b (python src/train.py -m schedule=constant learning_rate=0.05,0.1,0.2"
    " batch_size=8,32,128 seed=0,1,2).",
}


@dataclass(frozen=True)
class Tests:
    """Paired tests of one metric, labels in the place of numbers."""

    title: str
    metric: str
    margin: float | None  # of equivalence, in points
    pairs: list[tuple[str, str, Pair]]


@dataclass(frozen=True)
class Section:
    """A part of the page: what it found, its figures, results, tests and commands.

    ``where`` tells it from others of its title; ``numbers`` stand for curves of a single epoch.
    """

    name: str
    title: str
    shared: str
    finding: Finding
    figures: list[Figure]
    results: list[tuple[str, Row]]
    tests: list[Tests]
    commands: list[str]
    more_commands: int = 0
    where: str = ""
    numbers: Sequence[tuple[str, Row]] = ()


@dataclass(frozen=True)
class Report:
    """All sections in order, and a sentence for each thing that is left out."""

    sections: list[Section]
    left_out: list[str]


def compose(results: Results, margin: float = MARGIN) -> Report:
    """Make every section that the runs allow; ``margin`` of equivalence in points of accuracy."""
    found = families(results.settings)
    seen: Counter[str] = Counter()
    sections = []
    for family in found:
        seen[family.kind] += 1
        if seen[family.kind] <= MOST_FAMILIES:
            sections.append(_section(results, family, margin, _where(family, found)))
    left_out = [sentence for kind, sentence in NEEDED.items() if not seen[kind]]
    left_out += [
        f"{KINDS[kind]}: {count - MOST_FAMILIES} more groups of comparable settings; name fewer"
        " runs to see them."
        for kind, count in seen.items()
        if count > MOST_FAMILIES
    ]
    for more, missing in (_decay_rates(results), _sharpness(results)):
        sections += more
        left_out += missing
    if not any("Dashed: as published" in f.caption for s in sections for f in s.figures):
        left_out.append(
            "The published curves: no schedule among the runs is in the published setting"
            " (ResNet18, CIFAR-100, SGD, η 0.1, 200 epochs, split=1)."
        )
    return Report(sections, left_out)


def _section(results: Results, family: Family, margin: float, where: str) -> Section:
    tested = family.settings if len(family.settings) <= MOST_TESTED else ()
    if not tested:
        ranked = [row["setting"] for row in words.ranking(results, family)]
        tested = tuple(ranked[:MOST_TESTED])
    margins = {"test/accuracy": margin / 100}
    tests = {m: compare(results.runs, tested, m, margins.get(m)) for m in TESTED}
    cut = f"{len(tested)} settings of highest accuracy"
    scope = "all pairs" if len(tested) == len(family.settings) else f"pairs of the {cut}"
    rows = [(family.labels[setting], results.of(setting)) for setting in family.settings]
    typed, more = _commands(results, family.settings)
    return Section(
        family.name,
        KINDS[family.kind],
        family.shared,
        words.findings(results, family, tests["test/accuracy"], margin, where),
        _figures(results, family),
        rows,
        [
            Tests(f"{title}, {scope}", metric, margin if metric in margins else None, [
                (family.labels[pair.first], family.labels[pair.second], pair)
                for pair in tests[metric]
            ])
            for metric, title in TESTED.items()
            if len(tested) > 1
        ],
        typed,
        more,
        where,
        rows[:MOST_NUMBERS] if _one_epoch(results, family) else (),
    )  # fmt: skip


def _where(family: Family, found: Sequence[Family]) -> str:
    """What a family shares that the others of its kind do not; nothing where it is the only one."""
    others = [one for one in found if one.kind == family.kind and one is not family]
    if not others:
        return ""
    common = set.intersection(*(set(one.shared.split(", ")) for one in others))
    own = [part for part in family.shared.split(", ") if part not in common]
    return ", ".join(own) or f"group {family.number}"


def _one_epoch(results: Results, family: Family) -> bool:
    own = results.curves.filter(pl.col("setting").is_in(family.settings))
    return own["epoch"].n_unique() == 1


def _figures(results: Results, family: Family) -> list[Figure]:
    if family.kind == "constant":
        return [delta.against_delta(results, family)]
    first = [grid.maps(results, family)] if family.kind == "grid" else []
    if _one_epoch(results, family):
        return first
    return [*first, curves.training(results, family), curves.applied(results, family)]


def _commands(results: Results, settings: Sequence[int]) -> tuple[list[str], int]:
    """The first commands, and how many more there are."""
    own = results.runs.filter("counted", pl.col("setting").is_in(settings))
    found = commands(own)
    return found[:MOST_COMMANDS], max(0, len(found) - MOST_COMMANDS)


def _decay_rates(results: Results) -> tuple[list[Section], list[str]]:
    found = band.rates(results)
    if not found:
        reason = "Decay rates γₘ: no finished run has a noise level that decays by stages."
        return [], [reason]
    figure = band.decay_rates(found)
    drawn = [figure] if any(len(one.gamma) > 1 for one in found) else []
    section = Section(
        "decay_rates", "Decay rates against Proposition 3.3", "of every schedule among the runs",
        words.decay_band(found), drawn, [], [], *_commands(results, figure.settings),
    )  # fmt: skip
    return [section], []


def _sharpness(results: Results) -> tuple[list[Section], list[str]]:
    found = sharpness(results)
    if not found:
        reason = (
            "Sharpness against δ and accuracy: no two settings have runs with a sharpness.json"
            " (igo sharpness runs=…)."
        )
        return [], [reason]
    figures = [one.figure for one in found]
    settings = sorted({setting for figure in figures for setting in figure.settings})
    section = Section(
        "sharpness", "Sharpness", "as measured after training", words.flatness(found), figures,
        [], [], *_commands(results, settings),
    )  # fmt: skip
    return [section], []


def tables(results: Results) -> dict[str, pl.DataFrame]:
    """runs.csv, settings.csv and epochs.csv: all that was read, less where it lay on a machine."""
    local = [
        name
        for name in results.runs.columns
        if f"{name}.".startswith(tuple(f"{one}." for one in NO_EFFECT))
        or name in ("host", "folder")
    ]
    empty = [name for name in SHARPNESS if results.runs[name].null_count() == len(results.runs)]
    return {
        "runs": results.runs.drop(local + empty).sort("setting", "seed", "run", nulls_last=True),
        "settings": results.settings,
        "epochs": results.curves,
    }
