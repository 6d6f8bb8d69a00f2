"""The optimizers against their formulas, written out as loops in float64."""

from __future__ import annotations

import pytest
import rates
import rounding
import torch
from conftest import DEVICES
from torch import Tensor, nn

from igo.config.schema import EngineConfig, OptimizerConfig
from igo.ground.seeds import generator
from igo.train import engine, optim

STEPS = 12


@pytest.fixture(autouse=True)
def _uninitialised_memory_is_nan() -> None:
    """As in every run (engine.deterministic): what was never written shows as NaN."""
    engine.build(EngineConfig(device="cpu"))


def start(device: str) -> list[nn.Parameter]:
    draw = generator(0, "parameters")
    shapes = [(4, 3), (4,), (2, 3, 3, 3)]
    return [nn.Parameter(torch.randn(s, generator=draw).to(device)) for s in shapes]


def eta(step: int) -> float:
    """Falls in the middle of the run, as at a stage boundary."""
    return 0.3 if step < STEPS // 2 else 0.1


def gradients(step: int, parameters: list[nn.Parameter]) -> list[Tensor]:
    draw = generator(0, "gradients", step)
    return [torch.randn(p.shape, generator=draw).to(p.device) for p in parameters]


def beta(config: OptimizerConfig, step: int, falls: bool = False) -> float:
    return config.momentum / (1 + falls * (step // 4))


def train(
    config: OptimizerConfig, device: str, falls: bool = False, resumed: int = -1
) -> list[nn.Parameter]:
    """Twelve steps of the optimizer under test, with its state in a new one after some of them."""
    parameters = start(device)
    optimizer = optim.build(config, parameters, 0.1)
    for step in range(STEPS):
        if step == resumed:
            state = optimizer.state_dict()
            optimizer = optim.build(config, parameters, 0.1)
            optimizer.load_state_dict(state)
        rates.put(optimizer, eta(step), beta(config, step, falls))
        for parameter, gradient in zip(parameters, gradients(step, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return parameters


def by_formula(config: OptimizerConfig, device: str, falls: bool) -> list[Tensor]:
    """x ← x - η m with m ← β m + g (shb), β m + (1 - β) g (nshb) or g (sgd); g holds the decay."""
    at = [p.detach().double() for p in start(device)]
    momenta = [torch.zeros_like(x) for x in at]
    for step in range(STEPS):
        kept = beta(config, step, falls)
        share = 1 - kept if config.name == "nshb" else 1.0
        for i, raw in enumerate(gradients(step, start(device))):
            gradient = raw.double() + config.weight_decay * at[i]
            momenta[i] = (0 if config.name == "sgd" else kept) * momenta[i] + share * gradient
            at[i] = at[i] - eta(step) * momenta[i]
    return at


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize("falls", [False, True], ids=["", "falling momentum"])
@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.0), ("shb", 0.9), ("nshb", 0.9)])
def test_steps_follow_the_formula_while_eta_and_beta_change(
    name: str, momentum: float, falls: bool, weight_decay: float, device: str
) -> None:
    config = OptimizerConfig(name, momentum, weight_decay)
    wanted = by_formula(config, device, falls)
    for ours, exact in zip(train(config, device, falls), wanted, strict=True):
        rounding.assert_close(ours.detach(), exact, 4 * STEPS)  # momentum and decay are terms, too


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["shb", "nshb"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_without_momentum_both_heavy_balls_are_sgd_bit_for_bit(
    name: str, weight_decay: float, device: str
) -> None:
    heavy = train(OptimizerConfig(name, 0.0, weight_decay), device)
    plain = train(OptimizerConfig("sgd", 0.0, weight_decay), device)
    assert all(torch.equal(a, b) for a, b in zip(heavy, plain, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["shb", "nshb"])
def test_momentum_survives_a_saved_state(name: str, device: str) -> None:
    config = OptimizerConfig(name, 0.9, 0.01)
    both = zip(train(config, device, resumed=6), train(config, device), strict=True)
    assert all(torch.equal(*pair) for pair in both)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.0), ("shb", 0.9), ("nshb", 0.9)])
def test_a_skipped_first_step_leaves_no_trace(name: str, momentum: float, device: str) -> None:
    """Loss scaling begins too high as a rule, so that the first fp16 step is often skipped."""
    config = OptimizerConfig(name, momentum)
    (x,) = parameters = [nn.Parameter(torch.full((3,), 2.0, device=device))]
    optimizer = optim.build(config, parameters, 0.1)
    scaler = torch.amp.GradScaler(device, init_scale=4.0)
    rates.put(optimizer, 0.5, config.momentum)
    for slope, scale_after in ((float("inf"), 2.0), (1.0, 2.0)):
        x.grad = None
        scaler.scale((slope * x).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale_after
    share = 1 - momentum if name == "nshb" else 1.0
    torch.testing.assert_close(x.detach().cpu(), torch.full((3,), 2.0 - 0.5 * share))


def test_what_is_read_back_is_what_was_applied() -> None:
    config = OptimizerConfig("nshb", 0.9)
    optimizer = optim.build(config, start("cpu"), 0.1)
    rates.put(optimizer, 0.1 / 3, 0.7)
    assert optim.learning_rate(optimizer) == 0.1 / 3
    assert optim.momentum(optimizer) == 0.7
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["dampening"]) == (0.1 / 3, 0.7, 0.7)
