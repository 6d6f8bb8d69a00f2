"""`igo measure-noise` as a user meets it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import rounding
import torch
from conftest import TINY, Ended, python, records, run_folder
from forked import forge
from torch import nn

import igo
from igo.analysis.measure_noise import table
from igo.config.load import read_config
from igo.config.plan import make_plan
from igo.noise.measure import draw
from igo.runs import assemble

Program = Callable[..., Ended]


def measured(tmp_path: Path, *arguments: str) -> Ended:
    return forge.run(tmp_path, *arguments, command="measure-noise")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; tests that change it take a copy."""
    place = tmp_path_factory.mktemp("trained")
    forge.run(place, *TINY, "tracking=none", "engine.precision=fp32").good()
    return run_folder(place)


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name))


def test_a_runs_noise_is_that_of_its_checkpoint(trained: Path, tmp_path: Path) -> None:
    """C² in the JSON equals the one computed from the checkpoint's weights by a plain loop."""
    folder = trained
    done = measured(
        tmp_path, f"run={folder}", "batch_sizes=[12]", "batches=5", "output=noise.json",
    ).good()  # fmt: skip
    noise = json.loads((tmp_path / "noise.json").read_text())
    config = read_config(folder / "config.yaml")
    training = assemble.prepare(config, make_plan(config))
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    training.network.load_state_dict(state["model"])
    from igo.ground.seeds import derive_seed

    drawn = draw("disjoint", n=96, batch_size=12, batches=5, seed=derive_seed(0, "instrument"))
    gradients = []
    for x, y in training.data.train_batches(drawn, 0):
        loss = nn.functional.cross_entropy(training.network(x), y)
        parts = torch.autograd.grad(loss, list(training.network.parameters()))
        gradients.append(torch.cat([p.flatten() for p in parts]).double())
    rows = torch.stack(gradients)
    variance = 12 * float((rows - rows.mean(dim=0)).square().sum()) / 4 * 95 / 96
    close = 2 * rounding.bound(rounding.terms(training.network, x))  # of squares
    assert noise["variance"] == pytest.approx(variance, rel=close)
    eta = records(folder)[-1]["eta_m"]
    assert noise["delta"]["learning_rate"] == eta
    assert noise["delta"]["value"] == pytest.approx(eta * (variance / 12) ** 0.5, rel=close)
    assert noise["of"] == {"run": str(folder), "epoch": 3}
    assert (noise["batch_size"], noise["batches"], noise["sampling"]) == (12, 5, "disjoint")
    assert noise["estimator"] == "mini_batch"
    assert noise["interval"][0] < noise["variance"] < noise["interval"][1]
    assert f"{noise['variance']:.5g}" in done.stdout


def test_a_fresh_model_at_several_batch_sizes(tmp_path: Path) -> None:
    """In an interpreter of its own, as a user starts it."""
    line = ("-m", "igo", "measure-noise", "model.width=4", "batch_sizes=[4,16]", "batches=8")
    done = python(tmp_path, *line, "sampling=independent", "output=noise.json").good()
    rows = json.loads((tmp_path / "noise.json").read_text())
    assert [row["batch_size"] for row in rows] == [4, 16]
    assert {row["sampling"] for row in rows} == {"independent"}
    assert rows[0]["of"]["model"] == "fresh resnet8"
    assert len(done.stdout.splitlines()) == 4


def test_per_sample_with_running_statistics(tmp_path: Path) -> None:
    measured(
        tmp_path, "estimator=per_sample", "batchnorm=eval", "model.width=4", "batch_sizes=[8]",
        "batches=10", "output=noise.json",
    ).good()  # fmt: skip
    noise = json.loads((tmp_path / "noise.json").read_text())
    assert (noise["batch_size"], noise["batches"]) == (1, 80)
    assert noise["delta"]["batch_size"] == 8


