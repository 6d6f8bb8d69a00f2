"""A run goes on, or is reported, from its folder alone."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import pytest
import yaml
from conftest import TINY, Ended, records, run_folder
from conftest import status as read_status
from forked import Death, forge

from igo.config.load import read_config
from igo.config.schema import result_settings

STEP = ("schedule=step", "schedule.stages=2", "schedule.lam=1.5")
ODD = (*TINY, *STEP, "optimizer=shb", "learning_rate=0.05", "seed=7")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a finished run is; no test changes it."""
    place = tmp_path_factory.mktemp("finished")
    forge.run(place, *ODD, "tracking=none").good()
    return place


def start(place: Path, *arguments: str | Path) -> Ended:
    """``python src/train.py run=ARGUMENTS``."""
    return forge.run(place, f"run={arguments[0]}", *map(str, arguments[1:]), bare=True)


def test_a_killed_run_goes_on_in_its_folder_to_the_same_end(finished: Path, tmp_path: Path) -> None:
    death = Death("igo.runs.checkpoint.save", 1, "after")
    assert forge.run(tmp_path, *ODD, "tracking=none", death=death).returncode == -signal.SIGKILL
    folder = run_folder(tmp_path)
    ended = start(tmp_path, folder.relative_to(tmp_path), "engine.threads=1").good()
    assert "continuing after epoch 1 of 3" in ended.stdout
    assert records(folder) == records(run_folder(finished))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]
    status = read_status(folder)
    assert status["command"].endswith(f"run=runs/{folder.name} engine.threads=1")
    assert status["directory"] == str(tmp_path)
    assert {"commit", "versions", "python", "host"} <= status.keys()


def test_a_run_begun_afresh_goes_on_in_its_folder_and_is_not_begun_again(tmp_path: Path) -> None:
    death = Death("igo.runs.checkpoint.save", 2, "after")
    assert forge.run(tmp_path, *ODD, "tracking=none", "fresh=true", death=death).returncode < 0
    folder = run_folder(tmp_path)
    assert "continuing after epoch 2 of 3" in start(tmp_path, folder).good().stdout
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "finished before" in start(tmp_path, folder).good().stdout
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_fresh_trains_it_again_elsewhere_data_and_tracking(finished: Path, tmp_path: Path) -> None:
    """A copy: it is the folder that counts, wherever it is."""
    folder = tmp_path / "elsewhere" / run_folder(finished).name
    folder.mkdir(parents=True)
    text = (run_folder(finished) / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text)
    typed = ("fresh=true", "tracking=wandb", "tracking.tags=[again]", f"data_dir={tmp_path}/d")
    start(tmp_path, folder, *typed).good()
    assert records(folder) == records(run_folder(finished))
    assert list((tmp_path / "elsewhere" / "wandb").glob("offline-run-*"))
    assert (tmp_path / "d" / "cache").is_dir()
    ours, theirs = (read_config(path / "config.yaml") for path in (folder, run_folder(finished)))
    assert result_settings(ours) == result_settings(theirs)
    assert ours.tracking.tags == ["again"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("seed=8", "seed=8 is not allowed: with run=… the settings are those of the run"),
        ("schedule=cosine", "schedule"),
        ("engine.precision=fp32", "engine.precision=fp32 is not allowed: with run=…"),
        ("runs_dir=here", "runs_dir=here is not allowed"),
        ("engine.device=gpu", "engine.device=gpu is not allowed: it must be one of auto, cpu"),
    ],
)
def test_what_the_run_is_cannot_be_typed(finished: Path, typed: str, message: str) -> None:
    assert message in start(finished, run_folder(finished), typed).error()


def test_the_command_of_another_run_is_given_whole(finished: Path) -> None:
    """What is offered is the run's own command with the setting changed, for that shell."""
    line = start(finished, run_folder(finished), "seed=8", "epochs=4").error()
    offered = shlex.split(line.partition("or train another run: ")[2])
    assert offered[1].endswith("train.py")
    typed = [word for word in offered[2:] if not word.startswith("runs_dir=")]
    wanted = [word for word in ODD if not word.startswith(("seed=", "epochs="))]
    assert typed == [*wanted, "tracking=none", "seed=8", "epochs=4"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("", "does not hold a run's configuration"),
        ("p: [", "cannot be read"),
        ("dataset: {colour: red}\n", "there is no setting 'dataset.colour'"),
    ],
)
def test_a_damaged_configuration_is_one_line_with_the_command(
    finished: Path, tmp_path: Path, damage: str, message: str
) -> None:
    folder = tmp_path / run_folder(finished).name
    folder.mkdir()
    (folder / "config.yaml").write_text(damage)
    (folder / "status.json").write_text(json.dumps({"command": "python src/train.py p=0.3"}))
    line = start(tmp_path, folder).error()
    assert message in line
    assert "The run began as: python src/train.py p=0.3" in line


def test_a_changed_configuration_is_another_run(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / run_folder(finished).name
    folder.mkdir()
    config = yaml.safe_load((run_folder(finished) / "config.yaml").read_text())
    config["seed"] = 8
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert "The file was changed, or the folder renamed" in start(tmp_path, folder).error()


def test_no_such_folder_and_many_of_them(tmp_path: Path) -> None:
    line = start(tmp_path, "nowhere").error()
    assert "run=nowhere is not allowed: it must be a run folder" in line
    line = start(tmp_path, "one,two", "-m").error()
    assert "it continues one run with its own configuration; leave -m out" in line
