"""The real W&B client against a server that refuses, hangs, talks nonsense or cuts connections.

Training's results are those without W&B, and all records are there after `make sync`, once.
"""

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import records, status
from forked import forge
from resumed import assert_same, outcome
from wandb_server import NOWHERE, WandbServer, assert_rows

pytestmark = pytest.mark.faults

EPOCHS = 24
RUN = (
    f"epochs={EPOCHS}",
    "schedule.stages=6",
    "batch_size=32",
    "noise.batches=2",
    "split=0.9",
    "checkpoint_seconds=0",
)
SOON = dict.fromkeys(
    ("igo.runs.loggers.wandb.INIT_TIMEOUT", "igo.runs.loggers.wandb.FINISH_TIMEOUT"), 5.0
)


def start(place: Path, *arguments: str, **environment: Any) -> None:
    process = forge.run(*RUN, *arguments, folder=place, settings=SOON, **environment).good()
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("trouble", "rows"),
    [(trouble, 0) for trouble in ("refuse", "hang", "nonsense", "drip", "401", "500")]
    + [(trouble, 3) for trouble in ("hang", "cut", "drip", "500")],
)
def test_an_outage_costs_nothing_but_patience(tmp_path: Path, trouble: str, rows: int) -> None:
    """From the beginning, or once the server has some rows; then it is well, and sync is called."""
    offline_place, online_place = (tmp_path / name for name in ("without", "within"))
    start(offline_place, "tracking=none")
    with WandbServer() as server:

        def cause() -> None:
            server.enough_rows.wait()
            server.trouble = trouble

        if rows:
            server.rows_wanted = rows
            threading.Thread(target=cause, daemon=True).start()
        else:
            server.trouble = trouble
        refused = {"WANDB_BASE_URL": NOWHERE} if trouble == "refuse" else {}
        start(online_place, **server.online | refused)
        assert server.troubled or trouble == "refuse", "there was an outage"
        assert_same(outcome(online_place), outcome(offline_place))
        server.trouble, server.rows_wanted = "", 0
        server.well_again.set()
        rows_there = sync(online_place, server)
        assert server.reports == []  # for whose answers the process would wait at its end
    assert_rows(rows_there, records(online_place))


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_wandbs_service_dies(tmp_path: Path, mode: str) -> None:
    """As Linux's OOM killer does: training ends with its record complete, and sync brings all."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.02):
            record_files = list(tmp_path.glob("runs/*/metrics.jsonl"))
            if record_files and record_files[0].read_text().count("\n") >= 3:
                for pid in services(tmp_path):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                if killed:
                    return

    killed: list[int] = []
    thread = threading.Thread(target=kill)
    thread.start()
    with WandbServer() as server:
        try:
            start(tmp_path, **server.online | {"WANDB_MODE": mode})
        finally:
            over.set()
            thread.join()
        assert killed, "its service was there to be killed"
        assert [row["epoch"] for row in records()] == [*range(1, EPOCHS + 1)]
        rows_there = sync(tmp_path, server)
    assert [row["epoch"] for row in rows_there] == list(range(1, EPOCHS + 1))


def services(place: Path) -> list[int]:
    """Process ids of wandb-core of a run in a place."""
    pids = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            program = (entry / "cmdline").read_bytes().split(b"\0")[0]
            if b"wandb-core" in program and (entry / "cwd").resolve() == place.resolve():
                pids.append(int(entry.name))
    return pids


def sync(place: Path, server: WandbServer) -> list[dict[str, Any]]:
    """Bring what the run folder has to the server; the one run's rows there."""
    assert forge.run(command="sync", folder=place, **server.online).good().stderr == ""
    identity = status(place)["wandb_id"]
    assert list(server.runs) == [identity], "it is one run"
    assert len(server.runs[identity].received) == len(server.runs[identity].rows), "each once"
    return server.runs[identity].rows
