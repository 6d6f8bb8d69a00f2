"""What really reached the model and the optimizer, held against plan and record."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import rounding
import torch
from conftest import TINY

from igo.config.schema import Config
from igo.method.schedule import make_plan
from igo.runs import assemble
from igo.train import loop
from igo.train.state import Progress

Make = Callable[..., Config]


class Quiet:
    """A progress bar that nobody sees."""

    def begin_epoch(self, *_: object) -> None: ...
    def advance(self, *_: object) -> None: ...
    def end_epoch(self, *_: object) -> None: ...


class Watched:
    """Records the batch of each training forward pass and the learning rate of each step."""

    def __init__(self, training: Any) -> None:
        self.batches: list[int] = []
        self.rates: list[float] = []
        self.order: list[str] = []
        self.momenta: list[bool] = []
        self.betas: list[float] = []
        training.network.register_forward_pre_hook(self._forward)
        training.optimizer.register_step_pre_hook(self._step)

    def _forward(self, module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if module.training:
            self.batches.append(len(inputs[0]))
            self.order.append("forward")

    def _step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.momenta.append(bool(optimizer.state))
        self.betas.append(optimizer.param_groups[0]["momentum"])
        self.order.append("step")


def trained(config: Config) -> tuple[Progress, Watched, Any]:
    plan = make_plan(config)
    training = assemble.prepare(config, plan)
    watched = Watched(training)
    progress = Progress()
    loop.train(training, progress, Quiet(), lambda record: None, lambda: None)  # type: ignore[arg-type]
    return progress, watched, plan


@pytest.mark.parametrize(
    "overrides",
    [
        ("schedule=step", "schedule.stages=3", "schedule.kappa=0.8", "schedule.lam=2"),
        ("schedule=graduated", "split=0", "schedule.stages=2"),
        ("schedule=cosine", "split=1", "optimizer=shb"),
        ("schedule=graduated", "schedule.final_updates=2", "optimizer=nshb"),
    ],
)
def test_what_is_applied_is_what_is_planned_and_logged(
    overrides: tuple[str, ...], make_config: Make
) -> None:
    config = make_config(*TINY, "epochs=5", "batch_size=20", "noise.online=0", *overrides)
    progress, watched, plan = trained(config)
    steps = [  # learning rate and batch of every update, from the plan alone
        (stage.eta_m, min(stage.b_m, 96 - start))
        for stage in plan.stages
        for _ in range(stage.epochs)
        for start in range(0, 96, stage.b_m)
    ]
    assert watched.rates == [eta for eta, _ in steps]
    measured = config.noise.batches  # forward passes that measure C², before each stage
    seen = []
    batches = iter(watched.batches)
    for stage in plan.stages:
        assert [next(batches) for _ in range(measured)] == [8] * measured
        seen += [next(batches) for _ in range(stage.updates)]
    assert next(batches, None) is None
    assert seen == [b for _, b in steps]
    for record, stage in zip(
        progress.records, [s for s in plan.stages for _ in s.epoch_range], strict=True
    ):
        assert (record["eta_m"], record["b_m"], record["stage"], record["gamma_m"]) == (
            stage.eta_m, stage.b_m, stage.stage, stage.gamma_m,
        )  # fmt: skip
    assert progress.updates == plan.updates == len(watched.rates) == progress.records[-1]["updates"]
    assert progress.samples == 96 * plan.epochs
    if config.optimizer.momentum:
        assert all(watched.momenta[1:])  # the optimizer's state lives through every change


def test_planned_delta_uses_the_first_c2_and_measured_delta_the_stages_own(
    make_config: Make,
) -> None:
    progress, _, plan = trained(
        make_config(*TINY, "epochs=4", "schedule.stages=2", "noise.online=0")
    )
    first, second, third, fourth = progress.records
    for record, stage in ((first, plan.stages[0]), (third, plan.stages[1])):
        planned = stage.eta_m * math.sqrt(first["gradient_variance"] / stage.b_m)
        current = stage.eta_m * math.sqrt(record["gradient_variance"] / stage.b_m)
        assert record["delta_m"] == pytest.approx(planned, rel=1e-12)
        assert record["delta_measured"] == pytest.approx(current, rel=1e-12)
    assert second["gradient_variance"] == first["gradient_variance"]
    assert third["gradient_variance"] != first["gradient_variance"]
    assert fourth["gradient_variance"] == third["gradient_variance"]
    assert third["delta_m"] / first["delta_m"] == pytest.approx(plan.stages[1].phi_m, rel=1e-12)


def test_every_epoch_is_a_fresh_permutation_and_the_seed_decides(make_config: Make) -> None:
    one, _, _ = trained(make_config(*TINY))
    same, _, _ = trained(make_config(*TINY))
    other, _, _ = trained(make_config(*TINY, "seed=1"))
    assert timeless(one) == timeless(same)
    assert timeless(one) != timeless(other)


def timeless(progress: Progress) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in record.items() if k not in ("seconds", "images_per_second")}
        for record in progress.records
    ]


def test_losses_are_sums_over_samples_in_the_ragged_epoch(make_config: Make) -> None:
    """η so small that nothing moves: the training loss is the mean over samples, by hand."""
    config = make_config(
        *TINY,
        "noise.online=0",
        "epochs=1",
        "batch_size=36",
        "learning_rate=1e-30",
        "engine.precision=fp32",
    )
    plan = make_plan(config)
    training = assemble.prepare(config, plan)
    losses: list[float] = []
    right: list[float] = []

    def watch(module: torch.nn.Module, inputs: tuple[torch.Tensor], logits: torch.Tensor) -> None:
        if module.training:
            outputs.append(logits.detach())

    outputs: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    batches = training.data.train_batches

    def spy(index: Any, seed: int) -> Any:
        for images, answers in batches(index, seed):
            labels.append(answers)
            yield images, answers

    training.network.register_forward_hook(watch)
    training.data.train_batches = spy
    progress = Progress()
    loop.train(training, progress, Quiet(), lambda record: None, lambda: None)  # type: ignore[arg-type]
    for logits, answers in list(zip(outputs, labels, strict=True))[config.noise.batches :]:
        losses += torch.nn.functional.cross_entropy(logits, answers, reduction="none").tolist()
        right += (logits.argmax(dim=1) == answers).float().tolist()
    assert len(losses) == 96
    close = rounding.bound(10, 96)
    assert progress.records[0]["train/loss"] == pytest.approx(sum(losses) / 96, rel=close)
    assert progress.records[0]["train/accuracy"] == pytest.approx(sum(right) / 96, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["shb", "nshb"])
def test_no_momentum_is_sgd_in_every_number(optimizer: str, make_config: Make) -> None:
    plain, _, _ = trained(make_config(*TINY, "schedule.stages=2"))
    overrides = (f"optimizer={optimizer}", "optimizer.momentum=0", "schedule.stages=2")
    free, _, _ = trained(make_config(*TINY, *overrides))
    assert timeless(free) == timeless(plain)


@pytest.mark.parametrize("optimizer", ["shb", "nshb"])
def test_a_falling_momentum_reaches_the_optimizer_and_the_record(
    optimizer: str, make_config: Make
) -> None:
    overrides = (f"optimizer={optimizer}", "optimizer.decay_momentum=true", "learning_rate=0.01")
    progress, watched, _ = trained(make_config(*TINY, "epochs=6", "noise.online=0", *overrides))
    betas = [record["beta_m"] for record in progress.records]
    assert betas[0] == pytest.approx(0.9)
    assert betas == sorted(betas, reverse=True)
    assert betas[-1] < 0.9
    assert watched.betas[:3] == [betas[0]] * 3
    assert sorted(set(watched.betas), reverse=True) == sorted(set(betas), reverse=True)
    first = progress.records[0]
    for record, m in zip(progress.records, range(6), strict=True):
        assert record["delta_m"] == pytest.approx(first["delta_m"] * ((6 - m) / 6) ** 0.5, rel=1e-9)


def test_feedback_applies_what_it_records_and_keeps_the_plan(make_config: Make) -> None:
    config = make_config(*TINY, "epochs=5", "schedule.feedback=measured", "noise.online=0")
    progress, watched, plan = trained(config)
    seen = dict.fromkeys(watched.rates)
    assert list(seen) == list(dict.fromkeys(r["eta_m"] for r in progress.records))
    first = progress.records[0]
    for record, stage in zip(progress.records, plan.stages, strict=True):
        assert record["delta_m"] == pytest.approx(first["delta_m"] * stage.phi_m, rel=1e-12)
        real = record["eta_m"] * math.sqrt(record["gradient_variance"] / record["b_m"])
        assert record["delta_measured"] == pytest.approx(real, rel=1e-12)
    assert [r["eta_m"] for r in progress.records[1:]] != [s.eta_m for s in plan.stages[1:]]
