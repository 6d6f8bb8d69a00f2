"""The report's numbers: against SciPy, the standard library, closed forms, and brute force."""

import itertools
import math
import random
import re
import statistics
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
from conftest import TINY, configure, records
from matplotlib.text import Annotation, Text
from recorded import METHODS, VARIANCE, edit, record_runs
from scipy import stats

from igo.config.load import make_plan
from igo.config.own import with_options
from igo.ground import statistics as ours
from igo.report import draw, figures, results, sections
from igo.report.comparison import Pair, differ_in_both
from igo.report.draw import Figure
from igo.report.results import Results
from igo.report.sections import Section
from igo.runs.find import find
from igo.runs.folder import RunFolder
from igo.runs.name import path_of


def read(root: Path) -> Results:
    return results.read_results(find([str(root)]))


def sections_of(root: Path) -> list[Section]:
    """Without figures, which take seconds."""
    with mock.patch("igo.report.figures.of_task", return_value=[]):
        return sections.by_task(read(root))


def section_of(root: Path) -> Section:
    (section,) = sections_of(root)
    return section


def figures_of(root: Path) -> dict[str, Figure]:
    (section,) = sections.by_task(read(root))
    return {figure.name: figure for figure in section.figures}


def test_curves_are_means_and_lie_in_their_axes(tmp_path: Path) -> None:
    """A logarithmic axis has the range of the means, though intervals go to 0; η begins at 0."""
    accuracies, updates = {}, {}
    for label, overrides in METHODS.items():
        folders = record_runs(tmp_path, *overrides, "schedule.stages=3", seeds=range(2))
        for factor, folder in enumerate(folders, 1):
            rows = records(folder, timings=True)
            for row in rows:
                row["train/loss"] = 10.0 ** -row["epoch"] * factor
            RunFolder(folder).write_records(rows)
        of_seeds = [[row["test/accuracy"] for row in records(folder)] for folder in folders]
        accuracies[label] = 100 * np.mean(of_seeds, axis=0)
        updates[label] = [row["updates"] for row in rows]
    figure, noise = figures_of(tmp_path).values()
    assert figure.table["label"].unique(maintain_order=True).to_list() == list(METHODS)
    accuracy, by_updates, loss, _ = figure.drawing.axes
    images = {label: [96, 192, 288] for label in METHODS}
    losses = dict.fromkeys(METHODS, 1.5 * 10.0 ** -np.arange(1, 4))
    for ax, x, y in (
        (accuracy, images, accuracies),
        (by_updates, updates, accuracies),
        (loss, images, losses),
    ):
        for label, line in zip(METHODS, ax.get_lines(), strict=True):
            assert line.get_label() == label
            assert np.ravel(line.get_xdata()).tolist() == x[label]
            assert line.get_ydata() == pytest.approx(y[label])
    assert {*figure.table["n"]} == {2}
    assert min(figure.table["train/loss_low"]) == 0  # The interval is cut.
    assert loss.get_yscale() == "log"
    low, high = loss.get_ylim()
    assert 0.5 < low / 0.0015 < 1 < high / 0.15 < 2
    eta = noise.drawing.axes[2]
    assert (eta.get_title(loc="left"), eta.get_ylim()[0]) == ("learning rate ηₘ", 0)
    deltas = dict(noise.table.filter(epoch=3).select("label", "delta_m_mean").iter_rows())
    start = 0.1 * math.sqrt(VARIANCE / 32)
    falling = dict.fromkeys(("Method 2", "Method 3", "Method 4"), start / 2)  # γ is 1/√2 twice.
    assert deltas == pytest.approx({"Method 1 (constant)": start, **falling})


