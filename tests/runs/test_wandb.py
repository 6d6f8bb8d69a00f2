"""W&B beside the run folder: every row once, offline, online and by `igo sync`; no key is leaked.

The real client, and a server on 127.0.0.1.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import TINY, Ended, records, run_folder, status
from forked import Death, forge
from recorded import edit
from wandb_server import (
    KEY,
    NOWHERE,
    OnlineRun,
    WandbServer,
    assert_rows,
    entries,
    exit_codes,
    history,
)

from igo.runs.folder import RunFolder

LONGER = (*TINY, "epochs=6", "schedule.stages=2")
LOG = "igo.runs.loggers.wandb.WandB.log"
PAUSE = Death(LOG, 4, "after", signal.SIGSTOP)  # W&B's process goes on


def sync(place: Path, url: str, key: str = KEY, mode: str = "offline", **variables: Any) -> Ended:
    environment: Any = {"WANDB_BASE_URL": url, "WANDB_MODE": mode}
    environment |= {"WANDB_API_KEY": key} if key else {}
    return forge.run(command="sync", folder=place, **environment, **variables)


def outcomes_of(process: Ended) -> list[str]:
    """What became of each run, without its name."""
    return sorted(line.split(": ")[1] for line in process.good().stdout.splitlines())


def stopped(place: Path, rows: int, number: int = signal.SIGTERM) -> None:
    """Train offline, or go on, until that many more rows are logged."""
    process = forge.run(*LONGER, folder=place, death=Death(LOG, rows, "after", number))
    assert process.returncode in (128 + number, -number), process.stderr


def assert_whole(run: OnlineRun, folder: Path, epochs: int = 6) -> None:
    """The W&B run has each of the folder's records, once and in order."""
    assert run.received == list(range(1, epochs + 1))
    assert_rows(run.rows, records(folder, timings=True))