BAD = {
    "estimator=per_sample": "BatchNorm in train mode",
    "batches=2": "batches=2 .*interval needs 3",
    "sampling=bootstrap": "sampling=bootstrap .*with_replacement, independent, disjoint",
    "estimator=persample": "estimator=persample .*Did you mean 'per_sample'",
    "batch_sizes=[0]": "batch_sizes=.*1 or more",
    "batch_sizes=[200]": "200 samples, disjoint, need 6400 samples and there are 1437",
    "sampling=independent batch_sizes=[1437]": "never vary",
    "output=/": "output=/ .*must be a file",
    "output=no/such/folder.json": "output=.*folder that exists",
    "batch_sizes=16": "batch_sizes=16 .*list, such as",
    "model=resnet18 batch_sizes=[1] batches=5": "model.name=resnet18 .*batch of 1 x",
    "run=nowhere": "run=nowhere .*run folder",
    "batchs=3": "no setting 'batchs'. Did you mean 'batches'",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_use_is_one_line(typed: str, tmp_path: Path) -> None:
    done = measured(tmp_path, *typed.split())
    assert done.returncode == 2, done.stdout
    assert re.match(f"error: .*{BAD[typed]}", done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_of_another_run_is_refused(
    copied: Path, program: Program, tmp_path: Path
) -> None:
    program(*TINY, "tracking=none", "seed=1")
    folder = copied
    other = next(p for p in (tmp_path / "runs").glob("*-*") if p != folder)
    (folder / "checkpoint.pt").write_bytes((other / "checkpoint.pt").read_bytes())
    (folder / "previous-checkpoint.pt").unlink()
    done = measured(tmp_path, f"run={folder}", "batches=3")
    assert done.returncode == 2
    assert "another run" in done.stderr


def test_a_damaged_checkpoint_is_said_and_the_one_before_measured(
    copied: Path, tmp_path: Path
) -> None:
    (copied / "checkpoint.pt").write_bytes(b"PK")
    done = measured(tmp_path, f"run={copied}", "batches=3", "output=noise.json").good()
    assert re.fullmatch(
        r"warning: \S+checkpoint.pt is damaged .*; using the one after epoch 2\n", done.stderr
    )
    assert json.loads((tmp_path / "noise.json").read_text())["of"]["epoch"] == 2


def test_a_copied_run_is_measured_all_the_same(copied: Path, tmp_path: Path) -> None:
    copied.rename(tmp_path / "copy")
    assert measured(tmp_path, "run=copy", "batches=3").returncode == 0


def test_a_runs_own_momentum_and_micro_batches_are_used(program: Program, tmp_path: Path) -> None:
    overrides = ("optimizer=nshb", "optimizer.decay_momentum=true", "engine.micro_batch_size=4")
    program(*TINY, "tracking=none", *overrides)
    folder = run_folder(tmp_path)
    measured(tmp_path, f"run={folder}", "batches=3", "output=noise.json").good()
    noise = json.loads((tmp_path / "noise.json").read_text())
    last = records(folder)[-1]
    assert noise["delta"]["momentum"] == last["beta_m"] < 0.9
    assert noise["config"]["engine"]["micro_batch_size"] == 4


def test_what_a_run_is_cannot_be_changed(trained: Path, tmp_path: Path) -> None:
    done = measured(tmp_path, f"run={trained}", "dataset.samples=90", "batches=3")
    assert done.returncode == 2
    assert "dataset.samples=90" in done.stderr


def test_a_gradient_that_the_noise_hides_is_said() -> None:
    row = {
        "of": {"run": "here"},
        "batch_size": 32, "batches": 4, "variance": 2.0, "interval": [1.0, 3.0],
        "noise_scale": None, "tail_index": None, "noise_exponent": None,
        "gradient_norm": 0.0, "estimator": "mini_batch", "sampling": "disjoint",
        "batchnorm": "train", "delta": {"learning_rate": 0.1, "value": 0.025, "batch_size": 32},
    }  # fmt: skip
    hidden = table([row])
    assert "∞" not in hidden
    assert "‖∇f‖ 0: the gradient is too small beside the noise" in hidden.splitlines()[-1]
    seen = table([{**row, "gradient_norm": 0.5, "noise_scale": 8.0}])
    assert len(seen.splitlines()) == 3


@pytest.mark.slow
def test_the_exponent_from_curvature_is_that_of_the_packages_function(
    trained: Path, tmp_path: Path
) -> None:
    """The same numbers from the run's weights, in train mode, on the same draws; and a limit."""
    ask = (f"run={trained}", "batch_sizes=[12]", "batches=5", "exponent=true", "modes=2")
    done = measured(tmp_path, *ask, "learning_rate=0.001", "output=noise.json").good()
    exponent = json.loads((tmp_path / "noise.json").read_text())["predicted_exponent"]
    assert f"ρ from curvature, b = 12: {exponent['value']:.3f}" in done.stdout
    training, _ = assemble.load_folder(trained, lambda _: None, warn=lambda _: None)
    from igo.ground.seeds import derive_seed

    seed = derive_seed(0, "exponent")
    drawn = draw("disjoint", n=96, batch_size=12, batches=5, seed=seed)
    expected = igo.noise_exponent(
        training.network.train(), nn.functional.cross_entropy,
        training.data.train_batches(drawn, seed), learning_rate=0.001, batches=5, modes=2,
        seed=seed,
    )  # fmt: skip
    assert exponent["value"] == pytest.approx(expected.value, abs=1e-3)
    assert exponent["steps"] == pytest.approx(expected.steps, rel=1e-2)
    over = measured(tmp_path, *ask, "learning_rate=1000").good()
    assert re.search(r"not known: learning_rate=1000: ηλ_max = .* take η below", over.stdout)