def test_each_line_has_its_label_at_its_end_and_no_two_touch() -> None:
    """Also of lines that end at one value, and of one that ends early; long ones are folded."""
    labels = [f"cosine, split 0.{i}, η₁ 0.05, b₁ 16" if i % 3 else f"Method {i}" for i in range(12)]
    rows = [
        {"label": label, "epoch": x, "m_mean": 1 + i // 4, "m_low": None, "m_high": None}
        for i, label in enumerate(labels)
        for x in range(1, 3 if i == 5 else 9)
    ]
    drawing, axes = draw.panels(3, labels)
    looks = figures.styles(labels)
    assert len(set(map(str, looks.values()))) == len(labels)
    for ax in axes:
        draw.curves(ax, pl.DataFrame(rows, infer_schema_length=None), "epoch", "m", looks)
    drawing.draw_without_rendering()
    for ax in axes:
        texts = [text for text in ax.texts if isinstance(text, Annotation)]
        assert sorted(" ".join(text.get_text().split()) for text in texts) == sorted(labels)
        # An annotation's own extent has its leader, too.
        extents = [Text.get_window_extent(text).extents for text in texts]
        boxes = sorted(extents, key=lambda box: box[1])
        for (*_, top), (_, bottom, *_) in itertools.pairwise(boxes):
            assert bottom > top - 1  # pixel
        assert min(box[0] for box in boxes) > ax.get_window_extent().x1
        assert max(box[2] for box in boxes) < drawing.bbox.width
        for heights in ([text.xyann[1] for text in texts], [text.xy[1] for text in texts]):
            assert heights == sorted(heights)
    panels = Figure("name", "", "", pl.DataFrame(), drawing).elements()
    assert [panel.count("Method 3") for panel in panels] == [1, 1, 1]


def test_curves_go_from_one_evaluation_to_the_next(tmp_path: Path) -> None:
    """And runs that were evaluated at other epochs are of one setting."""
    folders = [*record_runs(tmp_path, "p=0.5", "split=1"), *record_runs(tmp_path, "p=1", "split=1")]
    for folder in folders:
        rows = records(folder, timings=True)
        rows[0] |= {"test/accuracy": None, "test/loss": None}
        RunFolder(folder).write_records(rows)
    file = folders[0] / "config.yaml"
    file.write_text(file.read_text().replace("evaluate_every: 1\n", "evaluate_every: 3\n"))
    assert read(tmp_path).settings["n"].to_list() == [3, 3]
    lines = figures_of(tmp_path)["training"].drawing.axes[0].get_lines()
    assert [np.ravel(line.get_xdata()).tolist() for line in lines] == [[192, 288]] * 2


def test_pairs_are_tested_seed_by_seed(tmp_path: Path) -> None:
    """Of finished runs alone, and by the loss not of one whose loss is not known."""
    draws = random.Random(1)
    all_seeds = {"0.25": range(5), "0.5": range(5), "1": range(1, 6)}
    truth = {p: {seed: draws.uniform(0.7, 0.9) for seed in all_seeds[p]} for p in all_seeds}
    for p, accuracies in truth.items():
        seeds, values = accuracies.keys(), [*accuracies.values()]
        record_runs(tmp_path, f"p={p}", "split=1", seeds=seeds, accuracies=values)
    (failed_run,) = record_runs(tmp_path, "p=0.5", "split=1", seeds=[5])
    edit(failed_run, state="failed")
    config = configure(*TINY, "p=0.25", "split=1", "seed=4", f"runs_dir={tmp_path}")
    rows = [row | {"train/loss": math.nan} for row in records(path_of(config))]
    RunFolder(path_of(config)).write_records(rows)
    section = section_of(tmp_path)
    assert sorted(pair.n for pair in section.pairs["train/loss"]) == [3, 4, 4]
    pairs = section.pairs["test/accuracy"]
    assert [pair.p_holm for pair in pairs] == ours.holm([pair.p for pair in pairs])
    assert sorted(pair.n for pair in pairs) == [4, 4, 5]
    for pair in pairs:
        x, y = (truth[section.labels[i].removeprefix("p = ")] for i in (pair.first, pair.second))
        d = np.array([x[seed] - y[seed] for seed in sorted(x.keys() & y.keys())])
        assert pair.p == ours.sign_flip(d)
        ends = stats.ttest_1samp(d, 0).confidence_interval()
        assert pair.interval
        statistics_of_pair = (pair.difference, pair.sd, *pair.interval)
        assert statistics_of_pair == pytest.approx((d.mean(), d.std(ddof=1), *ends))


def test_settings_of_one_task_are_a_section_and_labels_say_what_differs(tmp_path: Path) -> None:
    four = list(itertools.product((0.5, 1), (0, 1)))
    for p, split in four:
        record_runs(tmp_path, f"p={p}", f"split={split}", "batch_size=4", seeds=[0])
    for stages in (2, 3):
        record_runs(tmp_path, f"schedule.stages={stages}", "dataset.samples=32", seeds=[0])
    record_runs(tmp_path, "schedule=constant", "epochs=2", seeds=[0])
    for method in ("method1", "method2"):
        record_runs(tmp_path, f"schedule={method}", "epochs=5", "dataset.samples=64", seeds=[0])
    all_labels = {section.title: [*section.labels.values()] for section in sections_of(tmp_path)}
    single = "digits, 96 images, resnet8, width 4, 2 epochs"
    assert all_labels == {
        "digits, 32 images, resnet8, width 4, 3 epochs": ["stages 2", "stages 3"],
        "digits, 64 images, resnet8, width 4, 5 epochs": ["Method 1 (constant)", "Method 2"],
        "digits, 96 images, resnet8, width 4, 3 epochs": [f"p = {p}, split {s}" for p, s in four],
        single: ["Method 1 (constant)"],
    }
    assert [*all_labels][-1] == single  # It has nothing to compare.
    shared = {section.title: section.shared for section in sections_of(tmp_path)}
    assert shared["digits, 96 images, resnet8, width 4, 3 epochs"] == "graduated, SGD, η₁ 0.1, b₁ 4"
    assert "Method" not in shared["digits, 64 images, resnet8, width 4, 5 epochs"]


def test_each_p_is_a_line_over_split(tmp_path: Path) -> None:
    """Of means with Student's intervals, where p and split alone differ."""
    truth = {}
    for p, split in ((0.25, 0), (0.25, 0.5), (0.25, 1), (1, 0), (1, 1)):
        truth[p, split] = 0.7 + 0.1 * p * (1 - split)
        accuracies = [truth[p, split] + seed / 100 for seed in (-1, 0, 1)]
        record_runs(tmp_path, f"p={p}", f"split={split}", "epochs=4", accuracies=accuracies)
    reach = stats.t.ppf(0.975, 2) / math.sqrt(3)  # The standard deviation is 1.
    (ax,) = figures_of(tmp_path)["grid"].drawing.axes
    ends: dict[tuple[float, float], tuple[float, float]] = {}
    for line in ax.containers:
        p = float(line.get_label().removeprefix("p = "))
        ends |= {(p, x): (low, high) for (x, low), (_, high) in line[2][0].get_segments()}
    assert ends.keys() == truth.keys()
    for setting, mean in truth.items():
        assert ends[setting] == pytest.approx((100 * mean - reach, 100 * mean + reach))


def test_constant_noise_lies_at_its_delta(tmp_path: Path) -> None:
    """Also one whose batches are all samples: it was measured nowhere, and is 0."""
    truth = {(0.05, 8): [0.5, 0.52, 0.51], (0.1, 32): [0.6, 0.61, 0.63], (0.1, 8): [0.7, 0.7, 0.71]}
    truth[0.05, 96] = [0.4, 0.41, 0.43]
    for (eta, b), values in truth.items():
        overrides = ("schedule=constant", f"learning_rate={eta}", f"batch_size={b}")
        record_runs(tmp_path, *overrides, accuracies=values)
    assert section_of(tmp_path).notes == []
    growing = ("schedule=constant", "batch_size={0:32,0.5:64}", "learning_rate=0.2")
    record_runs(tmp_path, *growing)  # The noise of this one is constant, but not its η and b.
    assert "differs in η and b from" in section_of(tmp_path).notes[0]
    figure = figures_of(tmp_path)["delta"]
    points = {
        (row["eta"], row["b"]): (row["delta_planned"], row["test/accuracy_mean"])
        for row in figure.table.rows(named=True)
    }
    for (eta, b), values in truth.items():
        point = eta * math.sqrt(VARIANCE / b), statistics.fmean(values)
        assert points.pop((eta, b)) == pytest.approx(point)
    assert not points
    planned, measured, _ = figure.drawing.axes
    (at_zero,) = (line[0] for line in measured.containers if line.get_label() == "b = 96")
    assert at_zero.get_xdata().tolist() == [0]
    assert at_zero.get_ydata() == pytest.approx(100 * statistics.fmean(truth[0.05, 96]))
    assert measured.get_xlim()[0] < 0
    assert measured.get_xticklabels()[0].get_text() == "0"
    assert (planned.get_xscale(), len(planned.containers)) == ("log", 3)


def test_of_one_run_the_curves_have_the_intervals_that_it_recorded(tmp_path: Path) -> None:
    (folder,) = record_runs(tmp_path, seeds=[0])
    names = ("delta_measured", "gradient_variance", "gradient_norm", "noise_scale")
    ends = {f"{name}_{end}": 10.0 * i for i, name in enumerate(names) for end in ("low", "high")}
    RunFolder(folder).write_records([row | ends for row in records(folder, timings=True)])
    assert read(tmp_path).curves.select(*ends).rows(named=True) == [ends] * 3


DRAWN = np.random.default_rng(0)
BASE = DRAWN.normal(0.7, 0.02, size=12)
NEAR = BASE + DRAWN.normal(0, 0.001, size=12)
BEST = BASE + 0.05 + DRAWN.normal(0, 0.001, size=12)
NEXT = BEST + DRAWN.normal(0, 0.0001, size=12)
FAR = [0.5 + 0.001 * i + np.random.default_rng(i).normal(0, 0.02, size=8) for i in range(3)]
# Accuracies of p = 0.25, 0.5, 1 have the headline, here without numbers, and the verdicts of all
# pairs. With five seeds the least p is two of 2^n signs, three times that after Holm.
FOUND = {
    "higher": (
        [BEST, BASE, NEAR],
        "p = 0.25 is above p = 0.5; p = 1.",
        ["equal", "higher", "higher"],
    ),
    "equal": ([BASE, NEAR], "Equal within ±0.5 points: p = 0.25 and p = 0.5.", ["equal"]),
    "both": (
        [BEST, NEXT, BASE],
        "p = 0.5 is above p = 1. Equal within ±0.5 points: p = 0.5 and p = 0.25.",
        ["equal", "higher", "higher"],
    ),
    "undecided": (FAR, "Undecided: p = 0.25 and p = 0.5; p = 1.", ["undecided"] * 3),
    "few": (
        [values[:5] for values in FAR],
        "No comparison can be decided: it needs 7 seeds that two settings share.",
        ["undecided"] * 3,
    ),
    "other seeds": (
        [np.repeat([0.5, 0.9], [6, 14]), BASE[:6]],
        "p = 0.25 is below p = 0.5 over the common seeds.",
        ["lower"],
    ),
    "identical": (
        [np.full(2, 0.7)] * 2,
        "Equal within ±0.5 points: p = 0.25 and p = 0.5.",
        ["equal"],
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_headline_says_what_the_verdicts_say(name: str, tmp_path: Path) -> None:
    truth, words, verdicts = FOUND[name]
    for p, values in zip((0.25, 0.5, 1), truth, strict=False):
        seeds = range(len(values))
        record_runs(tmp_path, f"p={p}", "split=1", seeds=seeds, accuracies=list(values))
    section = section_of(tmp_path)
    assert re.sub(r", [\d.]+ %( \[[\d., ]+\])?,", "", section.headline) == words
    assert sorted(pair.verdict for pair in section.brief) == verdicts


def test_a_headline_names_four_settings_and_counts_more() -> None:
    assert sections.listed(["p = 1"] * 4) == "p = 1; p = 1; p = 1; p = 1"
    assert sections.listed(["p = 1"] * 5) == "5 settings"


def test_what_else_differs_stands_below_a_verdict(tmp_path: Path) -> None:
    """As the plans have it; and settings whose η and b both differ have the control named.

    The first differences are those to the constant noise, whatever its rank.
    """
    plans = {}
    accuracies = ([0.7, 0.71], [0.9, 0.91], [0.8, 0.81], [0.6, 0.61])
    for (label, method), values in zip(METHODS.items(), accuracies, strict=True):
        overrides = (*method, "schedule.stages=3", "dataset.samples=128", "batch_size=8")
        record_runs(tmp_path, *overrides, seeds=range(2), accuracies=values)
        plans[label] = make_plan(configure(*TINY, *overrides)).rows
    section = section_of(tmp_path)
    pairs = {(section.labels[x.first], section.labels[x.second]): x for x in section.brief}
    constant, *other_labels = METHODS
    assert [*pairs][:3] == [(label, constant) for label in other_labels]
    assert [pairs[label, constant].difference for label in other_labels] == pytest.approx(
        [statistics.fmean(values) - statistics.fmean(accuracies[0]) for values in accuracies[1:]]
    )
    updates = {label: sum(row.updates for row in rows) for label, rows in plans.items()}
    etas = {label: sum(row.updates * row.eta_m for row in rows) for label, rows in plans.items()}
    phrases, equal = section.ratios(pairs["Method 2", "Method 3"]).split("; equal: ")
    ratios = dict(phrase.rsplit(" ×", 1) for phrase in phrases.split(", "))
    assert equal == "images, largest η, mean η/√b, seconds"
    assert 0.5 < float(ratios.pop("mean δ measured")) < 2
    assert ratios == {
        "updates": f"{updates['Method 2'] / updates['Method 3']:.3g}",
        "Σ η": f"{etas['Method 2'] / etas['Method 3']:.3g}",
        "largest b": "0.25",
    }
    difference = "Method 2 differs in η and b from Method 3; Method 4"
    assert section.notes == [f"{difference}; the control is control=rate."]
    curves = read(tmp_path).curves
    in_one = [names for names, x in pairs.items() if not differ_in_both(curves, x.first, x.second)]
    assert in_one == [(label, constant) for label in ("Method 2", "Method 3")]


def test_a_ramp_of_one_epoch_has_the_rate_of_its_control(tmp_path: Path) -> None:
    """The mean of η over its updates is larger, as it makes more of them early."""
    ramp = ("schedule.rate=cosine", "batch_size={0:8,0.5:32}", "epochs=1", "dataset.samples=480")
    for control in ("null", "rate"):
        words = with_options([*ramp, f"control={control}"])
        record_runs(tmp_path, *words, seeds=[0])
    curves = read(tmp_path).curves
    first, second = curves["eta_m_mean"]
    assert abs(first - second) > 0.05 * second
    assert not differ_in_both(curves, 0, 1)


def test_a_control_is_subtracted_from_its_schedule(tmp_path: Path) -> None:
    schedule = (*METHODS["Method 4"], "dataset.samples=128", "batch_size=8")
    record_runs(tmp_path, *schedule, seeds=range(2), accuracies=[0.7, 0.71])
    record_runs(tmp_path, *schedule, "control=rate", seeds=range(2), accuracies=[0.8, 0.82])
    section = section_of(tmp_path)
    (difference,) = section.brief
    assert "control" in section.labels[difference.second]
    assert difference.difference == pytest.approx(0.705 - 0.81)


def test_what_seeds_detect_is_the_median_over_pairs() -> None:
    pairs = {"test/accuracy": [Pair(6, detectable=x) for x in (0.08, 0.01, None, 0.02, 0.04)]}
    section = Section("", "", "", {}, {}, "", [], pairs, [], [], {})
    assert section.detectable == pytest.approx(3)
