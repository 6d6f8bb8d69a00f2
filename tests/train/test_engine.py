"""One step: sums over samples, micro-batches, precision, and what evaluation leaves alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rounding
import torch
import torch.nn.functional as F
from conftest import DEVICES
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from igo.config.schema import DatasetConfig, EngineConfig, ModelConfig, OptimizerConfig
from igo.ground.errors import ConfigError
from igo.ground.seeds import generator
from igo.train import engine, models
from igo.train.engine import Engine

SLACK = {"fp32": 1e-6, "bf16": 2**-8, "fp16": 2**-10}  # half a unit in the last place, about


def build(device: str = "cpu", precision: str = "fp32", micro: int = 1024) -> Engine:
    return engine.build(
        EngineConfig(device=device, precision=precision, micro_batch_size=micro, threads=1)
    )


def plain_network(seed: int = 0) -> nn.Module:
    """No BatchNorm: a sample's gradient does not depend on the others."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 10)
    )


LOGITS = (9, 4, 96, 10)  # terms of plain_network's sums, the last of them softmax's


def normed_network() -> nn.Module:
    torch.manual_seed(0)
    facts = DatasetConfig("made", 10, 1, 8, 100, [0.5], [0.5])
    return models.build(ModelConfig("resnet8", width=4), facts)


