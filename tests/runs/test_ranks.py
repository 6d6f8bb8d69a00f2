"""Several processes train one run as one process does: numbers, record, resume, endings.

Processes are forks of one (see forked), joined by gloo; what launches them is tried at the end.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import in_double
import pytest
import rounding
import torch
import torch.nn.functional as F
from conftest import ROOT, TINY, Ended, clean_environment, configure, records, run_folder, status
from forked import Death, forge
from hypothesis import given
from hypothesis import strategies as st
from resumed import outcome
from test_engine import gradient, normed_network, plain_network, samples
from torch import Tensor, nn
from wandb_server import history

from igo.config.schema import EngineConfig, OptimizerConfig
from igo.ground.ranks import Ranks
from igo.ground.rendezvous import slurm_address
from igo.train import batchnorm, datasets, engine, optim
from igo.train.batchnorm import SyncedBatchNorm
from igo.train.engine import Engine

# Runs are compared in float64: see in_double. What they log is a sum over samples in float32.
APART, LOGGED = 1e-6, rounding.bound(10, 360)
SILENT = "tracking=none"
BASE = (  # 5 batches of 96, then 3: of two sizes, each in several parts
    *TINY, "epochs=4", "schedule.stages=2", "batch_size=20", "split=0", "engine.precision=fp32",
    "engine.micro_batch_size=13", "noise.online=0.3", "optimizer=shb", "learning_rate=0.02",
    "dataset.augment.crop=1",
)  # fmt: skip
SMALL = ("dataset.samples=21", "batch_size=2", "noise.batches=2", "epochs=2", "schedule.stages=2")


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SBATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "2"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, (0, 1, 0)),
        (TORCHRUN, (3, 8, 1)),
        (SRUN, (5, 8, 2)),
        (SBATCH, (0, 1, 0)),  # a batch script that starts the program itself, once
        (SRUN | TORCHRUN, (3, 8, 1)),  # torchrun started by srun
        ({"WORLD_SIZE": "8"}, (0, 1, 0)),
    ],
)
def test_a_process_learns_who_it_is_from_what_started_it(
    environment: dict[str, str], wanted: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TORCHRUN | SBATCH | SRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ranks = Ranks.of_environment()
    assert (ranks.rank, ranks.size, ranks.local_rank) == wanted


def test_ranks_of_srun_meet_on_the_first_node_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames n[07-09]" ] && printf "n07\\nn08\\n"')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4000123")
    ports = set()
    for step, nodes, first in (("0", "n[07-09]", "n07"), ("1", "gpu-3", "gpu-3")):
        monkeypatch.setenv("SLURM_STEP_ID", step)
        monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
        address, port = slurm_address()
        assert address == first
        assert 1024 < port < 32768  # below the ports that systems give away
        ports.add(port)
    assert len(ports) == 2  # steps of one job may run side by side


def everyone(size: int) -> list[Ranks]:
    return [Ranks(rank, size) for rank in range(size)]


@given(b=st.integers(1, 60), size=st.integers(1, 9), micro=st.integers(1, 70))
def test_ranks_hold_each_part_of_a_batch_together_and_once(b: int, size: int, micro: int) -> None:
    off = torch.amp.GradScaler("cpu", enabled=False)
    whole = torch.arange(b)
    alone = Engine(torch.device("cpu"), None, off, micro)
    wanted = [part.tolist() for _, part in alone.parts(whole, whole)]
    held: list[list[int]] = [[] for _ in wanted]
    for ranks in everyone(size):
        (share,) = ranks.share([whole])
        parts = Engine(torch.device("cpu"), None, off, micro, ranks=ranks).parts(
            share, share, range(b)
        )
        for rows, (_, part) in zip(held, parts, strict=True):
            assert abs(len(part) - len(wanted[0]) / size) <= 1 + 1 / size  # nearly equal
            rows.extend(part.tolist())
    assert [sorted(rows) for rows in held] == wanted


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_test_set_is_seen_once_by_all_ranks_together(size: int) -> None:
    opened = datasets.open_data(configure("dataset=digits"), torch.device("cpu"))
    whole = torch.cat([images for images, _ in opened.test_batches()])
    shares = [list(opened.test_batches(ranks)) for ranks in everyone(size)]
    for ranks, share in zip(everyone(size), shares, strict=True):
        assert torch.equal(torch.cat([images for images, _ in share]), whole[ranks.rank :: size])
    assert sum(len(labels) for share in shares for _, labels in share) == 360


SPLITS = ([4, 2, 3], [8, 0, 1], [0, 9, 0])  # samples on each of three ranks
KINDS: tuple[tuple[Any, tuple[int, ...], dict[str, Any]], ...] = (
    (nn.BatchNorm2d, (5, 3, 2), {}),
    (nn.BatchNorm2d, (5, 4, 4), {"momentum": None, "eps": 1e-3}),
    (nn.BatchNorm1d, (5,), {"affine": False}),
    (nn.BatchNorm3d, (5, 2, 2, 2), {"momentum": 0.3}),
)


def norm_and_input(kind: int, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer, nine samples of mean 100 and spread 1, and a slope for each output."""
    make, shape, settings = KINDS[kind]
    draw = torch.Generator().manual_seed(kind)
    norm = make(5, **settings, dtype=dtype)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=draw)
    x, slope = (torch.randn(9, *shape, generator=draw, dtype=torch.float64) for _ in range(2))
    return norm, (100 + x).to(dtype), slope.to(dtype)


