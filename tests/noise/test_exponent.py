"""igo.noise_exponent against closed forms on a quadratic and every mode of a linear regression."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import igo
from igo.noise.exponent import NoiseExponent

EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
SIZES = torch.tensor([1.0, 3.0, 2.0, 0.5, 4.0], dtype=torch.float64)  # √C_i²


class Point(nn.Module):
    """A parameter vector; its output does not depend on the inputs."""

    def __init__(self, rotation: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, generator=torch.manual_seed(1)).double())
        self.rotation = rotation

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.rotation.T @ self.w).expand(len(inputs), 5)


def quadratic(outputs: Tensor, noise: Tensor) -> Tensor:
    """½ Σ λ_i w_i² plus noise·w: the gradient's noise is the mean of `noise`."""
    return (outputs.square() @ EIGENVALUES / 2 + (outputs * noise).sum(1)).mean()


def batches_of(noise: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(torch.zeros(2, 1), row.expand(2, 5)) for row in noise]


# one batch a direction and sign: their variance in mode i is exactly ∝ SIZES[i]²
EXACT = torch.cat([torch.diag(SIZES), -torch.diag(SIZES)])
ROTATION = torch.linalg.qr(torch.randn(5, 5, generator=torch.manual_seed(2)).double())[0]


def law(eta: float, beta: float = 0.0) -> float:
    """ρ = 1/Σ w_i e/(e − ηλ_i), w_i ∝ C_i²/(e − ηλ_i), e = 2(1 + β)."""
    room = 2 * (1 + beta) - eta * EIGENVALUES
    shares = SIZES**2 / room
    return float(shares.sum() / (shares * 2 * (1 + beta) / room).sum())


def predict(noise: Tensor, eta: float, **more: object) -> NoiseExponent:
    settings = {"learning_rate": eta, "batches": len(noise), "modes": 4, "tolerance": 1e-8} | more
    return igo.noise_exponent(Point(ROTATION), quadratic, batches_of(noise), **settings)


@pytest.mark.parametrize("beta", [0.0, 0.9])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_on_a_quadratic_it_is_the_closed_form(share: float, beta: float) -> None:
    eta = share * 2 * (1 + beta) / float(EIGENVALUES[0])
    exponent = predict(EXACT, eta, momentum=beta)
    assert exponent.value == pytest.approx(law(eta, beta), abs=1e-6)
    assert exponent.steps == pytest.approx((eta * EIGENVALUES[:4]).tolist(), rel=1e-6)
    assert sum(exponent.shares) + exponent.rest == pytest.approx(1)
    assert exponent.interval[0] <= exponent.value <= exponent.interval[1]


def test_weight_decay_is_added_to_every_eigenvalue() -> None:
    room = 2 - 0.3 * (EIGENVALUES + 0.5)
    shares = SIZES**2 / room
    expected = float(shares.sum() / (shares * 2 / room).sum())
    assert predict(EXACT, 0.3, weight_decay=0.5).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("modes", [1, 2, 3])
def test_fewer_modes_widen_the_interval_which_holds_the_closed_form(modes: int) -> None:
    wide, narrow = predict(EXACT, 0.3, modes=modes), predict(EXACT, 0.3)
    assert wide.interval[0] <= law(0.3) <= wide.interval[1]
    assert wide.interval[0] <= narrow.interval[0] + 1e-9
    assert wide.value == pytest.approx(law(0.3), abs=0.08)


@pytest.mark.slow
def test_95_percent_intervals_hold_the_closed_form() -> None:
    """60 draws of 12 batches of Gaussian noise; 95 % less 3 standard errors, or more."""
    random, held = torch.manual_seed(3), 0
    for _ in range(60):
        noise = torch.randn(12, 5, generator=random).double() * SIZES
        exponent = predict(noise, 0.4)
        held += exponent.interval[0] <= law(0.4) <= exponent.interval[1]
    assert held >= 52


def test_on_linear_regression_it_is_the_law_of_all_its_modes() -> None:
    """Hessian XᵀX/n and each batch's gradient, by formulas; all but one mode computed."""
    random = torch.manual_seed(4)
    x = torch.randn(96, 6, generator=random).double() * torch.tensor([2, 1.5, 1, 0.7, 0.5, 0.3])
    y = x.sum(1, keepdim=True) + torch.randn(96, 1, generator=random).double()
    network = nn.Linear(6, 1, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    loader = list(zip(x.split(8), y.split(8), strict=True))

    def half(outputs: Tensor, targets: Tensor) -> Tensor:
        return mse_loss(outputs, targets) / 2

    exponent = igo.noise_exponent(
        network, half, loader, learning_rate=0.3, batches=12, modes=5, tolerance=1e-8
    )
    values, vectors = torch.linalg.eigh(x.T @ x / 96)
    errors = x @ network.weight.detach().T - y
    gradients = torch.stack(
        [(a.T @ e).squeeze(1) / 8 for a, e in zip(x.split(8), errors.split(8), strict=True)]
    )
    room = 2 - 0.3 * values
    shares = (gradients @ vectors).var(0) / room
    expected = float(shares.sum() / (shares * 2 / room).sum())
    assert exponent.value == pytest.approx(expected, abs=1e-6)


def test_a_step_beyond_the_edge_is_refused_with_the_largest_that_is_not() -> None:
    with pytest.raises(ValueError, match=r"ηλ_max = 2\.4 .* take η below 0\.5"):
        predict(EXACT, 0.6)
    assert predict(EXACT, 0.6, momentum=0.5).value > 0


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="batches=11"):
        predict(EXACT, 0.1, batches=11)
    with pytest.raises(ValueError, match="not finite"):
        predict(EXACT * torch.nan, 0.1)


def test_the_model_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.manual_seed(5)
    batches = [
        (torch.randn(8, 3, generator=random), torch.randint(2, (8,), generator=random))
        for _ in range(4)
    ]
    exponent = igo.noise_exponent(
        network, nn.functional.cross_entropy, batches, learning_rate=0.01, batches=4, modes=3
    )
    assert 0 < exponent.value <= 1.1
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
