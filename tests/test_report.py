"""The report's numbers: against SciPy, the standard library, closed forms, and brute force."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from recorded import METHODS, VARIANCE, edit, record_runs
from scipy import stats

from igo.analysis.noise_study.statistics import rejected
from igo.analysis.report import band, content, curves, delta, grid, numbers, published, runs, words
from igo.analysis.report.families import Family, families
from igo.analysis.report.runs import Material
from igo.runs.find import find


def read(root: Path) -> Material:
    return runs.read(find([str(root)]))


def only(found: list[Family], kind: str) -> Family:
    (family,) = (one for one in found if one.kind == kind)
    return family


def epochs_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def methods(root: Path, seeds: int = 4) -> dict[str, list[Path]]:
    return {
        label: record_runs(root, *overrides, "schedule.stages=3", seeds=range(seeds), centre=centre)
        for (label, overrides), centre in zip(METHODS.items(), (0.8, 0.85, 0.84, 0.9), strict=True)
    }


def test_curves_are_means_with_students_interval(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    material = read(tmp_path)
    family = only(families(material.settings), "methods")
    assert sorted(family.labels.values()) == list(METHODS)
    table = curves.training(material, family).table
    assert len(table) == 4 * 3
    for row in table.iter_rows(named=True):
        records = [epochs_of(folder)[row["epoch"] - 1] for folder in folders[row["label"]]]
        assert row["n"] == 4
        assert row["updates"] == records[0]["updates"]
        for metric in ("test/accuracy", "train/loss"):
            values = [record[metric] for record in records]
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            low, high = stats.t.interval(0.95, 3, loc=mean, scale=deviation / 2)
            found = [row[f"{metric}_{what}"] for what in ("mean", "sd", "low", "high")]
            assert found == pytest.approx([mean, deviation, low, high], rel=1e-9)
    noise = curves.applied(material, family).table.filter(epoch=3)
    planned = dict(noise.select("label", "delta_m_mean").iter_rows())
    start = 0.1 * math.sqrt(VARIANCE / 32)
    assert planned["Method 1"] == pytest.approx(start)
    for label in ("Method 2", "Method 3", "Method 4"):  # γ = 1/√2 twice
        assert planned[label] == pytest.approx(start / 2, rel=1e-12)


def test_pairs_are_tested_seed_by_seed(tmp_path: Path) -> None:
    drawn = random.Random(1)
    truth = {p: [drawn.uniform(0.7, 0.9) for _ in range(5)] for p in ("0.25", "0.5", "1")}
    for p, values in truth.items():
        seeds = range(5) if p != "1" else range(1, 6)  # four seeds in common with the others
        record_runs(tmp_path, f"p={p}", "split=1", seeds=seeds, accuracies=values)
    material = read(tmp_path)
    family = only(families(material.settings), "schedules")
    pairs = numbers.compare(material.runs, family.settings, "test/accuracy")
    assert len(pairs) == 3
    for pair in pairs:
        a, b = (family.labels[one].removeprefix("p = ") for one in (pair.first, pair.second))
        x, y = truth[a], truth[b]
        if b == "1":
            x, y = x[1:], y[:4]
        d = np.array(x) - np.array(y)
        n, error = len(d), d.std(ddof=1) / math.sqrt(len(d))
        assert (pair.n, pair.difference) == (n, pytest.approx(d.mean()))
        assert pair.p == pytest.approx(2 * stats.t.sf(abs(d.mean() / error), n - 1))
        reach = stats.t.ppf(0.975, n - 1) * error
        assert (pair.low, pair.high) == pytest.approx((d.mean() - reach, d.mean() + reach))
    assert [pair.p_holm for pair in pairs] == numbers.holm([pair.p for pair in pairs])


def test_holm_rejects_exactly_what_the_step_down_procedure_does() -> None:
    """Against noise_study.statistics.rejected, an implementation of its own, just beside each."""
    drawn = random.Random(2)
    for _ in range(50):
        p = [drawn.random() ** 3 for _ in range(drawn.randint(1, 7))]
        adjusted = numbers.holm(p)
        for i, one in enumerate(adjusted):
            assert one is not None
            if one < 1:
                assert rejected(p, level=one * (1 + 1e-9))[i]
            assert not rejected(p, level=one * (1 - 1e-9))[i]
    assert numbers.holm([None, 0.02, None, 0.01]) == [None, 0.02, None, 0.02]


def test_share_explained_is_what_an_analysis_of_variance_says() -> None:
    random_ = np.random.default_rng(0)
    groups = [random_.normal(loc, 1, size) for loc, size in ((0, 4), (1, 3), (3, 5))]
    f = stats.f_oneway(*groups).statistic
    n, k = 12, 3
    expected = (k - 1) * (f - 1) / ((k - 1) * f + n - k)  # ε² by F
    assert numbers.share_explained(groups) == pytest.approx(expected)
    by_chance = [
        numbers.share_explained(random_.normal(size=(4, 3)).tolist()) or 0 for _ in range(2000)
    ]
    assert abs(statistics.fmean(by_chance)) < 0.02
    assert numbers.share_explained([[1.0], [2.0]]) is None
    assert numbers.share_explained([[1.0, 1.0], [1.0]]) is None


def test_no_spread_no_test(tmp_path: Path) -> None:
    record_runs(tmp_path, "p=0.5", "split=1", accuracies=[0.5, 0.75, 0.5])
    record_runs(tmp_path, "p=1", "split=1", accuracies=[0.25, 0.5, 0.25])
    material = read(tmp_path)
    pairs = numbers.compare(material.runs, [0, 1], "test/accuracy")
    assert pairs == [numbers.Pair(0, 1, 3, pytest.approx(0.25), None, None, None, None)]
    assert numbers.equal_means([[0.5, 0.5], [0.5, 0.6]]) is None


def test_only_finished_runs_enter_and_each_seed_once(tmp_path: Path) -> None:
    kept = record_runs(tmp_path / "a", "p=0.5", "split=1", accuracies=[0.5, 0.6, 0.7])
    record_runs(tmp_path / "b", "p=0.5", "split=1", seeds=[2], accuracies=[0.99])
    other = record_runs(tmp_path / "a", "p=1", "split=1", seeds=range(5), centre=0.3)
    edit(other[0] / "status.json", state="failed", error="ValueError: no")
    edit(other[1] / "status.json", state="interrupted")
    (other[2] / "metrics.jsonl").write_text("{}")
    material = runs.read(find([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert len(material.runs) == 9
    (first,) = material.settings.filter(p=0.5).iter_rows(named=True)
    assert first["n"] == 3
    assert first["test/accuracy_mean"] == pytest.approx(0.6)
    (second,) = material.settings.filter(p=1).iter_rows(named=True)
    assert second["n"] == 2
    assert second["unfinished"] == 3
    assert len(material.epochs) == 3 * 3 + 2 * 3
    assert set(material.epochs.filter(setting=first["setting"])["seed"]) == {0, 1, 2}
    assert kept[0].name in material.runs["run"].to_list()


def test_what_is_not_alike_is_not_compared(tmp_path: Path) -> None:
    for dataset in ((), ("dataset.samples=64",)):
        for p, split in itertools.product((0.5, 1), (0, 1)):
            record_runs(tmp_path, f"p={p}", f"split={split}", *dataset, seeds=[0])
    record_runs(tmp_path, "schedule=cosine", "split=1", "learning_rate=0.2", seeds=[0])
    found = families(read(tmp_path).settings)
    assert [family.kind for family in found] == ["grid", "grid", "others"]
    assert {"n = 96", "n = 64"} == {
        family.ground.split(")")[0].split("(")[1] for family in found[:2]
    }
    assert found[0].name == "grid"
    assert found[1].name == "grid_2"
    assert list(found[0].labels.values()) == [
        "p = 0.5, split 0", "p = 0.5, split 1", "p = 1, split 0", "p = 1, split 1",
    ]  # fmt: skip


def test_schedules_have_their_names(tmp_path: Path) -> None:
    named = {
        "constant": ("schedule=constant",),
        "p = 0.5": ("p=0.5", "split=1"),
        "p = 4": ("schedule=polynomial", "p=4", "split=1"),
        "cosine": ("schedule=cosine", "split=1"),
        "exponential 0.8": ("schedule=exponential", "schedule.decay=0.8", "split=1"),
        "1/√m": ("schedule=diminishing", "schedule.form=inverse_sqrt", "split=1"),
        "γ = 0.5": ("schedule=step", "schedule.gamma=0.5", "schedule.stages=3", "split=1"),
        "cosine power 10": ("schedule=cosine_power", "schedule.power=10", "split=1"),
    }
    for overrides in named.values():
        record_runs(tmp_path, *overrides, seeds=[0])
    family = only(families(read(tmp_path).settings), "schedules")
    assert sorted(family.labels.values()) == sorted(named)


def test_map_has_each_pair_in_its_place(tmp_path: Path) -> None:
    truth = {}
    for p, split in itertools.product((0.25, 1), (0, 0.5, 1)):
        if (p, split) != (1, 0.5):
            truth[p, split] = [0.8 + 0.1 * p * (1 - split), 0.7, 0.75]
            record_runs(tmp_path, f"p={p}", f"split={split}", accuracies=truth[p, split])
    material = read(tmp_path)
    figure = grid.maps(material, only(families(material.settings), "grid"))
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
            assert accuracy.texts[i][j] == f"{mean:.2f}\n± {reach:.2f}"


def test_equal_noise_is_one_delta_and_is_tested(tmp_path: Path) -> None:
    truth = {(0.05, 8): [0.5, 0.52, 0.51], (0.1, 32): [0.6, 0.61, 0.63], (0.1, 8): [0.7, 0.7, 0.71]}
    for (eta, b), values in truth.items():
        overrides = ("schedule=constant", f"learning_rate={eta}", f"batch_size={b}")
        record_runs(tmp_path, *overrides, accuracies=values)
    material = read(tmp_path)
    family = only(families(material.settings), "constant")
    table = delta.against_delta(material, family).table
    for row in table.iter_rows(named=True):
        assert row["delta_planned"] == pytest.approx(row["eta"] * math.sqrt(VARIANCE / row["b"]))
        assert row["test/accuracy_mean"] == pytest.approx(
            statistics.fmean(truth[row["eta"], row["b"]])
        )
    equal = table.filter(pl.col("eta_over_sqrt_b") < 0.02)
    assert equal["delta_planned"].n_unique() == 1
    (group,) = delta.equal_noise(material, family)
    assert group.labels == ["η = 0.05, b = 8", "η = 0.1, b = 32"]
    assert group.p == pytest.approx(_alexander_govern(truth[0.05, 8], truth[0.1, 32]))
    assert group.p_holm == group.p
    shares = delta.explained(material, family)
    means = [statistics.fmean(values) for values in truth.values()]
    within = (means[0] - means[1]) ** 2 / 2  # of the two with one δ; one degree of freedom
    assert shares["δ"] == pytest.approx(1 - within / statistics.variance(means))
    told = words.findings(material, family, [])
    assert told.headline == "η alone tells the final accuracy better than δ does."


def _alexander_govern(*samples: list[float]) -> float:
    """By the formulas of their paper (1994), equations 1 to 7."""
    n = np.array([len(s) for s in samples])
    mean = np.array([np.mean(s) for s in samples])
    error = np.array([np.std(s, ddof=1) for s in samples]) / np.sqrt(n)
    weights = error**-2 / (error**-2).sum()
    t = (mean - (weights * mean).sum()) / error
    v = n - 1
    a, b = v - 0.5, 48 * (v - 0.5) ** 2
    c = np.sqrt(a * np.log(1 + t**2 / v))
    z = (
        c
        + (c**3 + 3 * c) / b
        - (4 * c**7 + 33 * c**5 + 240 * c**3 + 855 * c) / (10 * b**2 + 8 * b * c**4 + 1000 * b)
    )
    return float(stats.chi2.sf((z**2).sum(), len(samples) - 1))


def test_decay_rates_and_band_have_their_closed_forms(tmp_path: Path) -> None:
    longer = ("epochs=6", "split=1")
    record_runs(tmp_path, "p=0.5", *longer, seeds=[0])
    record_runs(tmp_path, "p=0.5", "epochs=6", "split=0", seeds=[0])  # the same δ, another split
    record_runs(tmp_path, "schedule=polynomial", "p=3", *longer, seeds=[0])
    record_runs(tmp_path, "schedule=constant", "epochs=6", seeds=[0])
    material = read(tmp_path)
    found = band.rates(material)
    assert [one.label for one in found] == ["p = 0.5", "p = 3"]
    assert [len(one.settings) for one in found] == [2, 1]
    table = band.decay_rates(found).table
    for row in table.iter_rows(named=True):
        p, m = float(row["label"].removeprefix("p = ")), row["m"]
        assert row["gamma_m"] == pytest.approx(((6 - m) / (6 - m + 1)) ** p, rel=1e-8)
        a = row["largest_a"]
        assert (math.sqrt(a * a - 1) - 1) / a == pytest.approx(row["gamma_m"])
    assert table["m"].to_list() == [1, 2, 3, 4, 5] * 2
    assert band.floor(2) == pytest.approx((math.sqrt(3) - 1) / 2)
    finding = words.decay_band(found)
    assert "to the end in 1 of 2 schedules" in finding.headline  # 0.5^3 is below 0.366
    assert "p = 3 falls to 0.125 at m = 5 of 6" in finding.details[0]


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
    for p in (0.5, 2):
        record_runs(
            tmp_path, "experiment=cifar100_polynomial", f"p={p}", seeds=[0], tiny=False
        )  # fmt: skip
    record_runs(tmp_path, "experiment=cifar100_exponential", seeds=[0], tiny=False)
    material = read(tmp_path)
    family = only(families(material.settings), "schedules")
    figure = curves.training(material, family)
    accuracy, loss = ({s.label: s for s in panel.series} for panel in figure.panels)
    assert [label for label in accuracy if "published" in label] == [
        "p = 0.5, published", "p = 2, published",
    ]  # fmt: skip
    assert accuracy["p = 0.5, published"].y[-1] == pytest.approx(0.7225)
    assert loss["p = 2, published"].y[-1] == pytest.approx(0.0052169)
    assert "Dashed: as published" in figure.caption
    assert not any("published curves" in one for one in content.compose(material).left_out)

    other = tmp_path / "other"
    for p in (0.5, 2):
        record_runs(other, "schedule=polynomial", f"p={p}", "split=1", seeds=[0])
    material = read(other)
    assert (
        "published"
        not in curves.training(material, only(families(material.settings), "schedules")).caption
    )
    assert any("published curves" in one for one in content.compose(material).left_out)


def test_order_is_compared_with_the_published_one(tmp_path: Path) -> None:
    order = {
        8: 0.5,
        4: 0.6,
        2: 0.7,
        0.5: 0.8,
        1: 0.9,
    }  # as published: 70.63 71.82 71.85 72.25 72.40
    for p, accuracy in order.items():
        record_runs(
            tmp_path, "schedule=polynomial", f"p={p}", "split=1", accuracies=[accuracy], seeds=[0]
        )
    material = read(tmp_path)
    (section,) = (s for s in content.compose(material).sections if s.name == "schedules")
    told = " ".join(section.finding.details)
    assert "agrees with the published one" in told
    assert "τ = +1.00" in told
    assert "slower decay is better here" in told
    assert "nothing can be tested" in told  # one seed
    assert section.finding.headline == (
        "p = 1 ends with the highest mean test accuracy, 90.00 % (n = 1)."
    )


def test_sharpness_is_read_where_there_is_any(tmp_path: Path) -> None:
    for i, p in enumerate((0.2, 0.4, 0.6, 0.8, 1.0)):
        folders = record_runs(tmp_path, f"p={p}", accuracies=[0.5 + 0.1 * i] * 3)
        for folder in folders:
            entries = {"worst_case": 5.0 - i, "largest_eigenvalue": {"value": [3, 1, 2, 5, 4][i]}}
            (folder / "sharpness.json").write_text(json.dumps({"settings": {}} | entries))
    (folders[0] / "sharpness.json").write_text("{")
    material = read(tmp_path)
    (section,) = (s for s in content.compose(material).sections if s.name == "sharpness")
    assert [figure.name for figure in section.figures] == [
        "sharpness_worst_case", "sharpness_largest_eigenvalue",
    ]  # fmt: skip
    worst, largest = section.figures
    assert worst.table["n"].to_list() == [3, 3, 3, 3, 2]
    assert worst.table["worst_case_mean"].to_list() == [5, 4, 3, 2, 1]
    assert "test accuracy: −1.00" in worst.caption
    assert section.finding.headline.startswith("With test accuracy go: adaptive worst-case")
    rho = 1 - 6 * sum((x - y) ** 2 for x, y in zip([3, 1, 2, 5, 4], range(1, 6), strict=True)) / 120
    assert f"test accuracy: {rho:+.2f}" in largest.caption
    assert [len(panel.series) for panel in worst.panels] == [5, 5, 5]


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    record_runs(tmp_path, "schedule=constant", seeds=[0])
    report = content.compose(read(tmp_path))
    assert [section.name for section in report.sections] == ["others"]
    started = [sentence.split(":")[0] for sentence in report.left_out]
    assert started == [
        "Methods 1–4", "Learning-rate schedules", "The map over p × split", "Accuracy against δ",
        "Decay rates γₘ", "Sharpness against δ and accuracy", "The published curves",
    ]  # fmt: skip


def test_commands_are_those_of_the_runs_with_all_seeds() -> None:
    typed = {
        "command": "python src/train.py -m p=0.5 'a=x y' seed=3 runs_dir=/tmp/r data_dir=/d"
        " hydra.launcher.threads=1"
    }
    assert runs.command(typed) == "python src/train.py p=0.5 'a=x y'"
    assert runs.command({"command": "igo train -m p=0.5 seed=3"}) == "igo train p=0.5"
    assert runs.command({"command": 3}) is None
    assert runs.command({"command": "python 'torn"}) is None
    frame = pl.DataFrame({"command": ["python src/train.py p=1"] * 3, "seed": [2, 0, 1]})
    assert runs.commands(frame) == ["python src/train.py -m p=1 seed=0,1,2"]
    assert runs.commands(frame.head(1)) == ["python src/train.py p=1 seed=2"]
    frame = pl.DataFrame({"command": ["igo train p=1"] * 2, "seed": [1, 0]})
    assert runs.commands(frame) == ["igo train -m p=1 seed=0,1"]


def test_many_settings_are_cut_and_it_is_said(tmp_path: Path) -> None:
    for i in range(curves.MOST + 2):
        record_runs(tmp_path, f"p={(i + 1) / 20}", "split=1", seeds=[0], accuracies=[0.5 + i / 100])
    material = read(tmp_path)
    family = only(families(material.settings), "schedules")
    figure = curves.training(material, family)
    assert len(figure.panels[0].series) == curves.MOST
    assert [family.labels[one] for one in family.settings if one not in figure.settings] == [
        "p = 0.05", "p = 0.1",
    ]  # fmt: skip
    assert "Of 14 settings the 12 of highest final accuracy are drawn" in figure.caption
    assert figure.table["label"].n_unique() == 14


@pytest.mark.parametrize("pairs", [4, 5, 6])
def test_the_p_value_of_a_rank_correlation_counts_all_orders(pairs: int) -> None:
    x, y = np.arange(float(pairs)), np.array([0.1, 0.3, 0.2, 0.9, 0.5, 0.7][:pairs])

    def rho(order: Sequence[float]) -> float:
        ranks = np.argsort(np.argsort(order)), np.argsort(np.argsort(y))
        return float(np.corrcoef(*ranks)[0, 1])

    own = rho(x)
    all_orders = [rho(order) for order in itertools.permutations(x)]
    wanted = np.mean([abs(one) >= abs(own) - 1e-12 for one in all_orders])
    assert numbers.rank_correlation(x, y) == (pytest.approx(own), pytest.approx(wanted))
    assert numbers.rank_correlation(np.arange(4.0), np.arange(4.0))[1] == pytest.approx(1 / 12)
