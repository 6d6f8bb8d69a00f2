"""Sweeps on this machine, through the command line: every run once, none lost, none twice."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from conftest import (
    ROOT,
    TINY,
    Program,
    clean_environment,
    command,
    configure,
    python,
    records,
    status,
)
from forked import forge
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_own_data import write_npz

from igo.config.load import load
from igo.ground.errors import ConfigError, UserError
from igo.runs.folder import RunFolder, state_of
from igo.sweep import local
from igo.sweep.grid import combinations
from igo.sweep.jobs import Composer, distinct, labels
from igo.sweep.local import LocalSettings, Slot

SMALL = (*TINY, "tracking=none")
LONG = (*SMALL, "epochs=60", "schedule.stages=3")


def folders(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "runs").glob("*/status.json"))


def folder_of(tmp_path: Path, *overrides: str) -> Path:
    return RunFolder(configure(*overrides, f"runs_dir={tmp_path / 'runs'}")).path


@cache
def alone(*overrides: str) -> list[dict[str, object]]:
    """The records of one run outside any sweep."""
    with TemporaryDirectory() as folder:
        forge.run(Path(folder), *overrides).good()
        return records(folder_of(Path(folder), *overrides))


def test_every_combination_runs_once_as_it_would_alone_and_never_again(
    interpreter: Program, program: Program, tmp_path: Path
) -> None:
    sweep = ("-m", *SMALL, "p=0.5,1", "split=0,1", "seed=3,3")
    lines = interpreter(*sweep).good().stdout.splitlines()
    started = [line.removeprefix("started ") for line in lines if line.startswith("started ")]
    ended = [m[1] for line in lines if (m := re.match(r"\[\d/4\] finished (.+?): ", line))]
    assert sorted(started) == sorted(ended)
    assert len({*started}) == 4
    runs = folders(tmp_path)
    wanted = {
        folder_of(tmp_path, *SMALL, f"p={p}", f"split={s}", "seed=3")
        for p in (0.5, 1)
        for s in (0, 1)
    }
    assert set(runs) == wanted
    assert {status(folder)["state"] for folder in runs} == {"finished"}
    settings = (*SMALL, "p=1", "split=0", "seed=3")
    assert records(folder_of(tmp_path, *settings)) == alone(*settings, "engine.threads=1")

    (summary,) = tmp_path.glob("runs/sweeps/*/summary.csv")
    rows = list(csv.DictReader(summary.read_text().splitlines()))
    assert [(row["p"], row["split"], row["n"]) for row in rows] == [
        (p, s, "1") for p in ("0.5", "1.0") for s in ("0.0", "1.0")
    ]

    before = {folder: (folder / "metrics.jsonl").stat().st_mtime_ns for folder in runs}
    again = program(*sweep).good()
    assert "4 runs, 4 finished" in again.stdout
    assert before == {f: (f / "metrics.jsonl").stat().st_mtime_ns for f in folders(tmp_path)}


def test_a_failing_run_stops_no_other_and_is_named(program: Program, tmp_path: Path) -> None:
    sweep = ("-m", *SMALL, "learning_rate=1e30,0.1")
    done = program(*sweep)
    assert done.returncode == 1
    assert "failed: learning_rate=1e+30: the loss is not finite at update" in done.stdout
    bad = folder_of(tmp_path, *SMALL, "learning_rate=1e30")
    assert "Traceback" in (bad / "error.txt").read_text()
    assert status(folder_of(tmp_path, *SMALL, "learning_rate=0.1"))["state"] == "finished"

    started = status(bad)["started"]
    time.sleep(1)
    again = program(*sweep)
    assert again.returncode == 1
    assert "1 finished, 1 failed" in again.stdout
    assert status(bad)["started"] == started
    program(*sweep, "hydra.launcher.retry_failed=true")
    assert status(bad)["started"] != started


def test_a_wrong_combination_is_refused_before_any_run(program: Program, tmp_path: Path) -> None:
    assert "p=2" in program("-m", *SMALL, "p=0.5,2").error()
    assert not folders(tmp_path)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep of two long runs, side by side. Each is paused once it has finished an epoch."""
    paused: dict[Path, int] = {}
    with subprocess.Popen(
        command(tmp_path, "-m", *LONG, "seed=0,1", "hydra.launcher.parallel=2"),
        cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        while len(paused) < 2:
            assert process.poll() is None, "the sweep ended too early"
            time.sleep(0.05)
            for file in (tmp_path / "runs").glob("*/metrics.jsonl"):
                if file.parent not in paused and file.read_text():
                    paused[file.parent] = pid(file.parent)
                    os.kill(paused[file.parent], signal.SIGSTOP)
        yield process
        if process.poll() is None:  # the test failed
            for run in paused.values():
                with suppress(ProcessLookupError):
                    os.kill(run, signal.SIGKILL)
            process.kill()


def pid(folder: Path) -> int:
    return int(str(status(folder)["pid"]))


def finish(program: Program, tmp_path: Path) -> None:
    """Start the sweep again: each run ends as it would have undisturbed."""
    program("-m", *LONG, "seed=0,1").good()
    for seed in (0, 1):
        settings = (*LONG, f"seed={seed}")
        assert records(folder_of(tmp_path, *settings)) == alone(*settings)


@pytest.mark.slow
def test_a_killed_run_stops_no_other_and_resumes(
    started: subprocess.Popen[str], program: Program, tmp_path: Path
) -> None:
    victim = folder_of(tmp_path, *LONG, "seed=1")
    os.kill(pid(victim), signal.SIGKILL)
    os.kill(pid(folder_of(tmp_path, *LONG, "seed=0")), signal.SIGCONT)
    output, _ = started.communicate()
    assert started.returncode == 1
    assert "interrupted seed=1: killed by SIGKILL" in output
    assert state_of(victim) == "interrupted"
    assert state_of(folder_of(tmp_path, *LONG, "seed=0")) == "finished"
    finish(program, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "tell"),
    [
        (signal.SIGINT, os.kill),
        pytest.param(signal.SIGTERM, os.kill, marks=pytest.mark.slow),
        (signal.SIGTERM, os.killpg),  # as coreutils' timeout and systemd do
    ],
)
def test_a_sweep_told_to_stop_stops_its_runs_and_continues(
    number: int,
    tell: Callable[[int, int], None],
    started: subprocess.Popen[str],
    program: Program,
    tmp_path: Path,
) -> None:
    assert "running" in status_text(tmp_path)
    tell(started.pid, number)
    for run in map(pid, folders(tmp_path)):
        while re.search(r"^ShdPnd:\s+0+$", Path(f"/proc/{run}/status").read_text(), re.M):
            time.sleep(0.05)  # the sweep has not told its run yet
        os.kill(run, signal.SIGCONT)
    output, _ = started.communicate()
    assert started.returncode == 128 + number
    assert "the same command continues" in output
    assert {str(status(folder)["state"]) for folder in folders(tmp_path)} == {"interrupted"}
    assert re.search(r"interrupted seed=\d: stopped by SIGTERM \(", output)
    assert re.search(r"interrupted: seed=\d: stopped by SIGTERM \(", status_text(tmp_path))
    finish(program, tmp_path)


