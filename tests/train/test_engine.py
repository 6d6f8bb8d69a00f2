"""One step: sums over samples, micro-batches, precision, and what evaluation leaves alone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import pytest
import rounding
import torch
import torch.nn.functional as F
from conftest import TINY, unchanged
from forked import forge
from torch import Tensor, nn
from trained import dataset, in_parts, prepared, train

from igo.config.schema import EngineConfig, ModelConfig, OptimizerConfig
from igo.ground.ranks import Ranks
from igo.ground.seeds import generator
from igo.train import machine, models, optimizers
from igo.train.engine import Engine

FACTS = dataset(channels=1, size=8)
SLACK = {"fp32": 1e-6, "bf16": 2**-8, "fp16": 2**-10}  # half a unit in the last place, about


def build(device: str = "cpu", precision: str = "fp32", micro: int = 1024) -> Engine:
    return machine.choose(EngineConfig(device, precision, micro_batch_size=micro))


def plain_network(norm: nn.Module | None = None) -> nn.Module:
    """By default a sample's gradient does not depend on the others."""
    torch.manual_seed(0)
    last_layers = nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 10)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), norm or nn.Identity(), *last_layers)


LOGITS = (9, 4, 96, 10)  # terms of plain_network's sums, the last of them softmax's


def samples(n: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    draw = generator(0, "samples", n)
    images = torch.randn(n, 1, 8, 8, generator=draw)
    return images.to(device), torch.randint(10, (n,), generator=draw).to(device)


def backward(run: Engine, network: nn.Module, n: int, device: str) -> Any:
    return run.backward(network, *in_parts(run, *samples(n, device)))


def batches_of(b: int, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(images.split(b), labels.split(b), strict=True)


def gradient(network: nn.Module) -> Tensor:
    slopes = [p.grad.detach().flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat(slopes).double().cpu()


@torch.no_grad()
def one_by_one(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, int, float]:
    """The sum of losses -log p(label), the correct answers, and ‖p - y‖² of the mean loss.

    Each sample alone, in float64.
    """
    logits = torch.cat([network(image[None]) for image in images]).double()
    p, y = logits.softmax(dim=1), F.one_hot(labels, logits.shape[1])
    correct = (p.argmax(dim=1) == labels).sum()
    slope = ((p - y) / len(labels)).square().sum()
    return -float((p.log() * y).sum()), int(correct), float(slope)


def test_evaluation_divides_sums_over_samples_by_samples(device: str) -> None:
    """37 samples: the last batch is ragged, and a mean of batch means would be another number."""
    for b, micro in ((1, 1024), (10, 3), (16, 8), (37, 1024)):
        run = build(device, micro=micro)
        network = run.prepare(plain_network())
        loss, accuracy = run.evaluate(network, batches_of(b, *samples(37, device)))
        wanted_loss, correct, _ = one_by_one(plain_network(), *samples(37))
        assert loss == pytest.approx(wanted_loss / 37, rel=rounding.bound(*LOGITS, 37))
        assert accuracy == pytest.approx(correct / 37, rel=1e-6)


def test_a_step_is_along_the_whole_batchs_gradient_in_micro_batches_too(device: str) -> None:
    """It returns sums at the parameters before it; an earlier gradient is not added to."""
    for micro in (1, 5, 7, 22, 23, 1024):
        images, labels = samples(23)
        reference = plain_network()
        F.cross_entropy(reference(images), labels).backward()
        run = build(device, micro=micro)
        network = run.prepare(plain_network())
        optimizer = optimizers.build(OptimizerConfig("sgd"), network.parameters(), 0.5)
        backward(run, network, 23, device)
        totals = backward(run, network, 23, device)
        run.update(optimizer)
        rounding.assert_close(
            gradient(network), gradient(reference), rounding.terms(reference, images)
        )
        expected_totals = loss, *_ = one_by_one(reference, images, labels)
        expected = pytest.approx((*expected_totals, 23), rel=rounding.bound(*LOGITS, 23))
        assert [*map(float, totals)] == expected
        last_loss, *_ = one_by_one(network.cpu(), images, labels)
        assert last_loss < loss


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_layers_compute_in_the_precision_asked_for_and_parameters_stay_fp32(
    precision: str, dtype: torch.dtype, device: str
) -> None:
    """The unscaled gradient is that of fp32, to the precision. fp32 has no TF32 on a GPU."""
    exact = build(device)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    reference = exact.prepare(plain_network())
    backward(exact, reference, 64, device)
    run = build(device, precision, micro=40)
    network = run.prepare(plain_network())
    dtypes: list[torch.dtype] = []
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    totals = backward(run, network, 64, device)
    run.evaluate(network, batches_of(40, *samples(40, device)))
    assert dtypes == [dtype] * 6
    assert {total.dtype for total in totals[:3]} == {torch.float32}
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in network.parameters())  # type: ignore[union-attr]
    assert run.scaler.is_enabled() == (precision == "fp16")
    assert machine.hardware(run)["precision"] == str(dtype).split(".")[1].replace("float32", "fp32")
    unscaled_gradient, expected_gradient = (
        gradient(network) / run.scaler.get_scale(),
        gradient(reference),
    )
    assert (unscaled_gradient - expected_gradient).norm() < 4 * SLACK[
        precision
    ] * expected_gradient.norm()


def test_evaluation_is_by_running_statistics_and_leaves_them_alone(device: str) -> None:
    """So batches do not matter; gradients and train mode are left alone as well."""
    run = build(device)
    torch.manual_seed(0)
    network = run.prepare(models.build(ModelConfig("resnet8", width=4), FACTS)).train()
    for _ in range(5):
        backward(run, network, 32, device)
    slope = gradient(network)
    with unchanged(network):
        results = [run.evaluate(network, batches_of(b, *samples(21, device))) for b in (1, 4, 21)]
    assert all(module.training for module in network.modules())
    assert torch.equal(gradient(network), slope)
    images, _ = samples(21, device)
    close = rounding.bound(rounding.terms(network.eval(), images, backward=False), 10)
    for loss, accuracy in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=close)
        assert accuracy == results[0][1]


def test_a_model_whose_bf16_gradients_a_cpu_gets_wrong_trains_in_fp32() -> None:
    """A strided convolution on single pixels; the same on larger images keeps bf16."""
    strided, rest = nn.Conv2d(1, 4, 3, stride=2, padding=1), (nn.Flatten(), nn.Linear(4, 10))
    pool = nn.AdaptiveAvgPool2d(1)
    model = ModelConfig("x")
    assert models.check_model(nn.Sequential(pool, strided, *rest), model, FACTS, 2)
    assert not models.check_model(nn.Sequential(strided, pool, *rest), model, FACTS, 2)
    bf16 = replace(build(), autocast=torch.bfloat16)
    assert machine.without_bf16(bf16).autocast is None


def compiled_on_ranks() -> dict[str, Any]:
    """On each rank: the records of a plain and of a compiled training, and the latter's graphs.

    Of a graph it is the dimensions of its inputs that may vary. PyTorch's code generator, which
    takes a minute, is left out.
    """
    ranks, graphs = Ranks.of_environment(), list[list[list[int]]]()

    def backend(graph: Any, inputs: Any) -> Any:
        nodes = graph.graph.find_nodes(op="placeholder")
        shapes = [getattr(node.meta["example_value"], "shape", ()) for node in nodes]
        sizes = [[i for i, b in enumerate(s) if isinstance(b, torch.SymInt)] for s in shapes]
        graphs.append([*filter(None, sizes)])
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    records, compiler = [], partial(torch.compile, backend=backend)
    with ranks.joined(), mock.patch.object(torch, "compile", compiler):
        for compiles in ("false", "true"):
            words = ("engine.precision=fp32", "model.width=16", f"engine.compile={compiles}")
            records.append(train(prepared(*TINY, *words, ranks=ranks)).records)
    breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
    return {"records": records, "graphs": graphs, "breaks": breaks}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Guards may run slower")  # Python 3.13.0 says it.
def test_on_ranks_a_compiled_model_is_one_graph_for_all_batch_sizes() -> None:
    """No other dimension varies, and it trains as it is, to rounding."""
    for rank in forge.results(2, "test_engine.compiled_on_ranks"):
        assert (rank["graphs"], rank["breaks"]) == ([[[0]]], 0)
        for name in ("train/loss", "test/loss", "gradient_variance"):
            plain, compiled = ([record[name] for record in rows] for rows in rank["records"])
            assert compiled == pytest.approx(plain, rel=1e-3)
