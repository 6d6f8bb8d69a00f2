"""Sweeps on this machine, through the command line: every run once, none lost, none twice."""

import csv
import errno
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import (
    ROOT,
    TINY,
    Ended,
    clean_environment,
    command,
    configure,
    folder_of,
    hydra_initialized,
    interpreter,
    lines_of,
    records,
    status,
)
from forked import NO_FIGURES, Death, finished, forge
from hydra import compose
from hydra.errors import HydraException
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recorded import edit
from scipy import stats

from igo.config.load import config_of, make_plan
from igo.config.schema import Config
from igo.ground.errors import ConfigError, UserError
from igo.ground.statistics import least_seeds
from igo.runs import manifest
from igo.runs.folder import RunFolder, state_of
from igo.sweep import local
from igo.sweep.jobs import Composer, Job, distinct
from igo.sweep.launch import check_file, too_few_seeds

SMALL = (*TINY, "tracking=none")
LONG = (*SMALL, "epochs=60", "schedule.stages=3")


def folders() -> list[Path]:
    return sorted(path.parent for path in Path.cwd().glob("runs/*/status.json"))


def sweep_of(*words: str, **settings: Any) -> Ended:
    """A sweep, whose report has no figures: they take seconds."""
    return forge.run("-m", *words, settings=NO_FIGURES, **settings)


@cache
def records_alone(*overrides: str) -> list[dict[str, object]]:
    """The records of one run outside any sweep."""
    return records(finished(*overrides))


def test_every_combination_runs_once_as_it_would_alone_and_never_again() -> None:
    sweep = (*SMALL, "p=0.5,1", "split=0,1", "seed=3,3", "hydra.launcher.parallel=1")
    lines = sweep_of(*sweep).good().stdout.splitlines()
    starts = [line.removeprefix("started ") for line in lines if line.startswith("started ")]
    ends = [m[1] for line in lines if (m := re.match(r"\[\d/4\] finished (.+?): ", line))]
    assert sorted(starts) == sorted(ends)
    assert len({*starts}) == 4
    notes = [re.search(r"^\[(\d)/4\] .*; about \d+:\d\d:\d\d left$", line) for line in lines]
    assert [note[1] for note in notes if note][-2:] == ["2", "3"]
    runs = folders()
    choices = [(p, split) for p in ("0.5", "1.0") for split in ("0.0", "1.0")]
    names = [(*SMALL, f"p={p}", f"split={split}", "seed=3") for p, split in choices]
    assert {*runs} == {folder_of(*name) for name in names}
    assert {status(folder)["state"] for folder in runs} == {"finished"}
    assert records(folder_of(*names[2])) == records_alone(*names[2])

    (summary,) = Path().glob("runs/sweeps/*/report/settings.csv")
    rows = list(csv.DictReader(summary.read_text().splitlines()))
    assert [(row["p"], row["split"], row["n"]) for row in rows] == [(*c, "1") for c in choices]

    times = [(folder / "metrics.jsonl").stat().st_mtime_ns for folder in runs]
    edit(runs[0], code="0" * 10, commit="c0ffee" * 5 + "+changes")
    output = sweep_of(*sweep).good().stdout
    assert "4 runs, 4 finished" in output
    assert "1 finished run skipped: of other code or versions (code 0000000000, now" in output
    assert re.search(r"different code: igo 0000000000, \w+; commits .*c0ffeec\+changes", output)
    assert [(folder / "metrics.jsonl").stat().st_mtime_ns for folder in runs] == times

    (runs[1] / "metrics.jsonl").write_text("")
    longer_sweep = sweep_of(*sweep, "split=0,1,0.5")
    output = longer_sweep.stdout
    assert longer_sweep.returncode == 1
    assert "6 runs, 3 finished, 1 damaged, 2 to go" in output
    assert re.search(f"^damaged: .*: {runs[1]}/metrics.jsonl is damaged", output, re.M)
    assert output.splitlines()[-1].endswith("5 finished, 1 damaged")
    (runs[0] / "status.json").write_text((runs[1] / "status.json").read_text())
    output = sweep_of(*sweep, "split=0,1,0.5").stdout
    line = f"^damaged: .*: {runs[0]}/status.json is of another run, {runs[1].name}"
    assert re.search(line, output, re.M)
    edit(runs[2], plan_identity={"plan": "0" * 16, "rates": []})
    assert "another plan than this version of igo makes" in sweep_of(*sweep).error()


