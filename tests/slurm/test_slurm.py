"""Sweeps through a real SLURM: submitted and left alone, disturbed, equal to the bit."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cluster import cluster, missing, slurm, wait
from conftest import TINY, Ended, command, python, records, status
from resumed import assert_same, outcome

from igo.sweep.launch import SLURM_JOB

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]

SILENT = (*TINY, "tracking=none")
LONG = (*SILENT, "dataset.samples=512", "model.width=8", "batch_size=16", "epochs=30")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.gpus_per_node=0")
LOCAL = ("hydra/launcher=local", "hydra.launcher.parallel=2")
MIDDLE = 3  # epochs after which a run is disturbed


@pytest.fixture(scope="module", autouse=True)
def running_cluster() -> Iterator[Path]:
    with cluster() as folder:
        yield folder


def sweep(place: Path, *arguments: str, **environment: str) -> Ended:
    return python(place, *command(place, "-m", *arguments)[1:], **environment)


def undisturbed(place: Path, *arguments: str) -> Path:
    """The folder of runs that nothing disturbed, of the local launcher."""
    place.mkdir()
    sweep(place, *LOCAL, *arguments).good()
    return place / "runs"


def states(place: Path, *arguments: str) -> list[str]:
    """The states of a sweep's runs, in their order."""
    lines = sweep(place, *arguments, "dry_run=true").good().stdout.splitlines()
    return [line[:12].strip() for line in lines if str(place) in line]


def manifest(place: Path) -> Any:
    """The record of the one sweep in a place."""
    (path,) = place.glob("runs/sweeps/*/sweep.json")
    return json.loads(path.read_text())


def queue(place: Path) -> dict[str, str]:
    """The SLURM job of each run, by the overrides that tell it from the others."""
    files = {
        run["label"]: place / "runs" / run["run"] / SLURM_JOB for run in manifest(place)["runs"]
    }
    return {label: file.read_text() for label, file in files.items()}


def folder(place: Path, label: str) -> Path:
    runs = {run["label"]: run["run"] for run in manifest(place)["runs"]}
    return place / "runs" / str(runs[label])


def in_queue() -> dict[str, str]:
    lines = slurm("squeue", "-hr", "-o", "%i %T").splitlines()
    return dict(line.split() for line in lines)


def until_the_queue_is_empty() -> None:
    assert wait(lambda: not in_queue(), patience=500)


def in_the_middle(run: Path) -> bool:
    """Whether a run has done some epochs, and has more to come."""
    metrics = run / "metrics.jsonl"
    if not metrics.exists() or len(metrics.read_text().splitlines()) < MIDDLE:
        return False
    assert status(run)["state"] == "running"
    return True


def test_an_array_is_submitted_once_and_a_failing_run_stops_no_other(tmp_path: Path) -> None:
    """Two of four fail; and it is as if started on a login node."""
    runs = (*SLURM, *SILENT, "learning_rate=0.1,1e30", "seed=0,1")
    job_variables = {"SLURM_JOB_ID": "99", "SLURM_MEM_PER_NODE": "99999", "SLURM_NTASKS": "3"}
    first_sweep = sweep(tmp_path, *runs, **job_variables)
    assert (first_sweep.returncode, first_sweep.stderr) == (0, "")
    jobs = queue(tmp_path)
    (array,) = {job.split("_")[0] for job in jobs.values()}
    assert sorted(jobs.values()) == [f"{array}_{index}" for index in range(4)]
    assert set(in_queue()) == set(jobs.values())

    assert "submitted" not in sweep(tmp_path, *runs).good().stdout
    assert queue(tmp_path) == jobs
    assert slurm("squeue", "-hr", "-o", "%A", "-j", array).count("\n") == 3

    until_the_queue_is_empty()
    assert states(tmp_path, *runs) == ["finished", "finished", "failed", "failed"]
    for label in ("learning_rate=1e+30 seed=0", "learning_rate=1e+30 seed=1"):
        log = (folder(tmp_path, label) / "output.log").read_text()
        assert "error: the loss is not finite" in log

    last_sweep = sweep(tmp_path, *runs)
    assert last_sweep.returncode == 1  # failed runs are listed, and not tried again
    assert "failed: learning_rate=1e+30 seed=0: " in last_sweep.stdout
    assert queue(tmp_path) == jobs
    sweep(tmp_path, *runs, "hydra.launcher.retry_failed=true").good()
    changed = {label for label, job in queue(tmp_path).items() if job != jobs[label]}
    assert changed == {"learning_rate=1e+30 seed=0", "learning_rate=1e+30 seed=1"}
    until_the_queue_is_empty()


