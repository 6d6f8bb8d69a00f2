"""The noise studies: enumeration, brute force and known distributions; and the command line."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import rounding
import torch
from conftest import ROOT, configure, python
from hydra import compose, initialize_config_dir
from scipy import integrate, special, stats
from test_noise import linear_gradients

from igo.ground.errors import UserError
from igo.report import statistics
from igo.report.statistics import Estimate
from lab.noise import lemma, networks, omega, quantities
from lab.noise.__main__ import SETTINGS, run, settings


def squared_distance(samples: torch.Tensor, drawn: tuple[int, ...]) -> float:
    """‖∇f_S - ∇f‖² in so many words."""
    mean = sum(samples[i] for i in drawn) / len(drawn)
    return float((mean - samples.mean(dim=0)).square().sum())


@pytest.mark.parametrize("b", [1, 2, 3, 5])
def test_the_gram_matrix_gives_every_draws_noise(b: int) -> None:
    """n = 5: all draws there are, with and without replacement, and Lemma 2.1 from their mean."""
    samples, n = linear_gradients(5), 5
    gram = quantities.centred_gram(samples)
    variance = quantities.variance_of(gram)
    kinds = (
        (itertools.product(range(n), repeat=b), 1.0),
        (itertools.combinations(range(n), b), (n - b) / (n - 1)),
    )
    for draws, factor in kinds:
        drawn = list(draws)
        counts = np.array([np.bincount(batch, minlength=n) for batch in drawn], dtype=float)
        noise = quantities.squared_noise(gram, counts, b)
        by_hand = [squared_distance(samples, batch) for batch in drawn]
        np.testing.assert_allclose(noise, by_hand, rtol=1e-9, atol=1e-12)
        assert noise.mean() == pytest.approx(variance / b * factor, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("sampling", ["with_replacement", "independent"])
def test_counts_are_those_of_their_sampling(sampling: str) -> None:
    counts = quantities.draw_counts(sampling, 30, 12, 3000, np.random.default_rng(0))
    assert (counts.sum(axis=1) == 12).all()
    np.testing.assert_allclose(counts.mean(axis=0), 12 / 30, rtol=0.15)
    assert counts.max() == 1 if sampling == "independent" else counts.max() > 1
    variance = {"with_replacement": 12 / 30 * 29 / 30, "independent": 12 / 30 * 18 / 30}[sampling]
    assert counts.var(axis=0).mean() == pytest.approx(variance, rel=0.05)


def test_a_slope_is_found_and_its_interval_covers_it() -> None:
    random, b = np.random.default_rng(1), [2**k for k in range(11)]
    inside = 0
    for _ in range(200):
        errors = random.uniform(0.01, 0.1, size=len(b))
        values = [
            7 * x**-0.83 * math.exp(e * random.normal()) for x, e in zip(b, errors, strict=True)
        ]
        given = [Estimate(v, v * (1 - 1.96 * e), v * (1 + 1.96 * e))
                 for v, e in zip(values, errors, strict=True)]  # fmt: skip
        slope = quantities.fit_slope(b, given)
        assert slope.value == pytest.approx(-0.83, abs=0.06)
        inside += slope.low <= -0.83 <= slope.high
    assert 0.9 <= inside / 200 <= 0.99


@pytest.mark.parametrize("d", [2, 3, 10, 50])
def test_the_balls_marginal_is_that_of_points_in_it(d: int) -> None:
    """Points by direction times U^(1/d); the density by its formula and an integral."""
    random = np.random.default_rng(d)
    points = random.normal(size=(20000, d))
    points *= (random.uniform(size=20000) ** (1 / d) / np.linalg.norm(points, axis=1))[:, None]
    marginal = quantities.ball_marginal(d)
    assert stats.kstest(points[:, 0], marginal.cdf).pvalue > 1e-3
    assert marginal.var() == pytest.approx(1 / (d + 2), rel=1e-12)
    constant = special.gamma(d / 2 + 1) / (special.gamma((d + 1) / 2) * math.sqrt(math.pi))
    area, _ = integrate.quad(lambda t: constant * (1 - t * t) ** ((d - 1) / 2), -1, 0.3)
    assert marginal.cdf(0.3) == pytest.approx(area, abs=1e-9)


def test_the_spectrum_is_that_of_the_covariance() -> None:
    samples = torch.from_numpy(np.random.default_rng(3).normal(size=(60, 7)) * np.arange(1, 8))
    covariance = np.cov(samples.numpy().T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    spectrum = quantities.spectrum(quantities.centred_gram(samples))
    np.testing.assert_allclose(spectrum.shares[:7], values[::-1] / values.sum(), atol=1e-9)
    rank = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    assert spectrum.effective_rank == pytest.approx(rank, rel=1e-9)
    by_hand = (samples - samples.mean(dim=0)).numpy() @ vectors[:, -1]
    assert abs(spectrum.leading @ by_hand) == pytest.approx(by_hand @ by_hand, rel=1e-9)


def test_normality_tests_reject_as_often_as_they_should() -> None:
    random = np.random.default_rng(4)
    gaussian = np.array([quantities.normality(random.normal(size=500) * 3, 3) for _ in range(400)])
    assert (gaussian < 0.05).mean(axis=0) == pytest.approx([0.05, 0.05], abs=0.035)
    for skewed in (random.exponential(size=500) - 1, random.standard_t(3, size=500)):
        assert min(quantities.normality(skewed, 1)) < 1e-4


def test_gaussian_noise_of_equal_size_everywhere_is_called_so() -> None:
    """Gradients that are isotropic by construction: radius 1, rank d, no direction rejected."""
    gradients = torch.from_numpy(np.random.default_rng(5).normal(size=(1500, 40)))
    rows, shares, _ = omega.omega_at(gradients.float(), 400, np.random.default_rng(6), epoch=0)
    for row in rows:
        assert row["radius_rms"] == pytest.approx(1, abs=0.02)
        assert row["radius_sd"] == pytest.approx(1 / math.sqrt(2 * 40), rel=0.15)
        assert min(statistics.holm(row["p"])) > 0.05
    assert shares["effective_rank"] == pytest.approx(40, rel=0.06)


def test_lemma_rows_agree_with_the_lemma() -> None:
    """Full enumeration of the mean is C²/b·(n - b)/(n - 1): the Monte Carlo interval covers it."""
    gram = quantities.centred_gram(linear_gradients(200))
    random, covered, slopes = np.random.default_rng(7), [], []
    for sampling in ("with_replacement", "independent"):
        rows = [lemma.lemma_row(gram, sampling, b, 2000, random) for b in lemma.batch_sizes(200)]
        covered += [r["low"] <= r["c2_over_b_finite"] <= r["high"] for r in rows if r["b"] < 200]
        slopes.append(lemma.slope_of(rows, factored=True).value)
    assert np.mean(covered) > 0.8
    assert slopes == pytest.approx([-1, -1], abs=0.02)
    assert rows[-1]["b"] == 200
    assert rows[-1]["mean"] < 1e-12 * rows[0]["mean"]


def test_a_biased_mini_batch_gradient_is_called_so() -> None:
    random = np.random.default_rng(8)
    full = torch.zeros(30, dtype=torch.float64)
    noise = torch.from_numpy(random.normal(size=(4000, 30)))
    row = lemma.batchnorm_row(noise + 0.5, full, batch_size=1, n=10**9)
    assert row["c2"] == pytest.approx(30, rel=0.03)
    assert row["bias_square"] == pytest.approx(30 * 0.25, rel=0.05)
    assert lemma.batchnorm_row(noise, full, 1, 10**9)["bias_square"] < 0.05


def test_states_are_of_the_epochs_asked_for() -> None:
    """One-sample gradients of a state: their mean is the gradient of the whole set's loss."""
    config = configure(
        "epochs=2", "dataset.samples=96", "model.width=4", "engine.precision=fp32", "batch_size=32",
        "noise.batches=2", "noise.batch_size=8",
    )  # fmt: skip
    training, states = networks.trained(config, [0, 1, 2])
    assert sorted(states) == [0, 1, 2]
    last = dict(training.network.named_parameters())
    assert all(torch.equal(states[2][name], last[name]) for name in last)
    images = networks.unaugmented(config, torch.device("cpu"))
    (every,) = images.train_batches([torch.arange(96)], 0)
    first = training.network[0](every[0])  # type: ignore[index]
    mean, largest = first.detach().mean(dim=(0, 2, 3)), float(first.detach().abs().max())
    rounding.assert_close(states[2]["1.running_mean"], mean, 9, 96 * 64, magnitude=largest)
    rows = networks.sample_gradients(training.network, images)
    network = training.network.eval()
    (batch,) = images.train_batches([torch.arange(96)], 0)
    loss = torch.nn.functional.cross_entropy(network(batch[0]), batch[1])
    whole = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
    terms, largest = rounding.terms(network, batch[0]), float(rows.abs().mean(dim=0).max())
    rounding.assert_close(rows.mean(dim=0), whole, terms, 96, magnitude=largest)


