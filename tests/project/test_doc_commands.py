"""Every command of README, CONTRIBUTING and docs runs as it is written, in a folder of its own.

The commands come from the pages' text. A training gets settings after its own that make it short.
NOT_HERE says which commands do not run here and why; a command that is in neither runs whole.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from clone import clone, succeed
from conftest import ROOT, TINY
from PIL import Image
from recorded import METHODS, record_runs
from test_docs import commands

from igo.runs.manifest import Entry, Manifest

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "igo", "make", "torchrun", "srun", "source", "wandb", "bash", "pip", "git")
TESTS = "test_targets.py runs a short form, or CI the whole"

# A command that one of these is found in does not run here, and why.
NOT_HERE = {
    r"experiment=cifar100|dataset=cifar100|cifar100_schedules": "downloads CIFAR-100, trains hours",
    r"LAUNCHER=slurm|^srun ": "needs SLURM: make test-slurm",
    r"^make gpu(?! ARGS=dry)": "needs a GPU",
    r"^make gpu ARGS=dry": TESTS,
    r"^make (test|lint|unit|types|examples|coverage|mutants)|^bash \.ci|^mutmut ": TESTS,
    r"^make (theory|noise|bench|study|reproduce|reproducible|lock|help|setup)": TESTS,
    r"^make (dashboard|sync|docs)": TESTS,
    r"^python -m lab\.(theory|noise)$": "takes many minutes: test_targets.py runs a short form",
    r"^python -m lab\.theory ": "tests/lab/theory/test_command_line.py runs all studies",
    r"^python -m benchmarks\.|^make bench": "measures for many minutes: test_benchmarks.py",
    r"^(git clone|pip install|source) ": "sets up a machine",
    r"^git tag |^bash \.ci/package|^python -m build": "a release: .github/workflows/release.yml",
    r"^wandb (sweep|agent|leet|sync)": "needs an account: test_agent.py runs them with a server",
    r"^python launch/dashboard\.py": "needs an account: test_dashboard.py",
    r"^igo sync": "needs an account: test_sync.py",
    r"schedule=logarithmic": "of an example that test_contributing.py adds first",
    r"^python src/train\.py …": "is no command",
}

# A word of a page that stands for a reader's own, and ours.
OURS = {
    "range(N)": "range(3)",
    "/path/to/images": "images",
    "run=FOLDER": "run=runs/digits-…",
}
SAMPLES = "dataset.samples=96"
SHORT = " ".join(TINY[1:])  # without epochs, which some stages need more of
MANY = f"{SHORT} epochs=1 schedule.stages=1"  # of a sweep


ALL = commands(f"({'|'.join(PROGRAMS)}) ", PAGES)
HERE = [command for command in ALL if not any(re.search(what, command) for what in NOT_HERE)]


def is_quick(command: str) -> bool:
    return bool(re.search(r"--help|dry_run|^igo table|^make table", command))


def write_sweeps(place: Path, folders: list[Path]) -> None:
    """The manifests of the sweeps that the pages name, each of these runs."""
    entries = [Entry(folder.name, [], folder.name, 3) for folder in folders]
    for name in ("methods", "schedules", "p_split", "cifar100_methods"):
        sweep = Manifest(f"{name}-1a2b3c4d", "typed", "2025-01-02T03:04:05+0000", entries)
        sweep.write(place / "runs")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the sweeps that the pages name are recorded, and a reader's images lie."""
    place = clone(tmp_path_factory.mktemp("clone"))
    runs = place / "runs"
    folders = [
        run for words in METHODS.values() for run in record_runs(runs, *words, "schedule.stages=3")
    ]
    write_sweeps(place, folders)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    for index, image in enumerate(images):
        folder = place / "images" / "train" / f"class{index % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    np.savez(place / "mine.npz", images=images, labels=np.arange(60) % 3)
    return place


def fitted(command: str, place: Path) -> str:
    """A page's command with ours for the reader's own, an elided name whole, a training short."""
    for theirs, ours in OURS.items():
        command = command.replace(theirs, ours)
    for elided in re.findall(r"runs/((?:sweeps/)?[a-z0-9_]+-)(?:…|[0-9a-f]{8}\b)", command):
        (whole, *_) = sorted(place.glob(f"runs/{elided}*"))
        command = re.sub(rf"runs/{elided}[…0-9a-f]+", str(whole.relative_to(place)), command)
    assert "…" not in command, command
    if "src/train.py" in command and not re.search("--help| run=", command):
        own_data = "dataset=folder" in command or "dataset=arrays" in command
        many = " -m " in command and "epochs=" not in command and "dry_run" not in command
        command += f" {SHORT.replace(SAMPLES, '') if own_data else MANY if many else SHORT}"
    command = re.sub(r"\bseed=(\d+(,\d+)+|'range\(\d+\)')", "seed=0", command)  # of a sweep one
    if command.startswith("make sweep") and "sweep-status" not in command:
        command = command if "ARGS=" in command else f'{command} ARGS=""'
        command = re.sub(r'ARGS="(.*)"', rf'ARGS="\1 {MANY} seed=0"', command)
    return command


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one run that has a model, in place of the records."""
    place = tmp_path_factory.mktemp("trained") / "clone"
    shutil.copytree(prepared, place, symlinks=True)
    shutil.rmtree(place / "runs")
    whole = " ".join(TINY).replace(SAMPLES, "")  # what measures asks for 1,280 images
    succeed(place, f"python src/train.py {whole} tracking=none")
    write_sweeps(place, sorted(place.glob("runs/digits-*")))
    return place


@pytest.mark.parametrize(
    "command",
    [pytest.param(line, marks=() if is_quick(line) else pytest.mark.slow) for line in HERE],
)
def test_a_command_of_the_pages_runs(
    command: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    needs_a_model = re.search("digits-|sharpness|run=FOLDER", command)
    source = request.getfixturevalue("trained" if needs_a_model else "prepared")
    place = Path(shutil.copytree(source, tmp_path / "clone", symlinks=True))
    succeed(place, fitted(command, place))


def test_what_is_not_run_is_on_a_page() -> None:
    """A line of NOT_HERE that fits no command any more is wrong."""
    for what in NOT_HERE:
        assert any(re.search(what, command) for command in ALL), what
    assert len(HERE) > 20
