"""On a GPU that is none (fake_gpu): nothing is on the wrong device, nothing waits in a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import COPIES, READS
from forked import shared_forge
from on_fake_gpu import MUTANTS

AUGMENTED = ("dataset.augment.crop=1", "dataset.augment.flip=true", "dataset.augment.rotation=15")
# One learning rate that float32, which a GPU has it in, holds to the bit.
RUN = (
    "dataset=digits", "dataset.samples=96", "epochs=1", "batch_size=16", "learning_rate=0.125",
    "schedule=constant", "noise.batches=2", "noise.batch_size=8", "engine.precision=fp32",
    *AUGMENTED,
)  # fmt: skip
NARROW = "model.width=4"


@pytest.fixture
def on_fake_gpu(tmp_path: Path) -> Any:
    """Call a function of on_fake_gpu in a process of its own."""

    def call(name: str, *arguments: str) -> Any:
        return shared_forge().results(tmp_path, 1, f"on_fake_gpu.{name}", *arguments)[0]

    return call


@pytest.mark.parametrize(
    "overrides",
    [
        (NARROW, "optimizer=shb", "optimizer.weight_decay=0.001"),
        (NARROW, "engine.non_finite=skip", "dataset.validation=0.2", "epochs=2"),
        (NARROW, "engine.micro_batch_size=7"),
        pytest.param(("model=resnet18", "dataset.samples=32"), marks=pytest.mark.slow),
    ],
)
def test_a_run_has_the_bits_of_the_cpu(overrides: tuple[str, ...], on_fake_gpu: Any) -> None:
    """Data, augmentation, steps, online pairs, evaluation and C²: all but the reads are there."""
    ours = on_fake_gpu("train", "gpu", *RUN, *overrides)
    theirs = on_fake_gpu("train", "cpu", *RUN, *overrides)
    assert ours["records"] == theirs["records"]
    for name, value in theirs["state"].items():
        assert torch.equal(ours["state"][name], value), name
    assert theirs["reads"] == theirs["copies"] == {}


def test_a_model_of_timms_is_the_same_within_rounding(on_fake_gpu: Any) -> None:
    """Swish, squeeze and excite, convolutions by groups: other kernels for other devices."""
    model = ("model=timm", "model.name=test_efficientnet", "learning_rate=0.0078125")
    (ours,), (theirs,) = (
        on_fake_gpu("train", where, *RUN, *model)["records"] for where in ("gpu", "cpu")
    )
    assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-4)
    assert ours["reference_variance"] == pytest.approx(theirs["reference_variance"], rel=1e-4)


def test_more_steps_cross_over_no_more_often(on_fake_gpu: Any) -> None:
    """What waits or copies is counted by epochs and stages: 4 or 12 steps an epoch are alike."""
    few, many = (
        on_fake_gpu("train", "gpu", *RUN, NARROW, f"batch_size={b}", f"engine.non_finite={skip}")
        for b, skip in ((24, "stop"), (8, "skip"))
    )
    assert [one["records"][-1]["updates"] for one in (few, many)] == [4, 12]
    for crossing in ("reads", "copies"):
        assert many[crossing] == few[crossing]
    once = {name: count for name, count in few["reads"].items() if name != "recovery.copied"}
    assert {*once.values()} == {1}, "each at most once an epoch"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_code_that_is_wrong_on_a_gpu_is_noticed(mutant: str, on_fake_gpu: Any) -> None:
    wanted = {"offset": "WrongDevice", "labels": "WrongDevice", "order": "WrongDevice",
              "tensor": "HostCopy", "copy": "HostCopy"}  # fmt: skip
    noticed = on_fake_gpu("mutated", mutant, *RUN, NARROW)
    assert noticed == wanted.get(mutant, "HostRead")


def test_measurements_on_request_have_the_bits_of_the_cpu(on_fake_gpu: Any) -> None:
    """Sharpness, and C² of single samples."""
    ours, theirs = (on_fake_gpu("measure", where, *RUN, NARROW) for where in ("gpu", "cpu"))
    for name in ("sharpness", "variance"):
        assert ours[name] == theirs[name]
    assert {*ours["copies"]} > {*theirs["copies"]} == set()


def test_the_lists_name_functions_that_there_are(on_fake_gpu: Any) -> None:
    """And nothing is in them that no run needs any more."""
    one = on_fake_gpu("train", "gpu", *RUN, NARROW)
    two = on_fake_gpu("measure", "gpu", *RUN, NARROW)
    assert {*one["copies"], *two["copies"]} == set(COPIES)
    assert {*one["reads"], *two["reads"]} == set(READS)