SMALL = ("draws=400", "dataset.samples=200", "model.width=4", "epochs=2", "batch_size=32",
         "noise.batches=3", "noise.batch_size=16")  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_lemma_from_the_command_line(tmp_path: Path) -> None:
    """C²/b lies in the interval of most b; the figure and all tables are there."""
    folders = (f"runs_dir={tmp_path}/runs", f"output={tmp_path}")
    paths = {"MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    python(tmp_path, "-m", "lab.noise", "study=lemma", *SMALL, *folders, **paths).good()
    rows = [
        {key: float(value) for key, value in row.items() if key != "sampling"}
        for row in table(tmp_path / "lemma_digits.csv")
    ]
    inside = [r["low"] <= r["c2_over_b_finite"] <= r["high"] for r in rows if r["b"] < 200]
    assert np.mean(inside) > 0.75  # 95 % of the draws, whose tails are heavy at b = 1
    assert len(table(tmp_path / "lemma_batchnorm_digits.csv")) >= 3
    assert float(table(tmp_path / "lemma_slopes_digits.csv")[0]["slope"]) < -0.9
    assert (tmp_path / "lemma_digits.png").stat().st_size > 10_000


@pytest.mark.slow
def test_omega_has_radius_one_in_units_of_c_over_root_b(tmp_path: Path) -> None:
    typed = ("study=omega", f"output={tmp_path}", "data_dir=data", *SMALL)
    with initialize_config_dir(str(SETTINGS.parent), version_base="1.3"):
        composed = compose(SETTINGS.stem, list(typed))
    run(composed, [word.partition("=")[0] for word in typed])
    rows = table(tmp_path / "omega_digits.csv")
    assert {int(row["epoch"]) for row in rows} == {0, 1, 2}
    assert [float(row["radius_rms"]) for row in rows] == pytest.approx([1] * len(rows), abs=0.1)
    for row in table(tmp_path / "omega_directions_digits.csv"):
        assert 0 < float(row["share_1"]) <= float(row["share_10"]) <= float(row["share_100"]) <= 1
        assert 1 <= float(row["effective_rank"]) <= float(row["isotropic_rank"])
    assert (tmp_path / "omega_digits.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study=lema", "study=lema is not allowed.*Did you mean 'lemma'"),
        ("draws=1", "draws=1 is not allowed.*100 or more"),
    ],
)
def test_bad_settings_are_named(override: str, message: str) -> None:
    with initialize_config_dir(str(SETTINGS.parent), version_base="1.3"):
        composed = compose(SETTINGS.stem, [override])
    with pytest.raises(UserError, match=message):
        settings(composed, [override.partition("=")[0]])
