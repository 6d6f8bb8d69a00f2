"""A loop of one's own and Lightning train exactly the plan's batches at the plan's rates."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from ways import EPOCHS, WAYS, Job, N, Way, on_ranks

import igo

FOREIGN = ("lightning",)
EACH = [pytest.param(name, marks=pytest.mark.examples if name in FOREIGN else ()) for name in WAYS]
STOP = 20  # updates: four into the third epoch, where b and η are others


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    if request.param in FOREIGN:
        pytest.importorskip(request.param)
    warnings.simplefilter("ignore")  # theirs, and of the workers
    return WAYS[request.param]


def epochs_of(batches: list[list[int]]) -> list[list[int]]:
    seen = [sample for batch in batches for sample in batch]
    return [sorted(seen[start : start + N]) for start in range(0, len(seen), N)]


@pytest.mark.parametrize("way", EACH, indirect=True)
@pytest.mark.parametrize("workers", [0, 4])
def test_batches_and_rates_are_the_plans(way: Way, workers: int, tmp_path: Path) -> None:
    """With workers that fetch ahead, too: n is no multiple of b, and both change at one update."""
    job = Job(str(tmp_path), workers=workers)
    rows = way(job).rows
    stages = job.plan.stages
    assert len({stage.b_m for stage in stages}) == len({stage.eta_m for stage in stages}) == 2
    planned = [stage for stage in stages for _ in range(stage.updates)]
    assert len(rows) == len(planned) == job.plan.updates
    for row, stage in zip(rows, planned, strict=True):
        assert row.logged == len(row.samples)
        assert abs(len(row.samples) - N / stage.batches) < 1
        assert row.rate == pytest.approx(stage.eta_m, rel=1e-12)
    assert epochs_of([row.samples for row in rows]) == [list(range(N))] * EPOCHS


@pytest.mark.parametrize("way", EACH, indirect=True)
def test_a_killed_training_goes_on_with_the_very_next_sample(way: Way, tmp_path: Path) -> None:
    """And a checkpoint of another schedule is refused."""
    jobs = [Job(str(tmp_path / name), workers=2) for name in ("whole", "killed")]
    for job in jobs:
        job.path.mkdir()
    whole = way(jobs[0]).rows
    killed = replace(jobs[1], stop=STOP)
    before = way(killed).rows
    with pytest.raises(igo.PlanError, match="the checkpoint is of a plan with"):
        way(replace(killed, resume=True, gamma=0.25))
    after = way(replace(killed, resume=True)).rows
    assert len(before) == STOP
    assert before + after == whole


@pytest.mark.slow
@pytest.mark.parametrize("way", EACH, indirect=True)
def test_two_ranks_share_the_batches_of_one_process(way: Way, tmp_path: Path) -> None:
    alone = way(Job(str(tmp_path))).rows
    shares = on_ranks(way, Job(str(tmp_path)))
    for whole, *parts in zip(alone, *(share.rows for share in shares), strict=True):
        assert sorted(sample for part in parts for sample in part.samples) == whole.samples
        assert {part.rate for part in parts} == {whole.rate}
