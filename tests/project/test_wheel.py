"""The wheel in environments of its own: `import igo`, the command `igo`, its configuration."""

from __future__ import annotations

import json
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from clone import copy_sources
from conftest import clean_environment

pytestmark = pytest.mark.slow
SMALL = ("epochs=1", "dataset.samples=96", "model.width=4", "noise.batches=2", "noise.batch_size=8")


def done(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """A command in an environment that has no path to the clone."""
    environment = clean_environment(MPLCONFIGDIR=str(folder))
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [str(one) for one in command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def build(sources: Path, place: Path) -> Path:
    """The wheel of these sources, in a folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    made = done(sources, *pip, "--wheel-dir", place, sources)
    assert made.returncode == 0, made.stderr
    (file,) = place.glob("igo-*.whl")
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    copy_sources(place / "clone")
    return build(place / "clone", place)


def environment(place: Path, wheel: Path) -> Path:
    """A new environment with the wheel and nothing else."""
    made = done(place.parent, sys.executable, "-m", "venv", "--without-pip", place)
    assert made.returncode == 0, made.stderr
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
    installed = done(place, *pip, "install", "--no-deps", "--no-index", wheel)
    assert installed.returncode == 0, installed.stderr
    return place


@pytest.fixture(scope="module")
def empty(wheel: Path) -> Path:
    return environment(wheel.parent / "empty", wheel)


@pytest.fixture(scope="module")
def full(wheel: Path) -> Path:
    """With all other packages of this environment too, but without its link to the clone.

    A path in a .pth file brings what lies there, and not what other .pth files there point to.
    """
    place = environment(wheel.parent / "full", wheel)
    (libraries,) = place.glob("lib/python*/site-packages")
    (libraries / "others.pth").write_text("\n".join(site.getsitepackages()))
    return place


def test_its_version_is_the_tag(tmp_path: Path) -> None:
    sources = tmp_path / "clone"
    copy_sources(sources)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["tag", "v9.8.7"]):
        said = done(sources, *git, *words)
        assert said.returncode == 0, said.stderr
    assert build(sources, tmp_path).name == "igo-9.8.7-py3-none-any.whl"


def test_alone_it_imports_and_says_what_its_programs_need(empty: Path, tmp_path: Path) -> None:
    said = done(tmp_path, empty / "bin" / "python", "-c", "import igo; print(igo.__file__)")
    assert said.returncode == 0, said.stderr
    assert Path(said.stdout.strip()).is_relative_to(empty)
    said = done(tmp_path, empty / "bin" / "igo", "train")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("error: omegaconf is missing: ")
    assert "pip install '.[train,report]'" in said.stderr


def test_what_makes_the_results_is_not_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (metadata,) = (file.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert "igo/conf/config.yaml" in names
    assert {name.split("/")[0] for name in names if name.endswith(".py")} == {
        "hydra_plugins", "igo",
    }  # fmt: skip
    assert [name for name in names if "theory" in name or "noise_study" in name] == []
    cma = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: cma")]
    assert [line.endswith('extra == "lab"') for line in cma] == [True]


def test_help_is_read_from_its_own_configuration(full: Path, tmp_path: Path) -> None:
    said = done(tmp_path, full / "bin" / "igo", "train", "--help")
    assert said.returncode == 0, said.stderr
    assert "usage: igo train [" in said.stdout
    assert "schedule=…  (default: graduated)" in said.stdout
    there = done(
        tmp_path, full / "bin" / "python", "-c", "from igo.ground import paths; print(paths.CONF)"
    )
    assert Path(there.stdout.strip()).is_relative_to(full)


def test_it_trains_sweeps_and_reports(full: Path, tmp_path: Path) -> None:
    igo = full / "bin" / "igo"
    run = done(tmp_path, igo, "train", *SMALL, "schedule=constant", "tracking.mode=offline")
    assert run.returncode == 0, run.stderr
    assert "finished: test accuracy" in run.stdout
    swept = done(tmp_path, igo, "train", "-m", *SMALL, "epochs=2", "p=0.5,1", "tracking=none")
    assert swept.returncode == 0, swept.stderr
    commands = [
        json.loads(file.read_text())["command"] for file in tmp_path.glob("runs/*/status.json")
    ]
    assert len(commands) == 3
    assert all(command.startswith("igo train ") for command in commands)
    assert done(tmp_path, igo, "sweep-status").returncode == 0
    report = done(tmp_path, igo, "report", "runs=runs", "output=report")
    assert report.returncode == 0, report.stderr
    assert "</html>" in (tmp_path / "report" / "index.html").read_text()