def status_text(tmp_path: Path, *words: str, **environment: str) -> str:
    """What `igo sweep-status` says of these runs."""
    line = ("-m", "igo", "sweep-status", *words, f"runs_dir={tmp_path / 'runs'}")
    return python(tmp_path, *line, **environment).good().stdout


def test_a_run_that_another_process_has_is_waited_for(program: Program, tmp_path: Path) -> None:
    """As the runs of a sweep whose manager was killed, which live on."""
    sweep = ("-m", *SMALL, "seed=0,1", "hydra.launcher.parallel=2")
    first, second = (folder_of(tmp_path, *SMALL, f"seed={seed}") for seed in (0, 1))
    first.mkdir(parents=True)
    (first / "status.json").write_text(json.dumps({"run": first.name, "state": "running"}))
    with ThreadPoolExecutor(1) as pool, (first / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = pool.submit(program, *sweep)
        while state_of(second) != "finished" and not done.done():
            time.sleep(0.1)
        time.sleep(2)
        assert not done.done(), "it waits"
        assert not (first / "metrics.jsonl").exists()
        fcntl.flock(lock, fcntl.LOCK_UN)
        ended = done.result()
    assert ended.returncode == 0, ended
    assert status(first)["state"] == "finished"


def test_dry_run_lists_and_fresh_runs_again(program: Program, tmp_path: Path) -> None:
    lines = program("-m", *SMALL, "seed=0,1", "dry_run=true").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["new", "seed=0"], ["new", "seed=1"]]
    assert not (tmp_path / "runs").exists()
    program("-m", *SMALL, "seed=0")
    (folder,) = folders(tmp_path)
    started = status(folder)["started"]
    time.sleep(1)
    program("-m", *SMALL, "seed=0", "fresh=true").good()
    assert status(folder)["started"] != started
    assert yaml.safe_load((folder / "config.yaml").read_text())["fresh"] is False


