"""``igo.NoiseMeter``: every draw enumerated, brute force, ranks against parts, and resume."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from two_ranks import on_ranks

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


def rows(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradients (n, 4) of single samples in closed form: 2 (wx + b - y) (x, 1)."""
    with torch.no_grad():
        return 2 * (model(x) - y) * torch.cat([x, torch.ones(len(x), 1, dtype=DTYPE)], dim=1)


def moments(g: Tensor) -> tuple[float, float]:
    """C² and ‖∇f‖² of all one-sample gradients."""
    full = g.mean(dim=0)
    return float((g - full).square().sum(dim=1).mean()), float(full.square().sum())


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


@pytest.mark.parametrize("sizes", [(2, 2), (1, 2), (1, 2, 1)])
@pytest.mark.parametrize("replaced", [True, False])
def test_unbiased_over_every_draw_there_is(sizes: tuple[int, ...], replaced: bool) -> None:
    """The averages over all draws of parts from five samples are C² and ‖∇f‖²."""
    model, b = linear(), sum(sizes)
    meter = igo.NoiseMeter(model, half_life=float("inf"), n=None if replaced else N)
    every = (
        itertools.product(range(N), repeat=b) if replaced else itertools.permutations(range(N), b)
    )
    for index in every:
        accumulate(meter, model, parts_of(index, sizes))
    measured = meter.noise.variance, meter.noise.gradient_square
    assert measured == pytest.approx(moments(rows(model, *samples())), rel=CLOSE)
    assert meter.noise.batch_size == round(b / len(sizes))


def test_one_update_is_as_by_brute_force() -> None:
    """Σ s_k ‖g_k - ḡ‖²/(K - 1) of parts of 3, 1 and 4, by the closed form of each part."""
    model, sizes = linear(), [3, 1, 4]
    meter = igo.NoiseMeter(model, half_life=100)
    accumulate(meter, model, parts_of(range(8), sizes, 8))
    each = [part.mean(dim=0) for part in rows(model, *samples(8)).split(sizes)]
    mean = rows(model, *samples(8)).mean(dim=0)
    c2 = sum(s * float((g - mean).square().sum()) for s, g in zip(sizes, each, strict=True)) / 2
    assert meter.noise.variance == pytest.approx(c2, rel=CLOSE)
    square = float(mean.square().sum()) - c2 / 8
    assert meter.noise.gradient_square == pytest.approx(square, rel=CLOSE)
    assert meter.noise.interval is None


def test_the_half_life_is_in_samples() -> None:
    """An update of 8 samples has half the weight once 8 more samples came."""
    model = linear()
    alone = []
    meter = igo.NoiseMeter(model, half_life=8)
    for index in ([0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 0, 1, 3, 3, 2, 2], [1, 4, 4, 2, 7, 5, 0, 0]):
        single = igo.NoiseMeter(model, half_life=8)
        for either in (meter, single):
            accumulate(either, model, parts_of(index, [4, 4], 8))
        alone.append(single.noise.variance)
    wanted = (alone[0] / 4 + alone[1] / 2 + alone[2]) / 1.75
    assert meter.noise.variance == pytest.approx(wanted, rel=CLOSE)
    assert meter.noise.batches == round(1.75**2 / (1 + 1 / 4 + 1 / 16))


def test_the_interval_covers_c2() -> None:
    """200 meters of 24 updates with a half-life of 12 of them: about 95 % cover.

    The standard deviation of the share is 1.5 %; 24 updates so weighted count as 21.
    """
    covered = 0
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        weight = nn.Parameter(torch.zeros(6))
        model = nn.Module()
        model.weight = weight
        meter = igo.NoiseMeter(model, half_life=12 * 8)
        for _ in range(24):
            weight.grad = torch.zeros(6)
            for _ in range(2):  # part means of 4 samples from N(0, 1)⁶: C² = 6
                weight.grad += torch.randn(6, generator=random) / 2 / 2
                meter.part(4)
            meter.update()
        low, high = meter.noise.interval
        covered += low <= 6 <= high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_noise_of_adams_steps_by_brute_force(kind: Any) -> None:
    """P = 1/(√v̂ + ε) by hand from the gradients of all updates, that of the last one too."""
    model, sizes, seen = linear(), [2, 6], []
    optimizer = kind(model.parameters(), lr=0.01, betas=(0.9, 0.8), eps=1e-3)
    meter = igo.NoiseMeter(model, half_life=1e-3, adam=optimizer)  # the last update alone
    for step in range(4):
        gradients = rows(model, *samples(8))
        accumulate(meter, model, parts_of(range(8), sizes, 8))
        if step < 2:
            assert meter.noise is None  # v̂ of the first step is ḡ² alone
        seen.append(gradients.mean(dim=0))
        optimizer.step()
    v = sum(0.2 * 0.8 ** (3 - t) * g.square() for t, g in enumerate(seen)) / (1 - 0.8**4)
    scaled = gradients / (torch.as_tensor(v).sqrt() + 1e-3)
    mean = scaled.mean(dim=0)
    each = [part.mean(dim=0) for part in scaled.split(sizes)]
    c2 = sum(s * float((g - mean).square().sum()) for s, g in zip(sizes, each, strict=True))
    assert meter.noise.variance == pytest.approx(c2, rel=CLOSE)
    square = float(mean.square().sum()) - c2 / 8
    assert meter.noise.gradient_square == pytest.approx(square, rel=CLOSE)
    with pytest.raises(ValueError, match="only Adam's and AdamW's"):
        igo.NoiseMeter(model, 10, adam=torch.optim.NAdam(model.parameters()))  # type: ignore[arg-type]


