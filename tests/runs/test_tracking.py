"""W&B beside the run folder: every row once, offline and online; no run lost, no key leaked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, records, run_folder, status
from forked import Death, forge
from wandb_server import KEY, WandbServer, entries, history

EPOCHS = [1, 2, 3]
FAST = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}  # seconds between two uploads
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a finished offline run is, made with a key in the environment; no test changes it."""
    place = tmp_path_factory.mktemp("offline")
    forge.run(place, *TINY, "tracking.tags=[first,try]", WANDB_API_KEY=KEY).good()
    return place


def inspect(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The entries of a local W&B run folder by their type."""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for kind, entry in entries(folder):
        by_type.setdefault(kind, []).append(entry)
    return by_type


def assert_rows(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """W&B's rows are the records of the epochs, each once and in order."""
    assert [row["epoch"] for row in rows] == list(range(1, len(expected) + 1))
    for row, record in zip(rows, expected, strict=True):
        assert {key: row.get(key) for key in record} == record


def test_a_finished_offline_run_read_back_by_wandb_is_complete(offline: Path) -> None:
    (folder,) = (offline / "runs" / "wandb").glob("offline-run-*")
    found = inspect(folder)
    expected = records(run_folder(offline), timings=True)
    rows = [entry["item"] for entry in found["history"]]
    assert_rows(rows, expected)

    (run,) = found["run"]
    name = run_folder(offline).name
    assert run["display_name"] == f"graduated p=0.5 split=0.5 seed=0 {name}"
    assert run["project"] == "igo"
    assert run["run_group"] == "digits-resnet8-graduated"
    assert sorted(run["tags"]) == ["first", "graduated", "try"]
    config = run["config"]["update"]
    assert config["p"] == 0.5
    assert config["schedule"]["stages"] == 3
    assert config["dataset"]["samples"] == 96

    assert {"glob_name": "*", "step_metric": "epoch"}.items() <= found["metric"][0].items()
    named = {entry.get("name"): entry for entry in found["metric"]}
    assert "updates" in named
    assert named["test/accuracy"]["summary"] == {"last": True, "max": True}
    for name in ("updates", "test/accuracy", "test/loss"):  # a name's own line hides that of "*"
        assert named[name]["step_metric"] == "epoch"

    summary: dict[str, Any] = {}
    for entry in found["summary"]:
        summary |= entry["update"]
    accuracies = [record["test/accuracy"] for record in expected]
    assert summary["test/accuracy"] == {"last": accuracies[-1], "max": max(accuracies)}
    assert summary["updates"] == {"last": expected[-1]["updates"]}
    assert [entry.get("exit_code", 0) for entry in found["exit"]] == [0]
    assert_key_is_nowhere(offline)


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        (("tracking=none",), "offline"),
        (("tracking.mode=disabled",), "online"),  # what is typed counts: no key is asked for
        ((), "disabled"),
    ],
)
def test_when_off_it_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], mode: str) -> None:
    forge.run(tmp_path, *TINY, *arguments, WANDB_MODE=mode).good()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run_folder(tmp_path).name]
    assert not list(tmp_path.rglob("*wandb*"))
    assert "wandb_id" not in status(tmp_path)


def test_online_without_a_key_is_an_error_before_any_compute(tmp_path: Path) -> None:
    line = forge.run(tmp_path, *TINY, WANDB_MODE="online").error()
    assert line.startswith("error: tracking.mode=online is not allowed: no W&B key")
    assert not (tmp_path / "runs").exists()


