"""engine.compile: the model by torch.compile gives what it gives without, to rounding."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, records, run_folder
from forked import Death, forge
from torch import Tensor, nn

from igo.config.schema import DatasetConfig, EngineConfig, ModelConfig
from igo.ground.errors import ConfigError
from igo.train import engine, models
from igo.train.compiled import Compiled

SIZES = (5, 33, 2, 1, 64, 0)


def network() -> nn.Module:
    torch.manual_seed(3)
    digits = DatasetConfig("digits", 10, 1, 8, 1437, [0.5], [0.5])
    return models.build(ModelConfig("resnet8", width=4), digits).double()


def batch(size: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(size)
    images = torch.rand((size, 1, 8, 8), generator=drawn, dtype=torch.float64)
    return images, torch.randint(10, (size,), generator=drawn)


def plain() -> engine.Engine:
    return engine.build(EngineConfig(device="cpu", precision="fp32", threads=1))


def assert_same(backend: str, sizes: tuple[int, ...], parts: int, most: int = 32) -> Compiled:
    """Losses, gradients and BatchNorm's statistics, in float64."""
    eager = replace(plain(), micro_batch_size=parts)
    compiled = Compiled(backend, most)
    ours, theirs = network(), network()
    for size in sizes:
        if size < 2:
            continue
        totals = replace(eager, compiled=compiled).backward(ours, *batch(size))
        wanted = eager.backward(theirs, *batch(size))
        torch.testing.assert_close(totals, wanted, rtol=1e-6, atol=0)  # the loss is in float32
        for (name, parameter), other in zip(
            ours.named_parameters(), theirs.parameters(), strict=True
        ):
            far = (parameter.grad - other.grad).norm() / other.grad.norm()
            assert far < 1e-6, f"{name}: {far} at {size}"
    for (name, value), wanted in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12, msg=name)
    return compiled


def test_gradients_are_those_of_the_model_as_it_is() -> None:
    compiled = assert_same("aot_eager", SIZES, parts=20)
    assert not compiled.given_up


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what inductor imports
def test_inductor_gives_the_same_gradients() -> None:
    assert not assert_same("inductor", SIZES, parts=1024).given_up


def test_too_many_sizes_end_compiling_with_a_warning() -> None:
    compiled, eager = Compiled("aot_eager", most=1), plain()
    ours, theirs = network(), network()
    images, labels = batch(4)
    for size in (8, 12, 10):  # of images, which a run does not change
        given = F.interpolate(images, size), labels
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            totals = replace(eager, compiled=compiled).backward(ours, *given)
        torch.testing.assert_close(totals, eager.backward(theirs, *given), rtol=1e-6, atol=0)
        assert compiled.given_up == (size != 8)
        texts = [str(warning.message) for warning in heard]
        assert any("without torch.compile" in text for text in texts) == (size == 12)


def test_no_compiler_is_one_line() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler is there\nand much more")

    with pytest.raises(ConfigError, match=r"engine.compile=.*no C\+\+ compiler"):
        replace(plain(), compiled=Compiled(broken)).backward(network(), *batch(4))


@pytest.mark.slow
def test_a_compiled_run_continues_and_its_checkpoint_is_any_engines(tmp_path: Path) -> None:
    """To rounding: which sizes came first decides how a size is compiled."""
    typed = (*TINY, "tracking=none", "engine.precision=fp32")
    folders = {}
    for name, compiled in (("whole", "true"), ("torn", "true"), ("eager", "false")):
        place = tmp_path / name
        settings = (*typed, f"engine.compile={compiled}", "save_model=true")
        if name == "torn":
            forge.run(place, *settings, death=Death("igo.runs.checkpoint.save", 2, "after"))
        forge.run(place, *settings).good()
        folders[name] = run_folder(place)
    losses = {name: [row["train/loss"] for row in records(at)] for name, at in folders.items()}
    assert losses["torn"] == pytest.approx(losses["whole"], rel=1e-3)
    assert losses["eager"] == pytest.approx(losses["whole"], rel=1e-3)
    kept = [torch.load(at / "model.pt", weights_only=True) for at in folders.values()]
    assert kept[0].keys() == kept[1].keys() == kept[2].keys()


@pytest.mark.slow
def test_two_ranks_that_compile_train_what_one_process_does(tmp_path: Path) -> None:
    """With synced BatchNorm, and batches of 19 and 20 samples."""
    typed = (*TINY, "batch_size=20", "schedule.stages=1", "tracking=none")
    losses = {}
    for ranks, compiled in ((1, "false"), (2, "true")):
        place = tmp_path / f"{ranks}"
        words = (*typed, "engine.precision=fp32", f"engine.compile={compiled}")
        forge.run(place, *words, ranks=ranks).good()
        losses[ranks] = [row["train/loss"] for row in records(run_folder(place))]
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)


def test_advice_on_a_version_does_not_refuse_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch has it for Python 3.13.0."""
    from torch._dynamo import guards

    original = guards.GuardBuilder.TENSOR_MATCH

    def advise(*arguments: object, **named: object) -> object:
        warnings.warn("Guards may run slower on Python 3.13.0", RuntimeWarning, stacklevel=2)
        return original(*arguments, **named)

    monkeypatch.setattr(guards.GuardBuilder, "TENSOR_MATCH", advise)
    assert not assert_same("aot_eager", (8,), parts=8).given_up
