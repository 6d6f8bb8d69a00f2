"""A W&B sweep: what its agents start is a run of the sweep, which sees its epochs."""

import json
import signal
from typing import Any

import yaml
from conftest import ROOT, TINY, records, run_folder
from forked import Death, forge
from wandb_server import WandbServer, assert_rows


def test_a_run_that_was_begun_elsewhere_is_whole_in_the_sweep() -> None:
    """By the words that W&B's agents make of launch/wandb_sweep.yaml, in their environment.

    Another run of the sweep with the same settings gets the record of the finished one.
    """
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args  # takes two seconds

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
            environment: Any = {**of_agent, **variables, "WANDB_RUN_ID": name}
            process = forge.run(*overrides, **environment).good()
            assert process.stderr == ""
            assert words_of_igo in process.stdout
            assert server.runs[name].received == [1, 2, 3]
            assert_rows(server.runs[name].rows, records(folder, timings=True))
            assert server.runs[name].exit_code == 0
        assert set(server.runs) == {run, "theirs", "again"}
        agent_run, repetition = (server.runs[name].settings for name in ("theirs", "again"))
    assert (agent_run["groupName"], agent_run["displayName"]) == ("ours", "mine")
    assert agent_run["tags"] == ["a#1", "two words", "digits", "graduated"]
    assert repetition["groupName"] == repetition["sweep"] == "s1"
    assert repetition["displayName"].endswith(f" {folder.name}")
    config = json.loads(repetition["config"])
    assert {name: config[name]["value"] for name in values} == values