def assert_key_is_nowhere(place: Path) -> None:
    """Neither under runs_dir nor in what was printed (out.txt and err.txt), the links included."""
    files = [path for path in place.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert b"YXBpOj" not in content, f"{path}: a header of basic authentication"


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in three folders, the first killed before anything was written, and a whole other."""
    place = tmp_path_factory.mktemp("offline")
    stopped(place, 1, signal.SIGKILL)
    stopped(place, 2)
    forge.run(*LONGER, "tracking.tags=[tagged]", folder=place).good()
    method = ("schedule=method4", "schedule.stages=3")
    words = (*TINY, "seed=1", *method, "tracking.group=ours")
    forge.run(*words, folder=place, WANDB_API_KEY=KEY, WANDB_MODE="offline").good()
    return place


def folder_of(place: Path, seed: int) -> Path:
    configs = place.glob("runs/*/config.yaml")
    return next(file.parent for file in configs if f"\nseed: {seed}\n" in file.read_text())


def test_an_offline_run_read_back_by_wandb_is_complete(offline: Path) -> None:
    run_id = status(folder_of(offline, 1))["wandb_id"]
    (folder,) = (offline / "runs" / "wandb").glob(f"offline-run-*-{run_id}")
    expected = records(folder_of(offline, 1), timings=True)
    assert_rows(history(folder), expected)
    entry_list = entries(folder)
    (run,) = (entry for kind, entry in entry_list if kind == "run")
    assert run["display_name"].startswith("Method 4, seed 1, digits-resnet8-step-")
    assert (run["project"], run["run_group"]) == ("igo", "ours")
    config, status_entries = run["config"]["update"], status(folder_of(offline, 1))
    schedule = config["schedule"]
    assert (schedule["name"], run["tags"]) == ("Method 4", ["digits", "Method 4"])
    assert (schedule["kappa"], schedule["lam"]) == (pytest.approx(0.75**0.5), pytest.approx(1.5))
    assert config["plan"]["stage"][0] == 1
    plan = (folder_of(offline, 1) / "plan.csv").read_text()
    assert len(config["plan"]["eta_m"]) == len(plan.splitlines()) - 1
    assert config["manifest"].items() <= status_entries.items()
    assert {"commit", "versions", "hardware"} <= config["manifest"].keys()
    assert run["git"]["commit"] == status_entries["commit"].removesuffix("+changes")
    summary: dict[str, Any] = {}
    for kind, entry in entry_list:
        summary |= entry["update"] if kind == "summary" else {}
    accuracies = [record["test/accuracy"] for record in expected]
    assert summary["test/accuracy"] == {"last": accuracies[-1], "max": max(accuracies)}
    for name in ("stage", "eta_m", "b_m", "gamma_m", "kappa_m", "lambda_m", "delta_m"):
        assert summary[name] == expected[-1][name], f"{name} is not of the last stage"
    assert exit_codes(folder) == [0]
    assert_key_is_nowhere(offline)


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        (("tracking.mode=disabled",), "online"),  # what is typed counts: no key is asked for
        ((), "disabled"),
    ],
)
def test_when_off_it_writes_nothing(arguments: tuple[str, ...], mode: str) -> None:
    forge.run(*TINY, "epochs=1", *arguments, WANDB_MODE=mode).good()
    assert [path.name for path in Path("runs").iterdir()] == [run_folder().name]
    assert "wandb_id" not in status()


@pytest.mark.parametrize(
    ("key", "file", "online_runs"),
    [
        ("", "machine {host} login user password {key}", 1),
        ("", "machine elsewhere login user password {key}", 0),
        ("no key", "", 0),
    ],
)
def test_a_run_is_online_where_wandb_finds_a_key(
    tmp_path: Path, key: str, file: str, online_runs: int
) -> None:
    """Whatever the run before it in the same process was."""
    words = ("-m", *TINY, "epochs=1", "hydra/launcher=basic", "seed=0,1")
    with WandbServer() as server:
        place = urlsplit(server.url).netloc
        (tmp_path / "netrc").write_text(file.format(host=place, key=KEY))
        environment = server.online | {"WANDB_API_KEY": key, "NETRC": str(tmp_path / "netrc")}
        process = forge.run(*words, **environment).good()
    assert len(server.runs) == 2 * online_runs
    assert process.stderr == ""
    reason = "W&B is offline, as no key is known (`wandb login`); to send it: igo sync"
    assert process.stdout.count(reason) == 2 - len(server.runs)


def test_online_without_a_key_is_an_error_before_any_compute() -> None:
    line = forge.run(*TINY, WANDB_MODE="online").error()
    assert line.startswith("error: tracking.mode=online is not allowed: no valid W&B key")
    assert not Path("runs").exists()


def test_with_a_key_all_rows_arrive_once_and_no_key_is_left_behind(tmp_path: Path) -> None:
    """Of a run that is killed, and goes on without a home that can be written.

    No setting and no variable says that it is online.
    """

    def kill() -> None:
        """The process that stands still at PAUSE, once the server has three rows."""
        server.enough_rows.wait()
        pid = status()["pid"]
        ps = ["ps", "-o", "state=", "-p", str(pid)]
        while not subprocess.check_output(ps, text=True).strip().startswith("T"):
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    with WandbServer() as server:
        server.rows_wanted = 3
        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        online = server.online
        process = forge.run(*LONGER, death=PAUSE, **online)
        assert process.returncode == -signal.SIGKILL, process  # Else nothing ends the thread.
        thread.join()
        (run,) = server.runs.values()
        assert 3 <= len(run.history) <= 4
        online["HOME"] = "/proc/nowhere"
        process = forge.run(*LONGER, **online).good()
    assert process.stderr == ""
    ((run_id, same_run),) = server.runs.items()
    assert same_run is run
    assert f"\nwandb {server.url}/team/igo/runs/{run_id}\n" in process.stdout
    last_line = next(line for line in process.stdout.splitlines() if line.startswith("    6 "))
    assert any(last_line in line for line in run.output), "W&B has the lines of the terminal"
    expected = records()
    assert_rows([row for row in run.rows if "epoch" in row], expected)
    assert (len(expected), run.exit_code, run.settings["jobType"]) == (6, 0, "train")
    group = "graduated, p = 0.5, split 0.5, 6 epochs, eta_1 0.1, b_1 32, digits, 96 images, "
    assert run.settings["groupName"].startswith(group)
    assert "system" in json.dumps(run.events), "W&B measures the machine"
    assert_key_is_nowhere(tmp_path)


def test_a_logger_that_cannot_start_ends_no_training() -> None:
    process = forge.run(*TINY, death=Death("wandb.init", error=RuntimeError("no room"))).good()
    assert process.stderr.startswith("warning: wandb failed (no room), so it gets no more rows")
    assert status()["state"] == "finished"
    assert status()["wandb_id"], "`make sync` looks for it"


def test_all_offline_runs_are_sent_once(offline: Path, tmp_path: Path) -> None:
    """Without a key or a server nothing happens to them; then once; then not again."""
    place = Path(shutil.copytree(offline, tmp_path / "copy", symlinks=True))
    long_folder, short_folder = folder_of(place, 0), folder_of(place, 1)
    line = sync(place, NOWHERE, key="").error()
    assert line.startswith("error: no valid W&B key is known here; run `wandb login`")
    process = sync(place, NOWHERE, settings={"igo.runs.loggers.wandb.INIT_TIMEOUT": 1})
    assert process.returncode == 1
    assert process.stdout.count("it is kept, start this again") == 2

    with WandbServer() as server:
        with RunFolder(long_folder).held():  # It runs.
            edit(long_folder, state="running")
            waited = sync(place, server.url).good().stdout
            edit(long_folder, state="finished")
        assert f"{long_folder.name}: skipped: it is running" in waited
        assert f"{short_folder.name}: 3 epochs sent" in waited
        process = sync(place, server.url, mode="")  # an empty WANDB_MODE, too
        assert process.stderr == ""
        assert outcomes_of(process) == ["6 epochs sent", "W&B has all of its 3 epochs"]
        long_run, short_run = (
            server.runs[status(folder)["wandb_id"]] for folder in (long_folder, short_folder)
        )
        assert len(server.runs) == 2
        assert_whole(long_run, long_folder)
        assert_whole(short_run, short_folder, 3)
        assert [run.exit_code for run in server.runs.values()] == [0, 0]
        assert sorted(long_run.settings["tags"]) == ["digits", "graduated", "tagged"]
        outcomes = outcomes_of(sync(place, server.url))
        assert outcomes == ["W&B has all of its 3 epochs", "W&B has all of its 6 epochs"]
        assert_whole(long_run, long_folder)
    assert_key_is_nowhere(place)
