"""Sharpness: closed forms and brute force; then the program as a user meets it."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rounding
import torch
from conftest import TINY, run_folder
from forked import forge
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from igo.noise.sharpness import surface, worst_rise
from igo.runs import assemble


def quadratic(d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
    """½ (x − c)'A(x − c), A positive definite, away from its minimum; with w."""
    random = np.random.default_rng(seed)
    half = random.normal(size=(d, d))
    a, c, w = half @ half.T, random.normal(size=d), random.normal(size=d)
    matrix, centre = torch.from_numpy(a), torch.from_numpy(c)

    def function(at: Tensor) -> tuple[float, Tensor]:
        slope = matrix @ (at - centre)
        return float((at - centre) @ slope) / 2, slope

    return a, a @ (w - c), w, function


def scale_of(w: np.ndarray, adaptive: bool) -> np.ndarray:
    return np.abs(w) if adaptive else np.ones_like(w)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_worst_case_of_a_quadratic_in_the_2_ball_is_the_closed_form(
    seed: int, adaptive: bool
) -> None:
    """max g'Du + u'DADu/2 over ‖u‖ = ρ: (μI − DAD)u = Dg, μ > λ_max, from ‖u(μ)‖ = ρ."""
    a, g, w, function = quadratic(12, seed)
    radius, scale = 0.1, scale_of(w, adaptive)
    values, vectors = np.linalg.eigh(scale[:, None] * a * scale)
    slope = vectors.T @ (scale * g)

    def excess(mu: float) -> float:
        return float(np.linalg.norm(slope / (mu - values))) - radius

    mu = brentq(excess, values[-1] + 1e-9, values[-1] + 1e6, xtol=1e-12)
    u = slope / (mu - values)
    exact = float(slope @ u + u @ (values * u) / 2)
    rise = worst_rise(function, torch.from_numpy(w), radius, "2", 60, adaptive)
    assert rise == pytest.approx(exact, rel=1e-3)
    assert rise <= exact * (1 + 1e-9)


@pytest.mark.parametrize("adaptive", [True, False])
def test_worst_case_of_a_linear_classifier_is_that_of_all_corners(adaptive: bool) -> None:
    """Cross-entropy is convex in the weights: the maximum is at one of 2^9 corners."""
    torch.manual_seed(1)
    network = nn.Linear(3, 3, bias=False).double()
    x, y = torch.randn(20, 3).double(), torch.randint(3, (20,))
    batches = list(zip(x.split(8), y.split(8), strict=True))  # a ragged last batch
    function, w = surface(network, batches)
    assert function(w)[0] == pytest.approx(cross_entropy(network(x), y).item())
    sides = 0.2 * scale_of(w.numpy(), adaptive)
    corners = (torch.from_numpy(sides * signs) for signs in itertools.product([-1, 1], repeat=9))
    exact = max(function(w + move)[0] for move in corners) - function(w)[0]
    largest = worst_rise(function, w, 0.2, "inf", 20, adaptive)
    assert largest == pytest.approx(exact, rel=1e-9)
    assert torch.equal(network.weight.detach().flatten(), w)


def test_a_finished_run_gets_its_sharpness_once(tmp_path: Path) -> None:
    """Loss and gradient are those of its checkpoint on the images as they are."""
    overrides = ("tracking=none", "engine.precision=fp32", "dataset.augment.crop=2", "seed=5")
    assert forge.run(tmp_path, *TINY, *overrides).returncode == 0
    folder = run_folder(tmp_path)
    file = folder / "sharpness.json"

    def measured(*arguments: str) -> tuple[dict[str, Any], bool]:
        """What the file has after the command, and whether it was written anew."""
        before = file.stat().st_ino if file.exists() else None
        typed = ("samples=96", "steps=3", *arguments)
        forge.run(tmp_path, *typed, command="sharpness").good()
        return json.loads(file.read_text()), file.stat().st_ino != before

    first, written = measured("norm=2", "batch_size=16")
    assert written
    training = assemble.load_folder(folder)
    network = training.network.eval()
    ((images, labels),) = training.data.plain_batches([torch.arange(96)])
    loss = cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    close = rounding.bound(rounding.terms(network, images, backward=False), 10)
    assert first["loss"] == pytest.approx(loss.item(), rel=close)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    close = rounding.bound(rounding.terms(network, images))
    assert first["gradient_norm"] == pytest.approx(float(norm), rel=close)
    assert (first["samples"], first["epoch"], first["settings"]["norm"]) == (96, 3, "2")
    assert first["worst_case"] > 0

    assert not measured("norm=2", "batch_size=7")[1]
    again, written = measured("norm=2", "batch_size=16", "fresh=true")
    assert written
    same = {"seconds": 0, "seal": ""}
    assert again | same == first | same, "the same seeds, the same numbers"
    apart, written = measured("norm=2", "batch_size=16", "batches=true")
    assert written
    assert apart["loss"] == first["loss"]
    assert apart["worst_case"] > first["worst_case"]  # of a mean: at most the mean of the largest

    plain, written = measured("norm=2", "batch_size=16", "adaptive=false", "radius=0.0005")
    assert written
    slope = plain["gradient_norm"]
    assert plain["worst_case"] == pytest.approx(0.0005 * slope, rel=0.1), "first order"
