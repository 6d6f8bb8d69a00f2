"""The SLURM launcher without SLURM: what it asks sbatch for, and what it leaves alone."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, configure, folder_of, status
from forked import forge

from igo.ground.errors import Busy
from igo.ground.files import write_json
from igo.runs import run as run_program
from igo.runs.folder import state_of
from igo.sweep import jobs
from igo.sweep.jobs import Job
from igo.sweep.launch import SLURM_JOB
from igo.sweep.slurm import Work

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


# Settings of hydra.launcher, and the option by sbatch's own manual.
SBATCH = {
    "partition=gpu": "partition=gpu",
    "account=1234": "account=1234",
    "qos=high": "qos=high",
    "constraint=a100": "constraint=a100",
    "time=90": "time=90",
    "mem_gb=2.5": "mem=2560M",
    "cpus_per_task=6": "cpus-per-task=6",
    "gpus_per_node=2": "gpus-per-node=2",
    "nodes=3": "nodes=3",
    "tasks_per_node=2": "ntasks-per-node=2",
    "array_parallelism=2": "array=0-2%2",
}
OTHER_OPTIONS = {"exclude=node7", "exclusive", "comment=ours"}
ALWAYS = {"requeue", "signal=USR2@90", "open-mode=append"}


def test_sbatch_is_asked_for_what_was_set(stand_in: StandIn, tmp_path: Path) -> None:
    """By default it is one GPU, but none for runs on the CPU."""
    sbatch = f"cp $1 {tmp_path}/script; echo Submitted batch job 7"
    path = stand_in(sbatch=sbatch, srun="exit 1", squeue="exit 1")
    forge.run(
        *SWEEP,
        "seed=0,1,2",
        *(f"hydra.launcher.{word}" for word in SBATCH),
        "hydra.launcher.setup=['module load cuda','ulimit -c 0']",
        "hydra.launcher.additional={exclude: node7, exclusive: true, nice: null, hold: false}",
        "+hydra.launcher.comment=ours",  # igo has no such setting: submitit gets it.
        PATH=path,
    ).good()
    script = (tmp_path / "script").read_text()
    options = re.findall(r"^#SBATCH --(.*)$", script, re.MULTILINE)
    assert {*SBATCH.values(), *OTHER_OPTIONS, *ALWAYS} <= {*options}
    assert not [option for option in options if option.startswith(("nice", "hold"))]
    lines = script.splitlines()
    (srun,) = (index for index, line in enumerate(lines) if line.startswith("srun "))
    assert lines.index("module load cuda") < lines.index("ulimit -c 0") < srun
    assert "--cpus-per-task=6" in lines[srun]
    (sweep,) = tmp_path.glob("runs/sweeps/*/sweep.json")
    assert f"job-name={sweep.parent.name}" in options
    files = [folder_of(*TINY, f"seed={seed}") / SLURM_JOB for seed in range(3)]
    assert [file.read_text() for file in files] == ["7_0", "7_1", "7_2"]
    for words, gpus in ((["seed=3"], ["1"]), (["seed=4", "engine=cpu"], [])):
        forge.run(*SWEEP, *words, "hydra.launcher.setup=[module load cuda]", PATH=path).good()
        script = (tmp_path / "script").read_text()
        assert re.findall(r"--gpus-per-node=(.*)", script) == gpus
        assert "\nmodule load cuda\n" in script


def test_wrong_use_is_one_line_and_submits_nothing(stand_in: StandIn) -> None:
    line = forge.run(*SWEEP, PATH=".").error()
    assert line.startswith("error: hydra/launcher=slurm needs SLURM, and there is no sbatch")
    refusal = "echo sbatch: error: invalid partition specified: nowhere >&2; exit 1"
    path = stand_in(sbatch=refusal, srun="exit 1", squeue="exit 1")
    for word, message in (
        ("hydra.launcher.partition=nowhere", "invalid partition specified: nowhere"),
        ("hydra.launcher.runs_per_job=0", "hydra.launcher.runs_per_job=0 is not allowed"),
        ("hydra.launcher.time=soon", "hydra.launcher.time: Value 'soon'"),
        ("hydra.launcher.mem_gb=inf", "hydra.launcher.mem_gb=inf is not allowed"),
        ("hydra.launcher.nodes=0", "hydra.launcher.nodes=0 is not allowed"),
        ("hydra.launcher.setup=module load cuda", "hydra.launcher.setup: it must be a list"),
        ("hydra.launcher.additional=5", "hydra.launcher.additional: Cannot assign int"),
        ("hydra.launcher.retry_failed=no", "hydra.launcher.retry_failed=no is not allowed"),
        ("+hydra.launcher.nonsense=1", "nonsense"),
    ):
        assert message in forge.run(*SWEEP, word, PATH=path).error()
    words = "Invalid generic resource (gres) specification"  # SLURM's, where it knows no GPU.
    path = stand_in(sbatch=f"echo 'sbatch: error: {words}' >&2; exit 1")
    for device, cure in (("auto", "; engine=cpu asks for no GPU"), ("cpu", "")):
        line = forge.run(*SWEEP, f"engine={device}", PATH=path).error()
        assert line.endswith(f"{words}{cure}")
    assert not [*Path().glob(f"runs/*/{SLURM_JOB}")]


def test_what_is_in_slurm_is_left_alone(stand_in: StandIn) -> None:
    """Of three runs an earlier sweep submitted two; one of them has failed, and is tried again."""
    path = stand_in(sbatch="echo Submitted batch job 7", srun="exit 1", squeue="echo 7_0; echo 7_1")
    assert "submitted 2 runs in 2 SLURM jobs" in forge.run(*SWEEP, PATH=path).good().stdout
    stand_in(squeue="echo no controller >&2; exit 1")
    assert forge.run(*SWEEP, PATH=path).error().endswith("what is queued: no controller")
    stand_in(squeue="echo 7_0; echo 7_1")
    failed_run = folder_of(*TINY, "seed=1")
    write_json(failed_run / "status.json", {"run": failed_run.name, "state": "failed"})
    local = ("-m", *TINY, "tracking=none", "seed=0,1,2", "hydra.launcher.retry_failed=true")
    assert "3 runs, 2 in SLURM, 1 to go" in forge.run(*local, PATH=path).good().stdout
    (record,) = Path().glob("runs/*/metrics.jsonl")
    assert " seed=2 " in status(record.parent)["command"]
    (failed_run / "status.json").write_text("{")
    process = forge.run(*local, PATH=path)
    assert process.returncode == 1
    assert f"damaged: seed=1: {failed_run}" in process.stdout
    assert "1 finished, 1 in SLURM, 1 damaged" in process.stdout


def test_a_warning_while_a_run_starts_leaves_it_to_the_next_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """submitit's handler raises an error at the last allowed time-out; the run has not failed."""

    def last_time(number: int, _frame: object) -> None:
        raise RuntimeError("Job not requeued because: timed-out too many times.")

    job = Job((), configure(*TINY, "tracking=none"))
    monkeypatch.setattr(run_program, "run", lambda _: os.kill(os.getpid(), signal.SIGUSR2))
    monkeypatch.setattr(jobs, "_log_output", lambda _: None)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    handler = signal.signal(signal.SIGUSR2, last_time)
    try:
        with pytest.raises(RuntimeError, match="timed-out too many times"):
            Work([job], threads=1)()
    finally:
        signal.signal(signal.SIGUSR2, handler)
    assert state_of(job.folder.path) == "new"


def test_a_run_that_another_process_works_on_is_left_as_it_recorded_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one has failed since."""

    def busy(_: object) -> None:
        write_json(place / "status.json", {"run": place.name, "state": "failed"})
        raise Busy("it is being worked on by another process")

    job = Job((), configure(*TINY, "tracking=none"))
    place = job.folder.path
    place.mkdir(parents=True)
    monkeypatch.setattr(run_program, "run", busy)
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit):
        jobs.execute(job)
    assert state_of(place) == "failed"
