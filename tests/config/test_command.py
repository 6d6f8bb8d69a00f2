"""`igo`: one name for all programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, clean_environment

from igo.__main__ import COMMANDS
from igo.ground.paths import CONF, LAUNCH

PLACE = {"PYTHONPATH": str(ROOT / "src")}


def igo(folder: Path, *typed: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "igo", *typed],
        cwd=folder, env=clean_environment(**{**PLACE, **environment}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("typed", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_with_what_it_does(typed: list[str], tmp_path: Path) -> None:
    ended = igo(tmp_path, *typed)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in ended.stdout.splitlines()[2:-2]]
    assert [name for name, _ in lines] == list(COMMANDS)
    for (_, says), config_name in zip(lines, COMMANDS.values(), strict=True):
        assert (ROOT / "conf" / f"{config_name}.yaml").read_text().startswith(f"# {says}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself(command: str, tmp_path: Path) -> None:
    ended = igo(tmp_path, command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"usage: igo {command} [" in ended.stdout


def test_every_configuration_has_a_command() -> None:
    """But for those of launch/: scripts that a person may edit."""
    files = {path.stem for path in (ROOT / "conf").glob("*.yaml")}
    assert {*COMMANDS.values(), "charts", "dashboard"} == files


def test_a_wrong_command_is_one_line(tmp_path: Path) -> None:
    ended = igo(tmp_path, "tabel")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: there is no command 'tabel'. Did you mean 'table'? (igo --help lists all)\n"
    )


def test_without_its_extras_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "omegaconf.py").write_text("raise ModuleNotFoundError(name='omegaconf')\n")
    ended = igo(tmp_path, "train", PYTHONPATH=os.pathsep.join([str(tmp_path), PLACE["PYTHONPATH"]]))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: omegaconf is missing: source .venv/bin/activate, or pip install '.[train,report]'"
        " in the clone of igo\n"
    )


def test_configuration_is_that_of_the_clone() -> None:
    assert ROOT / "conf" == CONF
    assert ROOT / "launch" == LAUNCH


def test_train_is_the_script(tmp_path: Path) -> None:
    """By a plan alone, so that nothing is trained."""
    script = [sys.executable, str(ROOT / "src" / "train.py"), "dry_run=true", "epochs=3"]
    ended = subprocess.run(
        script,
        cwd=tmp_path,
        env=clean_environment(**PLACE),
        capture_output=True,
        text=True,
        check=True,
    )
    assert igo(tmp_path, "train", "dry_run=true", "epochs=3").stdout == ended.stdout
