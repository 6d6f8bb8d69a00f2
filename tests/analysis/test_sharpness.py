"""Sharpness: full Hessians, closed forms and brute force; then the program as a user meets it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rounding
import torch
from conftest import TINY, Ended, python
from forked import Death, forge
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from igo.analysis.sharpness import worst_case
from igo.noise import curvature
from igo.noise.surface import Surface
from igo.runs import assemble


class Attention(nn.Module):
    """One head over four tokens of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.outputs = nn.Linear(3, 9), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.inputs(x.view(-1, 1, 4, 3)).chunk(3, dim=-1)
        return self.outputs(scaled_dot_product_attention(query, key, value).mean((1, 2)))


def convolutional() -> nn.Module:
    """BatchNorm with running statistics that are not those of its images, and a frozen weight."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    )
    network[1].running_mean += 0.3
    network[1].running_var *= 2
    network[0].bias.requires_grad_(False)
    return network


def surface(network: nn.Module, n: int = 11) -> Surface:
    """The network in double precision on random images, the last batch a ragged one."""
    torch.manual_seed(1)
    x, y = torch.randn(n, 1, 4, 3, dtype=torch.float64), torch.randint(3, (n,))
    batches = list(zip(x.split(4), y.split(4), strict=True))
    return Surface(network.double().eval(), cross_entropy, batches)


def full_hessian(of: Surface) -> np.ndarray:
    """(d, d) of the mean loss of all samples at once, by torch.autograd.functional."""
    x, y = (torch.cat(parts) for parts in zip(*of.batches, strict=True))
    weights = {name: p for name, p in of.network.named_parameters() if p.requires_grad}

    def loss(at: Tensor) -> Tensor:
        pieces = at.split([p.numel() for p in weights.values()])
        values = {k: v.view_as(weights[k]) for k, v in zip(weights, pieces, strict=True)}
        return cross_entropy(functional_call(of.network, values, (x,)), y)

    with sdpa_kernel(SDPBackend.MATH):
        hessian = torch.autograd.functional.hessian(loss, of.here)
    return np.asarray(hessian.numpy())


@pytest.mark.parametrize("make", [convolutional, Attention])
def test_products_eigenvalues_and_trace_are_those_of_the_full_hessian(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    of = surface(make())
    before = [b.clone() for b in of.network.buffers()]
    hessian, at = full_hessian(of), of.here
    d = len(at)
    products = torch.stack([of.curvature(at, column) for column in torch.eye(d).double()])
    np.testing.assert_allclose(products.numpy(), hessian, rtol=1e-9, atol=1e-12)

    start = curvature.random_direction(at, seed=0)
    top = curvature.largest(lambda v: of.curvature(at, v), start, count=3, tolerance=1e-8)
    exact, vectors = np.linalg.eigh(hessian)
    np.testing.assert_allclose(top.values.numpy(), exact[::-1][:3], rtol=1e-7)
    overlaps = np.abs(np.sum(top.vectors.numpy() * vectors.T[::-1][:3], axis=1))
    np.testing.assert_allclose(overlaps, 1, atol=1e-6)

    trace, error = curvature.trace(lambda v: of.curvature(at, v), top, probes=300, seed=0)
    kept = hessian - (top.vectors.T * top.values).numpy() @ top.vectors.numpy()
    variance = 2 * (np.square(kept).sum() - np.square(np.diag(kept)).sum())  # Hutchinson 1989
    assert error == pytest.approx((variance / 300) ** 0.5, rel=0.15)
    assert abs(trace - np.trace(hessian)) < 3 * error
    assert all(torch.equal(a, b) for a, b in zip(before, of.network.buffers(), strict=True))


def test_the_trace_is_unbiased_about_vectors_that_are_no_eigenvectors() -> None:
    """Over all 2^6 sign vectors, by enumeration, whatever is projected out."""
    random = np.random.default_rng(0)
    half = random.normal(size=(6, 6))
    matrix = torch.from_numpy(half + half.T)
    vectors = torch.from_numpy(np.linalg.qr(random.normal(size=(6, 2)))[0].T.copy())
    top = curvature.Top((vectors @ matrix * vectors).sum(1), vectors)
    signs = iter(itertools.product([0, 1], repeat=6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", lambda *_, **__: torch.tensor(next(signs)))
        trace, _ = curvature.trace(lambda v: matrix @ v, top, probes=64, seed=0)
    assert trace == pytest.approx(float(matrix.trace()), rel=1e-10)


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


@pytest.mark.parametrize("seed", range(3))
def test_worst_case_of_a_quadratic_in_the_2_ball_is_the_closed_form(seed: int) -> None:
    """max g'Du + u'DADu/2 over ‖u‖ = ρ: (μI − DAD)u = Dg, μ > λ_max, from ‖u(μ)‖ = ρ."""
    a, g, w, function = quadratic(12, seed)
    radius, scale = 0.1, np.abs(w)
    values, vectors = np.linalg.eigh(scale[:, None] * a * scale)
    slope = vectors.T @ (scale * g)

    def excess(mu: float) -> float:
        return float(np.linalg.norm(slope / (mu - values))) - radius

    mu = brentq(excess, values[-1] + 1e-9, values[-1] + 1e6, xtol=1e-12)
    u = slope / (mu - values)
    exact = float(slope @ u + u @ (values * u) / 2)
    rise, rises = worst_case.worst_rise(
        function, torch.from_numpy(w), radius=radius, norm="2", steps=60, starts=2, seed=0
    )
    assert rise == pytest.approx(exact, rel=1e-3)
    assert rise == max(rises) <= exact * (1 + 1e-9)


def corners(rise: Callable[[np.ndarray], float], w: np.ndarray, radius: float) -> float:
    """The largest rise over all corners of the box, where a convex function has its maximum."""
    signs = itertools.product([-1, 1], repeat=len(w))
    return max(rise(radius * np.abs(w) * np.array(corner)) for corner in signs)


@pytest.mark.parametrize("seed", range(3))
def test_worst_case_of_a_quadratic_in_the_box_is_that_of_all_corners(seed: int) -> None:
    a, g, w, function = quadratic(10, seed)
    exact = corners(lambda move: float(g @ move + move @ a @ move / 2), w, 0.3)
    rise, rises = worst_case.worst_rise(
        function, torch.from_numpy(w), radius=0.3, norm="inf", steps=40, starts=6, seed=0
    )
    assert rise == pytest.approx(exact, rel=1e-9)
    assert len(rises) == 6


@pytest.mark.parametrize(("seed", "starts"), [(0, 20), (1, 1), (2, 1), (3, 1)])
def test_worst_case_of_a_linear_classifier_is_that_of_all_corners(seed: int, starts: int) -> None:
    """Cross-entropy is convex in the weights: 2^9 corners. Of the first, w's own start ends 0.7 %
    short at another corner, which more starts mend."""
    torch.manual_seed(seed)
    of = Surface(
        nn.Linear(3, 3, bias=False).double(), cross_entropy,
        [(torch.randn(20, 3).double(), torch.randint(3, (20,)))],
    )  # fmt: skip
    w = of.here
    before, _ = of.value_and_gradient(w)

    def rise(move: np.ndarray) -> float:
        return of.value_and_gradient(w + torch.from_numpy(move))[0] - before

    largest, _ = worst_case.worst_rise(
        of.value_and_gradient, w, radius=0.2, norm="inf", steps=20, starts=starts, seed=0
    )
    assert largest == pytest.approx(corners(rise, w.numpy(), 0.2), rel=1e-9)
    assert torch.equal(of.here, w)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_rescaled_layers_of_a_relu_network_are_equally_sharp(norm: str) -> None:
    """w_1 to 5 w_1 and w_2 to w_2/5: the same function, and the same adaptive sharpness."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    rises = []
    for factor in (1.0, 5.0):
        with torch.no_grad():
            network[1].weight *= factor
            network[1].bias *= factor
            network[3].weight /= factor
        of = surface(network)
        rises.append(
            worst_case.worst_rise(
                of.value_and_gradient, of.here, radius=0.05, norm=norm, steps=20, starts=2, seed=0
            )[0]
        )
    assert rises[0] == pytest.approx(rises[1], rel=1e-6)
    assert rises[0] > 0