def test_it_ends_with_difference_interval_verdict_and_report() -> None:
    """Of two settings and two seeds, which are too few, and said to be so before the start."""
    sweep = ("-m", *SMALL, "schedule=method1,method3", "epochs=5", "seed=0,1")
    lines = forge.run(*sweep).good().stdout.splitlines()
    assert lines[0].startswith("note: 2 seeds cannot decide which of 2 settings is better; 6 can")
    (page,) = Path.cwd().glob("runs/sweeps/*/report/index.html")
    assert f"wrote {page}" in lines

    def accuracies(method: str) -> list[float]:
        words = (*SMALL, f"schedule={method}", "epochs=5")
        runs = [folder_of(*words, f"seed={seed}") for seed in (0, 1)]
        return [records(run)[-1]["test/accuracy"] for run in runs]

    differences = 100 * np.subtract(accuracies("method3"), accuracies("method1"))
    mean = np.mean(differences)
    ends = stats.ttest_1samp(differences, 0).confidence_interval()
    expected = [f"{x:+.2f}".replace("-", "−") for x in (mean, *ends)]
    (line,) = (x for x in lines if x.startswith("Method 3 − Method 1 (constant): "))
    assert re.findall(r"[+−]\d+\.\d+", line) == expected
    assert line.endswith("over 2 seeds: undecided (p 0.5)")


def test_a_failing_run_stops_no_other_and_is_named() -> None:
    sweep = (*SMALL, "learning_rate=1e30,0.1")
    process = sweep_of(*sweep)
    assert process.returncode == 1
    assert "failed: learning_rate=1e+30: the loss is not finite at update" in process.stdout
    bad = folder_of(*SMALL, "learning_rate=1e30")
    assert "Traceback" in (bad / "error.txt").read_text()
    assert status(folder_of(*SMALL, "learning_rate=0.1"))["state"] == "finished"

    time_of_error = (bad / "error.txt").stat().st_mtime_ns
    process = sweep_of(*sweep)
    assert process.returncode == 1
    assert "1 finished, 1 failed" in process.stdout
    assert (bad / "error.txt").stat().st_mtime_ns == time_of_error
    sweep_of(*sweep, "hydra.launcher.retry_failed=true")
    assert (bad / "error.txt").stat().st_mtime_ns > time_of_error


def test_a_run_that_was_stopped_from_outside_is_tried_again() -> None:
    """Before its record begins, and in its second epoch by the disk that its images are on."""
    words, stale = (*SMALL, "seed=0"), OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    process = sweep_of(*words, death=Death("igo.runs.run.run"))
    assert process.returncode == 1
    assert process.stdout.endswith("1 to go\n")
    death = Death("igo.train.loop.train_epoch", 2, error=stale)
    process = sweep_of(*words, death=death)
    assert process.returncode == 1
    assert stale.strerror in process.stdout
    assert "1 interrupted" in process.stdout
    sweep_of(*words).good()
    assert records(folder_of(*words)) == records_alone(*words)


