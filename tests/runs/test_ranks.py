"""Several processes train one run as one process does: numbers, record, resume, endings.

Processes are forks of one (see forked), joined by gloo; torchrun is tried at the end.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import in_double
import pytest
import rounding
import torch
import torch.nn.functional as F
from conftest import TINY, Ended, assert_equal, clean_environment, records, run_folder, status
from forked import Death, forge
from test_engine import gradient, plain_network, samples
from torch import nn
from trained import in_parts

from igo.config.schema import EngineConfig, OptimizerConfig
from igo.ground.errors import UserError
from igo.ground.ranks import Ranks
from igo.runs import checkpoint
from igo.runs.stopping import Stopped, signals
from igo.train import engine, machine, optimizers
from igo.train.engine import Engine

# Runs are compared in float64: see in_double. What they log is a sum over samples in float32.
APART, LOGGED = 1e-6, rounding.bound(10, 360)
SILENT = "tracking=none"
BASE = (  # 5 batches of 96, then 3: of two sizes, each in several parts
    *TINY,
    SILENT,
    "epochs=4",
    "schedule.stages=2",
    "batch_size=20",
    "split=0",
    "engine.precision=fp32",
    "engine.micro_batch_size=13",
    "optimizer=shb",
    "learning_rate=0.02",
    "dataset.augment.crop=1",
)


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SBATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "2"}


def test_a_process_learns_who_it_is_from_what_started_it() -> None:
    cases: list[tuple[dict[str, str], Ranks]] = [
        ({}, Ranks(0, 1, 0)),
        (TORCHRUN, Ranks(3, 8, 1)),
        (SRUN, Ranks(5, 8, 2)),
        (SBATCH, Ranks(0, 1, 0)),  # a batch script that starts the program itself, once
        (SRUN | TORCHRUN, Ranks(3, 8, 1)),  # torchrun started by srun
        ({"WORLD_SIZE": "8"}, Ranks(0, 1, 0)),
    ]
    for environment, ranks in cases:
        with mock.patch.dict(os.environ, environment, clear=True):
            assert Ranks.of_environment() == ranks, environment


def engine_of(ranks: Ranks, precision: str = "fp32") -> Engine:
    return machine.choose(EngineConfig("cpu", precision, micro_batch_size=5), ranks=ranks)


def steps_on_ranks() -> dict[str, Any]:
    """On each rank: gradient and statistics of BatchNorm of 17 samples in parts, and fp16's steps.

    The last rank alone has the gradient of the second fp16 step overflow.
    """
    ranks = Ranks.of_environment()
    results: dict[str, Any] = {}
    with ranks.joined():
        run = engine_of(ranks)
        run, model = engine.distributed(run, run.prepare(plain_network(nn.BatchNorm2d(6))))
        images, labels = (t[ranks.rank :: ranks.size] for t in samples(17))
        run.backward(model.train(), *in_parts(run, images, labels, 17))
        engine.average_statistics(model, ranks)
        results["gradient"], results["mean"] = gradient(model), next(iter(model.buffers()))
        results["names"] = list(model.state_dict())
        run = engine_of(ranks, "fp16")
        run, model = engine.distributed(run, run.prepare(plain_network()))
        optimizer = optimizers.build(OptimizerConfig("shb", 0.9), model.parameters(), 0.1)
        results["fp16"] = []
        for factor in (1.0, 1e30, 1.0):
            images, labels = (t[ranks.rank :: ranks.size] for t in samples(9))
            images = images * (factor if ranks.rank == ranks.size - 1 else 1)
            run.backward(model, *in_parts(run, images, labels, 9))
            run.update(optimizer)
            parameters = nn.utils.parameters_to_vector(model.parameters()).detach()
            results["fp16"].append([parameters, run.scaler.get_scale()])
    return results


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The steps of three ranks."""
    place = tmp_path_factory.mktemp("steps")
    return forge.results(3, "test_ranks.steps_on_ranks", folder=place)


def test_batchnorm_on_cpus_is_of_each_ranks_share(steps: list[dict[str, Any]]) -> None:
    """By hand: each rank's four parts through its own copy, running statistics averaged."""
    total, means, terms = torch.zeros(()), torch.zeros(6), 0
    for rank in range(3):
        model = plain_network(nn.BatchNorm2d(6))
        images, labels = (t[rank::3] for t in samples(17))
        for piece, answers in zip(images.tensor_split(4), labels.tensor_split(4), strict=True):
            F.cross_entropy(model(piece), answers, reduction="sum").backward()
        total = total + gradient(model) / 17
        means = means + model.get_buffer("1.running_mean") / 3
        terms = rounding.terms(model, images)
    for result in steps:
        rounding.assert_close(result["gradient"], total, terms)
        rounding.assert_close(result["mean"], means, terms)
        assert result["names"] == list(plain_network(nn.BatchNorm2d(6)).state_dict())
    assert engine_of(Ranks(1, 2)).smallest_part([6, 17]) == 1  # 3 samples in two parts


def test_an_overflow_on_one_rank_skips_the_step_on_all(steps: list[dict[str, Any]]) -> None:
    for result in steps:
        (
            (parameters, scale),
            (parameters_after_overflow, scale_after_overflow),
            (parameters_after_step, last_scale),
        ) = result["fp16"]
        assert torch.equal(parameters, parameters_after_overflow)
        assert scale_after_overflow == last_scale == scale / 2
        assert not torch.equal(parameters_after_step, parameters)
        assert_equal(result["fp16"], steps[0]["fp16"])


