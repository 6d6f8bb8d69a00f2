"""A W&B sweep: its agents train src/train.py, and the sweep sees its epochs."""

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
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb_server import KEY, WandbServer, assert_rows


def wandb(server: WandbServer, place: Path, *arguments: str) -> str:
    """A command line of wandb's in the repository, with the environment's python first."""
    programs = Path(sys.executable).parent
    process = ran(
        ROOT,
        programs / "wandb",
        *arguments,
        PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        WANDB_BASE_URL=server.url,
        WANDB_API_KEY=KEY,
        WANDB_DIR=str(place),
    ).good()
    return process.stdout + process.stderr


def folder_of(place: Path, p: float) -> Path:
    """The run folder whose schedule has this p."""
    configs = {
        file.parent: yaml.safe_load(file.read_text()) for file in place.glob("runs/*/config.yaml")
    }
    (folder,) = (path for path, config in configs.items() if config["p"] == p)
    return folder


@pytest.mark.slow
def test_an_agent_trains_what_a_sweep_asks_for_and_reports_what_is_finished(tmp_path: Path) -> None:
    """What launch/wandb_sweep.yaml asks for, but two combinations of tiny runs."""
    sweep_file, file = ROOT / "launch" / "wandb_sweep.yaml", tmp_path / "sweep.yaml"
    sweep = yaml.safe_load(sweep_file.read_text())
    values = {"p": [0.25, 1.0], "split": [0.75], "seed": [3]}
    sweep["parameters"] = {name: {"values": choices} for name, choices in values.items()}
    sweep["command"] += [*TINY, f"runs_dir={tmp_path / 'runs'}"]
    file.write_text(yaml.safe_dump(sweep))
    with WandbServer() as server:
        assert "wandb agent team/igo/sweep1" in wandb(server, tmp_path, "sweep", str(file))
        wandb(server, tmp_path, "agent", "--count", "2", "team/igo/sweep1")
        run_1, run_2 = server.sweeps["sweep1"].runs
        assert set(server.runs) == {run_1, run_2}, "no run beside those that the sweep made"
        for name, p in ((run_1, 0.25), (run_2, 1.0)):
            run = server.runs[name]
            config = json.loads(run.settings["config"])
            assert [config[name]["value"] for name in ("p", "split", "seed")] == [p, 0.75, 3]
            assert run.settings["sweep"] == run.settings["groupName"] == "sweep1"
            assert run.settings["displayName"].endswith(f" {folder_of(tmp_path, p).name}")
            assert_rows(run.rows, records(folder_of(tmp_path, p), timings=True))
            assert run.exit_code == 0

        times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.pt")}
        wandb(server, tmp_path, "sweep", str(file))
        output = wandb(server, tmp_path, "agent", "--count", "1", "team/igo/sweep2")
        assert "finished before" in output
        (repetition,) = server.sweeps["sweep2"].runs
        assert set(server.runs) == {run_1, run_2, repetition}
        assert server.runs[repetition].settings["sweep"] == "sweep2"
        expected = records(folder_of(tmp_path, 0.25), timings=True)
        assert_rows(server.runs[repetition].rows, expected)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*.pt")} == times


def test_a_run_that_was_begun_elsewhere_is_whole_in_the_sweep() -> None:
    """By the words that W&B's agents make of launch/wandb_sweep.yaml, in their environment.

    Another run of the sweep with the same settings gets the record of the finished one.
    """
    sweep = yaml.safe_load((ROOT / "launch" / "wandb_sweep.yaml").read_text())
    assert (sweep["program"], sweep["method"]) == ("src/train.py", "grid")
    assert sweep["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    values = {"p": 0.25, "split": 0.75, "seed": 3}
    assert sweep["parameters"].keys() == values.keys()
    words = create_sweep_command_args({"args": {name: {"value": x} for name, x in values.items()}})
    *settings, arguments = sweep["command"][3:]
    overrides = [*settings, *words[arguments.strip("${}")], *TINY]
    of_agent = {"WANDB_SWEEP_ID": "s1", "WANDB_PROJECT": "igo", "WANDB_ENTITY": "team"}
    names = {"WANDB_RUN_GROUP": "ours", "WANDB_NAME": "mine", "WANDB_TAGS": "a#1,two words"}
    with WandbServer() as server:
        of_agent |= server.online
        killed = Death("igo.runs.loggers.Guarded.log", 2, "after", signal.SIGTERM)
        process = forge.run(*overrides, death=killed, **server.online)
        assert process.returncode == 128 + signal.SIGTERM
        (run,) = server.runs
        assert server.runs[run].received == [1, 2]
        folder = run_folder()
        for name, variables, words_of_igo in (
            ("theirs", names, "continuing after epoch 2"),
            ("again", {}, "finished before"),
        ):
            environment: dict[str, Any] = {**of_agent, **variables, "WANDB_RUN_ID": name}
            process = forge.run(*overrides, **environment).good()
            assert process.stderr == ""
            assert words_of_igo in process.stdout
            assert server.runs[name].received == [1, 2, 3]
            assert_rows(server.runs[name].rows, records(folder, timings=True))
            assert server.runs[name].exit_code == 0
        assert set(server.runs) == {run, "theirs", "again"}
        agent_run, repetition = (server.runs[name].settings for name in ("theirs", "again"))
    assert (agent_run["groupName"], agent_run["displayName"]) == ("ours", "mine")
    assert agent_run["tags"] == ["a#1", "two words", "graduated"]
    assert repetition["groupName"] == repetition["sweep"] == "s1"
    assert repetition["displayName"].endswith(f" {folder.name}")
    config = json.loads(repetition["config"])
    assert {name: config[name]["value"] for name in values} == values
