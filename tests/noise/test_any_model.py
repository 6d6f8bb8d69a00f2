"""``igo.measure_noise`` on any model and loader: memory, randomness, forms of batches, refusals."""

from __future__ import annotations

import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from two_ranks import on_ranks

import igo

N, B = 64, 8


class Live(TorchDispatchMode):
    """The most bytes that tensors made under it have at a time, but for the ``known`` ones."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.now -= size


def data(n: int = N) -> TensorDataset:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x.sum(dim=1, keepdim=True).tanh())


def loader(**named: Any) -> DataLoader[Any]:
    return DataLoader(data(), batch_size=B, shuffle=True, drop_last=True, **named)


def net(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    parts = torch.autograd.grad(mse_loss(model(x), y), list(model.parameters()))
    return torch.cat([part.flatten() for part in parts])


def by_hand(batches: list[tuple[Tensor, Tensor]], model: nn.Module, b: int) -> tuple[float, float]:
    """C² and ‖∇f‖² of disjoint batches of b of N samples, from all gradients side by side."""
    rows = torch.stack([gradient(model, x, y) for x, y in batches])
    k = len(rows)
    raw = float((rows - rows.mean(0)).square().sum()) / (k - 1)
    left = (N - k * b) / N  # of the variance of the mean, drawn without replacement
    return b * raw * (N - 1) / N, float(rows.mean(0).square().sum()) - raw / k * left


@pytest.mark.parametrize("batches", [3, 12])
def test_memory_is_at_most_three_gradients_whatever_k_is(batches: int) -> None:
    """One mean, one gradient, and less than one more for pieces, by the tensors that live."""
    model = nn.Linear(2500, 2000, bias=False)
    copy = 4 * model.weight.numel()
    batch = torch.randn(2, 2500), torch.randn(2, 2000)
    live = Live([model.weight, *batch])
    with live:
        igo.measure_noise(model, mse_loss, [batch] * batches, n=100, batches=batches)
    assert 2 * copy < live.peak < 3 * copy
    assert live.now < copy / 100  # nothing is left behind


def test_torchs_randomness_is_as_before_and_seed_says_what_is_drawn() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    noises = [
        igo.measure_noise(model, mse_loss, loader(), n=N, batches=4, seed=seed)
        for seed in (None, None, 1, 2, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert noises[0] == noises[1] != noises[2]
    assert noises[2] == noises[4] != noises[3]


def test_batches_of_any_form_by_loss_of() -> None:
    """Dictionaries, with the model's own loss: as the plain form, and as by hand."""
    model = net()
    pairs = [(x.double(), y.double()) for x, y in DataLoader(data(), batch_size=B)][:5]
    named = [{"x": x, "y": y} for x, y in pairs]

    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return mse_loss(model(batch["x"]), batch["y"])

    plain = igo.measure_noise(model, mse_loss, pairs, n=N, batches=5)
    noise = igo.measure_noise(model, None, named, n=N, batches=5, loss_of=loss_of, batch_size=B)
    assert noise == plain
    variance, square = by_hand(pairs, model, B)
    assert noise.variance == pytest.approx(variance, rel=1e-6)  # its mean is in float64
    assert noise.gradient_square == pytest.approx(square, rel=1e-6)
    with pytest.raises(ValueError, match=r"batch_size=None.*with loss_of"):
        igo.measure_noise(model, None, named, n=N, batches=5, loss_of=loss_of)
    with pytest.raises(ValueError, match=r"give loss .* or loss_of"):
        igo.measure_noise(model, mse_loss, named, n=N, loss_of=loss_of, batch_size=B)


def test_batch_size_that_is_given_scales_c2() -> None:
    """A batch of 8 rows that are 4 samples of 2 rows each."""
    model = net()
    pairs = [(x.double(), y.double()) for x, y in DataLoader(data(), batch_size=B)][:5]
    noise = igo.measure_noise(model, mse_loss, pairs, n=N, batches=5, batch_size=4)
    assert noise.batch_size == 4
    assert noise.variance == pytest.approx(by_hand(pairs, model, 4)[0], rel=1e-6)


