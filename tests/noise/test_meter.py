"""``igo.NoiseMeter``: every draw enumerated, brute force, and resume."""

import itertools
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import forge
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import igo

N = 5
DTYPE = torch.float64
CLOSE = 1e-9  # sums of some hundred terms in float64, squared


def samples(n: int = N) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, generator=random, dtype=DTYPE), torch.randn(
        n, 1, generator=random, dtype=DTYPE
    )


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 1, dtype=DTYPE)


def moments(model: nn.Module) -> tuple[float, float]:
    """C² and ‖∇f‖² of all samples, by their gradients in closed form: 2 (wx + b - y) (x, 1)."""
    x, y = samples()
    with torch.no_grad():
        g = 2 * (model(x) - y) * torch.cat([x, torch.ones(len(x), 1, dtype=DTYPE)], dim=1)
    return float(g.var(dim=0, correction=0).sum()), float(g.mean(dim=0).square().sum())


def accumulate(
    meter: igo.NoiseMeter,
    model: nn.Module,
    parts: Sequence[tuple[Tensor, Tensor]],
    scale: float = 1,
) -> None:
    """One batch in parts, each weighted by its share of the samples."""
    total = sum(len(x) for x, _ in parts)
    model.zero_grad()
    for x, y in parts:
        (mse_loss(model(x), y) * len(x) / total * scale).backward()
        meter.part(len(x))
    meter.update(scale=scale)


def parts_of(index: Sequence[int], sizes: Sequence[int], n: int = N) -> list[tuple[Tensor, Tensor]]:
    x, y = samples(n)
    cut = torch.tensor(index).split(list(sizes))
    return [(x[part], y[part]) for part in cut]


@pytest.mark.parametrize("sizes", [(1, 2), (1, 2, 1)])
@pytest.mark.parametrize("replaced", [True, False])
def test_unbiased_over_every_draw_there_is(sizes: tuple[int, ...], replaced: bool) -> None:
    """The averages over all draws of parts from five samples are C² and ‖∇f‖²."""
    model, b = linear(), sum(sizes)
    meter = igo.NoiseMeter(model, half_life=float("inf"), n=None if replaced else N)
    draws: Any = itertools.permutations(range(N), b)
    if replaced:
        draws = itertools.product(range(N), repeat=b)
    for index in draws:
        accumulate(meter, model, parts_of(index, sizes))
    means = meter.noise.variance, meter.noise.gradient_square
    assert means == pytest.approx(moments(model), rel=CLOSE)
    assert meter.noise.batch_size == round(b / len(sizes))


def test_the_half_life_is_in_samples() -> None:
    """An update of 8 samples has half the weight once 8 more samples came."""
    model = linear()
    variances = []
    meter = igo.NoiseMeter(model, half_life=8)
    for index in ([0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 0, 1, 3, 3, 2, 2], [1, 4, 4, 2, 7, 5, 0, 0]):
        meter_of_update = igo.NoiseMeter(model, half_life=8)
        for either in (meter, meter_of_update):
            accumulate(either, model, parts_of(index, [4, 4], 8))
        variances.append(meter_of_update.noise.variance)
    mean = (variances[0] / 4 + variances[1] / 2 + variances[2]) / 1.75
    assert meter.noise.variance == pytest.approx(mean, rel=CLOSE)
    assert meter.noise.batches == round(1.75**2 / (1 + 1 / 4 + 1 / 16))


def test_the_interval_covers_c2() -> None:
    """200 meters of 24 updates with a half-life of 12 of them: about 95 % cover.

    The standard deviation of the share is 1.5 %; 24 updates so weighted count as 21.
    """
    coverage = 0
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        weight = nn.Parameter(torch.zeros(6))
        model = nn.Module()
        model.weight = weight
        meter = igo.NoiseMeter(model, half_life=12 * 8)
        for _ in range(24):
            weight.grad = torch.zeros(6)
            for _ in range(2):  # A part is the mean of 4 samples from N(0, 1)⁶: C² = 6.
                weight.grad += torch.randn(6, generator=random) / 2 / 2
                meter.part(4)
            meter.update()
        low, high = meter.noise.variance_interval
        coverage += low <= 6 <= high
    assert 0.88 <= coverage / 200 <= 0.99


