"""The report's numbers: against SciPy, the standard library, closed forms, and brute force."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from pathlib import Path

import numpy as np
import pytest
from conftest import records
from recorded import METHODS, VARIANCE, edit, record_runs
from scipy import stats

from igo.report import comparison, content, figures, published
from igo.report import results as runs
from igo.report import statistics as ours
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
    table = figures.training(results, family).table
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
    noise = figures.applied(results, family).table.filter(epoch=3)
    planned = dict(noise.select("label", "delta_m_mean").iter_rows())
    start = 0.1 * math.sqrt(VARIANCE / 32)
    assert planned["Method 1 (constant)"] == pytest.approx(start)
    for label in ("Method 2", "Method 3", "Method 4"):  # γ = 1/√2 twice
        assert planned[label] == pytest.approx(start / 2, rel=1e-12)


def test_lines_and_ranges_are_those_of_the_table(tmp_path: Path) -> None:
    """A logarithmic axis has the range of the means, though intervals go to 0; η begins at 0."""
    methods(tmp_path, seeds=2)
    for file in tmp_path.rglob("metrics.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["train/loss"] = 10.0 ** -row["epoch"] * (1 + int("seed=1" in str(file)))
        rows[-1]["train/loss"] *= random.Random(str(file)).uniform(0.1, 2)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = read(tmp_path)
    family = only(results, "methods")
    figure = figures.training(results, family)
    accuracy, _, loss, _ = figure.drawing.axes
    for ax, metric, scale in ((accuracy, "test/accuracy", 100), (loss, "train/loss", 1)):
        for line in ax.get_lines():
            rows = figure.table.filter(label=line.get_label())
            assert list(line.get_xdata()) == rows["epoch"].to_list()
            assert line.get_ydata() == pytest.approx(scale * rows[f"{metric}_mean"].to_numpy())
    means = figure.table["train/loss_mean"]
    assert min(figure.table["train/loss_low"]) == 0
    assert loss.get_yscale() == "log"
    low, high = loss.get_ylim()
    assert means.min() / 2 < low < means.min() < means.max() < high < 2 * means.max()
    eta = figures.applied(results, family).drawing.axes[2]
    assert (eta.get_title(loc="left"), eta.get_ylim()[0]) == ("learning rate ηₘ", 0)


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


@pytest.mark.parametrize("seed", range(3))
def test_equal_is_what_two_one_sided_t_tests_say(seed: int) -> None:
    sample = np.random.default_rng(seed).normal(0.1, 0.3, size=9)
    above = stats.ttest_1samp(sample, -0.5, alternative="greater").pvalue
    below = stats.ttest_1samp(sample, 0.5, alternative="less").pvalue
    assert comparison.pair(sample, 0.5).p_equal == pytest.approx(max(above, below))
    assert comparison.pair(sample[:5], 0.5).p_equal is None


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
    ax = figures.grid(results, only(results, "grid")).drawing.axes[0]
    rows, columns = ([label.get_text() for label in axis.get_ticklabels()]
                     for axis in (ax.yaxis, ax.xaxis))  # fmt: skip
    shown = {}
    for text in ax.texts:
        x, y = text.get_position()
        shown[float(rows[int(y)]), float(columns[int(x)])] = text.get_text()
    assert shown.keys() == truth.keys()
    for place, values in truth.items():
        reach = 100 * stats.t.ppf(0.975, 2) * statistics.stdev(values) / math.sqrt(3)
        assert shown[place] == f"{100 * statistics.fmean(values):.2f}\n± {reach:.2f}"


def test_under_constant_noise_equal_delta_is_compared_first(tmp_path: Path) -> None:
    truth = {(0.05, 8): [0.5, 0.52, 0.51], (0.1, 32): [0.6, 0.61, 0.63], (0.1, 8): [0.7, 0.7, 0.71]}
    for (eta, b), values in truth.items():
        overrides = ("schedule=constant", f"learning_rate={eta}", f"batch_size={b}")
        record_runs(tmp_path, *overrides, accuracies=values)
    section = section_of(tmp_path, "constant")
    table = section.figures[0].table
    for row in table.iter_rows(named=True):
        delta = row["eta"] * math.sqrt(VARIANCE / row["b"])
        assert row["delta_planned"] == pytest.approx(delta)
        assert row["test/accuracy_mean"] == pytest.approx(
            statistics.fmean(truth[row["eta"], row["b"]])
        )
    first = section.brief[0]
    names = (section.labels[first.first], section.labels[first.second])
    assert names == ("η = 0.1, b = 32", "η = 0.05, b = 8")
    assert first.difference == pytest.approx(np.mean(truth[0.1, 32]) - np.mean(truth[0.05, 8]))


def test_published_curves_lie_beside_runs_of_their_setting_only(tmp_path: Path) -> None:
    """Last epochs as the source prints them in its table."""
    printed = {0.5: 72.25, 2: 71.85}
    common = ("experiment=cifar100", "split=1", "batch_size=128")
    for p in printed:
        record_runs(tmp_path, *common, "schedule=polynomial", f"p={p}", seeds=[0], tiny=False)
    record_runs(tmp_path, *common, "schedule=exponential", seeds=[0], tiny=False)
    results = read(tmp_path)
    family = only(results, "schedules")
    curves = {family.labels[s]: published.curve(results.row(s)) for s in family.settings}
    known = {label: curve for label, curve in curves.items() if curve is not None}
    assert {label: round(100 * c["test/accuracy_mean"][-1], 2) for label, c in known.items()} == {
        f"p = {p}": accuracy for p, accuracy in printed.items()
    }
    figure = figures.training(results, family)
    assert "Dashed: published" in figure.caption
    lines = figure.drawing.axes[0].get_lines()
    dashed = [line for line in lines if line.get_linestyle() == "--"]
    assert sorted(round(line.get_ydata()[-1], 2) for line in dashed) == [71.85, 72.25]
    methods(tmp_path / "other", seeds=1)
    results = read(tmp_path / "other")
    assert "published" not in figures.training(results, only(results, "methods")).caption


def test_sharpness_is_read_where_there_is_any(tmp_path: Path) -> None:
    worst_cases = (5, 3, 4, 2, 1)
    for i, p in enumerate((0.2, 0.4, 0.6, 0.8, 1.0)):
        folders = record_runs(tmp_path, f"p={p}", accuracies=[0.5 + 0.1 * i] * 3)
        for folder in folders:
            entries = {"settings": {}, "worst_case": worst_cases[i]}
            (folder / "sharpness.json").write_text(json.dumps(entries))
    (folders[0] / "sharpness.json").write_text("{")
    (figure,) = section_of(tmp_path, "sharpness").figures
    assert figure.table["n"].to_list() == [3, 3, 3, 3, 2]
    assert figure.table["worst_case_mean"].to_list() == list(worst_cases)
    ranks = zip(worst_cases, range(1, 6), strict=True)
    rho = 1 - 6 * sum((x - y) ** 2 for x, y in ranks) / 120
    assert f": −{-rho:.2f} (p = {10 / 120:.2g})." in figure.caption  # p over all orders


def section_of(root: Path, name: str = "schedules") -> content.Section:
    (section,) = (s for s in content.compose(read(root)) if s.name == name)
    return section


def recorded(root: Path, truth: dict[str, np.ndarray]) -> content.Section:
    """The section of runs with p = 0.25, … and these accuracies."""
    for p, values in truth.items():
        seeds = range(len(values))
        record_runs(root, f"p={p}", "split=1", seeds=seeds, accuracies=list(values))
    return section_of(root)


def test_the_headline_says_what_the_verdicts_say(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    base = drawn.normal(0.7, 0.02, size=12)
    near = base + drawn.normal(0, 0.001, size=12)
    best = base + 0.05 + drawn.normal(0, 0.001, size=12)
    section = recorded(tmp_path / "higher", {"0.25": best, "0.5": base, "1": near})
    assert section.headline.startswith("p = 0.25, ")
    assert section.headline.endswith(" is higher than all 2 others.")
    verdicts = {
        (section.labels[pair.first], section.labels[pair.second]): pair.verdict
        for pair in section.pairs["test/accuracy"]
    }
    assert verdicts.pop(("p = 0.25", "p = 0.5")) == verdicts.pop(("p = 0.25", "p = 1")) == "higher"
    assert list(verdicts.values()) == ["equal"]
    section = recorded(tmp_path / "equal", {"0.5": base, "1": near})
    assert section.brief[0].verdict == "equal"
    assert " are equal within ±0.5 points." in section.headline
    next_to_best = best + drawn.normal(0, 0.0001, size=12)
    section = recorded(tmp_path / "both", {"0.25": best, "0.5": next_to_best, "1": base})
    expected = "has the highest mean. Against the 2 others: 1 lower, 1 equal within ±0.5 points."
    assert section.headline.endswith(expected)
    record_runs(tmp_path / "alone", "p=0.5", seeds=range(2))
    assert section_of(tmp_path / "alone", "others").headline == ""


def test_differences_are_against_the_constant_noise_whatever_its_rank(tmp_path: Path) -> None:
    truth = dict(zip(METHODS, ([0.85, 0.8], [0.9, 0.7], [0.7, 0.72], [0.6, 0.61]), strict=True))
    for label, values in truth.items():
        overrides = (*METHODS[label], "schedule.stages=3")
        record_runs(tmp_path, *overrides, seeds=range(2), accuracies=values)
    section = section_of(tmp_path, "methods")
    first, *others = METHODS
    means = {label: statistics.fmean(values) for label, values in truth.items()}
    shown = [(section.labels[x.first], section.labels[x.second]) for x in section.brief[:3]]
    assert shown == [(other, first) for other in others]
    assert [pair.difference for pair in section.brief[:3]] == pytest.approx(
        [means[other] - means[first] for other in others]
    )


def test_what_no_test_decides_is_undecided(tmp_path: Path) -> None:
    """However far apart: two of 2^n signs are the least p, three times that after Holm."""
    few = "it needs 7 seeds that two settings share."
    for n, verdict, words in ((5, "too few seeds", few), (8, "undecided", ": 2 undecided.")):
        truth = {
            str(p): 0.5 + 0.001 * i + np.random.default_rng(i).normal(0, 0.02, size=n)
            for i, p in enumerate((0.25, 0.5, 1))
        }
        section = recorded(tmp_path / str(n), truth)
        assert section.headline.endswith(words)
        assert [pair.verdict for pair in section.brief] == [verdict] * 3
        for pair in section.brief:
            detectable = ours.detectable(pair.sd, n, 0.05 / 3)
            assert pair.detectable == (None if n == 5 else pytest.approx(detectable))


def test_equal_values_have_no_interval_and_no_power(tmp_path: Path) -> None:
    section = recorded(tmp_path, {"0.5": np.full(6, 0.7), "1": np.full(6, 0.7)})
    (pair,) = section.brief
    assert (pair.verdict, pair.p, pair.detectable) == ("identical", None, None)
