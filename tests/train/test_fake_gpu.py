"""On a GPU that is none (fake_gpu): nothing is on the wrong device, nothing waits in a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rounding
import torch
from forked import forge

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
        return forge.results(tmp_path, 1, f"on_fake_gpu.{name}", *arguments)[0]

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (NARROW, "optimizer=shb", "optimizer.weight_decay=0.001"),
        (NARROW, "engine.non_finite=skip", "dataset.validation=0.2", "epochs=2"),
        (NARROW, "engine.micro_batch_size=7"),
        (NARROW, "optimizer=adamw", "optimizer.constant_half_life=true", "epochs=2"),
        (NARROW, "optimizer=timm", "epochs=2"),
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
    assert theirs["reads"] == theirs["copies"] == 0


@pytest.mark.slow
def test_a_model_of_timms_is_the_same_within_rounding(on_fake_gpu: Any) -> None:
    """Swish, squeeze and excite, convolutions by groups: other kernels for other devices.

    In float64, but for the images, the logits and the sums of losses.
    """
    model = ("model=timm", "model.name=test_efficientnet", "learning_rate=0.0078125")
    (ours,), (theirs,) = (
        on_fake_gpu("train_in_double", where, *RUN, *model)["records"] for where in ("gpu", "cpu")
    )
    close = rounding.bound(10, 96)
    assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=close)
    assert ours["reference_variance"] == pytest.approx(theirs["reference_variance"], rel=2 * close)


def crossings(name: str, on_fake_gpu: Any, *arguments: str) -> list[tuple[int, int]]:
    """Reads and copies of one epoch of 4 steps, and of one of 12."""
    runs = [on_fake_gpu(name, *arguments, *RUN, NARROW, f"batch_size={b}") for b in (24, 8)]
    assert [run["records"][-1]["updates"] for run in runs] == [4, 12]
    return [(run["reads"], run["copies"]) for run in runs]


@pytest.mark.slow
def test_more_steps_cross_over_no_more_often(on_fake_gpu: Any) -> None:
    """What waits for a GPU, and what is copied to it, goes by epochs and stages."""
    few, many = crossings("train", on_fake_gpu, "gpu")
    assert few == many
    assert min(few) > 0


@pytest.mark.slow
def test_code_that_is_wrong_on_a_gpu_is_noticed(on_fake_gpu: Any) -> None:
    assert "of the host" in on_fake_gpu("mutated", "offset", *RUN, NARROW)["wrong"]
    for mutant, what in (("item", 0), ("mask", 0), ("copy", 1)):
        few, many = crossings("mutated", on_fake_gpu, mutant)
        assert many[what] - few[what] == 8, mutant


@pytest.mark.slow
def test_measurements_on_request_have_the_bits_of_the_cpu(on_fake_gpu: Any) -> None:
    """Sharpness, and C² of single samples."""
    ours, theirs = (on_fake_gpu("measure", where, *RUN, NARROW) for where in ("gpu", "cpu"))
    for name in ("sharpness", "variance"):
        assert ours[name] == theirs[name]
    assert ours["copies"] > theirs["copies"] == 0
