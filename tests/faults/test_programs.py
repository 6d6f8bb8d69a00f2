"""Sweeps and `igo sync`: killed, started twice, and beside table, report and a training."""

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Ended, records, status
from forked import Death, finished, forge
from resumed import BASE, SILENT, assert_same, outcome
from wandb_server import WandbServer, assert_rows

from igo.runs.folder import state_of

pytestmark = pytest.mark.faults

SWEEP = ("-m", *BASE, "seed=0,1,2", "hydra.launcher.parallel=2")
LOOK, WANDB = "igo.sweep.local.epochs_done", "igo.runs.loggers.wandb.WandB"


def runs_of(place: Path) -> list[Path]:
    return sorted(file.parent for file in place.glob("runs/*/plan.csv"))


def assert_all_same(place: Path, expected_place: Path) -> None:
    for folder, expected_folder in zip(runs_of(place), runs_of(expected_place), strict=True):
        assert folder.name == expected_folder.name
        assert_same(outcome(folder), outcome(expected_folder))


@pytest.mark.parametrize(
    ("function", "call"), [(LOOK, 1), (LOOK, 2), ("os.fsync", 2), ("os.fsync", 3)]
)
def test_a_sweep_of_two_jobs_is_killed(function: str, call: int, tmp_path: Path) -> None:
    """Every other time its runs are killed, too. fsync is called by them and by the sweep."""
    process = forge.run(*SWEEP, SILENT, folder=tmp_path, death=Death(function, call))
    run_is_killed = function != LOOK and call > 1
    assert process.returncode == (1 if run_is_killed else -signal.SIGKILL)
    assert ("killed by SIGKILL" in process.stdout) == run_is_killed
    for run in runs_of(tmp_path) if call % 2 else ():
        if state_of(run) == "running":
            with suppress(ProcessLookupError):
                os.kill(status(run)["pid"], signal.SIGKILL)
    forge.run(*SWEEP, SILENT, folder=tmp_path).good()
    assert_all_same(tmp_path, finished(*SWEEP, SILENT))
    assert not list(tmp_path.rglob(".*.partial"))


def test_a_sweep_beside_itself_and_what_reads_its_runs_meanwhile(tmp_path: Path) -> None:
    def start(name: str, *words: str, command: str = "") -> Ended:
        outputs = tmp_path / name
        outputs.mkdir(exist_ok=True)
        return forge.run(*words, command=command, folder=tmp_path, outputs=outputs)

    with ThreadPoolExecutor() as pool:
        sweeps = [pool.submit(start, name, *SWEEP, SILENT) for name in ("first", "second")]
        while not runs_of(tmp_path):
            time.sleep(0.05)
        while not all(sweep.done() for sweep in sweeps):
            start("read", "runs=runs", command="table").good()
            start("read", "runs=runs", "output=report", command="report").good()
        for sweep in sweeps:
            assert sweep.result().good().stderr == ""
    assert_all_same(tmp_path, finished(*SWEEP, SILENT))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of a finished sweep."""
    return Path(shutil.copytree(finished(*SWEEP), tmp_path / "copy", symlinks=True))


def sync(place: Path, server: WandbServer, outputs: Path, death: Death | None = None) -> Ended:
    outputs.mkdir(exist_ok=True)
    return forge.run(command="sync", folder=place, outputs=outputs, death=death, **server.online)


def assert_synced(place: Path, server: WandbServer) -> None:
    for run in runs_of(place):
        assert_rows(server.runs[status(run)["wandb_id"]].rows, records(run))


@pytest.mark.parametrize(
    ("function", "call", "moment"),
    [
        ("log", 1, "before"),
        ("log", 3, "after"),
        ("log", 6, "after"),
        ("log", 8, "before"),
        ("close", 1, "before"),
    ],
)
def test_sync_is_killed(function: str, call: int, moment: str, place: Path, tmp_path: Path) -> None:
    """In odd calls W&B's service is killed with it."""
    death = Death(f"{WANDB}.{function}", call, moment, group=call % 2 == 1)
    with WandbServer() as server:
        assert sync(place, server, tmp_path / "out", death).returncode == -signal.SIGKILL
        assert sync(place, server, tmp_path / "out").good().stderr == ""
        assert_synced(place, server)
        for run in server.runs.values():
            assert len(run.received) == len(run.rows), "each once"


def test_two_syncs_at_once(place: Path, tmp_path: Path) -> None:
    with WandbServer() as server, ThreadPoolExecutor() as pool:
        outputs = tmp_path / "1", tmp_path / "2"
        for process in pool.map(lambda output: sync(place, server, output), outputs):
            assert process.good().stderr == ""
        assert_synced(place, server)
