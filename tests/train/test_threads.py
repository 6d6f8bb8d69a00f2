"""CPU threads: how many are allowed, the trial that chooses, what a run keeps and says."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import trained
from conftest import TINY, configure
from data_files import write_npz

from igo.ground.cores import allowed_cores
from igo.runs import assemble, checkpoint
from igo.train import engine, threads
from igo.train.state import Progress, Training

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def prepared(*typed: str) -> Training:
    return trained.prepared(configure(*TINY, *typed))


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_a_quota_counts_in_whole_cores_wherever_it_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    root, cgroup = tmp_path / "cgroup", tmp_path / "own"
    assert allowed_cores(root, cgroup) == 8, "a system without cgroups"
    cgroup.write_text("0::/job/task\n")
    group(root / "job" / "task", cpu__max="max 100000")
    assert allowed_cores(root, cgroup) == 8
    group(root / "job", cpu__max="350000 100000")
    assert allowed_cores(root, cgroup) == 3, "of the group above"
    group(root / "job" / "task", cpu__max="50000 100000")
    assert allowed_cores(root, cgroup) == 1, "half a core"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5}, raising=False)
    group(root / "job" / "task", cpu__max="max 100000")
    assert allowed_cores(root, cgroup) == 1, "of the affinity"


def test_the_trial_leaves_no_trace() -> None:
    """ResNet-8 has BatchNorm; the gradients are another batch's."""
    run = prepared("engine.precision=fp32")
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    run.engine.backward(run.network, images, labels)
    before = copy.deepcopy(run.network.state_dict())
    gradients = [p.grad.clone() for p in run.network.parameters() if p.grad is not None]
    random = torch.get_rng_state()
    single, shared = threads.images_per_second(run, [1, 2])
    assert min(single, shared) > 0
    after = run.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    kept = [p.grad for p in run.network.parameters() if p.grad is not None]
    assert len(gradients) == len(kept)
    assert all(torch.equal(*pair) for pair in zip(gradients, kept, strict=True))  # type: ignore[arg-type]
    assert not run.optimizer.state_dict()["state"]


def test_a_run_that_continues_keeps_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on two free cores, whatever this machine has, where two are twice as fast as one."""
    monkeypatch.setattr(engine, "allowed_threads", lambda: 2)
    monkeypatch.setattr(threads, "images_per_second", lambda run, numbers: [1, 2])
    file = write_npz(tmp_path / "own.npz", n=96, shape=(16, 16))  # worth timing for
    own = "dataset=arrays", f"dataset.file={file}", "dataset.samples=null"
    run, progress, heard = prepared(*own), Progress(), list[str]()
    threads.settle(run, progress, heard.append)
    assert progress.threads == 2
    assert heard.pop().startswith("threads: 2 of 2 ")

    monkeypatch.setattr(threads, "images_per_second", lambda run, numbers: [2, 1])
    checkpoint.save(tmp_path / "checkpoint.pt", assemble.state_of("one run", run, progress))
    progress = assemble.load(tmp_path / "checkpoint.pt", "one run", run, pytest.fail)
    threads.settle(prepared(*own), progress, heard.append)
    assert (progress.threads, heard) == (2, [])

    progress = Progress(threads=4)
    threads.settle(prepared(*own), progress, heard.append)
    assert progress.threads == 2
    assert heard == ["threads: 2 are allowed here, 4 before: results differ by rounding"]
