"""The sections of a report, and the sections that are left out with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from igo.config.schema import NO_EFFECT
from igo.report import band, curves, delta, grid, verdicts
from igo.report.chart import Figure
from igo.report.comparison import Pair, compare
from igo.report.families import Family, families
from igo.report.results import SHARPNESS, Results, Row, commands
from igo.report.sharpness import sharpness
from igo.report.verdicts import Finding

MOST_FAMILIES = 4  # of one kind
MOST_TESTED = 16  # settings compared pair by pair
MARGIN = 0.5  # points of test accuracy, within which settings may be called equal
TESTED = {"test/accuracy": "Test accuracy, last epoch", "train/loss": "Training loss, last epoch"}
KINDS = {**curves.TITLES, "constant": "Constant noise: is it δ that decides?"}
# The runs that each section needs.
NEEDED = {
    "methods": "Methods 1–4: finished runs of two methods (make sweep SWEEP=methods)",
    "schedules": "Learning-rate schedules: finished runs of two schedules with split=1"
    " (make sweep SWEEP=schedules)",
    "grid": "The map over p × split: finished runs of two values of each"
    " (make sweep SWEEP=p_split)",
    "constant": "Accuracy against δ: three settings of constant noise at two levels of η/√b"
    " (python src/train.py -m schedule=constant learning_rate=0.05,0.1,0.2 batch_size=8,32,128"
    " seed=0,1,2)",
    "decay_rates": "Decay rates γₘ: a finished run whose noise decays by stages",
    "sharpness": "Sharpness: two settings with a sharpness.json (igo sharpness runs=…)",
    "published": "The published curves: a schedule in the published setting (ResNet18, CIFAR-100,"
    " SGD, η 0.1, 200 epochs, split=1)",
}


@dataclass(frozen=True)
class Tests:
    """Paired tests of one metric, with the labels of the settings."""

    title: str
    metric: str
    margin: float | None  # of equivalence, in points
    pairs: list[tuple[str, str, Pair]]


@dataclass(frozen=True)
class Section:
    """A part of the page. ``where`` differs between sections of one title; ``data`` is the data."""

    name: str
    title: str
    shared: str
    finding: Finding
    figures: Sequence[Figure]
    commands: Sequence[str]
    results: Sequence[tuple[str, Row]] = ()
    tests: Sequence[Tests] = ()
    where: str = ""
    data: str = ""


@dataclass(frozen=True)
class Report:
    """All sections in order, and what each section that is left out needs."""

    sections: list[Section]
    left_out: list[str]


def compose(results: Results, margin: float = MARGIN) -> Report:
    """Make every section that the runs allow; ``margin`` of equivalence in points of accuracy."""
    all_families = families(results.settings)
    sections = [
        _section(results, family, margin, _where(family, all_families))
        for family in all_families
        if family.number <= MOST_FAMILIES
    ]
    if rates := band.rates(results):
        figure = band.decay_rates(rates)
        has_curve = any(len(schedule.gamma) > 1 for schedule in rates)
        sections.append(
            Section(
                "decay_rates", "Decay rates against Proposition 3.3",
                "of every schedule among the runs", verdicts.of_decay_rates(rates),
                [figure] if has_curve else [], _commands(results, figure.settings),
            )
        )  # fmt: skip
    if measures := sharpness(results):
        figures = [measure.figure for measure in measures]
        settings = sorted({setting for figure in figures for setting in figure.settings})
        sections.append(
            Section(
                "sharpness", "Sharpness", "as measured after training",
                verdicts.of_sharpness(measures), figures, _commands(results, settings),
            )
        )  # fmt: skip
    counts = Counter(family.kind for family in all_families)
    shown = {*counts, *(section.name for section in sections)}
    if any(figure.published for section in sections for figure in section.figures):
        shown.add("published")
    left_out = [needed for kind, needed in NEEDED.items() if kind not in shown]
    left_out += [
        f"{KINDS[kind]}: {n - MOST_FAMILIES} more groups of settings; name fewer runs to see them"
        for kind, n in counts.items()
        if n > MOST_FAMILIES
    ]
    return Report(sections, left_out)


def _section(results: Results, family: Family, margin: float, where: str) -> Section:
    best = verdicts.ranking(results, family)[:MOST_TESTED]
    best.sort(key=lambda row: bool(row["schedule.profile"] == "constant"))  # subtracted, so last
    tested = [row["setting"] for row in best]
    margins = {"test/accuracy": margin / 100}
    pairs = {m: compare(results.runs, tested, m, margins.get(m)) for m in TESTED}
    scope = "all pairs"
    if len(tested) < len(family.settings):
        scope = f"pairs of the {len(tested)} settings of highest accuracy"
    rows = [(family.labels[setting], results.row(setting)) for setting in family.settings]
    tests = [
        Tests(
            f"{title}, {scope}",
            metric,
            margin if metric in margins else None,
            [(family.labels[p.first], family.labels[p.second], p) for p in pairs[metric]],
        )
        for metric, title in TESTED.items()
        if len(tested) > 1
    ]
    return Section(
        family.name,
        KINDS[family.kind],
        family.shared,
        verdicts.of_family(results, family, pairs["test/accuracy"], margin),
        _figures(results, family),
        _commands(results, family.settings),
        rows,
        tests,
        where,
        "" if family.data in where else family.data,
    )


def _where(family: Family, all_families: Sequence[Family]) -> str:
    """What a family shares and the others of its kind do not; "" if there are no others."""
    others = [f for f in all_families if f.kind == family.kind and f is not family]
    if not others:
        return ""
    common = set.intersection(*(set(other.shared.split(", ")) for other in others))
    particular = [phrase for phrase in family.shared.split(", ") if phrase not in common]
    return ", ".join(particular) or f"group {family.number}"


def _figures(results: Results, family: Family) -> list[Figure]:
    if family.kind == "constant":
        return [delta.against_delta(results, family)]
    maps = [grid.maps(results, family)] if family.kind == "grid" else []
    recorded = results.curves.filter(pl.col("setting").is_in(family.settings))
    if recorded["epoch"].n_unique() == 1:  # a point is no curve
        return maps
    return [*maps, curves.training(results, family), curves.applied(results, family)]


def _commands(results: Results, settings: Sequence[int]) -> list[str]:
    return commands(results.runs.filter("counted", pl.col("setting").is_in(settings)))


def tables(results: Results) -> dict[str, pl.DataFrame]:
    """The content of runs.csv, settings.csv and epochs.csv: all data, without folders and hosts."""
    local = [
        name
        for name in results.runs.columns
        if f"{name}.".startswith(tuple(f"{setting}." for setting in NO_EFFECT))
        or name in ("host", "folder")
    ]
    empty = [name for name in SHARPNESS if results.runs[name].null_count() == len(results.runs)]
    return {
        "runs": results.runs.drop(local + empty).sort("setting", "seed", "run", nulls_last=True),
        "settings": results.settings,
        "epochs": results.curves,
    }
