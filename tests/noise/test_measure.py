"""Measuring C²: every mini-batch enumerated, plain loops, and statistics over many draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Quiet, configure
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from trained import prepared, train

from igo.config.schema import Config, NoiseConfig
from igo.noise.spread import estimate
from igo.train import measure
from lab.noise.lemma import per_sample_gradients


def moments(samples: torch.Tensor) -> tuple[float, float]:
    """C² and ‖∇f‖² of all one-sample gradients."""
    full = samples.mean(dim=0)
    return float((samples - full).square().sum() / len(samples)), float(full.square().sum())


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Gradients with a few dominant directions, as networks have; 400 measurements of K = 16."""
    random = np.random.default_rng(0)
    scales = 1 / np.arange(1, 51)
    truth = float(np.square(scales).sum())
    inside = 0
    for _ in range(400):
        gradients = torch.from_numpy(random.normal(size=(16, 50)) * scales)
        measured = estimate(gradients, batch_size=1, n=10**9, sampling="with_replacement")
        inside += measured.interval[0] <= truth <= measured.interval[1]
    assert 0.90 <= inside / 400 <= 0.985


@given(
    n=st.integers(2, 5000),
    b_1=st.integers(1, 5000),
    growth=st.floats(1, 100),
    share=st.floats(0, 1),
    cap=st.none() | st.integers(1, 200),
)
@example(n=4, b_1=1, growth=4.0, share=1.0, cap=1)
def test_online_pieces_are_whole_disjoint_and_within_their_share(
    n: int, b_1: int, growth: float, share: float, cap: int | None
) -> None:
    """By the samples of the pieces that ``parts`` cuts from the epoch's first batches."""
    k = -(-n // min(int(min(b_1, n) * growth), n))
    plan = measure.Online.of_epoch(NoiseConfig(2, cap, share), n, k)
    batches = [(index, index) for index in torch.arange(n).tensor_split(k)]
    pieces = list(plan.parts(batches[: plan.batches]))
    seen = [int(sample) for piece in pieces for sample in piece[0]]
    assert [len(piece[0]) for piece in pieces] == [plan.size] * plan.pieces
    assert len(seen) == len(set(seen))
    assert plan.size <= min(n // k, cap or n)
    if share == 0:
        assert plan.pieces == plan.batches == 0
    else:
        assert plan.pieces >= min(8, n // k * k)
        assert max(seen) >= (plan.batches - 1) * (n // k)  # no batch is held for nothing
        assert len(seen) <= max(share * n, 8 * 8)  # what a small data set has at any price


def small_run(config: Config) -> tuple[list[float], list[float]]:
    """A network of 64-32-10 on 400 digits: C² as recorded, and over all n where it was measured.

    The second is the mean over the epoch's measured gradients, by brute force at the parameters
    that each of them was measured at.
    """
    training = prepared(config)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = config.optimizer.build(network.parameters(), config.learning_rate)
    training = replace(training, network=network, optimizer=optimizer)
    everything = list(training.data.train_batches([torch.arange(training.data.n)], 0))
    truths: list[list[float]] = []  # by epoch
    known: dict[bytes, float] = {}  # by the parameters
    spied = measure.training_gradient

    def begins(*_: object) -> None:
        truths.append([])

    def spy(*arguments: Any) -> Any:
        version = network[1].weight.detach().numpy().tobytes()
        if truths and version not in known:
            rows = torch.cat(list(per_sample_gradients(network, everything)))
            known[version] = moments(rows.double())[0]
        if truths:
            truths[-1].append(known[version])
        return spied(*arguments)

    bar = type("Bar", (Quiet,), {"begin_epoch": begins})()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "training_gradient", spy)
        progress = train(training, bar=bar)
    recorded = [record["gradient_variance"] for record in progress.records]
    return recorded, [float(np.mean(epoch)) for epoch in truths]


def test_what_a_run_records_is_the_variance_over_all_samples() -> None:
    """At η = 0.4: measured over true, the mean of epochs 6 to 20 of four runs, within 10 %.

    The samples that an epoch has not come to yet have larger gradients than those that it has been
    trained on: pairs of parts from all over an epoch were 25 % high here. One measurement of 25
    pieces has a standard deviation of about 0.1 to 0.2, so the mean of 60 has one of 0.02.
    """
    ratios: list[float] = []
    for seed in range(4):
        config = configure(
            "dataset.samples=400", "epochs=20", "schedule=constant", "learning_rate=0.4",
            "batch_size=16", "noise.online=1", "engine.precision=fp32", "evaluate_every=20",
            f"seed={seed}",
        )  # fmt: skip
        recorded, truth = small_run(config)
        ratios += [value / true for value, true in zip(recorded[5:], truth[5:], strict=True)]
    assert abs(np.mean(ratios) - 1) < 0.1


@pytest.mark.parametrize("b", [16, 32])
def test_online_agrees_with_the_instrument_at_the_same_parameters(b: int) -> None:
    """η so small that parameters stand still, BatchNorm on the real b: within the 95 % interval."""
    config = configure(
        "epochs=1", "schedule=constant", "learning_rate=1e-12", f"batch_size={b}", "model.width=8",
        "noise.online=1", "noise.batches=40", "engine.precision=fp32",
    )  # fmt: skip
    training = prepared(config)
    progress = train(training)
    assert progress.reference.batch_size == 1437 // training.plan.stages[0].batches
    low, high = progress.reference.interval
    record = progress.records[0]
    assert record["variance_batch_size"] == progress.reference.batch_size
    assert low <= record["gradient_variance"] <= high


def test_measuring_online_does_not_change_training() -> None:
    with_it, without = (
        train(prepared(configure(*TINY, f"noise.online={share}"))).records for share in (0.5, 0)
    )
    for record, other in zip(with_it, without, strict=True):
        for name in ("train/loss", "train/accuracy", "test/loss", "test/accuracy", "eta_m", "b_m"):
            assert record[name] == other[name]
        assert record["gradient_variance"] != other["gradient_variance"]
