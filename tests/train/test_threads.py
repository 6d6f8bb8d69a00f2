"""CPU threads: how many a run takes, and what a continued run keeps."""

import os
from pathlib import Path

import pytest
import torch
from conftest import TINY, configure
from trained import prepared

from igo.config.schema import EngineConfig
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


@pytest.mark.parametrize(("typed", "threads"), [("", 4), ("2", 2), ("3,1", 3), ("8", 4), ("x", 4)])
def test_the_environment_lowers_the_threads_of_large_images(
    typed: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ALL_THREADS", 4)
    monkeypatch.setattr(machine, "allowed_cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", typed)
    for side, wanted in {8: 1, 15: 1, 16: threads}.items():
        machine.choose(EngineConfig(device="cpu"), side)
        assert torch.get_num_threads() == wanted


def test_a_run_that_continues_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on two cores, whatever this machine has."""
    monkeypatch.setattr(machine, "allowed_threads", lambda: 2)
    heard: list[str] = []
    for before, number in [(None, 1), (1, 1), (2, 2), (4, 2)]:
        run, progress = prepared(configure(*TINY)), Progress(threads=before)
        machine.keep_threads(run, progress, heard.append)
        assert progress.threads == torch.get_num_threads() == number
    assert heard == ["threads: 2 of 4 before: results differ by rounding"]