def test_an_entry_that_a_gradient_reaches_for_the_first_time_is_scaled_as_adam_does() -> None:
    """Its v̂ was 0 before, so that the P of the update before would be 1/ε = 1e8."""
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    model = nn.Module()
    model.weight = weight
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    meter = igo.NoiseMeter(model, half_life=1e-3, adam=optimizer)
    first, second = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.5, 1.0, 0.0])
    for late in (0.0, 0.0, 0.02):
        first[2], second[2] = late, 2 * late
        weight.grad = torch.zeros(3, dtype=torch.float64)
        for g in (first, second):
            weight.grad += g / 2
            meter.part(4)
        meter.update()
        before = weight.detach().clone()
        optimizer.step()
    # The entry's v̂ is 0.001 ḡ²/(1 − 0.999³), and the parts are ḡ(1 ± 1/3).
    c2 = 4 * 2 * (0.25**2 / 1.25**2 + 0.5**2 / 1.5**2 + (1 / 3) ** 2 * (1 - 0.999**3) / 0.001)
    assert meter.noise.variance == pytest.approx(c2, rel=1e-4)
    longest = (weight - before).norm() / 0.01
    assert math.sqrt(meter.noise.variance / 8) < longest


def test_an_update_that_adam_does_not_make_is_left_out() -> None:
    model = linear()
    optimizer = adam_of(model)
    meter = igo.NoiseMeter(model, half_life=1e6, adam=optimizer)
    for stepped in (True, False, True, True):  # the first is left out, too
        accumulate(meter, model, parts_of(range(8), [2, 6], 8))
        if stepped:
            optimizer.step()
    assert meter.noise.batches == 2


def test_steps_that_adam_does_not_make_are_warned_about_once() -> None:
    model = linear()
    meter = igo.NoiseMeter(model, 10, adam=torch.optim.Adam(model.parameters()))
    trains = torch.optim.Adam(model.parameters())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(80):
            accumulate(meter, model, parts_of([0, 1, 2, 3], [2, 2]))
            trains.step()
    (warning,) = warned
    assert "adam= made no step in 32 updates" in str(warning.message)
    assert meter.noise is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # PyTorch's own
def test_the_noise_of_compiled_steps_is_that_of_others() -> None:
    """torch.compile traces the hook too: to rounding the same as Adam's own step."""
    noises = []
    for compiled in (False, True):
        model = linear()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        meter = igo.NoiseMeter(model, 10, adam=optimizer)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for index in ([0, 1, 2, 3], [4, 0, 2, 1], [3, 3, 1, 4]):
            accumulate(meter, model, parts_of(index, [2, 2]))
            step()
        assert meter.noise.batches == 2  # not the first
        noises.append((meter.noise.variance, meter.noise.gradient_square))
    assert noises[0] == pytest.approx(noises[1], rel=1e-4)


def test_batches_of_one_part_are_warned_about_once() -> None:
    model = linear()
    meter = igo.NoiseMeter(model, half_life=100)
    for _ in range(31):
        accumulate(meter, model, parts_of(range(8), [8], 8))
    with pytest.warns(UserWarning, match="32 batches have one part each"):
        accumulate(meter, model, parts_of(range(8), [8], 8))
    accumulate(meter, model, parts_of(range(8), [8], 8))
    assert meter.noise is None


def test_resumed_to_the_bit(tmp_path: Path) -> None:
    model = linear()
    whole, first = (igo.NoiseMeter(model, half_life=20) for _ in range(2))
    batches = [parts_of(range(i, i + 4), [1, 3], 16) for i in range(12)]
    for batch in batches[:5]:
        accumulate(whole, model, batch)
        accumulate(first, model, batch)
    torch.save(first.state_dict(), tmp_path / "meter.pt")
    second = igo.NoiseMeter(model, half_life=20)
    second.load_state_dict(torch.load(tmp_path / "meter.pt", weights_only=True))
    for batch in batches[5:]:
        accumulate(whole, model, batch)
        accumulate(second, model, batch)
    assert second.noise == whole.noise
    assert second.state_dict() == whole.state_dict()
    other = igo.NoiseMeter(model, 20, adam=torch.optim.Adam(model.parameters()))
    with pytest.raises(ValueError, match="adam=False"):
        other.load_state_dict(whole.state_dict())