def test_a_noise_that_ends_has_a_mean_whose_interval_is_open() -> None:
    """Once the loss is 0, an average falls to 2^-30, and its interval spans more than floats do."""
    model = linear()
    meter = igo.NoiseMeter(model, half_life=8)
    for update in range(60):
        parts = parts_of(range(4), [2, 2])
        if update:
            parts = [(x, model(x).detach()) for x, _ in parts]
        accumulate(meter, model, parts)
    assert meter.noise.variance > 0
    assert meter.noise.variance_interval == (0, float("inf"))


def test_resumed_to_the_bit(tmp_path: Path) -> None:
    model = linear()
    meter, stopped_meter = (igo.NoiseMeter(model, half_life=20) for _ in range(2))
    batches = [parts_of(range(i, i + 4), [1, 3], 16) for i in range(12)]
    for batch in batches[:5]:
        accumulate(meter, model, batch)
        accumulate(stopped_meter, model, batch)
    torch.save(stopped_meter.state_dict(), tmp_path / "meter.pt")
    resumed_meter = igo.NoiseMeter(model, half_life=20)
    resumed_meter.load_state_dict(torch.load(tmp_path / "meter.pt", weights_only=True))
    for batch in batches[5:]:
        accumulate(meter, model, batch)
        accumulate(resumed_meter, model, batch)
    assert resumed_meter.noise == meter.noise
    assert resumed_meter.state_dict() == meter.state_dict()


def test_a_scaled_loss_is_taken_back_and_an_overflow_left_out() -> None:
    """With a GradScaler as it is used; its scale is a power of 2, so that the bits are the same."""
    model = linear()
    meter, meter_of_scaled = (igo.NoiseMeter(model, half_life=50) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))  # The scale is made when it is first used.
    batches = [parts_of(range(i, i + 4), [2, 2], 16) for i in range(3)]
    for batch in batches:
        accumulate(meter, model, batch)
        accumulate(meter_of_scaled, model, batch, scaler.get_scale())
    assert meter_of_scaled.noise == meter.noise
    x, y = batches[0][0]
    accumulate(meter_of_scaled, model, [(x, y), (x, y * float("inf"))], scaler.get_scale())
    assert meter_of_scaled.noise == meter.noise


def test_bad_use_is_refused() -> None:
    model = linear()
    with pytest.raises(ValueError, match="half_life=0"):
        igo.NoiseMeter(model, 0)
    samples: Any
    for samples, words in ((-3, "1 or more"), (1.5, "whole number"), (5, "a batch has 5 samples")):
        with pytest.raises(ValueError, match=words):
            igo.NoiseMeter(model, 10, n=4).part(samples)
    with pytest.raises(ValueError, match="parameters in 16 bits"):
        igo.NoiseMeter(nn.Linear(3, 1, dtype=torch.bfloat16), 10)
    with pytest.warns(UserWarning, match="BatchNorm in train mode"):
        igo.NoiseMeter(nn.BatchNorm1d(3), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        igo.NoiseMeter(nn.BatchNorm1d(3).eval(), 10)


# The samples of each rank's parts: unequal shares, then one part on each rank.
ON_RANKS = [([[0, 1], [2]], [[3], [4]]), ([[2, 0]], [[4]])]


def moments_of_rank() -> list[tuple[float, float]]:
    torch.distributed.init_process_group("gloo")
    rank, (x, y), moments = torch.distributed.get_rank(), samples(), []
    for shares, view, scale in itertools.product(ON_RANKS, (False, True), (1.0, 64.0)):
        model = nn.parallel.DistributedDataParallel(linear(), gradient_as_bucket_view=view)
        meter = igo.NoiseMeter(model, half_life=8)
        weight = 2 * scale / sum(map(len, itertools.chain(*shares)))
        for part in shares[rank]:
            with nullcontext() if part is shares[rank][-1] else model.no_sync():
                (mse_loss(model(x[part]), y[part]) * len(part) * weight).backward()
            meter.part(len(part))
        meter.update(scale)
        moments.append((meter.noise.variance, meter.noise.gradient_square))
    return moments


def test_parts_on_two_ranks_are_those_of_one_batch() -> None:
    moments_of_ranks = forge.results(2, "test_meter.moments_of_rank")
    assert moments_of_ranks[0] == moments_of_ranks[1]
    x, y = samples()
    for number, shares in enumerate(ON_RANKS):
        model = linear()
        meter = igo.NoiseMeter(model, half_life=8)
        accumulate(meter, model, [(x[part], y[part]) for part in itertools.chain(*shares)])
        expected = meter.noise.variance, meter.noise.gradient_square
        for moments_of_form in moments_of_ranks[0][4 * number : 4 * number + 4]:
            assert moments_of_form == pytest.approx(expected, rel=CLOSE)
