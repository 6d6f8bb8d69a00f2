"""Lemma 2.1 on a network: enumeration, brute force, other libraries; and the command line."""

import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import rounding
import torch
from conftest import configure
from hydra import compose, initialize_config_dir
from numpy.random import default_rng
from test_noise import linear_gradients

from lab.noise import __main__ as program
from lab.noise import lemma


def test_the_gram_matrix_gives_every_draws_noise() -> None:
    """n = 5: all draws there are, with and without replacement, and Lemma 2.1 from their mean."""
    for b in (1, 2, 3, 5):
        samples, n = linear_gradients(5), 5
        gram = lemma.centred_gram(samples)
        variance = float((samples - samples.mean(dim=0)).square().sum()) / n
        kinds = (
            (itertools.product(range(n), repeat=b), 1.0),
            (itertools.combinations(range(n), b), (n - b) / (n - 1)),
        )
        for draws, factor in kinds:
            batches = list(draws)
            counts = np.array([np.bincount(batch, minlength=n) for batch in batches], dtype=float)
            noise = lemma.squared_noise(gram, counts, b)
            means = torch.stack([samples[list(batch)].mean(dim=0) for batch in batches])
            by_hand = (means - samples.mean(dim=0)).square().sum(dim=1)  # ‖∇f_S - ∇f‖²
            np.testing.assert_allclose(noise, by_hand, rtol=1e-9, atol=1e-12)
            assert noise.mean() == pytest.approx(variance / b * factor, rel=1e-10, abs=1e-12)


def test_counts_are_those_of_their_sampling() -> None:
    for sampling in ("with_replacement", "independent"):
        counts = lemma.draw_counts(sampling, 30, 12, 3000, default_rng(0))
        assert (counts.sum(axis=1) == 12).all()
        np.testing.assert_allclose(counts.mean(axis=0), 12 / 30, rtol=0.15)
        assert counts.max() == 1 if sampling == "independent" else counts.max() > 1
        variance = {"with_replacement": 12 / 30 * 29 / 30, "independent": 12 / 30 * 18 / 30}[
            sampling
        ]
        assert counts.var(axis=0).mean() == pytest.approx(variance, rel=0.05)


def test_a_slope_is_found_and_its_interval_covers_it() -> None:
    random, b = default_rng(1), [2**k for k in range(11)]
    coverage = 0
    for _ in range(200):
        errors = random.uniform(0.01, 0.1, size=len(b))
        rows = [
            {"b": x, "mean": v, "low": v * (1 - 1.96 * e), "high": v * (1 + 1.96 * e)}
            for x, e in zip(b, errors, strict=True)
            for v in [7 * x**-0.83 * math.exp(e * random.normal())]
        ]
        slope = lemma.slope(rows)
        assert slope.value == pytest.approx(-0.83, abs=0.06)
        coverage += slope.low <= -0.83 <= slope.high
    assert 0.9 <= coverage / 200 <= 0.99


def test_a_biased_mini_batch_gradient_is_called_so() -> None:
    random = default_rng(8)
    full = torch.zeros(30, dtype=torch.float64)
    noise = torch.from_numpy(random.normal(size=(4000, 30)))
    row = lemma.batchnorm_row(noise + 0.5, full, batch_size=1, n=10**9)
    assert row["c2"] == pytest.approx(30, rel=0.03)
    assert row["bias_square"] == pytest.approx(30 * 0.25, rel=0.05)
    assert lemma.batchnorm_row(noise, full, 1, 10**9)["bias_square"] < 0.05


def test_one_sample_gradients_are_those_of_a_plain_loop_at_the_whole_sets_statistics() -> None:
    config = configure(
        "epochs=2",
        "dataset.samples=96",
        "model.width=4",
        "engine.precision=fp32",
        "batch_size=32",
        "noise.batches=2",
    )
    training = lemma.trained(config)
    network = training.network
    (batch,) = training.data.plain_batches([torch.arange(96)])
    activations = network[0](batch[0]).detach()  # type: ignore[index]
    mean, largest = activations.mean(dim=(0, 2, 3)), float(activations.abs().max())
    statistics = network.state_dict()["1.running_mean"]
    rounding.assert_close(statistics, mean, 9, 96 * 64, magnitude=largest)
    rows = lemma.sample_gradients(network.eval(), [batch], memory=500_000)  # in twelve chunks
    for row, x, y in zip(rows, *batch, strict=True):
        loss = torch.nn.functional.cross_entropy(network(x[None]), y[None])
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        by_hand = torch.cat([slope.flatten() for slope in slopes])
        rounding.assert_close(row, by_hand, rounding.terms(network, x[None]))


@pytest.mark.slow
def test_the_program_writes_tables_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C²/b lies in the interval of most b."""
    monkeypatch.setattr(program, "RESULTS", tmp_path)
    monkeypatch.setattr(lemma, "DRAWS", 400)
    words = (
        "data_dir=data",
        "dataset.samples=200",
        "model.width=4",
        "epochs=2",
        "batch_size=32",
        "noise.batches=3",
    )
    with initialize_config_dir(str(program.SETTINGS.parent), version_base="1.3"):
        composed = compose(program.SETTINGS.stem, list(words))
    program.run(composed, [word.partition("=")[0] for word in words])
    table, batchnorm, slopes = (
        pl.read_csv(tmp_path / f"{name}_digits.csv")
        for name in ("lemma", "lemma_batchnorm", "lemma_slopes")
    )
    is_covered = pl.col("c2_over_b_finite").is_between("low", "high")
    # 95 % of the draws, whose tails are heavy at b = 1
    assert table.filter(pl.col("b") < 200).select(is_covered.mean()).item() > 0.75
    assert len(batchnorm) >= 3
    assert slopes["slope"][0] < -0.9
    assert (tmp_path / "lemma_digits.png").stat().st_size > 10_000
