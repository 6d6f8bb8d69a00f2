"""Optimizers of torch.optim and timm in the program, against loops of plain PyTorch."""

import csv
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import rounding
import torch
import torch.nn.functional as F
from conftest import TINY, assert_equal, epoch_batches, records, run_folder
from forked import forge
from resumed import outcome
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from trained import prepared

from igo.config.schema import EngineConfig, OptimizerConfig
from igo.runs import checkpoint
from igo.train import machine, optimizers

Parameters = list[nn.Parameter]
# Three epochs of 4 and then 3 batches, which are unequal.
SMALL = (*TINY, "tracking=none", "engine.precision=fp32", "dataset.samples=97")


def nadamw(parameters: Parameters, rate: float) -> Optimizer:
    import timm.optim  # `make gpu` runs this file without timm

    return timm.optim.NAdamW(parameters, lr=rate, betas=(0.8, 0.9))


# What is typed, and the same optimizer made by hand.
CASES: dict[str, tuple[tuple[str, ...], float, Callable[[Parameters, float], Optimizer]]] = {
    "sgd": (("optimizer=sgd",), 0.1, partial(SGD, fused=True)),
    "adamw": (
        ("optimizer=adamw", "optimizer.beta2=0.99"),
        0.003,
        partial(AdamW, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
    ),
    "timm's": (
        (
            "optimizer=own",
            "optimizer._target_=timm.optim.NAdamW",
            "optimizer.betas=[0.8,0.9]",
            "learning_rate=0.002",
        ),
        0.002,
        nadamw,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_program_trains_as_a_plain_loop_does_to_the_bit(name: str) -> None:
    words, rate, build = CASES[name]
    forge.run(*SMALL, *words).good()
    run = prepared(*SMALL, *words)
    stages = list(csv.DictReader((run_folder() / "plan.csv").read_text().splitlines()))
    assert len({row["eta_m"] for row in stages}) == len({row["batches"] for row in stages}) + 1 == 3
    network = run.network.train()
    optimizer = build(list(network.parameters()), rate)
    for row, record in zip(stages, records(), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(row["eta_m"])
        indices = epoch_batches(97, int(row["batches"]), run.config.seed, int(row["first_epoch"]))
        losses = correct = 0.0
        for images, labels in run.data.train_batches(indices, 0):  # nothing is augmented here
            optimizer.zero_grad()
            logits = network(images)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            (loss / len(labels)).backward()
            optimizer.step()
            losses += loss.item()
            correct += (logits.argmax(dim=1) == labels).sum().item()
        means = losses / 97, correct / 97
        assert (record["train/loss"], record["train/accuracy"]) == pytest.approx(means, rel=1e-5)
    assert_equal(dict(outcome().state["model"]), dict(network.state_dict()))


def small(device: str = "cpu") -> Parameters:
    draw = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (4,), (2, 3, 3, 3)]
    return [nn.Parameter(torch.randn(shape, generator=draw).to(device)) for shape in shapes]


def gradients(step: int, parameters: Sequence[Tensor]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=draw).to(p.device) for p in parameters]


def stepped(optimizer: Optimizer, parameters: Parameters, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        for parameter, gradient in zip(parameters, gradients(step, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()


STEPS = 12
MOMENTA = [("sgd", 0.0), ("shb", 0.9), ("nshb", 0.9), ("nshb", 0.0)]


def eta(step: int) -> float:
    """Falls in the middle, as at a stage boundary."""
    return 0.3 if step < STEPS // 2 else 0.1


def by_formula(config: OptimizerConfig, device: str) -> list[Tensor]:
    """x ← x - η m with m ← β m + g (shb), β m + (1 - β) g (nshb) or g (sgd); g holds the decay."""
    points = [p.detach().double() for p in small(device)]
    momenta = [torch.zeros_like(x) for x in points]
    share = 1 - config.momentum if config.name == "nshb" else 1.0
    for step in range(STEPS):
        for i, raw in enumerate(gradients(step, points)):
            gradient = raw.double() + config.weight_decay * points[i]
            momenta[i] = config.momentum * momenta[i] + share * gradient
            points[i] = points[i] - eta(step) * momenta[i]
    return points


def test_steps_follow_the_formula_while_eta_changes(device: str) -> None:
    """Written out in float64."""
    for (name, momentum), weight_decay in product(MOMENTA, (0.0, 0.01)):
        machine.choose(EngineConfig(device="cpu"))  # what was never written is NaN, as in a run
        config = OptimizerConfig(name, momentum, weight_decay)
        parameters = small(device)
        optimizer = optimizers.build(config, parameters, 0.3)
        for step in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = eta(step)
            stepped(optimizer, parameters, range(step, step + 1))
        for mine, exact in zip(parameters, by_formula(config, device), strict=True):
            rounding.assert_close(
                mine.detach(), exact, 4 * STEPS
            )  # momentum and decay are terms, too


# They need second derivatives or other hardware, or compile, which takes long.
NOT_TRIED = ("bnb", "fused", "adahessian", "kron")


def test_every_optimizer_of_timms_goes_on_to_the_bit_from_a_checkpoint(tmp_path: Path) -> None:
    import timm.optim

    for name in map(str, timm.optim.list_optimizers()):
        if name.startswith(NOT_TRIED):
            continue
        config = OptimizerConfig(f"timm.optim.create_optimizer_v2(opt='{name}')")
        straight, broken = small(), small()
        stepped(optimizers.build(config, straight, 0.01), straight, range(8))
        optimizer = optimizers.build(config, broken, 0.01)
        stepped(optimizer, broken, range(5))
        checkpoint.save(tmp_path / name, {"signature": name, "optimizer": optimizer.state_dict()})
        saved = checkpoint.load(tmp_path / name, name)
        loaded_optimizer = optimizers.build(config, broken, 0.01)
        loaded_optimizer.load_state_dict(saved["optimizer"])
        stepped(loaded_optimizer, broken, range(5, 8))
        assert all(torch.equal(a, b) for a, b in zip(straight, broken, strict=True)), name


def test_an_own_optimizer_that_ignores_the_rate_is_refused_before_training() -> None:
    for name, rate in ("deaf", "0.01"), ("blind", "None"):
        code = f"lambda parameters, lr: SGD([{{'params': [*parameters], 'lr': {rate}}}], lr)"
        Path(f"{name}.py").write_text(f"from torch.optim import SGD\nsgd = {code}\n")
        line = forge.run(*SMALL, f"optimizer._target_={name}.sgd").error()
        assert line.startswith(f"error: optimizer._target_={name}.sgd() is not allowed: ")
        assert f"its groups have lr {rate}; pass the argument lr=0.1 on" in line
        assert not Path("runs").exists()
