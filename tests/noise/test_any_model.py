"""``igo.measure_noise`` on any model and loader: memory, randomness, forms of batches, refusals."""

import random
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import seed
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DataLoader, TensorDataset

import igo
from igo.noise.measure import Spread

N, B = 64, 8


def data(n: int = N) -> TensorDataset:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x.sum(dim=1, keepdim=True).tanh())


def loader() -> DataLoader[Any]:
    return DataLoader(data(), batch_size=B, shuffle=True, drop_last=True)


def batches_in_order() -> list[tuple[Tensor, Tensor]]:
    return [(x.double(), y.double()) for x, y in DataLoader(data(), batch_size=B)][:5]


def net(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return parameters_to_vector(
        torch.autograd.grad(mse_loss(model(x), y), list(model.parameters()))
    )


def by_hand() -> tuple[float, float]:
    """C² and ‖∇f‖² of disjoint batches of B of N samples, from all gradients side by side."""
    model = net()
    rows = torch.stack([gradient(model, x, y) for x, y in batches_in_order()])
    c2 = float(rows.var(dim=0).sum()) * B * (N - 1) / N
    return c2, float(rows.mean(dim=0).square().sum()) - c2 / (B * len(rows))


def test_no_gradient_is_kept() -> None:
    """So the memory is that of the mean, whatever K is."""
    spread, references = Spread([torch.zeros(1000)]), []
    for _ in range(4):
        gradient = torch.randn(1000)
        references.append(weakref.ref(gradient))
        spread.add([gradient])
        del gradient
    assert [reference() for reference in references] == [None] * 4


def test_32_batches_are_taken_and_of_a_short_loader_all() -> None:
    model = net(torch.float32)
    noises = [
        igo.measure_noise(model, mse_loss, loader(), n=N, batches=batches, seed=0)
        for batches in (None, 8)
    ]
    assert noises[0] == noises[1]
    singles = DataLoader(data(), batch_size=1, shuffle=True)
    assert igo.measure_noise(model, mse_loss, singles, n=N).batches == 32


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), random.random, np.random.rand])
def test_randomness_is_as_before_and_seed_says_what_is_drawn(draw: Any) -> None:
    """That of dropout and shuffle, and augmentation's by each generator."""

    def augmented(model: nn.Module, batch: Any) -> Tensor:
        return mse_loss(model(batch[0] + draw()), batch[1])

    def numbers() -> list[float]:
        return [torch.rand(()).item(), random.random(), np.random.rand()]

    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    seed()
    expected = numbers()
    seed()
    noises = [
        igo.measure_noise(
            model, None, loader(), n=N, batches=4, seed=number, loss_of=augmented, batch_size=B
        )
        for number in (None, None, 1, 2, 1)
    ]
    assert numbers() == expected
    assert noises[0] == noises[1] != noises[2]
    assert noises[2] == noises[4] != noises[3]


def test_batches_of_any_form_by_loss_of() -> None:
    """Dictionaries and parts, as the plain form and as by hand."""
    model, pairs = net(), batches_in_order()
    dictionaries = [{"x": x, "y": y} for x, y in pairs]

    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return mse_loss(model(batch["x"]), batch["y"])

    def thirds(model: nn.Module, batch: Any) -> Iterator[Tensor]:
        for x, y in zip(*(tensor.tensor_split(3) for tensor in batch), strict=True):
            yield mse_loss(model(x), y) * len(y) / B

    plain = igo.measure_noise(model, mse_loss, pairs, n=N, batches=5)
    noise = igo.measure_noise(
        model, None, dictionaries, n=N, batches=5, loss_of=loss_of, batch_size=B
    )
    assert noise == plain
    in_parts = igo.measure_noise(model, None, pairs, n=N, batches=5, loss_of=thirds, batch_size=B)
    assert in_parts.variance == pytest.approx(noise.variance)
    c2, square = by_hand()
    assert (noise.variance, noise.gradient_square) == pytest.approx((c2, square), rel=1e-6)
    fixed = igo.measure_noise(model, mse_loss, pairs, n=N, batches=5, own_noise=False)
    # Samples that are left out alone make the mean vary.
    square += c2 / (5 * B) * (1 - (N - 5 * B) / (N - 1))
    assert fixed.gradient_square == pytest.approx(square, rel=1e-6)


def in_eval_mode() -> nn.Module:
    return nn.Sequential(net(torch.float32), nn.Dropout(0.5)).eval()


