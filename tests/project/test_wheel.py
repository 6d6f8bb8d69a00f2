"""The wheel in environments of its own: `import igo`, the command `igo`, its configuration."""

import json
import site
import sys
import zipfile
from pathlib import Path

import pytest
from clone import copy_sources
from conftest import Ended, ran

pytestmark = pytest.mark.slow
SMALL = ("epochs=1", "dataset.samples=96", "model.width=4", "noise.batches=2")


def done(folder: Path, *command: str | Path) -> Ended:
    """A command in an environment that has no path to the clone."""
    return ran(folder, *command, MPLCONFIGDIR=str(folder), PYTHONPATH="")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    copy_sources(place / "clone")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done(place, *pip, "--wheel-dir", place, place / "clone").good()
    (built,) = place.glob("igo-*.whl")
    return built


def environment(place: Path, wheel: Path) -> Path:
    """A new environment with the wheel and nothing else."""
    done(place.parent, sys.executable, "-m", "venv", "--without-pip", place).good()
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
    done(place, *pip, "install", "--no-deps", "--no-index", wheel).good()
    return place


def test_alone_it_imports_and_says_what_its_programs_need(wheel: Path, tmp_path: Path) -> None:
    empty = environment(tmp_path / "empty", wheel)
    code = "import igo; print(igo.__file__)"
    process = done(tmp_path, empty / "bin" / "python", "-c", code).good()
    assert Path(process.stdout.strip()).is_relative_to(empty)
    igo = empty / "bin" / "igo"
    assert "\n  train " in done(tmp_path, igo, "--help").good().stdout
    version = wheel.name.split("-")[1]
    assert done(tmp_path, igo, "--version").good().stdout == f"igo {version}\n"
    error = done(tmp_path, igo, "train").error()
    assert error.startswith("error: hydra is missing: ")
    assert error.endswith(f"pip install '{wheel}[train,report]'")


def test_what_makes_the_results_is_not_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert "igo/conf/config.yaml" in names
    assert {name.split("/")[0] for name in names if name.endswith(".py")} == {
        "hydra_plugins",
        "igo",
    }


def test_it_explains_itself_trains_sweeps_and_reports(wheel: Path, tmp_path: Path) -> None:
    """With all other packages of this environment, too, but without its link to the clone."""
    full = environment(tmp_path / "full", wheel)
    (libraries,) = full.glob("lib/python*/site-packages")
    # A path in a .pth file brings what lies there, and not what other .pth files there point to.
    (libraries / "others.pth").write_text("\n".join(site.getsitepackages()))
    igo = full / "bin" / "igo"
    code = "from igo.ground import files; print(files.CONF)"
    process = done(tmp_path, full / "bin" / "python", "-c", code)
    assert Path(process.stdout.strip()).is_relative_to(full)
    assert "schedule=graduated " in done(tmp_path, igo, "train", "--help").good().stdout
    run = done(tmp_path, igo, "train", *SMALL, "schedule=constant", "tracking.mode=offline").good()
    assert "finished: test accuracy" in run.stdout
    done(tmp_path, igo, "train", "-m", *SMALL, "epochs=2", "p=0.5,1", "tracking=none").good()
    commands = [
        json.loads(file.read_text())["command"] for file in tmp_path.glob("runs/*/status.json")
    ]
    assert len(commands) == 3
    assert all(command.startswith("igo train ") for command in commands)
    done(tmp_path, igo, "report", "runs=runs", "output=report").good()
    assert "no valid W&B key" in done(tmp_path, igo, "dashboard").error()
    assert "</html>" in (tmp_path / "report" / "index.html").read_text()
