"""The one way of a study: its tuning, its records, its archive, and what its claims say."""

import fcntl
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from lab.study import design, judged
from lab.study.design import Job, Record, Runs, Study, best, key, search
from lab.study.judged import Claim


@pytest.mark.parametrize(
    ("highest", "tried"),
    [
        (2.0, (1.0, 2.0, 4.0)),
        (8.0, (1.0, 2.0, 4.0, 8.0, 16.0)),
        (0.25, (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)),
    ],
)
def test_a_search_ends_where_its_best_is_inside(highest: float, tried: tuple[float, ...]) -> None:
    found = search((1.0, 2.0, 4.0), 2, lambda x: [-abs(np.log2(x / highest))] * 2)
    assert (tuple(found), best(found)) == (tried, highest)
    waiting = search((1.0, 2.0, 4.0), 2, lambda x: None if x == 1 else [x])
    assert (tuple(waiting), best(waiting)) == ((1.0, 2.0, 4.0), None)


def jobs(runs: Runs) -> Iterator[Job]:
    """One tuning run, which names an arm of both seeds."""
    first: Job = {"arm": "tuned", "seed": 9}
    yield first
    if key(first) in runs:
        for seed in (0, 1):
            yield {"arm": "a", "seed": seed}
            yield {"arm": f"b{runs[key(first)]['found']}", "seed": seed}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose runs find their seed, in a folder of its own."""
    monkeypatch.setattr(design, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(design, "RECORDS", tmp_path)
    return Study("tiny", jobs, lambda job, _: {"found": job["seed"]}, range(2))


def test_a_study_goes_on_and_archives_whole_seeds_of_one_machine(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.run()
    runs = study.read()
    assert [runs[key(job)]["found"] for job in study.jobs(runs)] == [9, 0, 0, 1, 1]
    (study.folder / f"{key({'arm': 'b9', 'seed': 0})}.json").unlink()  # killed before its end
    assert study.archive() == 3  # the tuning and seed 1
    assert study.arms(study.archived()) == {}  # there is a gap
    monkeypatch.setattr(design, "cpu_name", lambda: "another")
    study.run()
    assert not study.missing(study.read())
    assert study.archive() == 3  # seed 0 has runs of two kinds of CPU
    for name in ("a", "b9"):
        (study.folder / f"{key({'arm': name, 'seed': 0})}.json").unlink()
    study.run()
    for file in study.folder.glob("*.json"):
        file.unlink() if study.archive() == 5 else pytest.fail("a seed is lost")
    found = {arm: [run["found"] for run in of] for arm, of in study.arms(study.archived()).items()}
    assert found == {"a": [0, 1], "b9": [0, 1]}


def test_a_job_that_another_process_has_is_left_to_it(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.folder.mkdir(parents=True)
    lock = (study.folder / f".{key({'arm': 'a', 'seed': 0})}.lock").open("ab")
    fcntl.flock(lock, fcntl.LOCK_EX)
    waited: list[Record] = []

    def wait(_: float) -> None:
        waited.append(study.read())
        lock.close()

    monkeypatch.setattr("lab.study.design.time.sleep", wait)
    study.run()
    assert [len(runs) for runs in waited] == [4]  # all but one
    assert len(study.read()) == 5


def test_claims_are_tested_as_by_other_libraries() -> None:
    random = np.random.default_rng(0)
    samples = [random.normal(mean, 0.4, 10) for mean in (0.6, 0.05, -0.3)]
    claims = [Claim(str(i), {"fresh": each, "other": -each}) for i, each in enumerate(samples)]
    tests = judged.tested(claims, 0.5)
    flips = [stats.permutation_test((each,), np.mean, permutation_type="samples",
                                    n_resamples=2**10 + 1).pvalue for each in samples]  # fmt: skip
    equal = [DescrStatsW(each).ttost_mean(-0.5, 0.5)[0] for each in samples]
    assert [test.p_holm for test in tests] == pytest.approx(multipletests(flips, method="holm")[1])
    assert [t.p_equal_holm for t in tests] == pytest.approx(multipletests(equal, method="holm")[1])
    lines = judged.shown(claims, tests, ["x", "y", "z"]).splitlines()
    low, high = stats.t.interval(0.95, 9, samples[0].mean(), stats.sem(samples[0]))
    assert f"| {samples[0].mean():+.2f} [{low:+.2f}, {high:+.2f}] |" in lines[2].replace("−", "-")