@pytest.fixture
def composer() -> Iterator[Composer]:
    """For one test: Hydra can be initialized once at a time."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield Composer("config")


LINES = [
    [],
    ["p=0.3", "split=0", "seed=7"],
    ["experiment=fashion_mnist", "schedule=method4", "seed=1"],
    ["schedule=step", "schedule.kappa=0.9", "schedule.lam=1.5", "epochs=7"],
    ["dataset.mean=[0.25]", "tracking.tags=[a,b]", "engine.threads=2", "max_batch_size=64"],
    ["experiment=cifar100", "schedule=polynomial", "p=4", "batch_size=64"],
    ["optimizer=shb", "optimizer.momentum=0.5"],
]


def test_composing_many_runs_gives_what_hydra_gives_for_each() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        wanted = [
            load(compose("config", line), [override.split("=")[0] for override in line])
            for line in LINES
        ]
        shared = Composer("config")
        jobs = [shared.job(line) for line in LINES * 2]
    assert [job.config for job in jobs] == wanted * 2


def test_a_wrong_run_is_named_with_what_is_wrong(composer: Composer) -> None:
    with pytest.raises(UserError, match=r"the run seed=1 split=2: split=2.0 is not allowed"):
        composer.job(["seed=1", "split=2"])


def test_a_setting_is_left_out_where_it_has_no_effect(composer: Composer) -> None:
    lines = [
        [f"schedule={schedule}", f"p={p}", f"split={split}"]
        for schedule in ("graduated", "cosine", "constant")
        for p in (0.1, 0.5)
        for split in (0, 1)
    ]
    jobs, left_out = composer.jobs(lines)
    assert left_out == {"p": 8, "split": 4}
    assert [job.overrides for job in distinct(jobs)] == [
        *(tuple(line) for line in lines[:4]),
        ("schedule=cosine", "split=0"), ("schedule=cosine", "split=1"), ("schedule=constant",),
    ]  # fmt: skip


GRIDS: list[dict[str, object]] = [
    {},
    {"p": [0.1, 0.5], "seed": "range(3)"},
    {"experiment": "cifar100", "schedule": ["cosine", "exponential"], "epochs": 3, "p": None},
]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("typed", [[], ["split=0,1", "engine=cpu"], ["p=0.7", "seed=4,5"]])
def test_combinations_are_those_of_hydra(grid: dict[str, object], typed: list[str]) -> None:
    parser = OverridesParser.create()
    lines = []
    for name, value in grid.items():
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"{name}={'null' if value is None else shown}")
    (wanted,) = BasicSweeper.split_arguments(parser.parse_overrides([*lines, *typed]), None)
    assert combinations(parser, grid, typed) == wanted


def test_an_interval_is_no_grid() -> None:
    with pytest.raises(UserError, match="interval"):
        combinations(OverridesParser.create(), {}, ["p=interval(0,1)"])


def test_equal_configurations_are_one_run(composer: Composer) -> None:
    jobs = [
        composer.job(["schedule=constant", "batch_size=16", "seed=1"]),
        composer.job(["schedule=constant", "seed=1"]),
        composer.job(["schedule=constant", "seed=2"]),
    ]
    assert distinct(jobs) == [jobs[0], jobs[2]]


def test_jobs_of_one_folder_and_other_data_are_refused(composer: Composer, tmp_path: Path) -> None:
    files = [write_npz(tmp_path / name, n=90) for name in ("a.npz", "b.npz")]
    jobs = [composer.job(["dataset=arrays", f"dataset.file={file}", "seed=1"]) for file in files]
    assert jobs[0].name == jobs[1].name
    with pytest.raises(ConfigError, match=r"b\.npz is not allowed: .* its own runs_dir"):
        distinct(jobs)


def test_labels_are_what_differs(composer: Composer) -> None:
    jobs = [composer.job(["epochs=2", f"p={p}", "seed=1"]) for p in (0.5, 1)]
    assert [labels(jobs)[job.name] for job in jobs] == ["p=0.5", "p=1"]
    assert labels(jobs[:1])[jobs[0].name] == "epochs=2 p=0.5 seed=1"


@pytest.mark.parametrize("path", sorted((ROOT / "launch" / "sweep").glob("*.yaml")), ids=str)
def test_sweep_files_hold_grids_alone_and_sound_runs(path: Path, composer: Composer) -> None:
    content = yaml.safe_load(path.read_text())
    assert list(content) == ["hydra"]
    assert list(content["hydra"]["sweeper"]) == ["grids"]
    parser = OverridesParser.create()
    lines = [
        tuple(line)
        for grid in content["hydra"]["sweeper"]["grids"]
        for line in combinations(parser, grid, [])
    ]
    seeds = {override for line in lines for override in line if override.startswith("seed=")}
    assert len({*lines}) == len(lines) > 1
    assert len(seeds) > 1
    # Seeds are alike: one is composed of each setting.
    settings = {frozenset({*line} - seeds): line for line in reversed(lines)}
    jobs = [composer.job(line) for line in settings.values()]
    assert len(distinct(jobs)) == len(jobs)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch, composer: Composer) -> None:
    monkeypatch.setattr(local, "allowed_cores", lambda: 8)
    jobs = [composer.job(["engine.device=cpu"])]
    assert local.slots(LocalSettings(), jobs) == [Slot(1)] * 8
    assert local.slots(LocalSettings(threads=3), jobs) == [Slot(3)] * 2
    assert local.slots(LocalSettings(threads=16), jobs) == [Slot(16)]
    assert local.slots(LocalSettings(parallel=3), jobs) == [Slot(1)] * 3


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch, composer: Composer) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    jobs = [composer.job(["engine.device=auto"])]
    two = local.slots(LocalSettings(runs_per_gpu=2), jobs)
    assert sorted(str(slot.gpu) for slot in two) == ["4", "4", "GPU-7", "GPU-7"]
    assert len({slot.gpu for slot in two[:2]}) == 2  # both GPUs before one has two
    assert len(local.slots(LocalSettings(parallel=1), jobs)) == 1
    on_cpu = [composer.job(["engine.device=cpu"])]
    assert local.slots(LocalSettings(parallel=1), on_cpu) == [Slot(1)]
