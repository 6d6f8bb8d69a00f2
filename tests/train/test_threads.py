"""CPU threads: how many are allowed, the trial that chooses, what a continued run keeps."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
from conftest import TINY, assert_equal, configure
from data_files import write_npz
from trained import prepared

from igo.ground.ranks import allowed_cores
from igo.train import machine
from igo.train.record import Progress

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def test_a_quota_counts_in_whole_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    assert allowed_cores(quota) == 8, "a system without cgroups"
    for text, cores in {"max": 8, "350000": 3, "50000": 1, "900000": 8}.items():
        quota.write_text(f"{text} 100000\n")
        assert allowed_cores(quota) == cores


def test_the_trial_leaves_no_trace() -> None:
    """ResNet-8 has BatchNorm; the gradients are another batch's."""
    run = prepared(configure(*TINY, "engine.precision=fp32"))
    run.engine.backward(run.network, torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]))

    def trace() -> dict[str, object]:
        gradients = [parameter.grad for parameter in run.network.parameters()]
        model, optimizer = run.network.state_dict(), run.optimizer.state_dict()
        return {"model": dict(model), "gradients": gradients, "random": torch.get_rng_state(),
                "optimizer": optimizer}  # fmt: skip

    before = copy.deepcopy(trace())
    assert min(machine.images_per_second(run, number) for number in (1, 2)) > 0
    assert_equal(trace(), before)


def test_a_run_that_continues_keeps_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two free cores, whatever this machine has, where two are twice as fast as one."""
    monkeypatch.setattr(machine, "allowed_threads", lambda: 2)
    file = write_npz(tmp_path / "own.npz", n=96, shape=(16, 16))  # worth timing for
    own = ("dataset=arrays", f"dataset.file={file}", "dataset.samples=null")
    heard: list[str] = []
    for before, speeds, number in [
        (None, {1: 1, 2: 2}, 2),
        (None, {1: 2, 2: 1}, 1),
        (2, {1: 2, 2: 1}, 2),
        (4, {}, 2),
    ]:
        monkeypatch.setattr(machine, "images_per_second", lambda _, n, speeds=speeds: speeds[n])
        run, progress = prepared(configure(*TINY, *own)), Progress(threads=before)
        machine.settle_threads(run, progress, heard.append)
        assert progress.threads == torch.get_num_threads() == number
    assert len(heard) == 3  # of two trials, and of the two threads that are not there
