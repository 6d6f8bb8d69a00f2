"""C² of an epoch's pairs: plain loops over the vectors, statistics over many draws, and runs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import TINY
from scipy import stats
from torch import Tensor, nn
from trained import prepared, train

import igo
from igo.noise import pairs as measured
from igo.noise.pairs import Pairs, Twin
from igo.train import loop

LARS = "optimizer=own", "optimizer._target_=timm.optim.Lars", "engine.micro_batch_size=8"


@pytest.mark.parametrize(
    ("k", "settings"), [(89, ["fp32", "batch_size=16"]), (44, ["fp32", *LARS]), (44, ["fp16"])]
)
def test_weights_that_stand_still_have_the_noise_of_whole_batches(k: int, settings: Any) -> None:
    """As before training, with BatchNorm and an optimizer that changes gradients in place."""
    still = "epochs=1", "schedule=constant", "learning_rate=1e-12", "model.width=8", "batch_size=32"
    precision, *others = settings
    words = *still, f"noise.batches={k}", f"engine.precision={precision}", *others
    (record,) = train(prepared(*words)).records
    assert record["variance_pairs"] == (k + 1) // 2
    low, high = (record[f"gradient_variance_{end}"] for end in ("low", "high"))
    assert low < record["reference_variance"] < high < 2 * low
    norm = record["reference_gradient_norm"]
    assert record["gradient_norm"] == pytest.approx(norm, rel=0.1)


def pairs_of(
    noises: Tensor,
    sizes: list[int],
    eta: float = 0.0,
    scale: float | None = None,
    slopes: Tensor | None = None,
    **epoch: Any,
) -> tuple[Pairs, Tensor]:
    """An epoch of SGD on ‖x‖²/2 whose gradients have these noises, and its points.

    By default all samples have outputs of one slope. fp16's scaler skips an update whose gradient
    is not finite, and halves the scale.
    """
    x = nn.Parameter(torch.zeros(noises.shape[1]))
    pairs, points = Pairs(nn.ParameterList([x]), len(sizes), **epoch), []
    slopes = 1 / torch.tensor(sizes) if slopes is None else slopes

    def gradient(i: int) -> None:
        x.grad = (x.detach() + noises[i]) * (scale or 1)

    for i, size in enumerate(sizes):
        points.append(x.detach().clone())
        gradient(i)
        given = None if scale is None else torch.tensor(scale)
        pairs.take(size, slopes[i] * (scale or 1) ** 2, partial(gradient, i + 1), given)
        x.grad /= scale or 1
        if x.grad.isfinite().all():
            x.data -= eta * x.grad
        elif scale:
            scale /= 2
    return pairs, torch.stack(points)


def test_movement_has_no_share_in_c2() -> None:
    """With it C² would be ((1 + η)² + 1)/2 times as large, and the mean of g_t·g_{t+1} negative.

    A short epoch has one twin of its own, and corrects itself by those of the epochs before.
    """
    for k in (512, 16):
        d, b, eta, c2, epochs = 200, 16, 0.5, 8.0, 8192 // k
        noises = torch.randn(epochs, k, d, generator=torch.manual_seed(0)) * math.sqrt(c2 / b / d)
        twins: Sequence[Twin] = ()
        rows = []
        for epoch in range(epochs):
            pairs, points = pairs_of(
                noises[epoch], [b] * k, eta, updates=epoch * k, earlier_twins=twins
            )
            noise, twins = pairs.noise()
            assert (noise.batches, noise.sampling) == (min(k // 2, 32), "consecutive")
            assert len(twins) == 4
            low, high = noise.variance_interval
            square = float(points.square().sum(1).mean())
            rows.append(
                [noise.variance, low < c2 < high, high - low, noise.gradient_square, square]
            )
        variance, hits, width, mean_square, square = np.mean(rows, axis=0)
        assert variance == pytest.approx(c2, rel=0.03)
        assert hits > 0.85
        assert width < 0.5 * c2
        assert mean_square == pytest.approx(square, rel=0.2)


K, RANDOM = 300, torch.Generator().manual_seed(3)
LEVELS = torch.logspace(0, -3, K)[torch.randperm(K, generator=RANDOM)]  # C² of each batch
LONG_SIZES = [16] * 200 + [32] * 100
SPREADS = (LEVELS / torch.tensor(LONG_SIZES) / 400).sqrt()
LONG = torch.randn(K, 400, generator=RANDOM) * SPREADS[:, None]
CHANCE = (0.1 * torch.randn(K, generator=RANDOM)).exp()  # Outputs do not tell this part of C².
TAILS = (2.0 * torch.randn(K, generator=RANDOM)).exp()
SLOPES = 7 * LEVELS / torch.tensor(LONG_SIZES)
EVEN = [(0.1 * sign, 9.0 * sign, 0.2 * sign) for sign in (1, -1, 1, -1)]
SHORT = torch.tensor(
    [[1.0, 0, 0], [0, 2, 0], [3, 1, 1], [1, 1, 1], [1, 0, 0], [5, 5, 5], [1, 1, 1]]
)
SHORT_SIZES = [4, 2, 8, 4, 1, 1, 1]
STEADY = [(0.1 * sign, 9.0 * sign, 0.125) for sign in (1, 0, -1)]
STEADY_BOTH = [(9.0 * sign, 0.1 * sign, 0.125) for sign in (1, 0, -1)]
# The noises, sizes, η, slopes, earlier twins, and whether slopes help.
EPOCHS: dict[str, tuple[Tensor, list[int], float, Tensor | None, Sequence[Twin], bool]] = {
    "unequal batches": (SHORT, SHORT_SIZES, 0.5, None, STEADY, False),
    "both gradients": (SHORT, SHORT_SIZES, 0.5, None, STEADY_BOTH, False),
    "too few twins": (SHORT, SHORT_SIZES, 0.5, None, STEADY_BOTH[:2], False),
    "slopes help": (LONG, LONG_SIZES, 0.01, SLOPES * CHANCE, EVEN, True),
    "slopes vary more": (LONG, LONG_SIZES, 0.01, SLOPES * TAILS, EVEN, False),
    "no slopes": (LONG, LONG_SIZES, 0.01, 0 * SLOPES, EVEN, False),
}


def vectors(noises: Tensor, points: Tensor, p: int) -> tuple[np.ndarray, ...]:
    """Of each pair ‖Δ‖², the sum of both squares and their product; and what its twin would say."""
    x, noise = points.double().numpy(), noises.double().numpy()
    first, second, ahead = (
        (x[i : 2 * p : 2] + noise[j : 2 * p : 2]) for i, j in ((0, 0), (1, 1), (0, 1))
    )
    change, still = (((first - g) ** 2).sum(1) for g in (second, ahead))
    both, product = (first**2).sum(1) + (second**2).sum(1), (first * second).sum(1)
    lacking = ((first * ahead).sum(1) - product) / change
    return (
        change,
        both,
        product,
        np.stack([np.log(still / change), np.log(still / both), lacking], 1),
    )


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("scale", [None, 1024.0])
@pytest.mark.parametrize("case", EPOCHS)
def test_an_epoch_by_plain_loops(case: str, scale: float | None) -> None:
    """From the vectors; each of all pairs is left out in turn, by hand.

    Of 300 updates 32 pairs are measured, and two have twins. fp16 skips the last batches.
    """
    noises, sizes, eta, slopes, earlier, helps = EPOCHS[case]
    p, is_long = len(sizes) // 2, len(sizes) == K
    numbers = [i * p // 32 for i in range(32)] if is_long else [*range(p)]
    twinned = [numbers[8], numbers[24]] if is_long else [1]
    noises = noises.clone()
    if scale:
        noises[2 * (147 if is_long else 2) :, 0] = math.inf
        numbers = [number for number in numbers if number < (147 if is_long else 2)]
    updates = 3000 * K if is_long else 14
    pairs, points = pairs_of(
        noises, sizes, eta, scale, slopes, updates=updates, earlier_twins=earlier
    )
    noise, newest_twins = pairs.noise()

    change, both, product, of_twins = vectors(noises, points, p)
    own = [of_twins[i] for i in twinned]
    twins = [*own, *earlier][:4]
    assert [*newest_twins] == [pytest.approx(twin, rel=1e-3, abs=1e-5) for twin in twins]
    logs, logs_both, shares = np.array(twins).T
    v = change
    if len(twins) == 4 and np.std(logs_both) < np.std(logs):
        logs, v = logs_both, both
    inverse = (1 / np.array(sizes[: 2 * p])).reshape(p, 2).sum(1)
    v = v / inverse
    u = np.ones(p)
    if slopes is not None:
        u = slopes.double().numpy().reshape(p, 2).sum(1) / inverse
        r = np.corrcoef(u[numbers], v[numbers])[0, 1] if u.any() else 0
        relative_u, relative_v = (stats.variation(values[numbers]) for values in (u, v))
        assert helps == (r > relative_u / relative_v / 2 if u.any() else False)
    if not helps:
        u = np.ones(p)

    def estimate(left_out: int | None = None) -> float:
        measured_pairs = [number for number in numbers if number != left_out]
        others = [number for number in range(p) if number != left_out]
        return float(v[measured_pairs].sum() / u[measured_pairs].sum() * u[others].mean())

    assert noise.variance == pytest.approx(estimate() * math.exp(logs.mean()), rel=1e-4)
    mean_change, squares = change[numbers].mean(), product[numbers]
    square = squares.mean() + mean_change * shares.mean()
    assert noise.gradient_square == pytest.approx(square, rel=1e-3, abs=1e-5)
    assert noise.batch_size == round(np.mean([sizes[2 * n : 2 * n + 2] for n in numbers]))
    assert noise.batches == len(numbers)
    assert (noise.variance_interval is None) == (noise.square_interval is None) == (not is_long)
    if is_long:
        left_out = np.log([estimate(number) for number in range(p)])
        error = math.sqrt((p - 1) / p * np.square(left_out - left_out.mean()).sum())
        t_pairs, t_twins = stats.t.ppf(0.975, [len(numbers) - 1, 3])
        half = math.hypot(t_pairs * error, t_twins * stats.sem(logs))
        ends = noise.variance * math.exp(-half), noise.variance * math.exp(half)
        assert noise.variance_interval == pytest.approx(ends, rel=1e-3)
        half = math.hypot(t_pairs * stats.sem(squares), t_twins * stats.sem(shares) * mean_change)
        ends = square - half, square + half
        assert noise.square_interval == pytest.approx(ends, rel=1e-3, abs=1e-5)


def test_slopes_are_used_where_they_help() -> None:
    """Log-normal C² and slopes of 150 pairs, of which 32 are measured, in 100 epochs.

    The mean of the pairs and the ratio are computed beside it; it is as good as the better one.
    """
    for sigma, r in ((1.5, 0.0), (1.5, 0.9), (1.0, 0.3), (0.45, 0.97)):
        random, p, epochs = np.random.default_rng(0), 150, 100
        z, chance = random.standard_normal((2, epochs, p))
        v, u = np.exp(0.45 * z), np.exp(sigma * (r * z + math.sqrt(1 - r * r) * chance))
        numbers, errors = [i * p // 32 for i in range(32)], []
        for v_of_epoch, u_of_epoch in zip(v, u, strict=True):
            noises, slopes = torch.zeros(2 * p, 1), torch.zeros(2 * p)
            noises[::2, 0] = torch.from_numpy(np.sqrt(2 * v_of_epoch))  # ‖Δ‖² is V (1/1 + 1/1).
            slopes[::2] = torch.from_numpy(u_of_epoch)
            twins = [(0, 0, 0)] * 4
            pairs, _ = pairs_of(
                noises, [1] * 2 * p, slopes=slopes, updates=10**6, earlier_twins=twins
            )
            mean = v_of_epoch[numbers].mean()
            ratio = mean / u_of_epoch[numbers].mean() * u_of_epoch.mean()
            estimates = np.array([pairs.noise()[0].variance, mean, ratio])
            errors.append(estimates / v_of_epoch.mean())
        error, error_of_mean, error_of_ratio = np.sqrt(np.mean(np.log(errors) ** 2, axis=0))
        assert error < 1.1 * min(error_of_mean, error_of_ratio) < max(error_of_mean, error_of_ratio)
        assert np.mean(errors, axis=0)[0] == pytest.approx(1, abs=0.03)


def test_twins_are_spread_over_the_epochs() -> None:
    """1.5 % of updates are twins, in the first two epochs 4, or one for each pair.

    Of updates 541 to 590 they are int(8.85) - int(8.1). Of epochs of 4 updates each of the first
    ten has one, later each at which 1.5 % of all updates pass a whole number.
    """
    noises, earlier_twin = torch.randn(50, 3), (0.25, 0.5, 0.125)
    cases = [(50, 60, 4), (50, 520, 1), (50, 540, 0), (300, 3000 * 300, 2)]
    new_twins = {0: 2, 1: 2, 2: 1, 9: 1, 10: 0, 15: 0, 16: 1, 17: 0}
    for k, updates, count in [*cases, *((4, 4 * epoch, n) for epoch, n in new_twins.items())]:
        twins = [earlier_twin] * 4
        rows = noises.repeat(6, 1)[:k]
        pairs, _ = pairs_of(rows, [1] * k, 0.1, updates=updates, earlier_twins=twins)
        assert pairs.noise()[1].count(earlier_twin) == 4 - count
    pairs, _ = pairs_of(noises[:4], [1] * 4, 0.1, updates=80)
    assert len(pairs.noise()[1]) == 2
    assert pairs_of(noises[:1], [1])[0].noise() == (None, ())


def test_twins_leave_training_as_it_is() -> None:
    """To the bit, with BatchNorm, augmentation and dropout; each comes before its update."""
    ends, order, take = [], list[str](), Pairs.take

    def noted(*arguments: Any) -> None:
        take(*arguments)
        order.append("gradient")

    for most_twins in (0, 8):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 10)
        )
        run = prepared(*TINY, "dataset.augment.crop=1", "engine.precision=fp32")
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: order.append("update"))
        with (
            mock.patch.object(measured, "ENOUGH", most_twins),
            mock.patch.object(Pairs, "take", noted),
            mock.patch.object(loop, "Pairs", wraps=Pairs) as epochs,
        ):
            schedule = igo.Schedule(optimizer, run.batches)
            progress = train(replace(run, network=network, optimizer=optimizer, schedule=schedule))
        assert [call.args[1:3] for call in epochs.call_args_list] == [(3, 0), (3, 3), (2, 6)]
        assert len(progress.twins) == min(most_twins, 3)  # a pair an epoch
        ends.append([*network.state_dict().values()])
    assert order == ["gradient", "update"] * 16
    for tensor, tensor_with_twins in zip(*ends, strict=True):
        assert torch.equal(tensor, tensor_with_twins)
