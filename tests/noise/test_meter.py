"""``igo.NoiseMeter``: every draw enumerated, a plain loop over the updates, and ranks."""

import itertools
import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import forge
from scipy import stats
from torch import nn
from torch.nn.functional import mse_loss

import igo

N = 5
DTYPE = torch.float64
CLOSE = 1e-9  # sums of some hundred terms in float64, squared
RANDOM = torch.Generator().manual_seed(0)
X, Y = (torch.randn(16, d, generator=RANDOM, dtype=DTYPE) for d in (3, 1))


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 1, dtype=DTYPE)


def gradients(model: nn.Module, index: Sequence[int]) -> np.ndarray:
    """Those of these samples, in closed form: 2 (wx + b - y) (x, 1)."""
    x, y = X[[*index]], Y[[*index]]
    with torch.no_grad():
        g = 2 * (model(x) - y) * torch.cat([x, torch.ones(len(x), 1, dtype=DTYPE)], dim=1)
    return g.numpy()


def accumulate(
    meter: igo.NoiseMeter, model: nn.Module, parts: Sequence[Sequence[int]], scale: float = 1
) -> None:
    """One batch in parts, each weighted by its share of the samples."""
    total = sum(map(len, parts))
    model.zero_grad()
    for part in parts:
        (mse_loss(model(X[[*part]]), Y[[*part]]) * len(part) / total * scale).backward()
        meter.part(len(part))
    meter.update(scale=scale)


def test_unbiased_over_every_draw_there_is() -> None:
    """The averages over all draws of parts from five samples are C² and ‖∇f‖².

    Draws without replacement have C²/n more, and less.
    """
    for sizes, replaced in itertools.product(((1, 2), (1, 2, 1)), (True, False)):
        model, b = linear(), sum(sizes)
        meter = igo.NoiseMeter(model, half_life=float("inf"))
        draws: Any = itertools.permutations(range(N), b)
        if replaced:
            draws = itertools.product(range(N), repeat=b)
        for index in draws:
            rest = iter(index)
            accumulate(meter, model, [[*itertools.islice(rest, size)] for size in sizes])
        g = gradients(model, range(N))
        variance = g.var(axis=0, ddof=0 if replaced else 1).sum()
        expected = variance, np.square(g.mean(axis=0)).sum() - (0 if replaced else variance / N)
        noise = meter.noise
        assert (noise.variance, noise.gradient_square) == pytest.approx(expected, rel=CLOSE)
        assert noise.batch_size == round(b / len(sizes))


def test_averages_decay_by_samples_go_on_after_a_stop_and_leave_an_overflow_out(
    tmp_path: Path,
) -> None:
    """By a plain loop over the updates; with a GradScaler's scale, and after a checkpoint."""
    for scale in (1.0, 1024.0):
        model, half_life = linear(), 20.0
        rows: list[tuple[float, ...]] = []
        meter = igo.NoiseMeter(model, half_life)
        for i in range(12):
            parts = [[i], [i + 1, i + 2, i + 3]][: 1 + (i != 3)]  # One part alone says nothing.
            parts += [[0, 1, 2]] * (i % 4 == 0)
            accumulate(meter, model, parts, scale)
            means = [gradients(model, part).mean(axis=0) for part in parts]
            sizes, samples = [*map(len, parts)], sum(map(len, parts))
            mean = np.average(means, axis=0, weights=sizes)
            if len(parts) > 1:
                spread = sum(
                    s * np.square(g - mean).sum() for s, g in zip(sizes, means, strict=True)
                )
                c2, weight = spread / (len(parts) - 1), len(parts) - 1
                rows = [(w * 0.5 ** (samples / half_life), *terms) for w, *terms in rows]
                rows.append((weight, c2, np.square(mean).sum() - c2 / samples))
            if i == 5:
                torch.save(meter.state_dict(), tmp_path / "meter.pt")
                meter = igo.NoiseMeter(model, half_life)
                meter.load_state_dict(torch.load(tmp_path / "meter.pt", weights_only=True))
                (mse_loss(model(X), Y) * math.inf).backward()
                meter.part(2)
                meter.part(2)
                meter.update(scale)
        weights, variances, squares = np.array(rows).T
        c2, noise = np.average(variances, weights=weights), meter.noise
        square = np.average(squares, weights=weights)
        assert (noise.variance, noise.gradient_square) == pytest.approx((c2, square), rel=CLOSE)
        count = weights.sum() ** 2 / np.square(weights).sum()
        assert (noise.batches, noise.batch_size) == (round(count), 2)
        error = math.sqrt(np.average((variances - c2) ** 2, weights=weights) / (count - 1)) / c2
        half = stats.t.ppf(0.975, count - 1) * error
        ends = c2 * math.exp(-half), c2 * math.exp(half)
        assert noise.variance_interval == pytest.approx(ends, rel=1e-6)