def passed(norm: nn.Module, x: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """Forward and backward twice, then evaluation."""
    x = x.clone().requires_grad_()
    for _ in range(2):
        output = norm(x)
        output.backward(slope)
    tensors = {name: p.grad for name, p in norm.named_parameters()} | dict(norm.named_buffers())
    return {**tensors, "output": output.detach(), "slope": x.grad, "eval": norm.eval()(x).detach()}


def normed_on_ranks() -> list[dict[str, Tensor]]:
    """One result for each split, kind and dtype."""
    results = []
    with Ranks.of_environment().joined() as ranks:
        for split in SPLITS:
            for kind in range(len(KINDS)):
                for dtype in (torch.float32, torch.float64):
                    norm, x, slope = norm_and_input(kind, dtype)
                    synced = batchnorm.synced(norm, ranks)
                    share = (t.split(split)[ranks.rank] for t in (x, slope))
                    results.append(passed(synced, *share))
    return results


def test_synced_batchnorm_is_batchnorm_of_the_whole_batch(tmp_path: Path) -> None:
    """Against torch's in float64: outputs, slopes, gradients and buffers; uneven and empty ranks.

    A layer without a sample has no output and yet the statistics and its part in the sums.
    """
    results = iter(zip(*forge.results(tmp_path, 3, "test_ranks.normed_on_ranks"), strict=True))
    for split in SPLITS:
        for kind in range(len(KINDS)):
            norm, x, slope = norm_and_input(kind, torch.float64)
            for dtype, close in ((torch.float32, 3e-6), (torch.float64, 1e-10)):
                norm, x, slope = norm_and_input(kind, dtype)
                wanted = passed(norm.double(), x.double(), slope.double())
                by_rank = next(results)
                for name, value in wanted.items():
                    parts = [tensors[name].double() for tensors in by_rank]
                    if name in ("output", "slope", "eval"):
                        assert [len(part) for part in parts] == split
                        whole = torch.cat(parts)
                    elif name in ("weight", "bias"):
                        whole = sum(parts, torch.zeros(()))
                    else:
                        assert all(torch.equal(part, parts[0]) for part in parts)
                        whole = parts[0]
                    slack = close * (10 if name == "eval" else 1)  # torch's own x·w/σ + (…)
                    torch.testing.assert_close(whole, value.double(), rtol=close, atol=slack)


def test_timms_layers_keep_their_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.layers import BatchNormAct2d

    x = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    norm = BatchNormAct2d(4, act_layer=nn.SiLU)
    wanted = norm(x)
    synced = SyncedBatchNorm.of(BatchNormAct2d(4, act_layer=nn.SiLU), Ranks())
    rounding.assert_close(synced(x), wanted, 2 * 6 * 9)
    rounding.assert_close(synced.eval()(x), norm.eval()(x), 4)


NETWORKS = {"plain": plain_network, "normed": normed_network}  # without and with BatchNorm


def engine_of(ranks: Ranks, precision: str = "fp32", norm: str = "synced") -> Engine:
    config = EngineConfig("cpu", precision, micro_batch_size=5, threads=1, batchnorm=norm)
    return engine.build(config, ranks=ranks)


def gradients_on_ranks() -> dict[str, Tensor]:
    """Gradients and totals of batches of 2 (one rank of three has none) and 17 (four parts)."""
    results = {}
    with Ranks.of_environment().joined() as ranks:
        for kind in ("plain", "normed"):
            for b in (2, 17):
                for norm in ("synced", "local"):
                    run = engine_of(ranks, norm=norm)
                    network = run.prepare(NETWORKS[kind]()).train()
                    share = (t[ranks.rank :: ranks.size] for t in samples(b))
                    totals = run.backward(network, *share, range(b))
                    results[f"{kind} {b} {norm}"] = gradient(network)
                    results[f"{kind} {b} {norm} totals"] = totals
                    batchnorm.average(network, ranks)
                    buffers = [t for t in network.buffers() if t.is_floating_point()]
                    results[f"{kind} {b} {norm} buffers"] = torch.cat([*buffers, torch.zeros(1)])
    return results


def test_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    results = forge.results(tmp_path, 3, "test_ranks.gradients_on_ranks")
    for kind, norm in (("plain", "synced"), ("plain", "local"), ("normed", "synced")):
        for b in (2, 17):
            run = engine_of(Ranks())
            network = run.prepare(NETWORKS[kind]()).train()
            totals = run.backward(network, *samples(b))
            for result in results:
                assert torch.equal(result[f"{kind} {b} {norm}"], results[0][f"{kind} {b} {norm}"])
            key = f"{kind} {b} {norm}"
            terms = rounding.terms(network, samples(b)[0])
            rounding.assert_close(results[0][key], gradient(network), terms, name=key)
            summed = sum(result[f"{key} totals"] for result in results)
            rounding.assert_close(summed, totals, terms, name=key)


def test_local_statistics_are_those_of_each_ranks_share_and_their_mean(tmp_path: Path) -> None:
    """By hand: each rank's share of each part through its own copy of the model."""
    results = forge.results(tmp_path, 3, "test_ranks.gradients_on_ranks")
    for b, parts in ((2, [[0, 1]]), (17, [range(5), range(5, 9), range(9, 13), range(13, 17)])):
        total, buffers, terms = torch.zeros(()), torch.zeros(()), 0
        for rank in range(3):
            network = normed_network().train()
            for part in parts:
                mine = [i for i in part if i % 3 == rank]
                if mine:
                    images, labels = (t[mine] for t in samples(b))
                    F.cross_entropy(network(images), labels, reduction="sum").backward()
            total = total + (gradient(network) / b if b > rank else 0)
            terms = rounding.terms(network, samples(b)[0])
            floats = [t for t in network.buffers() if t.is_floating_point()]
            buffers = buffers + torch.cat([*floats, torch.zeros(1)]) / 3
        for result in results:
            key = f"normed {b} local"
            rounding.assert_close(result[key], total, terms, name=key)
            rounding.assert_close(result[f"{key} buffers"], buffers, terms, name=key)
            assert not torch.allclose(result[key], result[f"normed {b} synced"], rtol=1e-2)


def overflow_on_ranks() -> list[Tensor]:
    """fp16: one step whose scaled gradient overflows on the last rank alone, and one that is good.

    Before them, one on a single sample: two ranks have none.
    """
    results = []
    with Ranks.of_environment().joined() as ranks:
        run = engine_of(ranks, "fp16")
        network = run.prepare(plain_network())
        optimizer = optim.build(OptimizerConfig("shb", 0.9), network.parameters(), 0.1)
        for b, factor in ((1, 1.0), (9, 1e30), (9, 1.0)):
            images, labels = (t[ranks.rank :: ranks.size] for t in samples(b))
            images = images * (factor if ranks.rank == ranks.size - 1 else 1)
            run.step(network, optimizer, (images, labels), range(b))
            results.append(nn.utils.parameters_to_vector(network.parameters()).detach().clone())
            results.append(torch.tensor(run.scaler.get_scale()))
    return results


def test_an_overflow_on_one_rank_skips_the_step_on_all(tmp_path: Path) -> None:
    results = forge.results(tmp_path, 3, "test_ranks.overflow_on_ranks")
    for result in results:
        first, scale, skipped, halved, good, kept = result
        assert torch.equal(first, skipped)
        assert halved == kept == scale / 2
        assert not torch.equal(good, first)
        assert torch.isfinite(good).all()
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def codes(ended: Ended) -> list[int]:
    return [ended.returncode, *(code for code, _, _ in ended.others)]


def assert_quiet(ended: Ended) -> None:
    """Rank 0 alone speaks, and has nothing to complain of."""
    assert ended.stderr == ""
    assert all((out, err) == ("", "") for _, out, err in ended.others)


def assert_same_run(place: Path, wanted: Path) -> None:
    """Records and the whole state, to rounding; each epoch once."""
    ours, theirs = outcome(place), outcome(wanted)
    assert [row["epoch"] for row in ours.records] == list(range(1, len(theirs.records) + 1))
    for row, other in zip(ours.records, theirs.records, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert value == (other[name] and pytest.approx(other[name], rel=LOGGED)), name
        for exact in ("b_m", "samples", "updates", "train/accuracy", "test/accuracy"):
            assert row[exact] == other[exact]
    for part in ("model", "optimizer"):
        torch.testing.assert_close(ours.state[part], theirs.state[part], rtol=APART, atol=APART)


def train(place: Path, *arguments: str, **how: Any) -> Ended:
    """``forge.run`` with the network in float64."""
    line = (*arguments, f"runs_dir={place / 'runs'}")
    return forge.run(place, *line, function="in_double.main", **how)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, nothing happens to it."""
    place = tmp_path_factory.mktemp("alone")
    train(place, *BASE, SILENT).good()
    return place


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_train_what_one_process_trains(tmp_path: Path, alone: Path, size: int) -> None:
    """Synced BatchNorm, momentum, augmentation, micro-batches, ragged batches, C² and its pairs."""
    ended = train(tmp_path, *BASE, SILENT, ranks=size)
    assert codes(ended) == [0] * size
    assert_quiet(ended)
    assert_same_run(tmp_path, alone)
    assert {row["b_m"] for row in records(run_folder(tmp_path))} == {19.2, 32.0}
    assert (status(tmp_path)["hardware"]["ranks"], status(alone)["hardware"]["ranks"]) == (size, 1)
    assert status(tmp_path)["hardware"]["batchnorm"] == "synced"
    assert run_folder(tmp_path).name == run_folder(alone).name

    if size == 2:
        again = train(tmp_path, *BASE, SILENT, ranks=size)
        assert codes(again) == [0] * size
        assert "finished before" in again.stdout
        assert_quiet(again)


def test_batches_smaller_than_the_number_of_ranks(tmp_path: Path) -> None:
    """21 samples in 11 batches: the smallest has one sample, so that two ranks are too many."""
    ended = train(tmp_path, *BASE, *SMALL, SILENT, "data_dir=nowhere", ranks=2)
    assert codes(ended) == [2, 2], ended
    assert "the smallest batch has 1 sample, fewer than the 2 ranks" in ended.error()
    assert not (tmp_path / "runs").exists()


def test_batches_of_as_many_samples_as_ranks(tmp_path: Path) -> None:
    """21 samples in 7 batches of three on three ranks; C² from batches of three."""
    arguments = (*BASE, *SMALL, SILENT, "batch_size=3")
    for name, size in (("one", 1), ("three", 3)):
        ended = train(tmp_path / name, *arguments, ranks=size)
        assert codes(ended) == [0] * size, ended
    assert_same_run(tmp_path / "three", tmp_path / "one")


def test_stopped_and_continued_by_other_numbers_of_ranks(tmp_path: Path, alone: Path) -> None:
    """Two ranks, of which the second gets SIGTERM in epoch 2; one, killed; three, to the end."""
    stop = Death("igo.runs.terminal.ProgressBar.advance", 7, signal=signal.SIGTERM, rank=1)
    ended = train(tmp_path, *BASE, death=stop, ranks=2)
    assert codes(ended) == [143, 143]
    assert_quiet(ended)
    assert "stopped by SIGTERM" in ended.stdout
    assert (status(tmp_path)["state"], status(tmp_path)["signal"]) == ("interrupted", "SIGTERM")
    assert [row["epoch"] for row in records(run_folder(tmp_path))] == [1]

    killed = train(tmp_path, *BASE, death=Death("igo.runs.checkpoint.save", 1, "after"))
    assert killed.returncode == -signal.SIGKILL

    ended = train(tmp_path, *BASE, ranks=3)
    assert codes(ended) == [0] * 3
    assert_quiet(ended)
    assert "continuing after epoch 2 of 4" in ended.stdout
    assert_same_run(tmp_path, alone)
    folders = sorted((tmp_path / "runs" / "wandb").glob("offline-run-*"))
    assert len({file.name for folder in folders for file in folder.glob("*.wandb")}) == 1
    rows = [row["epoch"] for folder in folders for row in history(folder)]
    assert sorted(rows) == [1, 3, 4], "the row of epoch 2 was killed; `igo sync` sends the record"


SECOND = "igo.runs.terminal.ProgressBar.advance"


@pytest.mark.parametrize(
    ("death", "line", "others"),
    [
        (Death(SECOND, 2, error="an image is bad", cure=True, rank=1), "an image is bad", [2, 2]),
        (Death(SECOND, 2, error="the roof fell in", rank=2), "the roof fell in", [2, 1]),
        (Death(SECOND, 2, rank=1), "a process of this run ended", [-signal.SIGKILL, 2]),
        (Death("igo.train.datasets.open_data", error="no data", cure=True, rank=2), "no", [2, 2]),
    ],
)
def test_what_ends_one_rank_ends_all_with_one_line(
    death: Death, line: str, others: list[int], tmp_path: Path
) -> None:
    ended = forge.run(tmp_path, *TINY, SILENT, death=death, ranks=3)
    assert codes(ended) == [2, *others], ended
    assert ended.stderr.startswith(f"error: {line}")
    assert ended.stderr.count("\n") == 1
    errors = [err for code, _, err in ended.others if code != 1]
    assert errors == [""] * len(errors)
    if death.function == SECOND:
        assert status(tmp_path)["state"] == "failed"
        assert status(tmp_path)["error"].startswith(line)
    if death.cure and death.rank == 1:  # and it can go on
        assert codes(forge.run(tmp_path, *TINY, SILENT, ranks=2)) == [0, 0]


def differently(*arguments: str) -> None:
    """Run src/train.py on each rank with its part of what is typed, A of ``A|B`` on the first."""
    rank = int(os.environ["RANK"])
    parts = [argument.split("|") for argument in arguments]
    sys.argv = ["train.py", *(part[min(rank, len(part) - 1)] for part in parts)]
    runpy.run_path(str(ROOT / "src" / "train.py"), run_name="__main__")


def train_differently(place: Path, *typed: str) -> Ended:
    line = (*TINY, SILENT, *typed, f"runs_dir={place / 'runs'}")
    return forge.run(place, *line, ranks=2, function="test_ranks.differently")


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("seed=0|seed=1", "seed differs .*: 0 in the first, 1 in process 1.*"),
        ("p=1|p=2", "in process 1: p=2.0 is not allowed.*"),  # by the rules
        ("p=1|q=1", "in process 1: there is no setting 'q'.*"),  # by the composition
    ],
)
def test_ranks_told_otherwise_end_in_one_line(typed: str, line: str, tmp_path: Path) -> None:
    ended = train_differently(tmp_path, typed)
    assert codes(ended) == [2, 2], ended
    assert re.fullmatch(f"error: {line}", ended.error())
    assert ended.others[0][2] == ""
    assert not list(tmp_path.glob("runs/*"))


def torchrun(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            in_double.__file__, *arguments, f"runs_dir={place / 'runs'}",
        ],
        cwd=place,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_torchrun_is_stopped_and_continues(tmp_path: Path, alone: Path) -> None:
    """SIGTERM to torchrun, as a queue sends it; then the same command to the end."""
    with torchrun(tmp_path, *BASE, SILENT) as started:
        for line in started.stdout:
            if line.split()[:1] == ["1"] and "%" in line:  # not of the plan
                started.send_signal(signal.SIGTERM)
                break
        assert "stopped by SIGTERM" in started.stdout.read()
        started.stderr.read()
        assert started.wait() != 0
    assert status(tmp_path)["state"] == "interrupted"
    with torchrun(tmp_path, *BASE, SILENT) as again:
        out, err = again.communicate()
    assert again.returncode == 0, err
    assert out.count("continuing after epoch") == 1
    assert_same_run(tmp_path, alone)