@pytest.mark.slow
def test_code_that_is_edited_amid_a_sweep_changes_no_run_of_it(tmp_path: Path) -> None:
    """All modules that runs use are broken once the first run trains.

    The code is that of the program's own clone, and another one is installed.
    """
    source = tmp_path / "src"
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("src", "conf", "launch"):
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True, ignore=ignored)
    with (source / "igo" / "plans" / "rows.py").open("a") as module:
        module.write("# another clone\n")
    sweep = ("-m", *LONG, "epochs=20", "seed=0,1", "hydra.launcher.parallel=1", "runs_dir=runs")
    with subprocess.Popen(
        [*command(tmp_path)[:1], str(source / "train.py"), *sweep],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        while not list(tmp_path.glob("runs/*/metrics.jsonl")):
            assert process.poll() is None, process.stdout
            time.sleep(0.02)
        for room in ("train", "data", "runs", "plans"):
            for file in (source / "igo" / room).glob("*.py"):
                file.write_text("raise RuntimeError('edited')\n")
        process.communicate()
    runs = [status(folder) for folder in folders()]
    assert [run["state"] for run in runs] == ["finished", "finished"]
    assert runs[0]["code"] == runs[1]["code"] != manifest.code()
    assert runs[0]["commit"] == runs[1]["commit"]


@pytest.fixture
def paused_sweep(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep of two long runs, side by side. Each is paused once it has finished an epoch."""
    paused_runs: dict[Path, int] = {}
    with subprocess.Popen(
        command(tmp_path, "-m", *LONG, "seed=0,1", "hydra.launcher.parallel=2"),
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while len(paused_runs) < 2:
            assert process.poll() is None, "the sweep ended too early"
            time.sleep(0.05)
            for file in (tmp_path / "runs").glob("*/metrics.jsonl"):
                if file.parent not in paused_runs and file.read_text():
                    paused_runs[file.parent] = pid(file.parent)
                    os.kill(paused_runs[file.parent], signal.SIGSTOP)
        yield process
        if process.poll() is None:  # The test failed.
            for run in paused_runs.values():
                with suppress(ProcessLookupError):
                    os.kill(run, signal.SIGKILL)
            process.kill()


def pid(folder: Path) -> int:
    return int(str(status(folder)["pid"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "tell"),
    # coreutils' timeout tells the sweep, systemd its group.
    [(signal.SIGINT, os.kill), (signal.SIGTERM, os.killpg)],
)
def test_what_is_told_to_stop_continues_with_the_same_bits(
    number: int,
    tell: Callable[[int, int], None],
    paused_sweep: subprocess.Popen[str],
) -> None:
    runs = [folder_of(*LONG, f"seed={seed}") for seed in (0, 1)]
    tell(paused_sweep.pid, number)
    for run in map(pid, runs):
        while re.search(r"ShdPnd:\s+0+$", Path(f"/proc/{run}/status").read_text(), re.M):
            time.sleep(0.05)  # The sweep has not told its run yet.
        os.kill(run, signal.SIGCONT)
    output, _ = paused_sweep.communicate()
    assert paused_sweep.returncode == 128 + number
    assert "interrupted seed=0: stopped by SIGTERM (" in output
    assert [state_of(run) for run in runs] == ["interrupted", "interrupted"]
    sweep_of(*LONG, "seed=0,1").good()
    for seed, folder in enumerate(runs):
        assert records(folder) == records_alone(*LONG, f"seed={seed}")


def test_a_run_that_another_process_has_is_waited_for() -> None:
    """As the runs of a sweep whose manager was killed, which live on."""
    run = folder_of(*SMALL, "seed=0")
    run.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        with RunFolder(run).held():
            fresh = sweep_of(*SMALL, "seed=1,0", "fresh=true")
            assert "is being worked on by another process; fresh=true has removed" in fresh.error()
            process = pool.submit(sweep_of, *SMALL, "seed=0")
            with pytest.raises(TimeoutError):
                process.result(timeout=3)
            assert not (run / "metrics.jsonl").exists()
        process.result().good()
    assert status(run)["state"] == "finished"


def test_a_refusal_and_a_dry_run_train_nothing_and_fresh_trains_again() -> None:
    for words, message in (
        (["p=0.5,2"], "p=2"),
        (["schedule=graduated,cosine", "p=0.1"], "the profile 'cosine' has no p"),
        (["hydra.launcher.parallel=-1"], "hydra.launcher.parallel=-1 is not allowed"),
    ):
        assert message in sweep_of(*SMALL, *words).error()
    lines = sweep_of(*SMALL, "seed=0,1", "dry_run=true").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["new", "seed=0"], ["new", "seed=1"]]
    assert not Path("runs").exists()
    sweep_of(*SMALL, "seed=0")
    (folder,) = folders()
    edit(folder, started="then")
    sweep_of(*SMALL, "seed=0", "fresh=true").good()
    assert status(folder)["started"] != "then"
    assert yaml.safe_load((folder / "config.yaml").read_text())["fresh"] is False


@pytest.mark.parametrize(("launcher", "code"), [("basic", 2), ("local", 1)])
def test_every_launcher_trains_every_run_and_the_command_of_a_run_is_the_run(
    launcher: str, code: int
) -> None:
    """Also that of Hydra, and beside a run that fails. A file is in a folder of the user's."""
    file = Path("own/experiment/near.yaml")
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nseed: 7\n")
    words = ("++learning_rate=0.1,1e30", "experiment=near", *SMALL, "--config-dir", "own")
    process = sweep_of(f"hydra/launcher={launcher}", *words)
    assert process.returncode == code
    if launcher == "basic":
        assert re.match(r"error: the run .*=1e\+30 .*: the loss is not finite.*\n$", process.stderr)
    else:
        assert process.stderr == ""
    runs = {folder: status(folder) for folder in folders()}
    assert {run["state"] for run in runs.values()} == {"failed", "finished"}
    for folder, run in runs.items():
        process = forge.run(*shlex.split(run["command"])[2:])
        assert f"run {folder}" in process.stdout


ASKS = """
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class Asks(Sweeper):
    def __init__(self, **_): pass

    def setup(self, **arguments):
        self.launcher = Plugins.instance().instantiate_launcher(**arguments)

    def sweep(self, arguments):
        shares = (0, 0.25)
        lines = [[*arguments, f"dataset.validation={share}"] for share in shares]
        for share, run in zip(shares, self.launcher.launch(lines, initial_job_idx=0)):
            print(f"asked {share}: {run.return_value}")
"""


def test_a_sweeper_that_optimizes_gets_the_accuracy() -> None:
    """Validation, else test. igo's launchers, which return nothing, are refused before any run."""
    Path("hydra_plugins").mkdir()
    Path("hydra_plugins/asks.py").write_text(ASKS)
    asks = ("-m", *SMALL, "epochs=1", "hydra.sweeper._target_=hydra_plugins.asks.Asks")
    line = interpreter(*asks, PYTHONPATH=".").error()
    assert "add hydra/launcher=basic" in line
    assert not Path("runs").exists()
    output = interpreter(*asks, "hydra/launcher=basic", PYTHONPATH=".").good().stdout
    for share, name in (("0", "test/accuracy"), ("0.25", "validation/accuracy")):
        run = folder_of(*SMALL, "epochs=1", f"dataset.validation={share}")
        assert f"asked {share}: {records(run)[-1][name]}\n" in output


@pytest.fixture
def composer() -> Iterator[Composer]:
    """For one test: Hydra can be initialized once at a time."""
    with hydra_initialized():
        yield Composer("config")


SETTINGS = [
    "learning_rate=0.1",
    "learning_rate='0.3'",
    "seed=1",
    "seed=2",
    "p=0.3",
    "p=1",
    "split=0",
    "noise.batches=3",
    "noise.batches=4",
    "noise={batches:5}",
    "tracking.tags=[a]",
    "schedule=step",
    "schedule=graduated",
    "schedule.stages=2",
    "experiment=fashion_mnist",
    "experiment=cifar100",
    "optimizer=sgd",
    "optimizer=shb",
    "model=resnet18",
    "engine.compile=true",
    "max_batch_size=64",
]
PREFIXES = ("", "", "", "++", "++", "+", "~")
WORDS = st.tuples(st.sampled_from(PREFIXES), st.sampled_from(SETTINGS)).map("".join)
FILES = st.lists(st.sampled_from(SETTINGS), max_size=3)


@settings(max_examples=12)
@given(FILES, st.lists(WORDS, max_size=6))
@example(["learning_rate=0.1"], ["++learning_rate=0.3"])
@example([], ["++seed=1", "seed=2", "++seed=3", "noise={batches:5}", "noise.batches=3"])
@example(["tracking.tags=[7]"], ["p=1", "learning_rate='0.3'", "seed=2", "~schedule"])
def test_a_sweep_of_one_is_the_single_run(words_of_file: list[str], words: list[str]) -> None:
    """Of the words of its file and then the typed ones, as Hydra and OmegaConf compose them."""

    @cache
    def single(*words: str) -> Config:
        names = [word.partition("=")[0].lstrip("+~") for word in words]
        return config_of(compose("config", list(words)), names)

    with hydra_initialized():
        params = dict(word.split("=") for word in words_of_file)
        (line,) = lines_of(params, words)
        try:
            config = single(*map("=".join, params.items()), *words)
        except (HydraException, UserError):
            with pytest.raises((HydraException, UserError)):
                Composer("config").job(line)
            return
        job = Composer("config").job(line)
        assert job.config == config
        assert single(*job.overrides) == config  # status.json has the overrides.


def test_jobs_of_one_name_are_one_unless_other_settings_differ(composer: Composer) -> None:
    for setting in ("data_dir", "runs_dir"):
        jobs = [composer.job([f"{setting}={folder}"]) for folder in ("a", "b")]
        with pytest.raises(ConfigError, match=rf"{setting}=b is not allowed: .* its own runs_dir"):
            distinct(jobs)
    lines = [["p=0.1", "seed=1"], ["p=0.5", "seed=1"], ["p=0.5", "seed=1"]]
    assert [job.label for job in distinct(map(composer.job, lines))] == ["p=0.1", "p=0.5"]


def test_null_chooses_no_experiment() -> None:
    lines = lines_of({"experiment": "cifar100", "seed": "1"}, ["experiment=null,path"])
    assert lines == [["seed=1"], ["seed=1", "experiment=path"]]


NOT_JUDGED = "tuning"  # The best mean is taken, see results/cifar100.md.


def seeds_of(lines: list[list[str]]) -> list[str]:
    return [override for line in lines for override in line if override.startswith("seed=")]


@pytest.mark.parametrize("path", sorted((ROOT / "launch" / "sweep").glob("*.yaml")), ids=str)
def test_sweeps_are_sound_and_have_seeds_enough(path: Path, composer: Composer) -> None:
    """Each has as many runs as its comment says, with plans."""
    check_file(composer, path.stem)
    text = path.read_text()
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    lines = lines_of(params, [])
    assert f" {len(lines)} runs" in text
    seeds = seeds_of(lines)
    lines_of_seed = [line for line in lines if not seeds or seeds[0] in line]
    jobs = distinct(map(composer.job, lines_of_seed))
    assert all(make_plan(job.config).updates > 0 for job in jobs)
    if len(jobs) > 1 and not path.stem.endswith(NOT_JUDGED):
        assert len({*seeds}) >= least_seeds(comb(len(jobs), 2))
    assert {*seeds_of(lines_of(params, ["seed=4,5"]))} == {"seed=4", "seed=5"}


def test_a_sweep_with_too_few_seeds_says_how_many_would_do(composer: Composer) -> None:
    """With n pairs the sign-flip test's p is 2/2^n at least: 5 % / 3 tests need n = 7."""

    def note(seeds_of: dict[str, int]) -> str:
        lines = [[word, f"seed={seed}"] for word, n in seeds_of.items() for seed in range(n)]
        return too_few_seeds([composer.job(line) for line in lines])

    three_settings = ("p=0.1", "p=0.5", "p=1")
    assert "6 seeds cannot decide" in note(dict.fromkeys(three_settings, 6))
    assert "seed='range(7)'" in note(dict.fromkeys(three_settings, 6))
    assert note(dict.fromkeys(three_settings, 7)) == ""
    assert "5 seeds cannot decide" in note({"p=0.1": 5, "p=1": 6})
    assert note({"evaluate_every=1": 2, "evaluate_every=2": 2}) == ""  # It is one setting.
    assert note({"epochs=1": 2, "epochs=2": 2}) == ""  # Each is of its own task.


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch, composer: Composer) -> None:
    monkeypatch.setattr(local, "allowed_cores", lambda: 8)
    on_cpu = [composer.job(["engine.device=cpu"])]
    table = {(None, 1): 8, (None, 3): 2, (None, 16): 1, (3, 1): 3}
    for (parallel, threads), runs in table.items():
        assert local.rooms(on_cpu, local.Local(parallel, threads)) == [None] * runs
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")  # These GPUs are this process's.
    on_gpu = [composer.job(["engine.device=auto"])]
    assert local.rooms(on_gpu, local.Local(runs_per_gpu=2)) == ["3", "5", "3", "5"]
    assert local.rooms(on_gpu, local.Local(parallel=3, runs_per_gpu=2)) == ["3", "5", "3"]
    assert local.rooms(on_cpu, local.Local(parallel=1)) == [None]


def test_a_run_of_a_sweep_starts_its_workers_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a server would have each worker that reads images import torch: for seconds."""
    methods = [multiprocessing.get_start_method()]
    monkeypatch.setattr(os, "setpgrp", lambda: None)
    monkeypatch.setattr(
        local, "execute", lambda *_, **__: methods.append(multiprocessing.get_start_method())
    )
    multiprocessing.set_start_method("forkserver", force=True)  # A child of a server has it.
    try:
        local._work(Job((), configure(*SMALL)), 1, None)
    finally:
        multiprocessing.set_start_method(None, force=True)
    assert methods[0] == methods[1]
