"""The one way of a study: its records, and its archive."""

import fcntl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.study import design
from lab.study.design import Job, Record, Runs, Study, key


def jobs(runs: Runs) -> Iterator[Job]:
    """One tuning run, which names an arm of both seeds."""
    tuning: Job = {"arm": "tuned", "seed": 9}
    yield tuning
    if key(tuning) in runs:
        for seed in (0, 1):
            yield {"arm": "a", "seed": seed}
            yield {"arm": f"b{runs[key(tuning)]['score']}", "seed": seed}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study in a folder of its own; the score of a run is its seed."""
    monkeypatch.setattr(design, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(design, "RECORDS", tmp_path)
    return Study("tiny", jobs, lambda job, _: {"score": job["seed"]}, range(2), 2)


def test_a_study_goes_on_and_archives_whole_seeds_of_one_machine(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.run()
    runs = study.read()
    assert [runs[key(job)]["score"] for job in study.jobs(runs)] == [9, 0, 0, 1, 1]
    # A run was killed before its end.
    (study.folder / f"{key({'arm': 'b9', 'seed': 0})}.json").unlink()
    assert study.archive() == 3  # These are the tuning and seed 1.
    assert study.arms(study.archived()) == {}  # There is a gap.
    monkeypatch.setattr(design, "cpu_name", lambda: "another")
    study.run()
    assert not study.missing(study.read())
    assert study.archive() == 3  # Seed 0 has runs of two kinds of CPU.
    for name in ("a", "b9"):
        (study.folder / f"{key({'arm': name, 'seed': 0})}.json").unlink()
    study.run()
    for file in study.folder.glob("*.json"):
        file.unlink() if study.archive() == 5 else pytest.fail("a seed is lost")
    arms = study.arms(study.archived())
    scores = {arm: [run["score"] for run in of_arm] for arm, of_arm in arms.items()}
    assert scores == {"a": [0, 1], "b9": [0, 1]}
    assert replace(study, least=3).arms(study.archived()) == {}


def test_a_job_that_another_process_has_is_left_to_it(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.folder.mkdir(parents=True)
    lock = (study.folder / f".{key({'arm': 'a', 'seed': 0})}.lock").open("ab")
    fcntl.flock(lock, fcntl.LOCK_EX)
    runs_of_waits: list[Record] = []

    def wait(_: float) -> None:
        runs_of_waits.append(study.read())
        lock.close()

    monkeypatch.setattr("lab.study.design.time.sleep", wait)
    study.run()
    assert [len(runs) for runs in runs_of_waits] == [4]  # One job is left.
    assert len(study.read()) == 5
