"""Numbers that are not finite, or too little memory, end a training with one line."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY
from forked import forge
from torch import Tensor, nn
from trained import prepared, train

from igo.ground.errors import Outside, UserError
from igo.ground.ranks import Ranks
from igo.train import optimizers
from igo.train.training import Progress

PLAIN = (*TINY, "schedule=constant")  # three updates of 32 an epoch
AT_8 = "the loss is not finite at update 2 in epoch 3 (stage 3, η 0.1, b 32, δ "


def spoil(network: nn.Module, number: int) -> list[Tensor]:
    """Make the images of one batch NaN, counted from 1; what all were. Two measure C² first."""
    batches: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if not module.training or len(inputs[0]) not in (16, 32):  # one rank, or two
            return None
        batches.append(inputs[0])
        return (inputs[0] * float("nan"),) if len(batches) == number else None

    network.register_forward_pre_hook(look)
    return batches


def test_it_stops_at_that_update_and_says_all_that_is_needed() -> None:
    training, progress = prepared(*PLAIN), Progress()
    batches = spoil(training.network, 2 + 8 + 3)  # three of them twins
    with pytest.raises(UserError) as stopped:
        train(training, progress)
    assert str(stopped.value).startswith(AT_8)
    assert str(stopped.value).endswith("The last good checkpoint is of epoch 2")
    assert [record["epoch"] for record in progress.records] == [1, 2]
    assert len(batches) == 2 + 8 + 3


def test_a_gradient_that_is_not_finite_is_noticed_at_the_end_of_its_epoch() -> None:
    training, calls = prepared(*PLAIN, "noise.batches=2"), []

    def break_last(gradient: Tensor) -> Tensor:
        calls.append(1)
        return gradient * (float("inf") if len(calls) == 2 + 4 else 1)  # C² and a twin come first

    next(training.network.parameters()).register_hook(break_last)
    with pytest.raises(UserError, match="a parameter is not finite at the end in epoch 1 "):
        train(training)


def test_updates_that_fp16_skips_are_counted() -> None:
    """Of a scale so high that each gradient overflows, or so low that it grows at each update."""
    for scale, skipped in ((2.0**60, 3), (1.0, 0)):
        training = prepared(*PLAIN, "engine.precision=fp16")
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1)
        training = replace(training, engine=replace(training.engine, scaler=scaler))
        first_parameters = [parameter.clone() for parameter in training.network.parameters()]
        progress = train(training)
        assert [record["skipped"] for record in progress.records] == [skipped] * 3
        assert all(map(torch.equal, training.network.parameters(), first_parameters)) is (
            skipped > 0
        )


def bad_on_one_rank() -> str:
    """How a run ends whose eighth batch is NaN on the last rank alone."""
    ranks = Ranks.of_environment()
    with ranks.joined():
        training = prepared(*PLAIN, ranks=ranks)
        if ranks.rank:
            spoil(training.network, 2 + 8 + 3)
        try:
            train(training)
        except UserError as error:
            return str(error)
    return "not noticed"


def test_what_is_bad_on_one_rank_stops_all_with_the_same_line() -> None:
    line, other_line = forge.results(2, "test_finite.bad_on_one_rank")
    assert line == other_line
    assert line.startswith(AT_8)


class Small(nn.Module):
    """A model whose forward pass fails beyond so many samples."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__()
        self.limit, self.error = limit, error
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.limit:
            raise self.error
        output: Tensor = self.body(images)
        return output


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
]


def trained(limit: int, error: Exception, *overrides: str) -> Progress:
    """Train a model of one's own."""
    training, network = prepared(*TINY, *overrides), Small(limit, error)
    config = training.config
    optimizer = optimizers.build(config.optimizer, network.parameters(), config.learning_rate)
    return train(replace(training, network=network, optimizer=optimizer))


def test_out_of_memory_names_the_size_that_fits() -> None:
    """Evaluation alone fails, of 360 images at once; half as many fit."""
    for error in ERRORS:
        with pytest.raises(Outside, match=r"epoch 1 .* set engine.micro_batch_size=250: "):
            trained(300, error)
        assert trained(300, error, "engine.micro_batch_size=250").epoch == 3
