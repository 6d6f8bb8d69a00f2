"""C² before training: that of a plain loop, and what cannot be measured."""

import pytest
import rounding
import torch
from conftest import TINY, unchanged
from torch.nn.functional import cross_entropy
from trained import prepared, train

from igo.ground.errors import UserError
from igo.ground.seeds import derive_seed, generator
from igo.train.reference import reference_noise


def test_measurement_is_that_of_a_plain_loop_and_leaves_no_trace() -> None:
    """Digits, ResNet-8 with BatchNorm, which sees the parts of a batch."""
    for parts in (1, 2):
        settings = ("dataset.samples=200", "batch_size=10", "noise.batches=4", "model.width=4")
        micro = f"engine.micro_batch_size={10 // parts}"
        run = prepared(*settings, micro, "engine.precision=fp32", "seed=5")
        network, images = run.network, run.data
        with unchanged(network):
            noise = reference_noise(run)
        assert all(parameter.grad is None for parameter in network.parameters())
        order = torch.randperm(200, generator=generator(derive_seed(5, "noise", 1), "pieces"))[:40]
        rows = []
        for x, y in images.train_batches(order.split(10), seed=0):
            pairs = zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)
            losses = [cross_entropy(network(part), labels) for part, labels in pairs]
            gradients = torch.autograd.grad(torch.stack(losses).mean(), [*network.parameters()])
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
        spread = torch.stack(rows).double().var(dim=0).sum()
        ((x, _),) = images.plain_batches([torch.arange(10)])
        slack = 2 * rounding.bound(rounding.terms(network, x))  # A square has twice the error.
        assert noise.variance == pytest.approx(10 * float(spread) * 199 / 200, rel=slack)


def test_what_cannot_be_measured_ends_the_run_with_one_line() -> None:
    run = prepared(*TINY)
    run.network.register_forward_hook(lambda *parts: parts[-1] * float("nan"))
    with pytest.raises(UserError, match=r"^C² before training: the loss of batch 1 is nan: it"):
        train(run)