def assert_key_is_nowhere(place: Path) -> None:
    """Neither under runs_dir nor in what was printed (out.txt and err.txt), the links included."""
    files = [path for path in place.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert b"YXBpOj" not in content, f"{path}: a header of basic authentication"


def test_online_all_rows_arrive_once_and_no_key_is_left_behind(tmp_path: Path) -> None:
    with WandbServer() as server:
        ended = forge.run(tmp_path, *TINY, "tracking.tags=[tagged]", **server.online).good()
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[0] == f"run {run_folder(tmp_path)}"
    assert "wandb" not in ended.stdout
    (run,) = server.runs.values()
    assert run.received == EPOCHS
    expected = records(run_folder(tmp_path), timings=True)
    assert_rows(run.rows, expected)
    assert run.exit_code == 0
    assert run.settings["groupName"] == "digits-resnet8-graduated"
    assert run.settings["displayName"].endswith(f" seed=0 {run_folder(tmp_path).name}")
    assert sorted(run.settings["tags"]) == ["graduated", "tagged"]
    assert json.loads(run.settings["config"])["p"]["value"] == 0.5
    accuracies = [record["test/accuracy"] for record in expected]
    summary = run.files["wandb-summary.json"]["test/accuracy"]
    assert summary == {"last": accuracies[-1], "max": max(accuracies)}
    assert_key_is_nowhere(tmp_path)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_without_a_home_that_can_be_written_a_run_is_quiet_and_whole(
    mode: str, tmp_path: Path
) -> None:
    with WandbServer() as server:
        away = {**server.online, "WANDB_MODE": mode, "HOME": "/proc/nowhere"}
        assert forge.run(tmp_path, *TINY, **away).good().stderr == ""
        (folder,) = (tmp_path / "runs" / "wandb").glob("*run-*-*")
        assert_rows(history(folder), records(run_folder(tmp_path), timings=True))
        if mode == "offline":
            away |= server.online
            assert forge.run(tmp_path, command="sync", **away).good().stderr == ""
    (run,) = server.runs.values()
    assert run.received == EPOCHS


@contextmanager
def when_rows_are_there(server: WandbServer, rows: int, act: Callable[[], None]) -> Iterator[None]:
    """While the body runs: do something as soon as the server has so many rows of a run."""
    server.rows_wanted = rows
    thread = threading.Thread(target=lambda: server.enough_rows.wait() and act())
    thread.start()
    try:
        yield
    finally:
        server.enough_rows.set()
        thread.join()


LONGER = (*TINY, "epochs=6", "schedule.stages=2")
# W&B's process goes on.
PAUSE = Death("igo.runs.tracking.WandbTracker.log", 4, "after", signal.SIGSTOP)


def send(place: Path, number: signal.Signals) -> None:
    """Send a signal to the run of a place, by the process id in its status, once PAUSE holds it."""
    pid = status(place)["pid"]
    ps = ["ps", "-o", "state=", "-p", str(pid)]
    while subprocess.run(ps, capture_output=True, text=True, check=True).stdout.strip()[0] != "T":
        time.sleep(0.01)
    os.kill(pid, number)


def test_killed_online_it_sends_each_row_once(tmp_path: Path) -> None:
    def kill() -> None:
        send(tmp_path, signal.SIGKILL)

    with WandbServer() as server:
        with when_rows_are_there(server, 3, kill):
            ended = forge.run(tmp_path, *LONGER, death=PAUSE, **server.online, **FAST)
        assert ended.returncode == -signal.SIGKILL
        (run,) = server.runs.values()
        assert 3 <= len(run.history) <= 4
        forge.run(tmp_path, *LONGER, **server.online).good()
    assert list(server.runs.values()) == [run], "it is the same run"
    assert_rows(run.rows, records(run_folder(tmp_path)))
    assert len(run.rows) == 6
    assert run.exit_code == 0


@pytest.mark.slow
def test_an_unreachable_server_costs_no_training_and_no_row(tmp_path: Path) -> None:
    ended = forge.run(
        tmp_path, *TINY, "tracking.mode=online",
        settings={"igo.runs.tracking.INIT_TIMEOUT": 1},
        WANDB_BASE_URL=NOWHERE, WANDB_API_KEY=KEY,
    ).good()  # fmt: skip
    assert ended.stderr.startswith("warning: no W&B run online")
    assert "goes on offline" in ended.stderr
    assert ended.stderr.count("\n") == 1
    (folder,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    assert [row["epoch"] for row in history(folder)] == EPOCHS
    assert [row["epoch"] for row in records(run_folder(tmp_path))] == EPOCHS
    assert_key_is_nowhere(tmp_path)


def test_a_server_lost_on_the_way_does_not_hold_the_end_up(tmp_path: Path) -> None:
    def cut_off() -> None:
        server.stop()
        send(tmp_path, signal.SIGCONT)

    with WandbServer() as server, when_rows_are_there(server, 3, cut_off):
        soon = {"igo.runs.tracking.FINISH_TIMEOUT": 1}
        how = {"death": PAUSE, "settings": soon, **server.online, **FAST}
        ended = forge.run(tmp_path, *LONGER, **how).good()
    (folder,) = (tmp_path / "runs" / "wandb").glob("run-*")
    assert "warning: W&B did not take all rows; `make sync` sends them" in ended.stderr
    assert [row["epoch"] for row in history(folder)] == list(range(1, 7))
    assert status(tmp_path)["state"] == "finished"
