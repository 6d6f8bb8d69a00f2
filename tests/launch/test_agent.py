"""A W&B sweep: the real `wandb sweep` and `wandb agent` start src/train.py, and see its epochs."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, TINY, ran, records, run_folder
from forked import Death, forge
from wandb_server import KEY, OnlineRun, WandbServer, assert_rows


def wandb(server: WandbServer, place: Path, *arguments: str) -> str:
    """A command line of wandb's in the repository, with the environment's python first."""
    programs = Path(sys.executable).parent
    done = ran(
        ROOT, programs / "wandb", *arguments, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY, WANDB_DIR=str(place),
    ).good()  # fmt: skip
    return done.stdout + done.stderr


def folder_of(place: Path, p: float) -> Path:
    """The run folder whose schedule has this p."""
    configs = {
        file.parent: yaml.safe_load(file.read_text()) for file in place.glob("runs/*/config.yaml")
    }
    (folder,) = (path for path, config in configs.items() if config["p"] == p)
    return folder


def assert_row_for_row(run: OnlineRun, folder: Path) -> None:
    """The W&B run has each record of the folder, once, and is finished."""
    assert run.received == [1, 2, 3]
    assert_rows(run.rows, records(folder, timings=True))
    assert run.exit_code == 0


@pytest.mark.slow
def test_an_agent_trains_what_a_sweep_asks_for_and_reports_what_is_finished(tmp_path: Path) -> None:
    """What launch/wandb_sweep.yaml asks for, but two combinations of tiny runs."""
    asked, file = ROOT / "launch" / "wandb_sweep.yaml", tmp_path / "sweep.yaml"
    sweep = yaml.safe_load(asked.read_text())
    assert set(sweep["parameters"]) == {"p", "split", "seed"}
    values = {"p": [0.25, 1.0], "split": [0.75], "seed": [3]}
    sweep["parameters"] = {name: {"values": given} for name, given in values.items()}
    sweep["command"] += [*TINY, f"runs_dir={tmp_path / 'runs'}"]
    file.write_text(yaml.safe_dump(sweep))
    with WandbServer() as server:
        assert "wandb agent team/igo/sweep1" in wandb(server, tmp_path, "sweep", str(file))
        wandb(server, tmp_path, "agent", "--count", "2", "team/igo/sweep1")
        first, second = server.sweeps["sweep1"].runs
        assert set(server.runs) == {first, second}, "no run beside those that the sweep made"
        for name, p in ((first, 0.25), (second, 1.0)):
            run = server.runs[name]
            sent = json.loads(run.settings["config"])
            assert [sent[name]["value"] for name in ("p", "split", "seed")] == [p, 0.75, 3]
            assert run.settings["sweep"] == run.settings["groupName"] == "sweep1"
            assert run.settings["displayName"].endswith(f" {folder_of(tmp_path, p).name}")
            assert_row_for_row(run, folder_of(tmp_path, p))

        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.pt")}
        wandb(server, tmp_path, "sweep", str(file))
        output = wandb(server, tmp_path, "agent", "--count", "1", "team/igo/sweep2")
        assert "finished before" in output
        (again,) = server.sweeps["sweep2"].runs
        assert set(server.runs) == {first, second, again}
        assert server.runs[again].settings["sweep"] == "sweep2"
        assert_row_for_row(server.runs[again], folder_of(tmp_path, 0.25))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.pt")} == before


def test_a_run_that_was_begun_elsewhere_is_whole_in_the_sweep(tmp_path: Path) -> None:
    with WandbServer() as server:
        killed = Death("igo.runs.loggers.Guarded.log", 2, "after", signal.SIGTERM)
        ended = forge.run(tmp_path, *TINY, death=killed, **server.online)
        assert ended.returncode == 128 + signal.SIGTERM
        (run,) = server.runs
        assert server.runs[run].received == [1, 2]
        of_agent: dict[str, Any] = {
            "WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "theirs", "WANDB_PROJECT": "igo",
            "WANDB_ENTITY": "team", "WANDB_RUN_GROUP": "ours", "WANDB_NAME": "mine",
            "WANDB_TAGS": "a#1,two words", **server.online,
        }  # fmt: skip
        ended = forge.run(tmp_path, *TINY, **of_agent).good()
        assert ended.stderr == ""
        assert "continuing after epoch 2" in ended.stdout
        assert set(server.runs) == {run, "theirs"}
        sent = server.runs["theirs"].settings
        assert (sent["groupName"], sent["displayName"]) == ("ours", "mine")
        assert sent["tags"] == ["a#1", "two words", "graduated"]
        assert_row_for_row(server.runs["theirs"], run_folder(tmp_path))