def test_runs_that_are_stopped_or_killed_end_with_the_same_bits(tmp_path: Path) -> None:
    """Queued again by hand, warned by USR2, cancelled, killed: the last two by a second start."""
    runs = (*LONG, "seed=0,1,2,3")
    assert sweep(tmp_path, *SLURM, *runs).returncode == 0
    jobs = queue(tmp_path)
    places = {label: folder(tmp_path, label) for label in jobs}
    disturb: tuple[Callable[[str, Path], object], ...] = (
        lambda job, _: slurm("scontrol", "requeue", job),
        lambda job, _: slurm("scancel", "--signal=USR2", job),
        lambda job, _: slurm("scancel", job),
        lambda _, run: os.kill(status(run)["pid"], signal.SIGKILL),
    )
    disturbances = dict(zip(jobs, disturb, strict=True))
    while disturbances:
        time.sleep(0.1)
        for label in [label for label in disturbances if in_the_middle(places[label])]:
            disturbances.pop(label)(jobs[label], places[label])
    until_the_queue_is_empty()
    assert [status(run)["state"] for run in places.values()][2:] == ["interrupted", "running"]
    stopped = ["interrupted", "interrupted"]
    assert states(tmp_path, *runs) == ["finished", "finished", *stopped]

    assert "submitted 2 runs in 2 SLURM jobs" in sweep(tmp_path, *SLURM, *runs).stdout
    new_jobs = queue(tmp_path)
    assert [new_jobs[label] == jobs[label] for label in jobs] == [True, True, False, False]
    expected = undisturbed(tmp_path / "undisturbed", *runs)
    until_the_queue_is_empty()
    for run in places.values():
        assert_same(outcome(run), outcome(expected / run.name))
        assert "continuing after epoch" in (run / "output.log").read_text()


@pytest.mark.parametrize("reason", ["urgent job", "time limit", "lost node"])
def test_runs_that_slurm_ends_end_the_same(reason: str, tmp_path: Path) -> None:
    """A job of a more urgent partition takes the whole node, and gives it back.

    SLURM looks twice a minute at time limits: that run is paused, and SLURM's warning continues it.
    A run that dies before its node is lost has failed, and SLURM does not queue it again: this one
    is paused, too, and killed after.
    """
    runs = (*LONG, "seed=4")
    assert sweep(tmp_path, *SLURM, *runs).returncode == 0
    ((label, job),) = queue(tmp_path).items()
    run = folder(tmp_path, label)
    assert wait(lambda: in_the_middle(run), patience=500)
    update, node = ("scontrol", "update"), slurm("sinfo", "-hN", "-o", "nodename=%N").split()[0]
    pid = status(run)["pid"]
    if reason == "urgent job":
        slurm("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    elif reason == "time limit":
        os.kill(pid, signal.SIGSTOP)
        slurm(*update, f"jobid={job}", "timelimit=1")
    else:
        os.kill(pid, signal.SIGSTOP)
        slurm(*update, node, "state=down", "reason=lost")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert wait(lambda: in_queue().get(job) == "PENDING", 500)
    slurm(*update, f"jobid={job}", "timelimit=60")
    if reason == "lost node":
        slurm(*update, node, "state=resume")
    assert states(tmp_path, *SLURM, *runs) == ["in SLURM"]
    expected = undisturbed(tmp_path / "undisturbed", *runs)
    until_the_queue_is_empty()
    assert "continuing after epoch" in (run / "output.log").read_text()
    assert_same(outcome(run), outcome(expected / run.name))


def test_a_job_with_several_runs_does_them_one_after_another(tmp_path: Path) -> None:
    """Five runs, two a job, two jobs an array; the first one fails."""
    short = (*SILENT, "epochs=1", "dataset.samples=32", "batch_size=8")
    runs = (*short, "learning_rate=1e30,0.1,0.11,0.12,0.13")
    sweep(
        tmp_path,
        *SLURM,
        "hydra.launcher.cpus_per_task=2",
        "hydra.launcher.runs_per_job=2",
        "hydra.launcher.array_size=2",
        *runs,
    ).good()
    jobs = list(queue(tmp_path).values())
    assert jobs[0] == jobs[1] != jobs[2] == jobs[3]
    assert jobs[1].split("_")[0] == jobs[2].split("_")[0] != jobs[4].split("_")[0]
    assert "_" not in jobs[4]
    until_the_queue_is_empty()
    assert states(tmp_path, *runs) == ["failed", *4 * ["finished"]]


def test_a_run_of_two_tasks_is_one_run_and_queued_again_as_one(tmp_path: Path) -> None:
    """Warned by USR2 both stop at the same update; the run ends as one of two that nobody warned.

    That two ranks train what one does is tested in float64 by test_ranks.
    """
    runs = (*SLURM, *SILENT, "epochs=12", "seed=0", "hydra.launcher.tasks_per_node=2")
    folders = []
    for name in ("warned", "undisturbed"):
        place = tmp_path / name
        place.mkdir()
        assert sweep(place, *runs).returncode == 0
        ((label, job),) = queue(place).items()
        run = folder(place, label)
        if name == "warned":
            assert wait(lambda run=run: in_the_middle(run), patience=500)
            slurm("scancel", "--signal=USR2", job)
        until_the_queue_is_empty()
        assert status(run)["hardware"]["ranks"] == 2
        folders.append(run)
    logs = [(run / "output.log").read_text() for run in folders]
    assert ["continuing after epoch" in text for text in logs] == [True, False]
    assert_same(*map(outcome, folders))
    assert [row["epoch"] for row in records(folders[0])] == list(range(1, 13))
