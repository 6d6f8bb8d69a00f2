"""The SLURM launcher without SLURM: its settings, what it asks sbatch for, what squeue says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Program, configure, python, status

from igo.ground.errors import ConfigError
from igo.sweep import manifest, slurm

SWEEP = ("-m", *TINY, "tracking=none", "hydra/launcher=slurm", "seed=0,1")
StandIn = Callable[..., str]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """Make commands of SLURM out of lines of shell; returns the PATH with them alone."""
    place, path = tmp_path / "bin", os.environ["PATH"]
    place.mkdir()

    def make(**scripts: str) -> str:
        for name, lines in scripts.items():
            (place / name).write_text(f"#!/bin/sh\nPATH={path}\n{lines}\n")
            (place / name).chmod(0o755)
        return str(place)

    return make


def test_sbatch_is_asked_for_what_was_set(
    program: Program, stand_in: StandIn, tmp_path: Path
) -> None:
    """Read from the script that sbatch gets, by the names of sbatch's own manual."""
    path = stand_in(
        sbatch=f"cp $1 {tmp_path}/script; echo Submitted batch job 7",
        srun="exit 1", scontrol="exit 1", squeue="exit 1",
    )  # fmt: skip
    program(
        *SWEEP, "seed=0,1,2", "hydra.launcher.partition=gpu",
        "hydra.launcher.account=1234",
        "hydra.launcher.qos=high", "hydra.launcher.constraint=a100", "hydra.launcher.time=90",
        "hydra.launcher.mem_gb=2.5", "hydra.launcher.cpus_per_task=6",
        "hydra.launcher.gpus_per_node=2", "hydra.launcher.nodes=3",
        "hydra.launcher.tasks_per_node=2", "hydra.launcher.array_parallelism=2",
        "hydra.launcher.setup=['module load cuda','ulimit -c 0']",
        "hydra.launcher.additional={exclude: node7, exclusive: true}",
        "+hydra.launcher.comment=ours",  # no setting of ours: passed on to submitit
        PATH=path,
    ).good()  # fmt: skip
    script = (tmp_path / "script").read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE))
    expected = {
        "partition": "gpu", "account": "1234", "qos": "high", "constraint": "a100", "time": "90",
        "mem": "2560MB", "cpus-per-task": "6", "gpus-per-node": "2", "nodes": "3",
        "ntasks-per-node": "2", "array": "0-2%2", "exclude": "node7", "exclusive": "",
        "requeue": "", "signal": "USR2@90", "open-mode": "append", "comment": "ours",
    }  # fmt: skip
    assert {name: asked.get(name) for name in expected} == expected
    lines = script.splitlines()
    (srun,) = (index for index, line in enumerate(lines) if line.startswith("srun "))
    assert lines.index("module load cuda") < lines.index("ulimit -c 0") < srun
    assert "--cpus-per-task=6" in lines[srun]
    sweep = manifest.find_manifest(tmp_path / "runs", None)
    assert asked["job-name"] == sweep.name
    assert list(sweep.queue.values()) == ["7_0", "7_1", "7_2"]


def test_a_run_that_needs_a_gpu_asks_for_one_and_for_a_day() -> None:
    asked = slurm.with_needs({"gpus_per_node": None, "time": None}, [configure("dataset=cifar100")])
    assert asked == {"gpus_per_node": 1, "time": 1440}
    none = {"gpus_per_node": 0, "time": None}
    with pytest.raises(ConfigError, match=r"gpus_per_node=0 .* a run on cifar100 needs a GPU"):
        slurm.with_needs(none, [configure("dataset=cifar100")])
    for typed in (("dataset=cifar100", "engine=cpu"), ("dataset=digits",)):
        assert slurm.with_needs(none, [configure(*typed)]) == {"gpus_per_node": 0, "time": 240}


def test_wrong_use_is_one_line_and_submits_nothing(
    program: Program, stand_in: StandIn, tmp_path: Path
) -> None:
    line = program(*SWEEP, PATH=str(tmp_path)).error()
    assert line.startswith("error: hydra/launcher=slurm needs SLURM, and there is no sbatch")
    refused = "echo sbatch: error: invalid partition specified: nowhere >&2; exit 1"
    path = stand_in(sbatch=refused, srun="exit 1", scontrol="exit 1", squeue="exit 1")
    for typed, named in (
        ("hydra.launcher.partition=nowhere", "invalid partition specified: nowhere"),
        ("hydra.launcher.runs_per_job=0", "hydra.launcher.runs_per_job=0 is not allowed"),
        ("hydra.launcher.time=soon", "timeout_min"),
        ("+hydra.launcher.nonsense=1", "nonsense"),
    ):
        assert named in program(*SWEEP, typed, PATH=path).error()
    assert not list((tmp_path / "runs").glob("sweeps/*/sweep.json"))


@pytest.mark.parametrize(
    ("record", "written", "in_queue", "expected"),
    [
        ("new", None, None, "new"),
        ("new", None, "PENDING", "queued"),
        ("new", None, "RUNNING", "queued"),  # the job has other runs before it, or just starts
        ("interrupted", "running", "RUNNING", "running"),  # on a node whose lock is not seen here
        ("interrupted", "running", None, "interrupted"),  # died without a word
        ("interrupted", "interrupted", "PENDING", "queued"),
        ("failed", "failed", "PENDING", "queued"),  # tried again
        ("failed", "failed", "RUNNING", "failed"),  # the job is at its next run
        ("running", "running", "RUNNING", "running"),
        ("finished", "finished", "RUNNING", "finished"),
    ],
)
def test_a_run_stands_as_its_record_and_the_queue_say(
    record: str, written: str | None, in_queue: str | None, expected: str, tmp_path: Path
) -> None:
    if written:
        (tmp_path / "status.json").write_text(json.dumps({"state": written}))
    assert manifest.state_in_queue(record, tmp_path, in_queue) == expected


def test_another_sweep_leaves_what_is_queued_alone(
    program: Program, stand_in: StandIn, tmp_path: Path
) -> None:
    """Of three runs, two are in SLURM's hands by an earlier sweep; also for the local launcher."""
    path = stand_in(
        sbatch="echo Submitted batch job 7", srun="exit 1", scontrol="exit 1",
        squeue="echo 7_0 RUNNING; echo 7_1 PENDING",
    )  # fmt: skip
    assert "submitted 2 runs in 2 SLURM jobs" in program(*SWEEP, PATH=path).good().stdout
    stand_in(squeue="echo squeue: error: no controller >&2; exit 1")
    line = ("-m", "igo", "sweep-status", f"runs_dir={tmp_path / 'runs'}")
    shown = python(tmp_path, *line, PATH=path).good().stdout
    assert "warning: squeue: no controller" in shown
    assert "2 to go" in shown

    stand_in(squeue="echo 7_0 RUNNING; echo 7_1 PENDING")
    ended = program("-m", *TINY, "tracking=none", "seed=0,1,2", PATH=path)
    assert "3 runs, 2 queued, 1 to go" in ended.stdout
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/status.json"))
    assert " seed=2 " in status(folder)["command"]
