"""What tests share: configurations as Hydra makes them, and the program as a user starts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from ast import literal_eval
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import settings
from torch import nn
from torch.utils._pytree import tree_flatten

import igo
from igo.config.cli import names_of
from igo.config.load import config_of
from igo.config.schema import Config
from igo.ground.seeds import seed_python
from igo.loop.sampler import permutation
from igo.runs.name import path_of
from igo.sweep.jobs import Composer

ROOT = Path(__file__).parents[1]
TINY = (
    "epochs=3",
    "batch_size=32",
    "dataset.samples=96",
    "model.width=4",
    "noise.batches=2",
    "checkpoint_seconds=0",
)

# A number of float64, but for rounding.
rounded = partial(pytest.approx, rel=1e-12)
torch.set_num_threads(1)  # tests run side by side
# The same examples in each run: no test depends on chance, and one that fails fails again.
settings.register_profile("few", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("few")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from tests and from what they start, but for `pytest -m gpu`; hear Control-C.

    Nothing comes from or goes to the user's home, but to one for what comes before a test.
    """
    home = tempfile.mkdtemp(prefix="igo-home-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.environ["HOME"] = home
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{home}/inductor"
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # "make test &" has it ignored


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of pytest-xdist that crashes between two tests fails the run, too."""
    if error:
        node.config.pluginmanager.get_plugin("session").testsfailed += 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of CUDA's libraries differ from card to card, and fail no test."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Say where there is no GPU."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")


def epoch_batches(n: int, k: int, seed: int, epoch: int) -> list[torch.Tensor]:
    """The k equal batches of an epoch, as samplers give them out."""
    return list(permutation(n, seed, epoch).tensor_split(k))


def arguments_of(words: str) -> dict[str, Any]:
    """Those of a call, as a person writes them in Python: ``n=8 rate='linear'``."""
    pairs = (word.split("=") for word in words.split())
    return {name: literal_eval(value) for name, value in pairs}


def updates_of(plan: igo.Plan) -> list[igo.Update]:
    return [plan.at(number) for number in range(1, plan.updates + 1)]


def hydra_initialized() -> AbstractContextManager[None]:
    """Hydra with the configuration of the project, once at a time."""
    return initialize_config_dir(str(ROOT / "conf"), version_base="1.3")


def configure(*overrides: str) -> Config:
    """Compose and check a configuration from command line overrides."""
    with hydra_initialized():
        composed = _composer().compose(overrides)
    return config_of(composed, names_of(overrides))


@cache
def _composer() -> Composer:
    """The one of this process: it composes each choice of groups once."""
    return Composer("config")


def lines_of(params: dict[str, str], words: list[str]) -> list[list[str]]:
    """The words of a sweep's runs, once Hydra is initialized."""
    from hydra_plugins.igo_launchers import GridSweeper  # Hydra loads its plugins anew.

    return GridSweeper(None, params).lines(OverridesParser.create(), words)


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code (negative: the signal that killed it) and its outputs."""

    returncode: int
    stdout: str
    stderr: str
    others: tuple[tuple[int, str, str], ...] = ()  # the same of ranks 1, 2, …
    cpu: float = 0.0  # seconds that the process computed, where it was not killed

    @property
    def codes(self) -> list[int]:
        """The exit code of each rank."""
        return [self.returncode, *(code for code, _, _ in self.others)]

    def good(self) -> Self:
        """This, once it is checked that the program succeeded, on each rank."""
        assert not any(self.codes), self
        return self

    def assert_light(self, module: str) -> None:
        """With PYTHONPROFILEIMPORTTIME=1 it imported a module, and no heavy library."""
        imported = {line.rpartition("|")[2].strip() for line in self.stderr.splitlines()}
        assert module in imported
        assert not imported & {"torch", "timm", "wandb", "sklearn"}

    def error(self) -> str:
        """The only line of stderr, once it is checked that the program refused what it was told."""
        assert self.returncode == 2, self
        (line,) = self.stderr.splitlines()
        assert line.startswith("error: "), line
        return line


def python(folder: Path, *words: str | Path, **environment: str) -> Ended:
    """Run Python in a folder as a user does, such as ``-m igo report``."""
    return ran(folder, sys.executable, *words, **environment)


def ran(folder: Path, *words: str | Path, **environment: str) -> Ended:
    """Run a command in a folder."""
    process = subprocess.run(
        words,
        cwd=folder,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(process.returncode, process.stdout, process.stderr)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Parameters, statistics of BatchNorm and random numbers stay as they are, to the bit."""
    content = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_equal(dict(model.state_dict()), content)


def status(place: Path = Path()) -> dict[str, Any]:
    """status.json of the run in a place."""
    return dict(json.loads((run_folder(place) / "status.json").read_text()))


def assert_equal(actual: Any, expected: Any) -> None:
    """Equal to the bit, containers and their order included."""
    (leaves, form), (expected_leaves, expected_form) = map(tree_flatten, (actual, expected))
    assert form == expected_form
    for leaf, expected_leaf in zip(leaves, expected_leaves, strict=True):
        assert type(leaf) is type(expected_leaf)
        if isinstance(leaf, torch.Tensor):
            torch.testing.assert_close(leaf, expected_leaf, rtol=0, atol=0)
        else:
            assert leaf == expected_leaf


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test, and what it starts, writes into tmp_path. Its home is made by what needs one.

    igo looks for a user's own code in the current folder. No later test finds it there.
    """
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where a test's tensors are."""
    return str(request.param)


def seed() -> None:
    """What a test, or a function in a process of its own, draws. A run must seed itself."""
    torch.manual_seed(0)
    seed_python(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws depends neither on chance nor on the tests before it."""
    seed()


@pytest.fixture(autouse=True)
def _settings_of_pytorch() -> Iterator[None]:
    """Threads, determinism and TF32 are after each test what they were before."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    flags = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = flags


def interpreter(*words: str, **environment: str) -> Ended:
    """Run src/train.py as a user does, one thread, in a test's own place."""
    return python(Path(), *command(Path.cwd(), *words)[1:], **environment)


def command(tmp_path: Path, *arguments: str) -> list[str]:
    """The command line of a run whose folders are in tmp_path/runs."""
    script = str(ROOT / "src" / "train.py")
    return [sys.executable, script, *arguments, f"runs_dir={tmp_path / 'runs'}"]


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without the user's own W&B settings, one thread."""
    hidden = ("WANDB", "NETRC")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    return {**environment, "OMP_NUM_THREADS": "1", **changes}


def run_folder(place: Path = Path()) -> Path:
    """The folder of the run in a place: the place itself, or the only one in its folder runs."""
    place = place.absolute()
    if not (place / "runs").exists():
        return place
    (folder,) = (path.parent for path in (place / "runs").glob("*/plan.csv"))
    return folder


def folder_of(*overrides: str) -> Path:
    """The folder of the run of these settings in a test's own place."""
    return Path.cwd() / path_of(configure(*overrides))


def contents_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def records(place: Path = Path(), *, timings: bool = False) -> list[dict[str, Any]]:
    """metrics.jsonl of the run in a place, without timings and a GPU's memory unless wanted."""
    file = run_folder(place) / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return rows if timings else timeless(rows)


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without what two equal trainings differ in."""
    costs = "seconds", "images_per_second", "max_memory_allocated", "max_memory_reserved"
    return [{k: v for k, v in record.items() if k not in costs} for record in records]
