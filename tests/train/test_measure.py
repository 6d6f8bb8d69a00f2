"""Measuring C²: every mini-batch enumerated, plain loops, and statistics over many draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import configure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from trained import prepared, train

import igo
from igo.config.schema import EngineConfig
from igo.noise.noise import Noise
from igo.train import machine, measure
from igo.train.record import Training


def whole_batches(training: Training, epoch: int, b: int) -> list[tuple[Tensor, Tensor]]:
    """An epoch's augmented batches, drawn anew."""
    order = torch.randperm(training.data.n, generator=torch.manual_seed(epoch))
    full = training.data.n // b * b
    return list(training.data.train_batches(list(order[:full].view(-1, b)), epoch))


def at_its_weights(training: Training, epochs: int, b: int) -> Noise:
    """C² of whole batches of b at a training's weights, by ``igo.measure_noise``.

    BatchNorm sees the parts of a batch, as in training.
    """
    parts = -(-b // training.engine.micro_batch_size)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        pairs = zip(*(tensor.tensor_split(parts) for tensor in batch), strict=True)
        losses = (cross_entropy(model(x), y, reduction="sum") for x, y in pairs)
        return sum(losses, torch.zeros(())) / b

    batches = [batch for epoch in range(epochs) for batch in whole_batches(training, epoch, b)]
    return igo.measure_noise(
        training.network.train(), None, batches, n=training.data.n, batches=len(batches),
        sampling="independent", loss_of=loss, batch_size=b,
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        ("batch_size=16", "engine.precision=fp32"),
        ("batch_size=32", "engine.precision=fp32", "optimizer=timm", "optimizer.name=lars"),
        ("batch_size=32", "engine.precision=fp16"),
        ("batch_size=32", "engine.precision=fp32", "engine.micro_batch_size=8"),
    ],
)
def test_weights_that_stand_still_have_the_noise_of_whole_batches(
    settings: tuple[str, ...],
) -> None:
    """With BatchNorm, parts, a scaled loss and an optimizer that changes gradients in place."""
    config = configure(
        "epochs=1", "schedule=constant", "learning_rate=1e-12", "model.width=8", *settings
    )
    training = prepared(config)
    (record,) = train(training).records
    whole = at_its_weights(training, 3, config.batch_size)
    assert record["variance_pairs"] == -(-1437 // config.batch_size) // 2
    assert whole.interval[0] <= record["gradient_variance"] <= whole.interval[1]
    low, high = (record[f"gradient_variance_{end}"] for end in ("low", "high"))
    assert low < whole.variance < high
    assert record["gradient_norm"] == pytest.approx(whole.gradient_norm, rel=0.1)


def test_the_last_epoch_of_a_run_has_the_noise_of_its_batches_at_its_weights() -> None:
    """δ within a factor of 2; with pieces of eight samples it was off by more than ten here."""
    training = prepared(configure("epochs=24", "engine.precision=fp32", "evaluate_every=24"))
    record = train(training).records[-1]
    whole = at_its_weights(training, 8, round(record["b_m"]))
    assert 0.5 < math.sqrt(record["gradient_variance"] / whole.variance) < 2


class Stub(nn.Module):
    """A model of one parameter vector whose gradient the test sets."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(d))


def test_the_share_of_movement_is_that_of_a_quadratic() -> None:
    """f = ‖x‖²/2 with noise ξ of variance C²/b, and SGD: x moves by -η g between two gradients.

    So g_{t+1} - g_t = ξ_{t+1} - (1 + η) ξ_t - η ∇f(x_t), and the mean of its square is
    ((1 + η)² + 1) C²/b + η² ‖∇f(x_t)‖².
    """
    d, b, eta, c2, k = 200, 16, 0.3, 8.0, 512
    model, random = Stub(d), torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    pairs = measure.Pairs(machine.build(EngineConfig("cpu", "fp32")), model, optimizer, k)
    slopes = []
    for update in range(1, k + 1):
        slope = model.x.detach().clone()
        if update % 2:
            slopes.append(float(slope.square().sum()))
        model.x.grad = slope + torch.randn(d, generator=random) * math.sqrt(c2 / b / d)
        pairs.take(update, b)
        optimizer.step()
    expected = ((1 + eta) ** 2 + 1) / 2 * c2 + eta**2 * np.mean(slopes) * b / 2
    assert pairs.noise().batches == 256
    assert pairs.noise().variance == pytest.approx(expected, rel=0.02)
    assert pairs.noise().interval[0] < expected < pairs.noise().interval[1]


def test_pairs_of_unequal_batches_are_weighted_and_a_skipped_update_is_in_none() -> None:
    """By hand; fp16's scaler skips an update whose gradient is not finite."""
    for scaled in (False, True):
        model = Stub(3)
        built = replace(
            machine.build(EngineConfig("cpu", "fp32")),
            scaler=torch.amp.GradScaler("cpu", enabled=scaled),
        )
        scale = 65536.0 if scaled else 1.0
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pairs = measure.Pairs(built, model, optimizer, 7)
        gradients = torch.tensor(
            [[1.0, 0, 0], [0, 2, 0], [3, 1, 1], [1, 1, 1], [1, 0, 0], [5, 5, 5]]
        )
        sizes = [4, 2, 8, 8, 1, 1]
        if scaled:
            gradients[4, 0] = math.inf
        for update, (gradient, size) in enumerate(zip(gradients, sizes, strict=True), start=1):
            model.x.grad = gradient * scale
            pairs.take(update, size)
        found = [5 / (1 / 4 + 1 / 2), 4 / (1 / 8 + 1 / 8), 66 / 2]
        products = [0.0, 5.0, 5.0]
        kept = 2 if scaled else 3
        noise = pairs.noise()
        assert noise.variance == pytest.approx(np.mean(found[:kept]), rel=1e-5)
        assert noise.gradient_square == pytest.approx(np.mean(products[:kept]), rel=1e-5)
        assert (noise.batches, noise.interval) == (kept, None)
    assert measure.Pairs(built, model, optimizer, 1).noise() is None