def assert_same_run(place: Path, expected_place: Path) -> None:
    """Records and the whole state, to rounding; each epoch once."""
    rows, expected_rows = map(records, (place, expected_place))
    assert [row["epoch"] for row in rows] == list(range(1, len(expected_rows) + 1))
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert row == {
            name: value and pytest.approx(value, rel=LOGGED) for name, value in expected_row.items()
        }
        for exact in ("b_m", "samples", "updates", "train/accuracy", "test/accuracy"):
            assert row[exact] == expected_row[exact]
    name = run_folder(expected_place).name
    assert run_folder(place).name == name
    state, expected_state = (
        checkpoint.load(run_folder(p) / "checkpoint.pt", name) for p in (place, expected_place)
    )
    for part in ("model", "optimizer"):
        torch.testing.assert_close(state[part], expected_state[part], rtol=APART, atol=APART)


def train(place: Path, *arguments: str, **settings: Any) -> Ended:
    """``forge.run`` with the network in float64."""
    line = (*arguments, f"runs_dir={place / 'runs'}")
    return forge.run(*line, folder=place, function="in_double.main", **settings)


@pytest.fixture(scope="module")
def single_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, nothing happens to it."""
    place = tmp_path_factory.mktemp("alone")
    train(place, *BASE).good()
    return place


def test_two_ranks_train_what_one_process_trains(tmp_path: Path, single_place: Path) -> None:
    """Momentum, augmentation, micro-batches, unequal shares, C² of all ranks' pieces."""
    process = train(tmp_path, *BASE, ranks=2).good()
    assert (process.stderr, *process.others) == ("", (0, "", ""))  # rank 0 alone speaks
    assert "on CPUs BatchNorm has the statistics of each process's share" in process.stdout
    assert_same_run(tmp_path, single_place)
    assert {row["b_m"] for row in records()} == {19.2, 32.0}
    assert (status()["hardware"]["ranks"], status(single_place)["hardware"]["ranks"]) == (
        2,
        1,
    )
    assert "finished before" in train(tmp_path, *BASE, ranks=2).good().stdout


def test_stopped_and_continued_by_other_numbers_of_ranks(
    tmp_path: Path, single_place: Path
) -> None:
    """Two ranks, of which the second gets SIGTERM in epoch 2; one, killed; three, to the end."""
    stop = Death("igo.runs.terminal.ProgressBar.advance", 7, signal=signal.SIGTERM, rank=1)
    process = train(tmp_path, *BASE, death=stop, ranks=2)
    assert process.codes == [143, 143]
    assert "stopped by SIGTERM" in process.stdout
    assert (status()["state"], status()["signal"]) == ("interrupted", "SIGTERM")
    assert [row["epoch"] for row in records()] == [1]
    killed = train(tmp_path, *BASE, death=Death("igo.runs.checkpoint.save", 1, "after"))
    assert killed.returncode == -signal.SIGKILL
    process = train(tmp_path, *BASE, ranks=3).good()
    assert "continuing after epoch 2 of 4" in process.stdout
    assert_same_run(tmp_path, single_place)


STEP = "igo.runs.terminal.ProgressBar.advance"


@pytest.mark.parametrize(
    ("death", "code", "line"),
    [
        (Death(STEP, 2, rank=1), -signal.SIGKILL, ""),
        (Death("igo.train.datasets.open_data", error=UserError("no data"), rank=1), 2, "no data"),
    ],
)
def test_a_rank_that_ends_ends_the_other(death: Death, code: int, line: str) -> None:
    """Each says one line. A run that has begun is interrupted: a sweep tries it again."""
    process = forge.run(*TINY, SILENT, death=death, ranks=2)
    assert process.codes == [2, code], process
    assert process.error().startswith("error: another process of this run has ended")
    assert process.others[0][2] == (line and f"error: in process 1: {line}\n")
    if death.function == STEP:
        assert status()["state"] == "interrupted"
        forge.run(*TINY, SILENT, ranks=2).good()


def test_ranks_that_cannot_train_together_end_in_one_line() -> None:
    for words, reason in (
        (("dataset.samples=21", "batch_size=2"), "has 1 sample, fewer than the 2 processes"),
        (("seed=${oc.env:RANK}",), "the processes of this run differ in settings or code"),
    ):
        process = forge.run(*TINY, SILENT, "split=0", *words, ranks=2)
        assert process.codes == [2, 2], process
        assert reason in process.error()
        assert not [*Path().glob("runs/*")]


class Two(Ranks):
    """One of two ranks; the other never has the larger number."""

    def largest(self, number: int) -> Callable[[], int]:
        return lambda: number


def test_a_signal_sent_twice_ends_the_ranks_at_the_next_update() -> None:
    """`timeout` sends it to its command and to the group."""
    updates = []

    def train_two() -> None:
        with signals(Two(0, 2)) as check_stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            for update in (1, 2):
                check_stop()
                updates.append(update)

    with pytest.raises(Stopped, match="143"):
        train_two()
    assert updates == [1]


@pytest.mark.slow
def test_torchrun_starts_all_again_where_one_is_killed(tmp_path: Path, single_place: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words += ["--max-restarts=1", in_double.__file__, *BASE, "runs_dir=runs"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=clean_environment(), **pipes) as process:
        next(line for line in process.stdout if re.match(r" *1 .*%", line))  # not of the plan
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(ranks[-1]), signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("continuing after epoch") == 1
    assert_same_run(tmp_path, single_place)