QUICK = ("samples=40", "steps=3", "starts=2", "probes=2", "eigenvalues=1", "batch_size=16")
NEW = ("tracking=none", "engine.precision=fp32")


def sharpness(place: Path, *arguments: str, death: Death | None = None) -> Ended:
    return forge.run(place, *QUICK, *arguments, command="sharpness", death=death)


def trained(place: Path, *overrides: str) -> Path:
    """The folder of a new run."""
    before = set((place / "runs").glob("*-*"))
    assert forge.run(place, *TINY, *NEW, *overrides).returncode == 0
    (folder,) = set((place / "runs").glob("*-*")) - before
    return folder


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sharpness.json").read_text())


def test_a_finished_run_gets_its_sharpness(tmp_path: Path) -> None:
    """As started by a user; loss and gradient as of its checkpoint on the images as they are."""
    folder = trained(tmp_path, "dataset.augment.crop=2", "seed=5")
    done = python(tmp_path, "-m", "igo", "sharpness", *QUICK, "samples=96", "norm=2").good()
    measured = result(folder)
    config = assemble.read_config(folder / "config.yaml")
    training = assemble.prepare(config, assemble.make_plan(config))
    network = training.network.eval()
    network.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["model"])
    ((images, labels),) = training.data.plain_batches([torch.arange(96)])
    loss = cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    close = rounding.bound(rounding.terms(network, images, backward=False), 10)
    assert measured["loss"] == pytest.approx(loss.item(), rel=close)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    close = rounding.bound(rounding.terms(network, images))
    assert measured["gradient_norm"] == pytest.approx(float(norm), rel=close)
    assert measured["samples"] == 96
    assert measured["parameters"] == sum(p.numel() for p in network.parameters())
    assert measured["settings"]["norm"] == "2"
    assert measured["epoch"] == 3
    assert measured["worst_case"] == max(measured["worst_case_of_starts"]) > 0
    assert measured["largest_eigenvalue"] > 0 < measured["trace_standard_error"]
    assert measured["batchnorm"] == "eval, running statistics"
    assert f"worst case +{measured['worst_case']:.4g}," in done.stdout
    assert done.stdout.splitlines()[-1] == "1 measured"


@pytest.mark.slow
def test_the_same_settings_are_not_measured_twice(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    file = folder / "sharpness.json"

    def written(*arguments: str) -> bool:
        before = file.stat().st_ino if file.exists() else None
        sharpness(tmp_path, f"runs={folder}", *arguments).good()
        return file.stat().st_ino != before

    assert written()
    first = result(folder)
    assert not written()
    assert not written("batch_size=7", "engine.threads=1")
    assert written("fresh=true")
    again = result(folder)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}, "the same seeds, the same numbers"
    assert written("seed=1")
    assert result(folder)["loss"] != first["loss"]
    file.write_text(file.read_text()[:100])
    assert written("seed=1")
