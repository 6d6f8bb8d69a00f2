"""An update that is not finite: found at that very update, not made, and named or passed over."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import rates
import torch
import torch.nn.functional as F
from conftest import TINY, assert_equal, configure, status
from forked import forge
from torch import Tensor, nn
from trained import prepared, train

from igo.config.schema import Config, OptimizerConfig
from igo.ground.errors import UserError
from igo.ground.ranks import Ranks
from igo.train import engine, finite, optim
from igo.train.state import Progress, Training

PLAIN = (*TINY, "schedule=constant", "noise.online=0")  # three updates of 32 an epoch
SHB = OptimizerConfig("shb", 0.9)


class Wild(torch.autograd.Function):
    """The identity, with a slope that is not finite at zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return slope / (x != 0)


class Wilderness(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Wild.apply(x))


def network_of() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(256, 10), Wilderness(),
    )  # fmt: skip


def samples(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 8, 8, generator=draw), torch.randint(10, (8,), generator=draw)


def built(skip: bool = False) -> tuple[engine.Engine, nn.Module, torch.optim.SGD]:
    run = engine.build(engine.EngineConfig(device="cpu", precision="fp32"))
    network = network_of()
    optimizer = optim.build(SHB, network.parameters(), 0.1)
    rates.put(optimizer, 0.1, 0.9)
    return replace(run, skip=skip), network, optimizer


def bits(network: nn.Module, optimizer: torch.optim.SGD) -> list[Tensor]:
    momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
    return [t.detach().clone() for t in (*network.state_dict().values(), *momenta)]


def equal(first: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_good_updates_are_those_of_plain_pytorch_to_the_bit() -> None:
    run, network, optimizer = built()
    plain = network_of()
    theirs = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, fused=True)
    for parameter in plain.parameters():
        theirs.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    for seed in range(5):
        images, labels = samples(seed)
        totals = run.step(network, optimizer, (images, labels))
        theirs.zero_grad()
        loss = F.cross_entropy(plain(images), labels, reduction="sum")
        (loss / 8).backward()
        theirs.step()
        assert torch.equal(totals[0], loss.detach())
    assert equal(bits(network, optimizer), bits(plain, theirs))


def bad_loss(images: Tensor, _: nn.Module) -> Tensor:
    images = images.clone()
    images[3, 0, 2, 2] = float("nan")
    return images


def bad_gradient(images: Tensor, network: nn.Module) -> Tensor:
    """Logits that are all zero, of finite loss: Wild has no slope there."""
    for parameter in network[3].parameters():  # type: ignore[index]
        parameter.data.zero_()
    return images


@pytest.mark.parametrize("spoil", [bad_loss, bad_gradient])
@pytest.mark.parametrize("skip", [False, True])
def test_an_update_that_is_not_finite_is_not_made(
    spoil: Callable[[Tensor, nn.Module], Tensor], skip: bool
) -> None:
    run, network, optimizer = built(skip)
    run.step(network, optimizer, samples(0))
    images, labels = samples(1)
    images = spoil(images, network)
    before, still = bits(network, optimizer), copy.deepcopy(network)
    if spoil is bad_gradient:
        assert torch.isfinite(F.cross_entropy(still(images), labels))
    totals = run.step(network, optimizer, (images, labels))
    assert not totals[0].isfinite()
    buffers = {name for name, _ in network.named_buffers()}
    for name, was, now in zip(network.state_dict(), before, bits(network, optimizer), strict=False):
        if skip or name not in buffers:
            assert torch.equal(was, now), name
    assert not hasattr(optimizer, "found_inf")


def test_fp16_skips_a_loss_that_is_not_finite_and_says_so() -> None:
    run = engine.build(engine.EngineConfig(device="cpu", precision="fp16", non_finite="skip"))
    network = network_of()[:4]  # type: ignore[index]
    optimizer = optim.build(SHB, network.parameters(), 0.1)
    rates.put(optimizer, 0.1, 0.9)
    images, labels = samples(1)
    before = bits(network, optimizer)
    totals = run.step(network, optimizer, (bad_loss(images, network), labels))
    assert not totals[0].isfinite()
    assert equal(bits(network, optimizer), before)


