"""Runs of the exponent's protocol: gradients, checkpoint, chains and tests against other ways."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from lab.exponent import chains, checkpoint, judge, program
from lab.exponent.chains import Cell, Length
from lab.exponent.tasks import Network, teacher
from lab.theory.exponent import measured, streaming_regression


def small(outputs):
    """30 samples of 4 inputs, 3 hidden units."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(30, 4, generator=random, dtype=torch.float64)
    y = torch.randint(outputs, (30,), generator=random) if outputs > 1 else x.sum(1).sin()
    return Network(x, y, hidden=3, outputs=outputs, l2=0.1)


def module(task, at):
    """The same network as PyTorch's layers."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, task.outputs)).double()
    first, shift, second, last = task.parts(at)
    with torch.no_grad():
        for layer, weight, bias in ((net[0], first, shift), (net[2], second, last)):
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias[0])
    return net


def loss_of(task, net, x, y):
    outputs = net(x)
    data = (
        functional.cross_entropy(outputs, y)
        if task.outputs > 1
        else (outputs[:, 0] - y).square().mean() / 2
    )
    return data + task.l2 / 2 * sum(p.square().sum() for p in net.parameters())


@pytest.mark.parametrize("outputs", [1, 4])
def test_gradients_and_objective_are_those_of_pytorchs_layers(outputs):
    task = small(outputs)
    at = torch.randn(2, 3, task.size, generator=torch.Generator().manual_seed(2)).double()
    rows = torch.tensor([[0, 5, 5, 7], [9, 2, 29, 1]])
    sizes = (2, 3, 4)
    weights = torch.tensor([[(k < b) / b for k in range(4)] for b in sizes]).double()
    gradients, values = task.gradients(at, rows, weights), task.objective(at)
    for seed in range(2):
        for point, b in enumerate(sizes):
            net = module(task, at[seed, point])
            chosen = rows[seed, :b]
            loss_of(task, net, task.x[chosen], task.y[chosen]).backward()
            first, shift, second, last = net.parameters()
            expected = torch.cat([g.flatten() for g in (
                first.grad.T, shift.grad, second.grad.T, last.grad)])  # fmt: skip
            torch.testing.assert_close(gradients[seed, point], expected)
            torch.testing.assert_close(
                values[seed, point], loss_of(task, net, task.x, task.y).detach()
            )


def test_hessian_and_noise_at_a_checkpoint_are_those_of_every_sample():
    task = small(1)
    at = checkpoint.descend(task, task.initial(0))
    assert checkpoint.full(task)(at)[1].norm() < 1e-5
    hessian = checkpoint.hessian(task, at)
    step = 1e-5 * torch.eye(task.size, dtype=torch.float64)
    gradient = lambda w: checkpoint.full(task)(w)[1]  # noqa: E731
    by_differences = torch.stack([(gradient(at + e) - gradient(at - e)) / 2e-5 for e in step])
    torch.testing.assert_close(hessian, by_differences, atol=1e-7, rtol=1e-5)
    vectors = torch.linalg.eigh(hessian)[1]
    weight = torch.ones(1, 1, dtype=torch.float64)
    each = [task.gradients(at[None, None], torch.tensor([[k]]), weight)[0, 0] for k in range(30)]
    expected = (torch.stack(each) @ vectors).var(0, correction=0)
    torch.testing.assert_close(checkpoint.sample_noise(task, at, vectors), expected)


def test_a_descent_from_beside_the_checkpoint_returns():
    task = small(1)
    at = checkpoint.descend(task, task.initial(0))
    point = checkpoint.Checkpoint(task, at, np.ones(1), np.ones(1))
    ends = at + 1e-2 * torch.randn(3, task.size, generator=torch.Generator().manual_seed(3))
    assert program.returned(point, torch.cat([ends, ends[:1] * torch.nan])) == 3


class Regression:
    """Linear regression of many Gaussian samples: what `chains` runs, without a network."""

    def __init__(self, curvatures, label_noise, samples=2_000):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((samples, len(curvatures)))
        x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T
        self.x = torch.from_numpy(x * np.sqrt(curvatures))
        noise = rng.standard_normal(samples)
        noise -= x @ (x.T @ noise) / samples  # so that the least squares are exactly at 0
        self.y = torch.from_numpy(np.sqrt(label_noise) * noise / noise.std())
        self.samples = samples

    def gradients(self, at, rows, weights):
        x = self.x[rows]
        errors = torch.einsum("skd,spd->spk", x, at) - self.y[rows][:, None]
        return torch.einsum("spk,skd->spd", errors * weights, x)

    def objective(self, at):
        return (at @ self.x.T - self.y).square().mean(-1) / 2


@pytest.mark.parametrize("h", [0.5, 1.6])
def test_on_a_quadratic_the_chains_measure_the_exact_exponent(h):
    """Excess loss of each point against exact moments, and ρ of the cell; mean ± 5 errors."""
    curvatures, seeds = np.array([1.0, 0.3]), 40
    task, cell = Regression(curvatures, 0.25), Cell("quadratic", h)
    points = cell.points(1.0)
    start = torch.zeros(2, dtype=torch.float64)
    runs = chains.run(task, start, points, range(seeds), Length(400, 200), "test")
    each = runs.halves.mean(0)

    def exact(eta, b):
        return float(streaming_regression(curvatures, 0.25, eta, b).stationary().sum())

    errors = each.std(0, ddof=1) / np.sqrt(seeds)
    assert (np.abs(each.mean(0) - [exact(*p) for p in points]) < 5 * errors).all()
    rho = float(judge.rho(each.mean(0), points))
    chosen = np.random.default_rng(1).integers(seeds, size=(500, seeds))
    error = judge.rho(each[chosen].mean(1), points).std()
    assert abs(rho - measured(exact, h, 64)) < 5 * error + 0.01  # finite differences
    assert error < 0.06


def test_rho_of_exact_losses_is_the_local_exponent():
    points = Cell("x", 1.0).points(1.0)
    losses = np.array([eta / (2 * b * (2 - eta)) for eta, b in points])
    assert judge.rho(losses, points) == pytest.approx(0.5, abs=0.01)


def test_points_share_their_draws_and_a_stream_repeats_itself():
    task = replace(teacher(200), l2=0.01)
    start = task.initial(0)
    both = [(0.05, 4), (0.05, 4)]
    runs = [chains.run(task, start, both, [3, 4], Length(10, 2), s) for s in ("a", "a", "b")]
    assert (runs[0].halves[..., 0] == runs[0].halves[..., 1]).all()
    assert (runs[0].halves == runs[1].halves).all()
    assert (runs[0].halves != runs[2].halves).all()
    alone = chains.run(task, start, both, [4], Length(10, 2), "a")
    np.testing.assert_allclose(alone.halves[:, 0], runs[0].halves[:, 1], rtol=1e-9)


def test_every_cell_stays_below_the_edge():
    for h in (0.05, 1.4, 1.8):
        points = Cell("x", h).points(4.0)
        assert max(eta for eta, _ in points) * 4.0 < 2
        assert points[0] == (h / 4, 64)
        larger = Cell("x", h, 16).points(4.0)
        assert [(eta, 16 * b) for eta, b in points] == larger


def world(folder, rho, spread, seeds=20, left=()):
    """Records whose losses are as predicted, or have a constant ρ."""
    rng = np.random.default_rng(0)
    (folder / "cells").mkdir()
    rows = []
    for task in ("one", "two"):
        for h in (0.05, 0.2, 0.6, 1.0, 1.4, 1.8):
            points = Cell(task, h).points(1.0)
            for name, (eta, b) in zip(program.POINTS, points, strict=True):
                loss = eta / (2 * b * (2 - eta))
                rows.append(f"{task},{h},{name},{eta},{b},{loss}")
            if rho is None:
                losses = np.array([eta / (2 * b * (2 - eta)) for eta, b in points])
            else:
                losses = np.array([eta ** (1 / rho) / b for eta, b in points])
            noise = 1 + spread * rng.standard_normal((2, seeds, 5))
            record = {
                "task": task, "eta_lambda_max": h, "points": points, "seeds": list(range(seeds)),
                "halves": (losses * noise).tolist(), "updates": 5000, "evaluations": 200,
                "returned": {"centre": seeds - (5 if (task, h) in left else 0)},
            }  # fmt: skip
            (folder / "cells" / f"{task}_{h}.json").write_text(json.dumps(record))
    head = "task,eta_lambda_max,point,eta,b,predicted_loss\n"
    (folder / "predictions.csv").write_text(head + "\n".join(rows) + "\n")
    return judge.judge(folder)


def test_a_world_of_the_law_is_confirmed_and_rejects_the_constants(tmp_path):
    judged = world(tmp_path, None, 0.005)
    assert judged.verdict == "confirmed"
    assert judged.tests[0].p > 0.01
    assert judged.rivals["the law"] < judged.rivals["the best constant"]


@pytest.mark.parametrize("constant", [0.5, 1.0])
def test_a_world_of_a_constant_is_refuted_and_the_constant_comes_first(tmp_path, constant):
    judged = world(tmp_path, constant, 0.005)
    assert judged.verdict == "refuted"
    assert judged.best_constant == pytest.approx(constant, abs=0.01)
    assert judged.first_line.startswith("the best constant")


def test_wide_intervals_and_cells_that_leave_are_undecided(tmp_path):
    (tmp_path / "wide").mkdir()
    (tmp_path / "left").mkdir()
    assert world(tmp_path / "wide", None, 0.2).verdict == "undecided"
    gone = [("one", h) for h in (0.6, 1.0, 1.4, 1.8)]
    judged = world(tmp_path / "left", None, 0.005, left=gone)
    assert judged.verdict == "undecided"
    assert "not in the law's regime" in judged.first_line


def test_other_predictions_than_those_on_disk_are_refused(tmp_path):
    task = small(1)
    point = checkpoint.Checkpoint(task, task.initial(0), np.array([2.0, 1.0]), np.ones(2))
    cells = [Cell("teacher", 0.2)]
    program.keep(tmp_path, program.predictions(point, cells))
    program.keep(tmp_path, program.predictions(point, [*cells, Cell("teacher", 0.6)]))
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 11
    other = replace(point, noise=2 * np.ones(2))
    with pytest.raises(program.UserError, match="other predictions"):
        program.keep(tmp_path, program.predictions(other, cells))
