"""Algorithms, chains and the network of the studies: closed forms, loops, other simulations."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from conftest import ROOT, rounded
from numpy.random import default_rng
from scipy import optimize

from lab.theory import digits
from lab.theory.digits import NETWORK, Network
from lab.theory.functions import Ripple
from lab.theory.propositions import fitted_exponent
from lab.theory.studies import assumptions, escape, explicit, implicit, noise, own_noise, tails

RESULTS = ROOT / "results" / "theory"


def test_algorithm_3_by_hand():
    phi = (1 - np.arange(8) / 8) ** 0.25
    sigma = (3.3 / 2 - 0.35) / 0.2
    steps = 10 * (sigma * 0.2) ** 2 / (sigma * 0.2 * phi) ** 2
    by_hand = np.repeat(phi, np.ceil(steps - 1e-9).astype(int))
    np.testing.assert_allclose(implicit.plan(8, 0.25), by_hand)


def test_the_formula_of_the_stage_lengths_ends_where_a_loop_ends():
    sigma = (3.3 / 2 - 0.35) / 0.2
    table = pl.read_csv(RESULTS / "stage_lengths_exist.csv").filter(pl.col("h3") > 0)
    for h3, rounds in table.iter_rows():
        m = 1  # the last stage of M = m rounds has φ = 1/m
        while (sigma * 0.2 / m) ** 2 - h3 * 0.1 / m > 1e-15:
            m += 1
        assert rounds in (m - 1, m)  # m, if the two are equal but for rounding


def test_algorithm_4_ends_at_the_minimiser_of_the_last_smoothed_function():
    phi = implicit.plan(20, 1.0)
    end = implicit.run(phi, np.array([-0.2, 0.2]), "exact")
    minimum = optimize.minimize_scalar(
        lambda x: float(implicit.RIPPLE.problem.value(np.array(x), 0.2 * phi[-1])),
        bounds=(-0.05, 0.05),
        method="bounded",
        options={"xatol": 1e-10},
    )
    np.testing.assert_allclose(end, minimum.x, atol=1e-6)


def test_sgd_is_the_exact_step_in_expectation():
    phi, start = implicit.plan(1, 1.0)[:1], np.full(400_000, 0.07)
    ends = implicit.run(phi, start, "sgd", seed=3)
    exact = implicit.run(phi, start[:1], "exact")[0]
    assert abs(ends.mean() - exact) < 4 * ends.std() / np.sqrt(ends.size)


def test_rounds_grow_as_theorem_3_4_says():
    for power in (0.25, 0.5, 0.75, 1.0):
        rows = implicit.rounds_and_errors(power, "exact", implicit.ROUNDS[power][:4], seed=1)
        slope, _ = fitted_exponent([r["rounds"] for r in rows], [r["error"] for r in rows])
        assert slope == pytest.approx(1 / power, rel=0.1)


@pytest.mark.parametrize(
    ("case", "power", "rounds"),
    [(implicit.VALLEY, 0.5, 30), *((implicit.NARROW, p, m) for p, m in implicit.STAGES.items())],
)
def test_the_ripples_are_inside_by_the_roots_of_the_slope(case, power, rounds):
    """x*_δ by bisection of f(x + δ) − f(x − δ), and convexity by differences."""
    f, levels = case.problem, case.delta * (1 - np.arange(rounds) / rounds) ** power

    def slope(x, d):
        return f.value(np.array(x + d)) - f.value(np.array(x - d))

    roots = np.array([optimize.brentq(slope, -d, d, args=(d,), xtol=1e-14) for d in levels])
    assert (np.abs(np.diff(roots)) <= -np.diff(levels)).all()
    for d in levels[:: len(levels) // 4]:
        x = np.linspace(-d, d, 4001)[1:-1]
        assert np.diff(slope(x, d) / (2 * d)).min() >= 0.999 * f.sigma(case.delta) * (x[1] - x[0])


def test_hills_index_is_that_of_a_pareto_law_and_its_error_that_of_repeats():
    sizes = default_rng(0).pareto(1.7, (400, 2000)) + 1
    index, error = np.transpose([tails.hill(row) for row in sizes])
    assert index.mean() == pytest.approx(1.7, rel=0.03)
    assert index.std() == pytest.approx(error.mean(), rel=0.1)


def test_algorithm_1_converges_with_hazans_steps_and_stays_in_its_ball():
    problem = Ripple(right=0.3, left=1.0, wave_slope=0.0, bowl=1.0)
    start = default_rng(0).uniform(-0.5, 0.5, (100, 1))
    levels = 0.5 / 2.0 ** np.arange(5)
    asked = [explicit.hazan_steps(d) for d in levels]
    assert asked == [math.ceil(0.05 * 2.0**2 * 32 / (0.7 * d) ** 2) for d in levels]
    steps = [math.ceil(0.05 * 2.3**2 * 32 / d**2) for d in levels]
    final = explicit.algorithm1(problem.gradient, start, levels, steps, 1.0)[-1]
    one_each = explicit.algorithm1(problem.gradient, start, levels, [1] * 5, 1.0)[-1]
    assert problem.value(final).mean() < 0.01 < problem.value(one_each).mean()
    (far,) = explicit.algorithm1(
        lambda x: np.full_like(x, -100.0), np.zeros((50, 2)), np.array([0.2]), [3], 1.0
    )
    np.testing.assert_allclose(np.linalg.norm(far, axis=1), 0.3)


def test_minibatch_variance_is_lemma_2_1_with_its_finite_factor():
    for batch in (1, 2, 3):
        gradients = default_rng(0).standard_normal((5, 2))
        c2 = 4 / 5 * np.trace(np.cov(gradients.T))
        variance, subset_variance = noise.minibatch_variances(gradients, batch)
        assert variance == pytest.approx(c2 / batch)
        assert subset_variance == pytest.approx(c2 / batch * (5 - batch) / 4)


def test_the_success_of_a_tuned_schedule_is_that_of_another_simulation():
    """Differences of Rastrigin's value stand for its slope; b and η are written out by stage."""
    table = pl.read_csv(RESULTS / "noise_and_batch.csv").filter(chosen="tuned")
    for name, split in (("1 constant", 1.0), ("3 increasing batch", 0.0)):
        b, gamma, successes = (
            table.filter(schedule=name).select("b_1", "gamma", "in_global_basin").row(0)
        )
        rng, eta, step = default_rng(99), noise.ETA, 1e-5
        x = rng.uniform(-5.12, 5.12, 2000)
        for _ in range(5):
            for _ in range(400):
                up, down = ((x + s) ** 2 - 10 * np.cos(2 * np.pi * (x + s)) for s in (step, -step))
                slope = (up - down) / (2 * step)
                x -= eta * (slope + noise.NOISE * (2 * rng.random(2000) - 1) / b**0.5)
            eta, b = eta * gamma**split, b / gamma ** (2 * (1 - split))
        share = successes / noise.CHAINS
        error = np.sqrt(share * (1 - share) * (1 / 2000 + 1 / noise.CHAINS))
        assert abs((np.abs(x) < 0.5).mean() - share) < 4 * error