def test_a_likely_mistake_is_one_line_of_warning() -> None:
    for model, batches, words in (
        (in_eval_mode(), loader(), ["Dropout and is in eval mode"]),
        (in_eval_mode().train(), loader(), []),
        (net(torch.float32), DataLoader(data(), B), ["samples in order"]),
    ):
        with warnings.catch_warnings(record=True) as lines:
            warnings.simplefilter("always")
            igo.measure_noise(model, mse_loss, batches, n=N, batches=4)
        for text, line in zip(words, lines, strict=True):
            assert text in str(line.message)
            assert line.filename == __file__


def changed(change: Callable[[Any], object]) -> nn.Module:
    model = nn.Linear(3, 1)
    change(model)
    return model


ONE = torch.ones((), requires_grad=True)
TRIPLES = [(*data()[:B], torch.arange(B))] * 2


class Parallel(nn.parallel.DistributedDataParallel):
    """One without a process group."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "twice the size": ({"batch_size": 16}, "^batch_size=16: the loader gives 8 samples$"),
    "one batch": ({"batches": 1}, "a variance needs 2 or more"),
    "too few": ({"batches": 9}, "batches=9: the loader has only 8"),
    "ragged": ({"loader": DataLoader(data(12), B, shuffle=True)}, "one size"),
    "triples": ({"loader": TRIPLES}, r"batches of \(inputs, targets\)"),
    "sum": ({"loss": nn.MSELoss(reduction="sum")}, "reduction='sum'"),
    "no loss": ({"loss": None}, "give loss .* or loss_of"),
    "two losses": ({"loss_of": lambda *_: 0}, "give loss .* or loss_of"),
    "no size": (
        {"loss": None, "loss_of": lambda *_: 0},
        "batch_size=None: give the samples of a batch",
    ),
    "nan": ({"loss": lambda out, y: mse_loss(out, y) * float("nan")}, "loss of batch 1 is nan"),
    "not a number": (
        {"loss": lambda out, y: (out - y).square()},
        r"loss of batch 1 is of shape \[8, 1\]",
    ),
    "many of n": (
        {"sampling": "independent"},
        "own_noise=True: C² of independent batches of 8 of 64 samples could be 1.12 times",
    ),
    "all of n": ({"sampling": "independent", "n": B}, "^batch_size=8: it must be below n=8, or"),
    "more than n": ({"n": 23}, "^batches=3 of 8 samples: disjoint pieces need at most n=23"),
    "unknown": ({"sampling": "x"}, "must be one of with_replacement, independent, disjoint"),
    "unreached": (
        {"loss": lambda _, y: (y * ONE).mean()},
        r"reaches 0.weight, 0.bias, 2.weight …: .*under checkpointing use use_reentrant=False",
    ),
    "a gradient of nan": (
        {"loss": lambda out, y: (0 * out).sum().sqrt()},
        "C² is nan: the loss is fin",
    ),
    "frozen": (
        {"network": changed(lambda model: model.requires_grad_(requires_grad=False))},
        "no parameter requires a gradient",
    ),
    "as of FSDP": (
        {"network": changed(lambda model: setattr(model.weight, "device_mesh", ""))},
        "sharded over ranks",
    ),
    "averaged over ranks": ({"network": Parallel(nn.Linear(3, 1))}, r"measure model\.module"),
    "trained in the backward pass": (
        {
            "network": changed(
                lambda model: model.weight.register_post_accumulate_grad_hook(lambda _: None)
            )
        },
        "backward would train it",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_measured_is_refused_and_the_model_is_as_before(case: str) -> None:
    changes, message = REFUSALS[case]
    arguments: Any = {"loss": mse_loss, "loader": loader(), "n": N, "batches": 3}
    arguments = {"network": net(torch.float32), **arguments, **changes}
    gradients = {
        parameter: torch.ones_like(parameter) for parameter in arguments["network"].parameters()
    }
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    with pytest.raises(ValueError, match=message):
        igo.measure_noise(**arguments)
    for parameter, gradient in gradients.items():
        assert parameter.grad is gradient


def test_a_measurement_computes_gradients_where_none_are_wanted() -> None:
    """As in a validation; ``batchmean`` is a mean over the batch."""
    model, loss = net(torch.float32), nn.KLDivLoss(reduction="batchmean", log_target=True)

    def noise() -> igo.Noise:
        return igo.measure_noise(model, loss, loader(), n=N, batches=4, seed=0)

    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            noise_in_context = noise()
        assert noise_in_context == noise()
