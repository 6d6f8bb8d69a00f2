"""The run folder: named by what changes the result, and holding what the README promises."""

import copy
import csv
import errno
import fcntl
import importlib.metadata
import multiprocessing
import os
import shlex
import time
from functools import reduce
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import TINY, configure, contents_of, records, run_folder, status
from forked import finished, forge

from igo.config.load import make_plan
from igo.config.schema import SETTINGS
from igo.ground import files
from igo.ground.errors import Outside, UserError
from igo.runs.folder import RunFolder
from igo.runs.name import path_of, signature

RUN = (*TINY, "schedule.stages=2", "schedule.final_updates=2", "p=0.3")
# What may differ between two computations of the same result.
WITHOUT_EFFECT = {
    "engine.device",
    "engine.deterministic",
    "dataset.workers",
    "tracking.tool",
    "tracking.mode",
    "tracking.project",
    "tracking.entity",
    "tracking.group",
    "tracking.tags",
    "tracking.name",
    "data_dir",
    "runs_dir",
    "dry_run",
    "fresh",
    "save_model",
    "checkpoint_seconds",
    "tracking.artifact",
    "dataset.root",
    "dataset.file",
}


def other(value: Any) -> Any:
    """Any value of the same kind that is not this one."""
    if value is None:
        return 3
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, "x"]
    return value + ("x" if isinstance(value, str) else 1)


def test_the_signature_differs_for_each_setting_that_changes_the_result() -> None:
    unchanged = configure()
    first_signature = signature(unchanged)
    changed = set()
    for setting in SETTINGS:
        config = copy.deepcopy(unchanged)
        *groups, name = setting.split(".")
        owner = reduce(getattr, groups, config)
        setattr(owner, name, other(getattr(owner, name)))
        if signature(config) != first_signature:
            changed.add(setting)
    assert SETTINGS.keys() - changed == WITHOUT_EFFECT


PINNED = {  # for good: a new setting has a neutral value, which no signature holds
    "": "21d3f239a2",
    "schedule=polynomial p=2 split=1": "f2e8bb7ec0",
    "schedule=step schedule.kappa=0.866 schedule.lam=1.5": "1a46069b88",
    "schedule=cosine seed=3 epochs=50": "61b98a8b9b",
    "dataset=fashion_mnist model.width=8": "e1939e2094",
    "experiment=cifar100 schedule=method3": "c31a36affa",  # 70c6679ad5 began at He's weights
    "dataset=cifar10 model=resnet18 model.stem=imagenet": "d72a1939c6",
    "dataset=cifar100 model=wide_resnet28_10": "ad8f21a5dd",
    "model=timm model.name=resnet10t dataset=cifar10": "f44ec5abca",
}


def test_signatures_are_pinned() -> None:
    for settings, name in PINNED.items():
        assert signature(configure(*settings.split())) == name, settings


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(path_of(configure(f"runs_dir={tmp_path}")))


def test_a_finished_folder_holds_what_is_promised() -> None:
    """Its files, the plan's floats to the bit, a record an epoch, and what ran."""
    place, plan = finished(*RUN), make_plan(configure(*RUN))
    folder = run_folder(place)
    assert {path.name for path in folder.iterdir() if path.suffix != ".patch"} == {
        "config.yaml",
        "plan.csv",
        "metrics.jsonl",
        "status.json",
        "checkpoint.pt",
        ".lock",
    }
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "wandb"}
    with (folder / "plan.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, stage in zip(rows, plan.rows, strict=True):
        for column, cell in row.items():
            value = getattr(stage, column)
            assert (cell == "") if value is None else (type(value)(cell) == value), column
    assert [row["delta_m"] == 0 for row in records(folder)] == [False] * 3 + [True] * 2
    status_entries = status(place)
    assert shlex.split(status_entries["command"])[2:] == [f"runs_dir={place / 'runs'}", *RUN]
    assert status_entries["versions"]["torch"] == importlib.metadata.version("torch")


def test_a_held_run_alone_knows_its_status(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the file meanwhile, the manifest stays. Else it is one line."""
    file = folder.path / "status.json"
    for content in ("", "{", '{"run": "other"}'):
        with folder.held(fresh=True):
            folder.begin_status(plan="p")
            file.write_text(content)
            folder.update_status(state="finished")
        assert status(folder.path)["plan"] == "p"
        file.write_text(content)
        with pytest.raises(UserError, match=rf"^{file} is .*; it is left as it is"), folder.held():
            pass
        assert file.read_text() == content
    broken = Mock(side_effect=OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)))
    with monkeypatch.context() as patched:
        patched.setattr(files, "opened", broken)
        with pytest.raises(Outside, match=r"status\.json cannot be read"):
            folder.status()
    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(Outside, match="cannot be written"), folder.held():
        pass


def test_fresh_removes_nothing_that_a_link_leads_to(folder: RunFolder, tmp_path: Path) -> None:
    Path("elsewhere").mkdir()
    Path("elsewhere/file").touch()
    folder.path.symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(UserError, match=r"is a link, .* remove the link first"),
        folder.held(fresh=True),
    ):
        pass
    assert Path("elsewhere/file").exists()


def test_a_lack_of_memory_is_tried_again_by_a_sweep(folder: RunFolder) -> None:
    folder.path.mkdir()
    folder.begin_status(state="running")
    folder.write_failure(MemoryError())
    assert status(folder.path)["state"] == "interrupted"


def linger(ready: Any) -> None:
    ready.set()
    time.sleep(60)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_worker_that_lives_on_does_not_hold_the_runs_lock(folder: RunFolder) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    with folder.held():
        worker = context.Process(target=linger, args=(ready,))
        worker.start()
        ready.wait()
    with folder.held():
        pass
    worker.kill()
    worker.join()


def test_a_folder_held_by_another_process_is_left_alone() -> None:
    arguments = (*TINY, "tracking=none")
    forge.run(*arguments, "epochs=1").good()
    folder = run_folder()
    (folder / "status.json").unlink()
    contents = contents_of(folder)
    with RunFolder(folder).held():
        for fresh in ("fresh=false", "fresh=true"):
            line = forge.run(*arguments, "epochs=1", fresh).error()
            assert line == f"error: {folder} is being worked on by another process"
    assert contents_of(folder) == contents
    forge.run(*arguments, "epochs=1").good()