def samples(n: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    draw = generator(0, "samples", n)
    images = torch.randn(n, 1, 8, 8, generator=draw)
    return images.to(device), torch.randint(10, (n,), generator=draw).to(device)


def batches_of(b: int, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(images.split(b), labels.split(b), strict=True)


def gradient(network: nn.Module) -> Tensor:
    slopes = [p.grad.detach().flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat(slopes).double().cpu()


@torch.no_grad()
def one_by_one(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, int]:
    """The sum of losses -log p(label) and the correct answers, each sample alone, in float64."""
    loss, correct = 0.0, 0
    for image, label in zip(images, labels.tolist(), strict=True):
        logits = network(image[None])[0].double()
        loss -= float(logits[label] - logits.exp().sum().log())
        correct += int(logits.argmax()) == label
    return loss, correct


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("micro", [3, 8, 1024])
@pytest.mark.parametrize("b", [1, 10, 16, 37])
def test_evaluation_divides_sums_over_samples_by_samples(b: int, micro: int, device: str) -> None:
    """37 samples: the last batch is ragged, and a mean of batch means would be another number."""
    run = build(device, micro=micro)
    network = run.prepare(plain_network())
    loss, accuracy = run.evaluate(network, batches_of(b, *samples(37, device)))
    wanted_loss, correct = one_by_one(plain_network(), *samples(37))
    assert loss == pytest.approx(wanted_loss / 37, rel=rounding.bound(*LOGITS, 37))
    assert accuracy == pytest.approx(correct / 37, rel=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("micro", [5, 1024])
def test_a_step_returns_sums_at_the_parameters_before_it(micro: int, device: str) -> None:
    run = build(device, micro=micro)
    network = run.prepare(plain_network())
    optimizer = OptimizerConfig("sgd").build(network.parameters(), 0.5)
    totals = run.step(network, optimizer, samples(23, device))
    loss, correct = one_by_one(plain_network(), *samples(23))
    assert totals.tolist() == pytest.approx([loss, correct], rel=rounding.bound(*LOGITS, 23))
    moved, _ = one_by_one(network.cpu(), *samples(23))
    assert moved < loss


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("micro", [1, 5, 7, 22, 23, 1024])
def test_micro_batches_give_the_whole_batchs_gradient(micro: int, device: str) -> None:
    reference = plain_network()
    images, labels = samples(23)
    F.cross_entropy(reference(images), labels).backward()
    run = build(device, micro=micro)
    network = run.prepare(plain_network())
    for _ in range(2):  # a gradient left over from before is not added to
        run.backward(network, *samples(23, device))
        terms = rounding.terms(reference, images)
        rounding.assert_close(gradient(network), gradient(reference), terms)


@given(b=st.integers(1, 400), micro=st.integers(1, 120))
def test_parts_are_the_fewest_and_nearly_equal(b: int, micro: int) -> None:
    run = Engine(torch.device("cpu"), None, torch.amp.GradScaler("cpu", enabled=False), micro)
    images, labels = torch.arange(b).view(b, 1, 1, 1), torch.arange(b)
    parts = list(run.parts(images, labels, run.count_parts(b)))
    sizes = [len(answers) for _, answers in parts]
    assert max(sizes) <= micro
    assert micro * (len(sizes) - 1) < b  # one part fewer would not hold them
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(torch.cat([answers for _, answers in parts]), labels)
    assert all(torch.equal(part.flatten(), answers) for part, answers in parts)


@given(
    batch_sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    n=st.integers(90, 300),
    micro=st.integers(1, 100),
)
def test_the_smallest_part_is_the_one_seen(batch_sizes: list[int], n: int, micro: int) -> None:
    run = Engine(torch.device("cpu"), None, torch.amp.GradScaler("cpu", enabled=False), micro)
    seen = []
    for b in batch_sizes:
        for batch in torch.arange(n).split(b):
            parts = run.parts(batch, batch, run.count_parts(len(batch)))
            seen += [len(answers) for _, answers in parts]
    sizes = {len(batch) for b in batch_sizes for batch in torch.arange(n).split(b)}
    assert run.smallest_part(sizes) == min(seen)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_layers_compute_in_the_precision_asked_for_and_parameters_stay_fp32(
    precision: str, dtype: torch.dtype, device: str
) -> None:
    run = build(device, precision)
    network = run.prepare(plain_network())
    seen: list[torch.dtype] = []
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    totals = run.backward(network, *samples(6, device))
    run.evaluate(network, batches_of(6, *samples(6, device)))
    assert seen == [dtype] * 4
    assert totals.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())  # type: ignore[union-attr]
    assert run.scaler.is_enabled() == (precision == "fp16")
    assert engine.hardware(run)["precision"] == str(dtype).split(".")[1].replace("float32", "fp32")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("micro", [7, 1024])
def test_the_unscaled_gradient_is_that_of_fp32(precision: str, micro: int, device: str) -> None:
    exact = build(device)
    reference = exact.prepare(plain_network())
    exact.backward(reference, *samples(64, device))
    run = build(device, precision, micro)
    network = run.prepare(plain_network())
    run.backward(network, *samples(64, device))
    ours, wanted = gradient(network) / run.scaler.get_scale(), gradient(reference)
    error = (ours - wanted).norm() / wanted.norm()
    assert 0 < error < 4 * SLACK[precision]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_whose_fp16_gradient_overflows_is_skipped_and_the_scale_halved(
    momentum: float, device: str
) -> None:
    run = build(device, "fp16")
    network = run.prepare(plain_network())
    optimizer = OptimizerConfig("shb", momentum).build(network.parameters(), 0.1)
    before = [p.detach().clone() for p in network.parameters()]
    scale = run.scaler.get_scale()
    images, labels = samples(8, device)
    run.step(network, optimizer, (images * 1e30, labels))
    assert run.scaler.get_scale() == scale / 2
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))
    run.step(network, optimizer, (images, labels))
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert not torch.equal(next(network.parameters()), before[0])


@pytest.mark.parametrize("device", DEVICES)
def test_evaluation_leaves_batchnorm_gradients_and_train_mode_alone(device: str) -> None:
    run = build(device)
    network = run.prepare(normed_network()).train()
    run.backward(network, *samples(16, device))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    slope = gradient(network)
    run.evaluate(network, batches_of(7, *samples(20, device)))
    assert all(module.training for module in network.modules())
    assert torch.equal(gradient(network), slope)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("device", DEVICES)
def test_evaluation_uses_running_statistics_so_that_batches_do_not_matter(device: str) -> None:
    run = build(device)
    network = run.prepare(normed_network())
    for _ in range(5):
        run.backward(network, *samples(32, device))
    results = [run.evaluate(network, batches_of(b, *samples(21, device))) for b in (1, 4, 21)]
    images, _ = samples(21, device)
    close = rounding.bound(rounding.terms(network.eval(), images, backward=False), 10)
    for loss, accuracy in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=close)
        assert accuracy == results[0][1]


def strided_on_single_pixels() -> nn.Module:
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Flatten(),
        nn.Linear(4, 10),
    )  # fmt: skip


def test_a_model_whose_bf16_gradients_a_cpu_gets_wrong_trains_in_fp32() -> None:
    """A strided convolution on single pixels; the same on larger images keeps bf16."""
    dataset = DatasetConfig("digits", 10, 1, 8, 100, [0.3], [0.3])
    assert models.check_fits(strided_on_single_pixels(), "x", dataset, 2)
    larger = nn.Sequential(*list(strided_on_single_pixels())[1:2], nn.AdaptiveAvgPool2d(1),
                           nn.Flatten(), nn.Linear(4, 10))  # fmt: skip
    assert not models.check_fits(larger, "x", dataset, 2)
    cpu = torch.device("cpu")
    bf16 = engine.Engine(cpu, torch.bfloat16, torch.amp.GradScaler("cpu", enabled=False), 1024)
    assert engine.without_bf16(bf16, EngineConfig()).autocast is None
    with pytest.raises(ConfigError, match="strided convolution on single pixels"):
        engine.without_bf16(bf16, EngineConfig(precision="bf16"))
