"""Updates and images to a target: on the committed records, and against SciPy."""

import math
import re
import tarfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from recorded import edit, record_runs, words_of
from scipy import stats

from igo.ground.errors import UserError
from igo.report import report, results
from igo.report.comparison import compare
from igo.report.results import Results
from igo.report.settings import labels
from igo.runs.find import find
from igo.runs.folder import read_records

SEEDS = range(8)
# The archive is older than 1.0: it has settings that are no more, and its status no seal.
GONE = re.compile(r"^  (cache|memory|threads): .*\n|^  timm: false\n(?=  beta1)", re.MULTILINE)


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Methods 1 to 4 on CIFAR-100, eight seeds each."""
    root = tmp_path_factory.mktemp("methods")
    with tarfile.open(ROOT / "results" / "records" / "cifar100_many.tar.xz") as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None and "-reversed/" not in member.name:
                file = root / member.name
                file.parent.mkdir(exist_ok=True)
                file.write_text(GONE.sub("", content.read().decode()))
    for run in root.iterdir():
        edit(run)
    return root


def results_of(root: Path, accuracy: float) -> Results:
    return results.read_results(find([str(root)]), accuracy)


def medians_of(data: Results) -> dict[str, dict[str, str]]:
    """By label, how many seeds reach the target, and the medians of what they need."""
    return {
        label: results.needed(data.runs, setting)
        for setting, label in labels(data.settings).items()
    }


def test_methods_1_to_4_reach_36_per_cent_as_published(methods: Path) -> None:
    medians = medians_of(results_of(methods, 0.36))
    assert {
        label: [cell.split(" [")[0] for cell in row.values()] for label, row in medians.items()
    } == {
        "Method 1 (constant)": ["8 of 8", "14,085", "450,000"],
        "Method 2": ["8 of 8", "11,268", "360,000"],
        "Method 3": ["8 of 8", "5,930", "420,000"],
        "Method 4": ["8 of 8", "7,674", "420,000"],
    }


def test_a_run_that_never_reaches_its_target_comes_last(methods: Path) -> None:
    """Its rank counts, and no mean. The sign test is SciPy's binomial test."""
    data = results_of(methods, 0.38)
    updates: dict[int, dict[int, float]] = {}
    for folder, setting, seed in data.runs.select("folder", "setting", "seed").iter_rows():
        rows = read_records(Path(folder))
        hits = [row["updates"] for row in rows if (row["test/accuracy"] or 0) >= 0.38]
        updates.setdefault(setting, {})[seed] = min(hits, default=math.inf)
    medians = medians_of(data)
    assert medians["Method 2"]["reached by"] == "5 of 8"
    assert medians["Method 2"]["updates"] == "15,024 [13,146, never]"
    assert medians["Method 4"]["updates"] == "never [7,674, never]"
    assert medians["Method 1 (constant)"]["updates"] == "never"
    pairs = compare(data.runs, list(updates), "target_updates", ranks=True)
    for (setting, rival), pair in zip(combinations(updates, 2), pairs, strict=True):
        wins = sum(updates[setting][seed] < updates[rival][seed] for seed in SEEDS)
        losses = sum(updates[setting][seed] > updates[rival][seed] for seed in SEEDS)
        assert pair.n == 8
        assert pair.difference == pytest.approx((losses - wins) / 8)
        expected = stats.binomtest(losses, wins + losses).pvalue if wins + losses else None
        assert pair.p == (None if expected is None else pytest.approx(expected))


def test_the_interval_of_a_median_has_95_per_cent_by_the_order_of_values() -> None:
    for n in range(1, 30):
        ranks = [rank for rank in range(1, n) if stats.binom.cdf(rank - 1, n, 0.5) <= 0.025]
        middle = f"{np.median(range(1, n + 1)):g}"
        interval = f" [{ranks[-1]}, {n + 1 - ranks[-1]}]" if ranks else ""
        assert results.median([*range(n, 0, -1)]) == middle + interval


def test_runs_that_are_evaluated_at_other_epochs_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for every, warnings in ((1, 0), (2, 1)):
        record_runs(tmp_path, "p=1", f"evaluate_every={every}", seeds=[every])
        results_of(tmp_path, 0.5)
        assert capsys.readouterr().err.count("differ in evaluate_every") == warnings


def test_a_target_is_a_share(methods: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^target=36 is not allowed: .* 36 % .* is 0\.36"):
        report.run(words_of(methods, tmp_path, target=36))


def test_the_report_says_it(methods: Path, tmp_path: Path) -> None:
    (section,) = report.run(words_of(methods, tmp_path, target=0.36))
    assert {pair.verdict for pair in section.pairs["target_updates"]} == {"lower", "higher"}
    assert "undecided" in {pair.verdict for pair in section.pairs["target_images"]}
    page = (tmp_path / "index.html").read_text()
    assert "5,930 [5,810, 6,050]" in page
    updates = page.index("Updates to 36 % test accuracy, seed by seed: 6 pairs")
    assert updates < page.index("Images to 36 % test accuracy, seed by seed: 6 pairs")
