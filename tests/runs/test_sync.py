"""Offline runs reach W&B once, whatever stopped them or the upload: real client, local server."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Ended, python, records, run_folder, status
from forked import Death, forge
from test_tracking import NOWHERE, assert_key_is_nowhere, assert_rows, when_rows_are_there
from wandb_server import KEY, OnlineRun, WandbServer

from igo.__main__ import main

RUN = (*TINY, "epochs=6", "schedule.stages=2")
LOG = "igo.runs.tracking.WandbTracker.log"  # of `igo sync`; training has OpeningTracker


def program_as_typed(*arguments: str) -> None:
    """`igo sync` in a process that has wandb already (see forked)."""
    sys.argv = ["igo", "sync", *arguments]
    Path("pid").write_text(str(os.getpid()))
    main()


def sync(place: Path, url: str, key: str = KEY, **more: Any) -> Ended:
    environment = {"WANDB_BASE_URL": url, "WANDB_MODE": "offline"}
    environment |= {"WANDB_API_KEY": key} if key else {}
    return forge.run(place, function="test_sync.program_as_typed", **environment, **more)


def stopped(place: Path, rows: int, number: int = signal.SIGTERM) -> None:
    """Train offline, or go on, until that many more rows are logged."""
    ended = forge.run(
        place, *RUN, death=Death("igo.runs.tracking.OpeningTracker.log", rows, "after", number)
    )
    assert ended.returncode in (128 + number, -number), ended.stderr


def assert_whole(run: OnlineRun, folder: Path, epochs: int = 6) -> None:
    """The W&B run has each of the folder's records, once and in order."""
    assert run.received == list(range(1, epochs + 1))
    assert_rows(run.rows, records(folder, timings=True))


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in three folders, the first killed before anything was written, and a whole other."""
    place = tmp_path_factory.mktemp("offline")
    stopped(place, 1, signal.SIGKILL)
    stopped(place, 2)
    forge.run(place, *RUN, "tracking.tags=[tagged]").good()
    forge.run(place, *TINY, "seed=1", "tracking.group=ours").good()
    return place


def copied(offline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(offline, tmp_path / "copy", symlinks=True))


def folder_of(place: Path, seed: int) -> Path:
    (folder,) = (
        file.parent for file in place.glob("runs/*/config.yaml")
        if f"\nseed: {seed}\n" in file.read_text()
    )  # fmt: skip
    return folder


def test_all_runs_are_sent_once(offline: Path, tmp_path: Path) -> None:
    """Without a key or a server nothing happens to them; then once; then not again.

    WANDB_MODE=offline, as clusters set it, is for trainings.
    """
    place = copied(offline, tmp_path)
    line = sync(place, NOWHERE, key="").error()
    assert line.startswith("error: no W&B key is known here; run `wandb login`")
    line = sync(place, NOWHERE, settings={"igo.runs.tracking.INIT_TIMEOUT": 1}).error()
    assert line.startswith("error: W&B does not answer (")

    with WandbServer() as server:
        ended = sync(place, server.url).good()
        assert ended.stderr == ""
        sent = sorted(line.split(": ")[1] for line in ended.stdout.splitlines())
        assert sent == ["3 epochs sent", "6 epochs sent"]
        longer, other = folder_of(place, 0), folder_of(place, 1)
        whole, short = (server.runs[status(folder)["wandb_id"]] for folder in (longer, other))
        assert len(server.runs) == 2
        assert_whole(whole, longer)
        assert_whole(short, other, 3)
        assert whole.settings["groupName"] == "digits-resnet8-graduated"
        assert short.settings["groupName"] == "ours"
        for run in server.runs.values():
            assert run.exit_code == 0
            assert json.loads(run.settings["config"])["p"]["value"] == 0.5
        assert whole.settings["displayName"].endswith(f" {longer.name}")
        assert sorted(whole.settings["tags"]) == ["graduated", "tagged"]

        ended = sync(place, server.url).good()
        there = sorted(line.split(": ")[1] for line in ended.stdout.splitlines())
        assert there == ["W&B has all of its 3 epochs", "W&B has all of its 6 epochs"]
        assert_whole(whole, longer)
    assert_key_is_nowhere(place)


def test_killed_on_the_way_the_next_sends_the_rest(offline: Path, tmp_path: Path) -> None:
    """SIGKILL once the server has three rows or four, while the program stands still."""
    place = copied(offline, tmp_path)
    pause = Death(LOG, 4, "after", signal.SIGSTOP)

    def kill() -> None:
        os.kill(int((place / "pid").read_text()), signal.SIGKILL)

    with WandbServer() as server:
        with when_rows_are_there(server, 3, kill):
            fast = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
            ended = sync(place, server.url, death=pause, **fast)
        assert ended.returncode == -signal.SIGKILL
        (run,) = server.runs.values()
        folder = next(file.parent for file in place.glob("runs/*/status.json")
                      if status(file.parent)["wandb_id"] in server.runs)  # fmt: skip
        assert 3 <= len(run.history) < 6
        sync(place, server.url).good()
        assert_whole(run, folder)


@pytest.mark.slow
def test_a_run_that_goes_on_afterwards_is_completed(tmp_path: Path) -> None:
    stopped(tmp_path, 2)
    with WandbServer() as server:
        sync(tmp_path, server.url).good()
        (run,) = server.runs.values()
        assert run.received == [1, 2]
        assert run.exit_code == 1, "it is not finished"
        stopped(tmp_path, 2)
        forge.run(tmp_path, *RUN).good()
        sync(tmp_path, server.url).good()
        assert_whole(run, run_folder(tmp_path))
        assert run.exit_code == 0


def test_online_after_offline_nothing_is_left_to_send(tmp_path: Path) -> None:
    stopped(tmp_path, 2)
    with WandbServer() as server:
        forge.run(tmp_path, *RUN, **server.online).good()
        (run,) = server.runs.values()
        assert_whole(run, run_folder(tmp_path))
        assert "W&B has all of its 6 epochs" in sync(tmp_path, server.url).stdout
        assert_whole(run, run_folder(tmp_path))


def test_one_that_runs_waits_and_a_damaged_one_is_said(offline: Path, tmp_path: Path) -> None:
    place = copied(offline, tmp_path)
    running, damaged = folder_of(place, 0), folder_of(place, 1)
    (running / "status.json").write_text(json.dumps({**status(running), "state": "running"}))
    (damaged / "metrics.jsonl").write_text("{\n")
    with WandbServer() as server, (running / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = sync(place, server.url)
        assert not server.runs
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert f"{running.name}: skipped: it is running" in ended.stdout
    assert f"{damaged.name}: failed: {damaged}/metrics.jsonl cannot be read" in ended.stdout


def test_no_runs_are_one_line(tmp_path: Path) -> None:
    """As a user starts it."""
    ended = python(tmp_path, "-m", "igo", "sync", f"runs_dir={tmp_path}").good()
    assert ended.stdout.startswith("nothing to send")
    line = python(tmp_path, "-m", "igo", "sync", "runs_dir=nowhere").error()
    assert line == "error: runs_dir=nowhere is not allowed: there is no such folder"