def test_the_interval_covers_c2_and_is_open_once_the_noise_has_ended() -> None:
    """200 meters of 24 updates with a half-life of 12 of them: about 95 % cover.

    The standard deviation of the share is 1.5 %; 24 updates so weighted count as 21. Where the loss
    is 0, an average falls to 2^-30, and its interval spans more than floats do.
    """
    coverage = 0
    model = nn.ParameterList([torch.zeros(6)])
    for _ in range(200):
        meter = igo.NoiseMeter(model, half_life=12 * 8)
        for update in range(24):
            model[0].grad = torch.zeros(6)
            for _ in range(2):  # A part is the mean of 4 samples from N(0, 1)⁶: C² = 6.
                model[0].grad += torch.randn(6, generator=RANDOM) / 2 / 2
                meter.part(4)
            meter.update()
            assert (meter.noise.variance_interval is None) == (update < 2)
        low, high = meter.noise.variance_interval
        coverage += low <= 6 <= high
    assert 0.88 <= coverage / 200 <= 0.99
    model[0].grad.zero_()
    for _ in range(400):
        meter.part(4)
        meter.part(4)
        meter.update()
    assert meter.noise.variance > 0
    assert meter.noise.variance_interval == (0, math.inf)


def test_bad_use_is_refused() -> None:
    model = linear()
    with pytest.raises(ValueError, match="half_life=0"):
        igo.NoiseMeter(model, 0)
    samples: Any
    for samples, words in ((-3, "1 or more"), (1.5, "whole number")):
        with pytest.raises(ValueError, match=words):
            igo.NoiseMeter(model, 10).part(samples)
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
    rank, moments = torch.distributed.get_rank(), []
    for shares, view, scale in itertools.product(ON_RANKS, (False, True), (1.0, 64.0)):
        model = nn.parallel.DistributedDataParallel(linear(), gradient_as_bucket_view=view)
        meter = igo.NoiseMeter(model, half_life=8)
        weight = 2 * scale / sum(map(len, itertools.chain(*shares)))
        for part in shares[rank]:
            with nullcontext() if part is shares[rank][-1] else model.no_sync():
                (mse_loss(model(X[part]), Y[part]) * len(part) * weight).backward()
            meter.part(len(part))
        meter.update(scale)
        moments.append((meter.noise.variance, meter.noise.gradient_square))
    return moments


def test_parts_on_two_ranks_are_those_of_one_batch() -> None:
    moments_of_ranks = forge.results(2, "test_meter.moments_of_rank")
    assert moments_of_ranks[0] == moments_of_ranks[1]
    for number, shares in enumerate(ON_RANKS):
        model = linear()
        meter = igo.NoiseMeter(model, half_life=8)
        accumulate(meter, model, [*itertools.chain(*shares)])
        expected = meter.noise.variance, meter.noise.gradient_square
        for moments_of_form in moments_of_ranks[0][4 * number : 4 * number + 4]:
            assert moments_of_form == pytest.approx(expected, rel=CLOSE)
