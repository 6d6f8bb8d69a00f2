"""A W&B sweep: what its agents type trains src/train.py, and the sweep sees its epochs."""

import json
import signal
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT, TINY, records, run_folder
from forked import Death, forge
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb_server import WandbServer, assert_rows


def test_a_run_that_was_begun_elsewhere_is_whole_in_the_sweep(tmp_path: Path) -> None:
    """By the words that W&B's agents make of launch/wandb_sweep.yaml, in their environment.

    Another run of the sweep with the same settings gets the record of the finished one.
    """
    asked = yaml.safe_load((ROOT / "launch" / "wandb_sweep.yaml").read_text())
    assert (asked["program"], asked["method"]) == ("src/train.py", "grid")
    assert asked["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    given = {"p": 0.25, "split": 0.75, "seed": 3}
    assert asked["parameters"].keys() == given.keys()
    words = create_sweep_command_args({"args": {name: {"value": x} for name, x in given.items()}})
    *settings, arguments = asked["command"][3:]
    typed = [*settings, *words[arguments.strip("${}")], *TINY]
    of_agent = {"WANDB_SWEEP_ID": "s1", "WANDB_PROJECT": "igo", "WANDB_ENTITY": "team"}
    named = {"WANDB_RUN_GROUP": "ours", "WANDB_NAME": "mine", "WANDB_TAGS": "a#1,two words"}
    with WandbServer() as server:
        of_agent |= server.online
        killed = Death("igo.runs.loggers.Guarded.log", 2, "after", signal.SIGTERM)
        ended = forge.run(tmp_path, *typed, death=killed, **server.online)
        assert ended.returncode == 128 + signal.SIGTERM
        (run,) = server.runs
        assert server.runs[run].received == [1, 2]
        folder = run_folder(tmp_path)
        for name, more, said in (
            ("theirs", named, "continuing after epoch 2"),
            ("again", {}, "finished before"),
        ):
            environment: dict[str, Any] = {**of_agent, **more, "WANDB_RUN_ID": name}
            ended = forge.run(tmp_path, *typed, **environment).good()
            assert ended.stderr == ""
            assert said in ended.stdout
            assert server.runs[name].received == [1, 2, 3]
            assert_rows(server.runs[name].rows, records(folder, timings=True))
            assert server.runs[name].exit_code == 0
        assert set(server.runs) == {run, "theirs", "again"}
        sent, again = (server.runs[name].settings for name in ("theirs", "again"))
    assert (sent["groupName"], sent["displayName"]) == ("ours", "mine")
    assert sent["tags"] == ["a#1", "two words", "graduated"]
    assert again["groupName"] == again["sweep"] == "s1"
    assert again["displayName"].endswith(f" {folder.name}")
    config = json.loads(again["config"])
    assert {name: config[name]["value"] for name in given} == given
