"""Offline runs reach W&B once, whatever stopped them or the upload: real client, local server."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Ended, clean_environment, python, records, run_folder, status
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
    environment = {"WANDB_BASE_URL": url} | ({"WANDB_API_KEY": key} if key else {})
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


def marks(place: Path) -> int:
    return len(list(place.glob("runs/wandb/*run-*/*.wandb.synced")))


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
    """Without a key or a server nothing happens to them; then once; then not again."""
    place = copied(offline, tmp_path)
    line = sync(place, NOWHERE, key="").error()
    assert line.startswith("error: no W&B key is known here; run `wandb login`")
    line = sync(place, NOWHERE, settings={"igo.runs.tracking.INIT_TIMEOUT": 1}).error()
    assert line.startswith("error: W&B does not answer (")
    assert marks(place) == 0

    with WandbServer() as server:
        ended = sync(place, server.url).good()
        assert ended.stderr == ""
        assert [line.split(": ")[1] for line in ended.stdout.splitlines()] == [
            "6 epochs sent", "3 epochs sent"
        ]  # fmt: skip
        longer, other = folder_of(place, 0), folder_of(place, 1)
        ids = [status(folder)["wandb_id"] for folder in (longer, other)]
        assert list(server.runs) == ids
        assert_whole(server.runs[ids[0]], longer)
        assert_whole(server.runs[ids[1]], other, 3)
        groups = [run.settings["groupName"] for run in server.runs.values()]
        assert groups == ["digits-resnet8-graduated", "ours"]
        for run in server.runs.values():
            assert run.exit_code == 0
            assert json.loads(run.settings["config"])["p"]["value"] == 0.5
        assert server.runs[ids[0]].settings["displayName"].endswith(f" {longer.name}")
        assert sorted(server.runs[ids[0]].settings["tags"]) == ["graduated", "tagged"]

        server.operations.clear()
        ended = sync(place, server.url).good()
        assert ended.stdout.startswith("nothing to send: W&B has every run of")
        theirs = subprocess.run(
            [Path(sys.executable).parent / "wandb", "sync", "runs/wandb"],
            cwd=place, env=clean_environment(WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "No runs to sync" in theirs.stderr
        assert server.operations == [], "nobody asked the server for anything"
    assert_key_is_nowhere(place)


def test_stopped_on_the_way_the_next_sends_the_rest(offline: Path, tmp_path: Path) -> None:
    """An error in the program, whose end still sends what was logged: three rows of six."""
    place = copied(offline, tmp_path)
    with WandbServer() as server:
        line = sync(place, server.url, death=Death(LOG, 4, error="here")).error()
        assert line == "error: W&B failed (here); all runs are kept, start this again"
        (run,) = server.runs.values()
        assert run.received == [1, 2, 3]
        assert marks(place) == 0
        ended = sync(place, server.url).good()
        assert "3 epochs sent, 3 were there" in ended.stdout
        assert_whole(run, folder_of(place, 0))
        assert run.exit_code == 0
        assert len(server.runs) == 2


@pytest.mark.slow
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
        sync(place, server.url).good()
        assert_whole(next(iter(server.runs.values())), folder_of(place, 0))


@pytest.mark.slow
def test_a_server_lost_on_the_way_loses_nothing(offline: Path, tmp_path: Path) -> None:
    place = copied(offline, tmp_path)
    pause = Death(LOG, 4, "after", signal.SIGSTOP)

    def cut_off() -> None:
        server.stop()
        os.kill(int((place / "pid").read_text()), signal.SIGCONT)

    with WandbServer() as server, when_rows_are_there(server, 3, cut_off):
        ended = sync(
            place, server.url, death=pause, settings={"igo.runs.tracking.FINISH_TIMEOUT": 1},
            WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL="1",
        )  # fmt: skip
    assert ended.error().startswith("error: W&B does not answer (W&B did not take all of")
    assert marks(place) == 0
    with WandbServer() as again:
        again.runs = server.runs
        sync(place, again.url).good()
    assert_whole(next(iter(again.runs.values())), folder_of(place, 0))


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
        server.operations.clear()
        assert "nothing to send" in sync(tmp_path, server.url).stdout
        assert server.operations == []


@pytest.mark.slow
def test_runs_without_a_folder_go_by_wandbs_files(offline: Path, tmp_path: Path) -> None:
    """The record is gone; and of a third run there is nothing but an empty file."""
    place = copied(offline, tmp_path)
    folder = folder_of(place, 0)
    kept = shutil.move(folder, place / "kept")
    shutil.rmtree(folder_of(place, 1))
    empty = place / "runs" / "wandb" / "offline-run-20200101_000000-nothing"
    empty.mkdir()
    (empty / "run-nothing.wandb").write_bytes(b"")
    with WandbServer() as server:
        ended = sync(place, server.url).good()
        first, *_ = ended.stdout.splitlines()
        assert first == "[1/3] nothing: skipped: its file is empty, and it has no run folder"
        run, other = server.runs.values()
        assert_whole(run, kept)
        assert run.exit_code == 0
        assert run.settings["displayName"].endswith(f" {folder.name}")
        assert sorted(run.settings["tags"]) == ["graduated", "tagged"]
        assert json.loads(run.settings["config"])["p"]["value"] == 0.5
        assert other.received == [1, 2, 3]
        assert other.settings["groupName"] == "ours"


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
    assert f"[1/2] {running.name}: skipped: it is running" in ended.stdout
    assert f"[2/2] {damaged.name}: failed: {damaged}/metrics.jsonl cannot be read" in ended.stdout
    assert marks(place) == 0


def test_no_runs_are_one_line(tmp_path: Path) -> None:
    """As a user starts it."""
    ended = python(tmp_path, "-m", "igo", "sync", f"runs_dir={tmp_path}").good()
    assert ended.stdout.startswith("nothing to send")
    line = python(tmp_path, "-m", "igo", "sync", "runs_dir=nowhere").error()
    assert line == "error: runs_dir=nowhere is not allowed: there is no such folder"