def test_a_scaled_loss_is_taken_back_and_an_overflow_left_out() -> None:
    """With a GradScaler as it is used; its scale is a power of 2, so that the bits are the same."""
    model = linear()
    plain, scaled = (igo.NoiseMeter(model, half_life=50) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))  # it makes its scale when it is first used
    batches = [parts_of(range(i, i + 4), [2, 2], 16) for i in range(3)]
    for batch in batches:
        accumulate(plain, model, batch)
        accumulate(scaled, model, batch, scaler.get_scale())
    assert scaled.noise == plain.noise
    x, y = batches[0][0]
    accumulate(scaled, model, [(x, y), (x, y * float("inf"))], scaler.get_scale())
    assert scaled.noise == plain.noise


def test_the_scale_of_a_loss_is_taken_back_from_adams_steps() -> None:
    """The gradients are unscaled before the step, as ``scaler.step`` does; a power of 2."""
    noises = []
    for scale in (1.0, 1024.0):
        model = linear()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        meter = igo.NoiseMeter(model, half_life=50, adam=optimizer)
        for i in range(3):
            accumulate(meter, model, parts_of(range(i, i + 4), [2, 2], 16), scale)
            for parameter in model.parameters():
                parameter.grad /= scale
            optimizer.step()
        noises.append(meter.noise)
    assert noises[1] == noises[0]


def test_bad_use_is_refused() -> None:
    model = linear()
    with pytest.raises(ValueError, match="half_life=0"):
        igo.NoiseMeter(model, 0)
    with pytest.raises(ValueError, match="parameters in 16 bits"):
        igo.NoiseMeter(nn.Linear(3, 1, dtype=torch.bfloat16), 10)
    with pytest.warns(UserWarning, match="BatchNorm in train mode"):
        igo.NoiseMeter(nn.BatchNorm1d(3), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        igo.NoiseMeter(nn.BatchNorm1d(3).eval(), 10)


SHARES = [(4, 4), (3, 5), (8, 0)]


def image_net() -> nn.Module:
    """With convolutions in channels_last, whose gradients lie otherwise in DDP's buckets."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Conv2d(4, 2, 2), nn.Flatten(), nn.Linear(8, 1)
    )
    return net.to(dtype=DTYPE, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def images() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(8, 3, 4, 4, generator=random, dtype=DTYPE)
    return x.to(memory_format=torch.channels_last), torch.randn(8, 1, generator=random, dtype=DTYPE)


def adam_of(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def by_two_ranks(rank: int, adam: bool) -> list[Any]:
    """What a rank's meter has after each update, and the refusals."""
    inner = image_net()
    model = DistributedDataParallel(inner)
    optimizer = adam_of(model)
    meter = igo.NoiseMeter(model, half_life=1e-3, adam=optimizer if adam else None)
    x, y = images()
    noises: list[Any] = []
    for share in (SHARES[0], *SHARES):
        mine = slice(0, share[0]) if rank == 0 else slice(share[0], 8)
        model.zero_grad()
        rest = x[mine], y[mine]
        if share == SHARES[1]:  # one sample by itself, accumulated before the average
            with model.no_sync():
                ((model(rest[0][:1]) - rest[1][:1]).square().sum() / 8 * 2).backward()
            rest = rest[0][1:], rest[1][1:]
        loss = (model(rest[0]) - rest[1]).square().sum() / 8 * 2  # DDP averages over 2
        loss.backward()
        meter.update(share[rank])
        optimizer.step()
        noises.append(meter.noise)
    for _ in range(2):
        model(x).sum().backward()
    with pytest.raises(ValueError, match="averaged twice"):
        meter.update(8)
    with pytest.raises(ValueError, match="samples=None"):
        meter.update()
    with pytest.raises(ValueError, match="parts are its ranks"):
        meter.part(8)
    with pytest.raises(ValueError, match="give the DistributedDataParallel model"):
        igo.NoiseMeter(inner, 10)
    return noises


@pytest.mark.parametrize("adam", [False, True])
def test_two_ranks_are_as_two_parts_of_one_process(adam: bool, tmp_path: Path) -> None:
    """Equal and unequal shares; a rank without samples is no part."""
    model = image_net()
    optimizer = adam_of(model)
    meter = igo.NoiseMeter(model, half_life=1e-3, adam=optimizer if adam else None)
    x, y = images()
    wanted: list[Any] = []
    for first, second in (SHARES[0], *SHARES):
        model.zero_grad()
        for part in (slice(0, first), slice(first, first + second)):
            if len(x[part]):
                ((model(x[part]) - y[part]).square().sum() / 8).backward()
                meter.part(len(x[part]))
        meter.update()
        optimizer.step()
        wanted.append(meter.noise)
    for noises in on_ranks(by_two_ranks, tmp_path, adam):
        for ours, theirs in zip(wanted, noises, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert theirs.variance == pytest.approx(ours.variance, rel=1e-7)
                assert theirs.gradient_square == pytest.approx(ours.gradient_square, rel=1e-7)
                assert theirs.batch_size == ours.batch_size
