"""The report's numbers: against SciPy, the standard library, closed forms, and brute force."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import statistics
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import records
from recorded import METHODS, VARIANCE, edit, record_runs
from scipy import stats

from igo.analysis import statistics as ours
from igo.report import (
    band,
    comparison,
    content,
    curves,
    delta,
    grid,
    power,
    program,
    published,
    verdicts,
)
from igo.report import results as runs
from igo.report.families import Family, families
from igo.report.results import Results
from igo.runs.find import find


def read(root: Path) -> Results:
    return runs.read(find([str(root)]))


def only(results: Results, kind: str) -> Family:
    (family,) = (family for family in families(results.settings) if family.kind == kind)
    return family


def methods(root: Path, seeds: int = 4) -> dict[str, list[Path]]:
    return {
        label: record_runs(root, *overrides, "schedule.stages=3", seeds=range(seeds), centre=centre)
        for (label, overrides), centre in zip(METHODS.items(), (0.8, 0.85, 0.84, 0.9), strict=True)
    }


def test_curves_are_means_with_students_interval(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    results = read(tmp_path)
    family = only(results, "methods")
    assert sorted(family.labels.values()) == list(METHODS)
    table = curves.training(results, family).table
    assert len(table) == 4 * 3
    for row in table.iter_rows(named=True):
        own_rows = [records(folder)[row["epoch"] - 1] for folder in folders[row["label"]]]
        assert row["n"] == 4
        assert row["updates"] == own_rows[0]["updates"]
        for metric in ("test/accuracy", "train/loss"):
            values = [record[metric] for record in own_rows]
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            low, high = stats.t.interval(0.95, 3, loc=mean, scale=deviation / 2)
            spread = [row[f"{metric}_{what}"] for what in ("mean", "sd", "low", "high")]
            assert spread == pytest.approx([mean, deviation, low, high], rel=1e-9)
    noise = curves.applied(results, family).table.filter(epoch=3)
    planned = dict(noise.select("label", "delta_m_mean").iter_rows())
    start = 0.1 * math.sqrt(VARIANCE / 32)
    assert planned["Method 1 (constant)"] == pytest.approx(start)
    for label in ("Method 2", "Method 3", "Method 4"):  # γ = 1/√2 twice
        assert planned[label] == pytest.approx(start / 2, rel=1e-12)


def test_pairs_are_tested_seed_by_seed(tmp_path: Path) -> None:
    drawn = random.Random(1)
    truth = {p: [drawn.uniform(0.7, 0.9) for _ in range(5)] for p in ("0.25", "0.5", "1")}
    for p, values in truth.items():
        seeds = range(5) if p != "1" else range(1, 6)  # four seeds in common with the others
        record_runs(tmp_path, f"p={p}", "split=1", seeds=seeds, accuracies=values)
    results = read(tmp_path)
    family = only(results, "schedules")
    pairs = comparison.compare(results.runs, family.settings, "test/accuracy")
    assert len(pairs) == 3
    for pair in pairs:
        a, b = (family.labels[i].removeprefix("p = ") for i in (pair.first, pair.second))
        x, y = truth[a], truth[b]
        if b == "1":
            x, y = x[1:], y[:4]
        d = np.array(x) - np.array(y)
        n, error = len(d), d.std(ddof=1) / math.sqrt(len(d))
        assert (pair.n, pair.difference) == (n, pytest.approx(d.mean()))
        flips = [abs(sum(s * d)) for s in itertools.product((-1, 1), repeat=n)]
        assert pair.p == pytest.approx(np.mean([flip >= abs(sum(d)) - 1e-12 for flip in flips]))
        assert pair.sd == pytest.approx(d.std(ddof=1))
        reach = stats.t.ppf(0.975, n - 1) * error
        assert (pair.low, pair.high) == pytest.approx((d.mean() - reach, d.mean() + reach))
    assert [pair.p_holm for pair in pairs] == ours.holm([pair.p for pair in pairs])


def test_one_plan_is_one_setting(tmp_path: Path) -> None:
    """graduated at split 1 is polynomial is, at p = 1, linear; at one epoch all schedules are."""
    for profile, seeds in (("graduated", range(3)), ("polynomial", range(1, 5))):
        record_runs(tmp_path, f"schedule={profile}", "p=1", "split=1", seeds=seeds)
    record_runs(tmp_path, "schedule=linear", "split=1", seeds=[7])
    record_runs(tmp_path, "schedule=polynomial", "p=2", "split=1", seeds=range(3))
    record_runs(tmp_path, "p=1", "split=1", "noise.batches=3", seeds=[0])  # measured otherwise
    results = read(tmp_path)
    counts = results.settings.select("schedule.profile", "p", "noise.batches", "n").rows()
    expected = [("graduated", 1, 2, 6), ("graduated", 1, 3, 1), ("polynomial", 2, 2, 3)]
    assert sorted(counts) == expected
    family = only(results, "schedules")
    assert list(family.labels.values()) == ["p = 1", "p = 2"]
    once = tmp_path / "once"
    for overrides in (("p=0.1", "split=0"), ("p=1", "split=1"), ("schedule=cosine",)):
        record_runs(once, *overrides, "epochs=1", seeds=range(2))
    results = read(once)
    assert results.settings["n"].to_list() == [2]
    assert results.runs["counted"].to_list().count(True) == 2
    for folder in once.iterdir():
        (folder / "plan.csv").unlink()
    assert len(read(once).settings) == 3  # then what was typed has to tell


def test_only_finished_runs_enter_and_each_seed_once(tmp_path: Path) -> None:
    kept = record_runs(tmp_path / "a", "p=0.5", "split=1", accuracies=[0.5, 0.6, 0.7])
    record_runs(tmp_path / "b", "p=0.5", "split=1", seeds=[2], accuracies=[0.99])
    other = record_runs(tmp_path / "a", "p=1", "split=1", seeds=range(5), centre=0.3)
    edit(other[0] / "status.json", state="failed", error="ValueError: no")
    edit(other[1] / "status.json", state="interrupted")
    (other[2] / "metrics.jsonl").write_text("{}")
    results = runs.read(find([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert len(results.runs) == 9
    (first,) = results.settings.filter(p=0.5).iter_rows(named=True)
    assert first["n"] == 3
    assert first["test/accuracy_mean"] == pytest.approx(0.6)
    (second,) = results.settings.filter(p=1).iter_rows(named=True)
    assert second["n"] == 2
    assert second["unfinished"] == 3
    assert len(results.epochs) == 3 * 3 + 2 * 3
    assert set(results.epochs.filter(setting=first["setting"])["seed"]) == {0, 1, 2}
    assert kept[0].name in results.runs["run"].to_list()


def test_what_is_not_alike_is_not_compared(tmp_path: Path) -> None:
    for dataset in ((), ("dataset.samples=64",)):
        for p, split in itertools.product((0.5, 1), (0, 1)):
            record_runs(tmp_path, f"p={p}", f"split={split}", "batch_size=4", *dataset, seeds=[0])
    record_runs(tmp_path, "schedule=cosine", "split=1", "learning_rate=0.2", seeds=[0])
    groups = families(read(tmp_path).settings)
    assert [family.kind for family in groups] == ["grid", "grid", "others"]
    assert {"n = 96", "n = 64"} == {
        family.shared.split(")")[0].split("(")[1] for family in groups[:2]
    }
    assert groups[0].name == "grid"
    assert groups[1].name == "grid_2"
    assert list(groups[0].labels.values()) == [
        "p = 0.5, split 0", "p = 0.5, split 1", "p = 1, split 0", "p = 1, split 1",
    ]  # fmt: skip


def test_map_has_each_pair_in_its_place(tmp_path: Path) -> None:
    truth = {}
    for p, split in itertools.product((0.25, 1), (0, 0.5, 1)):
        if (p, split) != (1, 0.5):
            truth[p, split] = [0.8 + 0.1 * p * (1 - split), 0.7, 0.75]
            overrides = (f"p={p}", f"split={split}", "batch_size=4", "epochs=4")
            record_runs(tmp_path, *overrides, accuracies=truth[p, split])
    results = read(tmp_path)
    figure = grid.maps(results, only(results, "grid"))
    accuracy, loss = figure.maps
    assert (accuracy.rows, accuracy.columns) == (["0.25", "1"], ["0", "0.5", "1"])
    assert accuracy.values[1][1] is None
    assert loss.small_is_good
    assert not accuracy.small_is_good
    for (i, p), (j, split) in itertools.product(enumerate((0.25, 1)), enumerate((0, 0.5, 1))):
        if (p, split) in truth:
            values = truth[p, split]
            mean = 100 * statistics.fmean(values)
            reach = 100 * stats.t.ppf(0.975, 2) * statistics.stdev(values) / math.sqrt(3)
            assert accuracy.values[i][j] == pytest.approx(mean)
            shown = f"± {reach:.2f}" if mean + reach < 100 else f"[{mean - reach:.3g}, 100]"
            assert accuracy.texts[i][j] == f"{mean:.2f}\n{shown}"


def test_equal_noise_is_one_delta_and_is_tested(tmp_path: Path) -> None:
    truth = {(0.05, 8): [0.5, 0.52, 0.51], (0.1, 32): [0.6, 0.61, 0.63], (0.1, 8): [0.7, 0.7, 0.71]}
    for (eta, b), values in truth.items():
        overrides = ("schedule=constant", f"learning_rate={eta}", f"batch_size={b}")
        record_runs(tmp_path, *overrides, accuracies=values)
    results = read(tmp_path)
    family = only(results, "constant")
    table = delta.against_delta(results, family).table
    for row in table.iter_rows(named=True):
        assert row["delta_planned"] == pytest.approx(row["eta"] * math.sqrt(VARIANCE / row["b_m"]))
        assert row["test/accuracy_mean"] == pytest.approx(
            statistics.fmean(truth[row["eta"], row["b"]])
        )
    equal = table.filter(pl.col("delta_planned") < 0.02 * math.sqrt(VARIANCE))
    assert len(equal) == 2
    assert np.ptp(equal["delta_planned"].to_numpy()) < 1e-12
    (group,) = delta.equal_noise(results, family)
    assert group.labels == ["η = 0.05, b = 8", "η = 0.1, b = 32"]
    assert group.p == stats.alexandergovern(truth[0.05, 8], truth[0.1, 32]).pvalue
    assert group.p_holm == group.p
    shares = delta.explained(results, family)
    means = [statistics.fmean(values) for values in truth.values()]
    within = (means[0] - means[1]) ** 2 / 2  # of the two with one δ; one degree of freedom
    assert shares.by_name["δ"] == pytest.approx(1 - within / statistics.variance(means))
    assert shares.best is None
    judged = verdicts.of_family(results, family, [], 0.5)
    assert [row.verdict for row in judged.rows] == ["undecided", "not equal"]
    assert judged.rows[1].result == f"+{100 * abs(means[0] - means[1]):.2f} points"


def test_decay_rates_and_band_have_their_closed_forms(tmp_path: Path) -> None:
    longer = ("epochs=6", "split=1")
    record_runs(tmp_path, "p=0.5", *longer, seeds=[0])
    record_runs(tmp_path, "p=0.5", "epochs=6", "split=0", seeds=[0])  # the same δ, another split
    record_runs(tmp_path, "schedule=polynomial", "p=3", *longer, seeds=[0])
    record_runs(tmp_path, "schedule=constant", "epochs=6", seeds=[0])
    results = read(tmp_path)
    rates = band.rates(results)
    assert [rate.label for rate in rates] == ["p = 0.5", "p = 3"]
    assert [len(rate.settings) for rate in rates] == [2, 1]
    table = band.decay_rates(rates).table
    for row in table.iter_rows(named=True):
        p, m = float(row["label"].removeprefix("p = ")), row["m"]
        assert row["gamma_m"] == pytest.approx(((6 - m) / (6 - m + 1)) ** p, rel=1e-8)
        a = row["largest_a"]
        assert (math.sqrt(a * a - 1) - 1) / a == pytest.approx(row["gamma_m"])
    assert table["m"].to_list() == [1, 2, 3, 4, 5] * 2
    assert band.floor(2) == pytest.approx((math.sqrt(3) - 1) / 2)
    (row,) = verdicts.of_decay_rates(rates).rows  # 0.5^3 is below 0.366
    assert (row.question, row.verdict) == ("p = 3", "outside")
    assert "0.125" in row.result


def test_published_numbers_are_those_of_the_source() -> None:
    """Last epochs as the source prints them in its table."""
    printed = {
        "p=0.1": 72.00, "p=0.5": 72.25, "p=0.9": 72.18, "p=1": 72.40, "p=2": 71.85, "p=4": 71.82,
        "p=8": 70.63, "cosine": 72.16,
    }  # fmt: skip
    assert {name: round(published.last_accuracy(name), 2) for name in printed} == printed
    counts = published.curves().group_by("schedule").agg(pl.col("epoch").n_unique())
    assert set(counts["epoch"]) == {200}
    assert len(counts) == 12


def test_published_curves_lie_beside_runs_of_their_setting_only(tmp_path: Path) -> None:
    common = ("experiment=cifar100", "split=1", "batch_size=128")
    for p in (0.5, 2):
        record_runs(tmp_path, *common, "schedule=polynomial", f"p={p}", seeds=[0], tiny=False)
    record_runs(tmp_path, *common, "schedule=exponential", seeds=[0], tiny=False)
    results = read(tmp_path)
    family = only(results, "schedules")
    figure = curves.training(results, family)
    accuracy, loss = ({s.label: s for s in panel.series} for panel in figure.panels)
    assert [label for label in accuracy if "published" in label] == [
        "p = 0.5, published", "p = 2, published",
    ]  # fmt: skip
    assert figure.published
    assert accuracy["p = 0.5, published"].y[-1] == pytest.approx(0.7225)
    assert loss["p = 2, published"].y[-1] == pytest.approx(0.0052169)
    assert not any("published curves" in sentence for sentence in content.compose(results).left_out)

    other = tmp_path / "other"
    for p in (0.5, 2):
        record_runs(other, "schedule=polynomial", f"p={p}", "split=1", seeds=[0])
    results = read(other)
    assert not curves.training(results, only(results, "schedules")).published
    assert any("published curves" in sentence for sentence in content.compose(results).left_out)


@pytest.mark.parametrize(
    ("worst_cases", "verdict"), [((5, 4, 3, 2, 1), "correlated"), ((5, 3, 4, 2, 1), "undecided")]
)
def test_sharpness_is_read_where_there_is_any(
    worst_cases: tuple[int, ...], verdict: str, tmp_path: Path
) -> None:
    for i, p in enumerate((0.2, 0.4, 0.6, 0.8, 1.0)):
        folders = record_runs(tmp_path, f"p={p}", accuracies=[0.5 + 0.1 * i] * 3)
        for folder in folders:
            entries = {"settings": {}, "worst_case": worst_cases[i]}
            (folder / "sharpness.json").write_text(json.dumps(entries))
    (folders[0] / "sharpness.json").write_text("{")
    results = read(tmp_path)
    (section,) = (s for s in content.compose(results).sections if s.name == "sharpness")
    (figure,) = section.figures
    assert figure.table["n"].to_list() == [3, 3, 3, 3, 2]
    assert figure.table["worst_case_mean"].to_list() == list(worst_cases)
    (row,) = section.finding.rows
    ranks = zip(worst_cases, range(1, 6), strict=True)
    rho = 1 - 6 * sum((x - y) ** 2 for x, y in ranks) / 120
    assert f"ρ = −{-rho:.2f} over settings" in row.result
    assert row.verdict == verdict  # p of −1 and −0.9 over all orders: 2/120, 10/120
    assert [len(panel.series) for panel in figure.panels] == [5, 5, 5]


def section_of(root: Path, name: str = "schedules") -> content.Section:
    (section,) = (s for s in content.compose(read(root)).sections if s.name == name)
    return section


def test_a_verdict_is_given_where_a_test_decides(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    base = drawn.normal(0.7, 0.02, size=12)
    apart = {"0.25": base + 0.05, "0.5": base, "1": base + drawn.normal(0, 0.001, size=12)}
    for p, values in apart.items():
        noise = drawn.normal(0, 0.001, size=12)
        record_runs(tmp_path, f"p={p}", "split=1", seeds=range(12), accuracies=list(values + noise))
    section = section_of(tmp_path)
    assert section.finding.sentence.startswith("p = 0.25, ")
    assert section.finding.sentence.endswith("is above all 2 others by test.")
    shown = {row.question: row.verdict for row in section.finding.rows}
    assert shown["p = 0.25 − p = 0.5"] == shown["p = 0.25 − p = 1"] == "higher"
    assert section.finding.rows[-2].result == "2 decided at 5 %, 1 equal within ±0.5 points"
    (accuracy, _) = section.tests
    assert {(a, b): pair.verdict for a, b, pair in accuracy.pairs} == {
        ("p = 0.25", "p = 0.5"): "higher",
        ("p = 0.25", "p = 1"): "higher",
        ("p = 0.5", "p = 1"): "equal",
    }


def test_differences_are_against_the_constant_noise_whatever_its_rank(tmp_path: Path) -> None:
    truth = dict(zip(METHODS, ([0.85, 0.8], [0.9, 0.7], [0.7, 0.72], [0.6, 0.61]), strict=True))
    for label, values in truth.items():
        overrides = (*METHODS[label], "schedule.stages=3")
        record_runs(tmp_path, *overrides, seeds=range(2), accuracies=values)
    section = section_of(tmp_path, "methods")
    first, *others = METHODS
    means = {label: statistics.fmean(values) for label, values in truth.items()}
    assert [(row.question, row.result.split()[0]) for row in section.finding.rows[:3]] == [
        (f"{other} − {first}", f"{100 * (means[other] - means[first]):+.2f}".replace("-", "−"))
        for other in others
    ]
    assert not [pair for pair in section.tests[0].pairs if pair[0] == first]


def test_what_no_test_decides_is_undecided(tmp_path: Path) -> None:
    """However far apart: two of 2^n signs are the least p, three times that after Holm."""
    few = "a test needs 7 seeds that two settings share"
    for n, verdict, sentence in ((5, "too few seeds", few), (8, "undecided", "no test decides")):
        root = tmp_path / str(n)
        for i, p in enumerate((0.25, 0.5, 1)):
            noise = np.random.default_rng(i).normal(0, 0.02, size=n)
            values = list(0.5 + 0.001 * i + noise)
            record_runs(root, f"p={p}", "split=1", seeds=range(n), accuracies=values)
        section = section_of(root)
        assert sentence in section.finding.sentence
        assert [row.verdict for row in section.finding.rows[:3]] == [verdict] * 3
        for pair in (pair for _, _, pair in section.tests[0].pairs):
            detectable = ours.detectable(pair.sd, n, 0.05 / 3)
            assert pair.detectable == (None if n == 5 else pytest.approx(detectable))
    assert all(" − " in row.question for row in section_of(tmp_path / "5").finding.rows)


def test_averages_are_over_cells_and_seeds_that_all_have(tmp_path: Path) -> None:
    """A level with a better extra cell, and a setting with a worse extra seed, gain nothing."""
    for p, split in itertools.product((0.25, 1), (0, 0.5, 1)):
        if (p, split) != (1, 0.5):
            values = [0.5 + p / 10, 0.6 + p / 10, 0.1][: 3 if p == 1 else 2]
            values = [0.99, 0.99] if split == 0.5 else values
            seeds = range(len(values))
            overrides = (f"p={p}", f"split={split}", "batch_size=4", "epochs=4")
            record_runs(tmp_path, *overrides, seeds=seeds, accuracies=values)
    rows = section_of(tmp_path, "grid").finding.rows
    by_p, by_split = (row for row in rows if row.question.startswith("mean by"))
    assert by_p.question == "mean by p, over split 0, 1"
    assert (by_p.result, by_p.n) == ("0.25: 57.50 %, 1: 65.00 %", "2")
    assert by_split.question == "mean by split, over p 0.25"
    assert (by_split.result[:10], by_split.n) == ("0: 57.50 %", "2")


def test_what_decides_under_constant_noise_is_what_the_bootstrap_says(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    for eta, b in itertools.product((0.05, 0.1, 0.2), (8, 32)):
        values = 0.8 - 2 * eta + drawn.normal(0, 0.003, size=6)  # η alone
        overrides = ("schedule=constant", f"learning_rate={eta}", f"batch_size={b}")
        record_runs(tmp_path, *overrides, seeds=range(6), accuracies=list(values))
    finding = section_of(tmp_path, "constant").finding
    assert finding.sentence == "η explains the final accuracy better than δ or b alone."
    assert finding.rows[0].verdict == "η explains most"
    assert [row.verdict for row in finding.rows[1:]] == ["not equal"] * len(finding.rows[1:])


def test_the_power_of_pilot_runs(tmp_path: Path) -> None:
    drawn = np.random.default_rng(3)
    truth = {p: drawn.normal(0.8, 0.01, size=9) for p in (0.25, 0.5, 1)}
    for p, values in truth.items():
        record_runs(tmp_path, f"p={p}", "split=1", seeds=range(9), accuracies=list(values))
    lines = list(power.lines(read(tmp_path), 1.5, 0.5))
    assert lines[0].endswith(": 3 pairs, 5 % after Holm")
    row = next(line for line in lines if line.lstrip().startswith("p = 0.25 − p = 1 "))
    sd = 100 * float((truth[0.25] - truth[1]).std(ddof=1))
    level = 0.05 / 3
    detectable = ours.detectable(sd, 9, level)
    seeds = ours.seeds_to_detect(1.5, sd, level), ours.seeds_to_equate(0.5, sd, level)
    expected = ["9", f"{sd:.2f}", f"{detectable:.2f}", *map(str, seeds)]
    assert row.split("p = 1", 1)[1].split() == expected


def test_agreement_of_few_seeds_in_steps_of_accuracy_is_no_verdict(tmp_path: Path) -> None:
    """Of 360 test images two seeds agree by chance; with six the step is the least spread."""
    step = 1 / 360
    for n in (2, 6):
        root = tmp_path / str(n)
        base = [(340 + i % 3) * step for i in range(n)]
        record_runs(root, "p=0.5", "split=1", seeds=range(n), accuracies=base)
        higher = [value + step for value in base]
        record_runs(root, "p=1", "split=1", seeds=range(n), accuracies=higher)
        for file in root.rglob("metrics.jsonl"):  # every epoch's a count of 360
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            for row in rows:
                row["test/accuracy"] = round(row["test/accuracy"] * 360) / 360
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        results = read(root)
        (pair,) = comparison.compare(results.runs, [0, 1], "test/accuracy", 0.005)
        assert pair.sd == 0
        assert comparison.accuracy_step(results.runs, [0, 1]) == pytest.approx(step)
        floor = step / math.sqrt(6)
        if n == 2:
            assert pair.p_equal is None
            assert not pair.equal
            assert pair.verdict == "too few seeds"
        else:
            away = (0.005 - step) / (floor / math.sqrt(6))
            assert pair.p_equal == pytest.approx(stats.t.sf(away, 5))
            assert pair.detectable == pytest.approx(ours.detectable(floor, 6))
        lines = list(power.lines(results, 1.0, 0.5))
        (row,) = (line for line in lines if " − " in line)
        assert int(row.split()[-1]) >= 6
        assert f"counts as {100 * floor:.2f}" in lines[-1]


def test_a_report_is_current_until_a_run_a_setting_or_a_file_changes(tmp_path: Path) -> None:
    folders = [tmp_path / "runs" / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "status.json").write_text("{}")
    output = tmp_path / "report"
    output.mkdir()
    inputs = program.fingerprint(folders, "settings")
    (output / program.STAMP).write_text(inputs)
    assert not program.is_current(output, inputs)  # no page
    (output / program.PAGE).touch()
    assert program.is_current(output, program.fingerprint(folders[::-1], "settings"))
    (folders[0] / "checkpoint.pt").touch()  # no part of a report
    assert program.is_current(output, program.fingerprint(folders, "settings"))
    assert not program.is_current(output, program.fingerprint(folders, "others"))
    assert not program.is_current(output, program.fingerprint(folders[:1], "settings"))
    os.utime(folders[1] / "status.json", (0, 0))
    assert not program.is_current(output, program.fingerprint(folders, "settings"))
