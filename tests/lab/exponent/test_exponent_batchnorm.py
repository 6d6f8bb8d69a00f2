"""Question (iii): gradients, prediction and runs against closed forms; the rule on known worlds."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from test_exponent_runs import Regression
from torch import nn

from lab.exponent import batchnorm, batchnorm_page, chains, judge
from lab.exponent.batchnorm import InBatches, Modes
from lab.exponent.chains import Cell, Length
from lab.study.written import ROOT
from lab.theory.exponent import streaming_regression

CURVATURES, LABEL_NOISE = np.array([1.0, 0.3]), 0.25


def half_square(outputs, y):
    return (outputs[:, 0] - y).square().mean() / 2


def regression():
    """Linear regression whose least squares are exactly at 0, as a network."""
    data = Regression(CURVATURES, LABEL_NOISE, samples=2048)
    line = nn.Linear(2, 1, bias=False)
    return InBatches(data.x.float(), data.y.float(), line, half_square)


def _moments(eta, b):
    return float(streaming_regression(CURVATURES, LABEL_NOISE, eta, b).stationary().sum())


@pytest.mark.parametrize("h", [0.2, 1.6])
def test_on_a_quadratic_prediction_and_runs_are_those_of_exact_moments(h):
    task, seeds = regression(), 8
    points = Cell("quadratic", h).points(1.0)
    runs = chains.run(task, torch.zeros(2), points, range(seeds), Length(100, 20), "test")
    each = runs.halves.mean(0)
    exact = [_moments(*point) for point in points]
    errors = each.std(0, ddof=1) / np.sqrt(seeds)
    assert (np.abs(each.mean(0) - exact) < 5 * errors).all()
    modes = Modes(CURVATURES, LABEL_NOISE * CURVATURES, 0.0)
    large = [(eta, 1000 * b) for eta, b in points]  # where noise does not depend on the error
    exact = [_moments(*point) for point in large]
    np.testing.assert_allclose([modes.excess(*point) for point in large], exact, rtol=0.001)


def test_modes_and_noise_are_those_of_the_whole_covariance():
    task = regression()
    features = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    task = InBatches(task.x, task.y, features, half_square)
    at = torch.randn(13, generator=torch.Generator().manual_seed(1))
    measured = batchnorm.measure(task, at, modes=2, batches=4000)
    surface = task.surface(torch.arange(2048)[None])
    whole = torch.stack([surface.curvature(at, e) for e in torch.eye(13)])
    values, vectors = np.linalg.eigh(whole.numpy())
    np.testing.assert_allclose(measured.curvatures, values[::-1][:2], rtol=0.02)
    each = torch.stack([task.surface(torch.tensor([[k]])).value_and_gradient(at)[1]
                        for k in range(2048)]).numpy()  # fmt: skip
    along = (each @ vectors[:, ::-1]).var(0)
    np.testing.assert_allclose(measured.noise, along[:2], rtol=0.15)
    assert measured.rest == pytest.approx(along[2:].sum(), rel=0.15)


def test_a_rest_of_the_noise_has_exponent_one():
    points = Cell("x", 1.0).points(1.0)
    for modes, rho in (
        (Modes(np.ones(1), np.zeros(1), 2.0), 1.0),
        (Modes(np.ones(1), np.ones(1), 0.0), 0.5),
    ):
        losses = np.array([modes.excess(*point) for point in points])
        assert judge.rho(losses, points) == pytest.approx(rho, abs=0.01)


def test_gradients_and_objective_of_digits_are_those_of_pytorch_in_train_mode(tmp_path):
    task = batchnorm.digits(tmp_path)
    net = task.network
    start = task.surface(task.fixed).here
    rows = torch.arange(170).view(2, 85)
    weights = torch.tensor([[(k < b) / b for k in range(85)] for b in (64, 48)])
    gradients = task.gradients(start.expand(2, 2, -1), rows, weights)
    for seed in range(2):
        for point, b in enumerate((64, 48)):
            net.zero_grad()
            nn.functional.cross_entropy(
                net(task.x[rows[seed, :b]]), task.y[rows[seed, :b]]
            ).backward()
            expected = torch.cat([p.grad.flatten() for p in net.parameters()])
            torch.testing.assert_close(gradients[seed, point], expected)
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(net(task.x[r]), task.y[r]) for r in task.fixed]
    assert float(task.objective(start[None, None])) == pytest.approx(float(sum(losses)) / 23)
    assert sorted(set(task.fixed.flatten().tolist())) == list(range(1437))


def test_the_barrier_between_two_minima_is_seen():
    x = torch.tensor([[1.0]]).expand(64, 1)

    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.w**2

    task = InBatches(x, torch.ones(64), Square(), half_square)
    assert batchnorm.stayed(task, torch.ones(1), torch.tensor([1.5]))
    assert not batchnorm.stayed(task, torch.ones(1), -torch.ones(1))
    assert not batchnorm.stayed(task, torch.ones(1), torch.tensor([torch.nan]))


def world(folder, rho=None, spread=0.005, negative=(), seeds=8):
    """Records whose losses are as predicted, or have a constant ρ."""
    rng = np.random.default_rng(0)
    modes = Modes(np.ones(1), np.ones(1), 0.0)
    predicted = batchnorm.predictions(modes, loss=0.1)
    predicted.write_csv(folder / "predictions.csv")
    lines = []
    for h in batchnorm.STEPS:
        points = Cell("x", h).points(1.0)
        losses = np.array([
            modes.excess(eta, b) if rho is None else eta ** (1 / rho) / b for eta, b in points
        ])  # fmt: skip
        losses = -losses if h in negative else losses
        for seed in range(seeds):
            halves = losses * (1 + spread * rng.standard_normal((2, 1, 5)))
            lines.append(json.dumps({
                "task": "batchnorm", "eta_lambda_max": h, "points": points, "seeds": [seed],
                "halves": halves.tolist(), "returned": {"centre": 1, "faster": 1}, "updates": 9,
                "evaluations": 2, "norms": [1.0] * 5, "lambda_max": 1.0, "seconds": 1.0,
                "commit": "0" * 40, "python": "3", "versions": {"torch": "2"},
            }))  # fmt: skip
    (folder / "runs.jsonl").write_text("\n".join(lines) + "\n")
    records = batchnorm_page.together(batchnorm.recorded(folder), range(8))
    return batchnorm_page.decide(records, predicted)


def test_worlds_of_the_law_of_a_constant_and_of_wide_intervals(tmp_path):
    assert world(tmp_path).verdict == "confirmed"
    judged = world(tmp_path, rho=1.0)
    assert (judged.verdict, judged.first_line[:10]) == ("refuted", "a constant")
    assert world(tmp_path, spread=0.3).verdict == "undecided"


def test_one_negative_cell_is_left_out_and_two_are_outside_the_regime(tmp_path):
    judged = world(tmp_path, negative=(0.2,))
    assert judged.verdict == "confirmed"
    assert judged.cells[0]["why_out"] == batchnorm_page.NEGATIVE
    judged = world(tmp_path, negative=(0.2, 1.6))
    assert judged.verdict == "undecided"
    assert "regime of the law was not reached: 2 of 4" in judged.first_line
    assert "none" in batchnorm_page.page_of(tmp_path, range(8))


def test_seeds_after_one_that_lacks_a_cell_are_not_judged(tmp_path):
    world(tmp_path)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    del lines[2 * 8 + 5]  # seed 5 at the third ηλ_max
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    records = batchnorm.recorded(tmp_path)
    assert batchnorm_page.together(records, range(8))[0]["seeds"] == [0, 1, 2, 3, 4]


def test_a_recorded_run_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(batchnorm, "STEPS", (0.2,))
    monkeypatch.setattr(batchnorm, "FIRST", 99)
    task = batchnorm.digits(tmp_path)
    start = task.surface(task.fixed).here
    np.savez(tmp_path / "checkpoint.npz", at=start.numpy())
    batchnorm.predictions(Modes(np.ones(1), np.ones(1), 0.0), 1.0).write_csv(
        tmp_path / "predictions.csv"
    )
    for seeds in (range(1), range(2)):
        batchnorm.run(tmp_path, seeds, tmp_path, Console(quiet=True), Length(2, 2))
    records = batchnorm.recorded(tmp_path)
    assert [record["seeds"] for record in records] == [[0], [1]]
    assert records[0]["halves"] != records[1]["halves"]
    assert pl.DataFrame(records)["returned"].len() == 2


def test_the_page_follows_from_the_records():
    folder = ROOT / "results" / "exponent"
    page = batchnorm_page.page_of(folder / "batchnorm", range(batchnorm.SEEDS))
    assert page == (folder / "batchnorm.md").read_text()