def test_the_success_at_the_ripples_is_that_of_another_simulation():
    """A coordinate's kink and wave by hand, noise uniform on [−δ, δ] in one dimension."""
    for method, level in (
        (escape.CONSTANT, escape.TUNED),
        ("Algorithm 3, b grows, p = 0.5", escape.WHOLE),
    ):
        table = pl.read_csv(RESULTS / "escape.csv").filter(d=1, method=method, level=level)
        delta_1, won, chains = table.select("delta_1", "successes", "chains").row(0)
        ends = np.cumsum(
            1 / np.arange(400, 0, -1)
        )  # ends of the stages with φ² = 400/400, 399/400, …
        stage = np.searchsorted(ends / ends[-1], (np.arange(4000) + 0.5) / 4000)
        falls = np.sqrt(1 - stage / 400) if "p = 0.5" in method else np.ones(4000)
        rng = default_rng(5)
        x = rng.uniform(-1, 1, 1000)
        for delta in [*delta_1 * falls, *np.zeros(400)]:
            y = x - delta * rng.uniform(-1, 1, 1000)
            x = x - 0.01 * (np.where(y > 0, 0.3, -3.0) + 0.6 * np.cos(15 * y))
        share = won / chains
        error = np.sqrt(2 * share * (1 - share) / 1000)
        assert abs((np.abs(x) < escape.BASIN).mean() - share) < 4 * error


@pytest.fixture(scope="module")
def data():
    return digits.load()


def test_loss_and_gradients_are_those_of_torchs_layers(data):
    for activation in (torch.relu, torch.tanh):
        (images, labels), network = data[:50], Network(activation=activation)
        vector = network.initial(seed=0) + 0.01
        layers = own_noise.module(vector)
        if activation is torch.tanh:
            layers[1] = torch.nn.Tanh()
        loss = torch.nn.functional.cross_entropy(layers(images), labels)
        loss.backward()
        slope = torch.cat([torch.atleast_2d(p.grad).mT.ravel() for p in layers.parameters()])
        own_loss = float(network.loss(vector, images, labels))
        assert own_loss == rounded(loss.item())
        torch.testing.assert_close(network.gradient(vector, images, labels), slope)
        torch.testing.assert_close(network.sample_gradients(vector, images, labels).mean(0), slope)


def test_training_is_gradient_descent_by_hand_and_learns(data):
    start = NETWORK.initial(seed=0)
    end = digits.after_epochs(data, 5, 0.3, 32, seed=0)
    first_loss, last_loss = (NETWORK.loss(x, *data.tensors) for x in (start, end))
    assert last_loss < first_loss / 5
    x = start
    for _ in range(2):
        x = x - 0.3 * NETWORK.gradient(x, *data.tensors)
    torch.testing.assert_close(digits.after_epochs(data, 2, 0.3, len(data), seed=0), x)


def test_the_bias_in_mid_epoch_is_that_of_a_plain_loop(data, monkeypatch):
    monkeypatch.setattr(assumptions, "HALVES", (1,))
    (bias,) = assumptions.unseen_over_all(data, seed=4)
    random = torch.Generator().manual_seed(4)
    x, n = NETWORK.initial(4), len(data)
    order = torch.randperm(n, generator=random)
    samples_used = (n + 31) // 32 // 2 * 32  # half of the batches
    for i in range(0, samples_used, 32):
        rows = order[i : i + 32]
        x = x - 0.15 * NETWORK.gradient(x, *data[rows])
    gradients = NETWORK.sample_gradients(x, *data.tensors)
    gradient = gradients.mean(0)
    to_come = gradients[order[samples_used:]].mean(0)
    assert bias == pytest.approx(
        float((to_come - gradient) @ gradient / gradient.norm() ** 2), rel=1e-6
    )


def test_noise_has_the_covariance_of_a_mini_batch():
    source = torch.Generator().manual_seed(0)
    gradients = torch.randn(60, 8, generator=source, dtype=torch.float64) ** 3
    gradients -= gradients.mean(0)
    covariance = gradients.T @ gradients / 60 / own_noise.BATCH
    for omega in tails.noises(gradients, 20_000, source):
        assert (omega.T @ omega / 20_000 - covariance).norm() < 0.05 * covariance.norm()