def training_of(config: Config, bad: set[int]) -> tuple[Training, list[Tensor]]:
    """A run whose training batches of these numbers, from 1 on, are NaN; and all of the batches."""
    training = prepared(config)
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if not module.training or len(inputs[0]) != config.batch_size:
            return None
        seen.append(inputs[0])
        return (inputs[0] * float("nan"),) if len(seen) in bad else None

    training.network.register_forward_pre_hook(look)
    return training, seen


@pytest.mark.parametrize("direct", [True, False], ids=["as on a CPU", "as on a GPU"])
def test_it_stops_at_that_update_and_says_all_that_is_needed(
    monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    """A GPU is not waited for: the epoch goes on to its end, and the first bad update is named."""
    original = finite.Tally.__init__

    def start(tally: finite.Tally, *arguments: Any) -> None:
        original(tally, *arguments)
        tally._direct = direct

    monkeypatch.setattr(finite.Tally, "__init__", start)
    training, seen = training_of(configure(*PLAIN), {8})  # of epoch 3, the second update
    progress = Progress()
    with pytest.raises(UserError) as stopped:
        train(training, progress)
    text = str(stopped.value)
    assert "not finite at update 2 in epoch 3 (stage 3, η 0.1, b 32, δ " in text
    assert text.endswith("The last good checkpoint is of epoch 2")
    assert [record["epoch"] for record in progress.records] == [1, 2]
    assert len(seen) == (8 if direct else 9)


def test_a_run_that_skipped_an_update_goes_on_with_the_same_batches() -> None:
    """A checkpoint has the number of updates made and no record of those skipped."""
    config = configure(*PLAIN, "engine.non_finite=skip")
    straight, _ = training_of(config, {2, 7})
    train(straight)
    continued, _ = training_of(config, {2, 7})
    progress = train(continued, until=1)
    assert (progress.epoch, progress.updates) == (1, 2)
    progress = train(continued, Progress.of_state(asdict(replace(progress, records=[]))))
    assert (progress.epoch, progress.updates) == (3, 7)
    assert_equal(continued.network.state_dict(), straight.network.state_dict())


def test_an_epoch_without_any_update_stops_even_if_skipping() -> None:
    training, _ = training_of(configure(*PLAIN, "engine.non_finite=skip"), set(range(4, 7)))
    with pytest.raises(UserError, match=r"at update 1 in epoch 2 .* checkpoint is of epoch 1"):
        train(training)


def test_sums_are_those_of_adding_one_after_the_other() -> None:
    torch.manual_seed(0)
    tally, totals = finite.Tally(1000, torch.device("cpu"), skip=False), torch.zeros(2)
    for update in range(1000):
        added = torch.rand(2) * 1000
        tally.add(update, added)
        totals += added
    sums, good = tally.sums()
    assert torch.equal(sums, totals)
    assert good.all()


def test_diverging_from_the_command_line(tmp_path: Path) -> None:
    line = forge.run(tmp_path, *TINY, "tracking=none", "learning_rate=1e30").error()
    assert line.startswith("error: the loss or its gradient is not finite at update ")
    assert status(tmp_path)["state"] == "failed"
    assert "η 1e+30, b 32, δ" in status(tmp_path)["error"]


def bad_on_one_rank() -> list[Tensor]:
    """A good step, one whose loss is not finite on the last rank alone, and a good one."""
    states = []
    with Ranks.of_environment().joined() as ranks:
        run, network, optimizer = built(skip=True)
        run = replace(run, ranks=ranks)
        network = run.prepare(network)
        for seed, factor in ((0, 1.0), (1, float("nan")), (2, 1.0)):
            images, labels = (t[ranks.rank :: ranks.size] for t in samples(seed))
            images = images * (factor if ranks.rank == ranks.size - 1 else 1)
            totals = run.step(network, optimizer, (images, labels), range(8))
            states += [*bits(network, optimizer), totals[0]]
    return states


def test_what_is_bad_on_one_rank_is_skipped_by_all(tmp_path: Path) -> None:
    first, second = forge.results(tmp_path, 2, "test_finite.bad_on_one_rank")
    size = len(first) // 3
    for states in (first, second):
        good, skipped, again = (states[i * size : (i + 1) * size] for i in range(3))
        assert equal(good[:-1], skipped[:-1])
        assert not equal(skipped[:-1], again[:-1])
        assert [bool(part[-1].isfinite()) for part in (good, skipped, again)] == [True, False, True]
        assert all(t.isfinite().all() for t in again)
    for part in range(3):
        assert equal(*(states[part * size : (part + 1) * size - 1] for states in (first, second)))