def test_a_loss_that_is_no_finite_mean_is_refused() -> None:
    model = net(torch.float32)
    kept = [torch.ones_like(parameter) for parameter in model.parameters()]
    for parameter, gradient in zip(model.parameters(), kept, strict=True):
        parameter.grad = gradient
    bad = {
        "loss of batch 1 is nan": lambda out, y: mse_loss(out, y) * float("nan"),
        r"(?s)loss of batch 1 is .*finite mean": lambda out, y: (out - y).square().squeeze(1),
        "C² is nan: the loss is finite, a gradient is not": lambda out, y: (0 * out).sum().sqrt(),
    }
    for message, loss in bad.items():
        with pytest.raises(ValueError, match=message):
            igo.measure_noise(model, loss, loader(), n=N, batches=3)
        assert all(
            parameter.grad is gradient
            for parameter, gradient in zip(model.parameters(), kept, strict=True)
        )
    with pytest.raises(ValueError, match="reduction='sum'"):
        igo.measure_noise(model, nn.MSELoss(reduction="sum"), loader(), n=N, batches=3)


class Checkpointed(nn.Module):
    """A frozen embedding, a layer under checkpointing, and a head."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4).requires_grad_(requires_grad=False)
        self.layer, self.head, self.reentrant = nn.Linear(4, 4), nn.Linear(4, 1), reentrant

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.layer, self.embedding(x), use_reentrant=self.reentrant)
        return self.head(hidden)


def test_a_parameter_that_no_gradient_reaches_is_refused() -> None:
    """Reentrant checkpointing gives none where its input has no gradient; PyTorch only warns."""
    torch.manual_seed(0)
    batches = [(torch.randint(5, (B,)), torch.randn(B, 1)) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"layer\.weight, layer\.bias.*use_reentrant=False"):
            igo.measure_noise(Checkpointed(reentrant=True), mse_loss, batches, n=N, batches=3)
    noise = igo.measure_noise(Checkpointed(reentrant=False), mse_loss, batches, n=N, batches=3)
    assert noise.variance > 0


def test_the_batches_of_a_training_in_progress_are_refused() -> None:
    plan = igo.plan("graduated", n=N, epochs=2, learning_rate=0.1, batch_size=B, p=0.5)
    batches, model = igo.BatchSampler(plan, range(plan.n), seed=0), net(torch.float32)
    trained = DataLoader(data(), batch_sampler=batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = igo.Schedule(optimizer, batches)
    samples = 0
    for _ in batches.epochs():
        for x, y in trained:
            schedule.step()
            optimizer.zero_grad()
            mse_loss(model(x), y).backward()
            optimizer.step()
            samples += len(x)
            if not batches.done:
                with pytest.raises(ValueError, match="training in progress"):
                    igo.measure_noise(model, mse_loss, trained, n=N, batches=2)
            assert igo.measure_noise(model, mse_loss, loader(), n=N, batches=2).variance > 0
    assert samples == 2 * N


def sharded(rank: int) -> tuple[float, float, bool]:
    """C² and ‖∇f‖² on FSDP2 shards, each rank with its half of each batch."""
    from torch.distributed.fsdp import fully_shard

    model = net()
    fully_shard(model)
    halves = [
        (x[rank::2].double(), y[rank::2].double()) for x, y in DataLoader(data(), batch_size=B)
    ]
    with pytest.raises(ValueError, match=r"batch_size=None.*over all ranks"):
        igo.measure_noise(model, mse_loss, halves, n=N, batches=5)
    noise = igo.measure_noise(model, mse_loss, halves, n=N, batches=5, batch_size=B)
    return noise.variance, noise.gradient_square, all(p.grad is None for p in model.parameters())


def test_fsdp2_shards_are_summed_over_ranks(tmp_path: Path) -> None:
    pairs = [(x.double(), y.double()) for x, y in DataLoader(data(), batch_size=B)][:5]
    wanted = by_hand(pairs, net(), B)
    for variance, square, clean in on_ranks(sharded, tmp_path):
        assert clean
        assert (variance, square) == pytest.approx(wanted, rel=1e-6)
