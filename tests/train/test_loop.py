"""What really reached the model and the optimizer, held against plan and record."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import in_double
import pytest
import rounding
import torch
from conftest import TINY, assert_equal, rounded, timeless, updates_of
from torch import Tensor, nn
from trained import prepared, train

import igo
from igo.ground.ranks import Ranks
from igo.noise import pairs
from igo.noise.noise import Noise
from igo.runs.name import rule
from igo.train import loop, models


@pytest.mark.parametrize(
    "overrides",
    [
        ("schedule=step", "schedule.stages=3", "schedule.kappa=0.8", "schedule.lam=2"),
        ("schedule=graduated", "split=0", "schedule.stages=2"),
        ("schedule=cosine", "split=1", "optimizer=shb"),
        ("schedule=graduated", "schedule.final_updates=2", "optimizer=nshb"),
        ("schedule=linear", "schedule.stages=7"),  # They begin inside epochs.
        ("schedule=cosine", "split=0", "schedule.stages=25", "schedule.warmup=0.4", "batch_size=8"),
    ],
)
def test_what_is_applied_is_what_is_planned_and_logged(overrides: tuple[str, ...]) -> None:
    training = prepared(*TINY, "epochs=5", "batch_size=20", *overrides)
    config, plan = training.config, training.plan
    batches, rates = list[int](), list[float]()
    training.network.register_forward_pre_hook(
        lambda module, inputs: batches.extend([len(inputs[0])] * module.training)
    )
    training.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    with mock.patch.object(pairs, "ENOUGH", 0):  # Twins have forward passes.
        progress = train(training)
    updates = updates_of(plan)
    assert rates == [update.learning_rate for update in updates]
    count = config.noise.batches  # forward passes that measure C², before training
    assert batches[:count] == [96 // -(-96 // config.batch_size)] * count
    assert batches[count:] == [update.batch_size for update in updates]
    for record in progress.records:
        of_epoch = [update for update in updates if update.epoch == record["epoch"]]
        for name in ("stage", "gamma_m", "kappa_m", "lambda_m"):
            assert record[name] == getattr(of_epoch[-1].row, name)
        assert record["b_m"] == 96 / len(of_epoch)
        rate = statistics.mean(update.learning_rate for update in of_epoch)
        assert record["eta_m"] == pytest.approx(rate, rel=1e-14)
        assert record["eta_largest"] == max(update.learning_rate for update in of_epoch)
        assert record["b_largest"] == max(update.batch_size for update in of_epoch)
        levels = [
            u.learning_rate / u.batch_size**0.5 for u in of_epoch for _ in range(u.batch_size)
        ]
        assert record["eta_over_sqrt_b"] == pytest.approx(statistics.mean(levels))
    assert progress.records[-1]["updates"] == plan.updates == len(rates)
    assert progress.samples == 96 * plan.epochs


def test_delta_follows_from_the_record_alone() -> None:
    """Planned and measured, each by its optimizer's law, which tests/noise has by hand."""
    for optimizer, split in (("sgd", 0), ("shb", 0.5), ("nshb", 1)):
        settings = (f"optimizer={optimizer}", f"split={split}", "schedule.stages=9", "batch_size=4")
        training = prepared(*TINY, "epochs=4", "learning_rate=0.01", *settings)
        records, plan = train(training).records, training.plan
        for record in records:
            steps = record["eta_m"], record["b_m"]
            level = partial(igo.noise_level, *steps, optimizer=optimizer, momentum=record["beta_m"])
            c2, norm = record["reference_variance"], record["reference_gradient_norm"]
            assert record["delta_m"] == rounded(level(c2, gradient_norm=norm))
            c2, norm = (
                record["gradient_variance"],
                record["gradient_norm"] or 0.0,
            )  # null below √(C²/n)
            delta = level(c2, gradient_norm=norm)
            assert record["delta_measured"] == rounded(delta)
            ends = [record[f"delta_measured_{end}"] for end in ("low", "high")]
            if record["variance_pairs"] >= 8:
                assert ends[0] < delta < ends[1]
            else:
                assert ends == [None, None]
            assert record["variance_pairs"] == plan.batches_of_epoch(record["epoch"]) // 2
        assert (
            len({record["gradient_variance"] for record in records}) == 4
        )  # Each epoch has its own.
        assert len({record["reference_variance"] for record in records}) == 1


def test_no_delta_is_known_for_adamw() -> None:
    for record in train(prepared(*TINY, "optimizer=adamw")).records:
        assert record["gradient_variance"] > 0
        assert {value for name, value in record.items() if name.startswith("delta_m")} == {None}


def test_a_norm_that_n_samples_cannot_tell_from_0_has_an_upper_bound() -> None:
    """Its square is below C²/n, 1 here, by which it may be too small; B_simple = C²/‖∇f‖²."""
    cases: list[tuple[float, tuple[float, float] | None, list[float | None]]] = [
        (4, (1, 16), [2, 1, 4, 24, 3, 192]),  # ‖∇f‖² and its interval; the record's numbers
        (1, (-1, 4), [1, 0, 2, 96, 12, None]),
        (0.99, (0.5, 3), [None, 0, 2, None, 12, None]),
        (-4, (-9, -1), [None, 0, 1, None, 48, None]),
        (0.5, None, [None] * 6),  # fewer than 8 pairs
    ]
    of_c2 = 96, (48, 192)
    noises = [Noise(*of_c2, square, 32, 8, "consecutive", ends) for square, ends, _ in cases]
    with mock.patch.object(pairs.Pairs, "noise", side_effect=[(noise, []) for noise in noises]):
        records = train(prepared(*TINY, "epochs=5", "schedule=constant")).records
    for record, (_, _, expected_numbers) in zip(records, cases, strict=True):
        assert (record["gradient_variance_low"], record["gradient_variance_high"]) == (48, 192)
        numbers = [x for name, x in record.items() if name.startswith(("gradient_n", "noise"))]
        assert numbers == expected_numbers


class Dropped(nn.Module):
    """Dropout by uniform numbers, which every machine draws alike."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(x.shape) < 0.8).to(x.device) if self.training else x


SEVEN = (
    *TINY,
    "epochs=2",
    "batch_size=8",
    "seed=7",
    "engine.precision=fp32",
    "dataset.augment.flip=true",
    "dataset.augment.crop=1",
    "optimizer=shb",
)
PINNED = {2: (2.1428335507710776, 1.8768832736545138)}  # losses of training and test, by ``rule``


def test_two_epochs_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses that change for good raise ``rule``. Each update may be rounded otherwise."""
    monkeypatch.setattr(models, "build", lambda *_: in_double.network(Dropped()))
    training = prepared(*SEVEN)
    record = train(training).records[-1]
    close = record["updates"] * rounding.bound(10)
    losses = pytest.approx(PINNED[rule(training.config)], rel=close)
    assert (record["train/loss"], record["test/loss"]) == losses


def test_each_epoch_and_rank_has_its_own_augmentation_and_dropout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image moves alike on each rank, as it is on one of them alone."""

    def seeds() -> tuple[list[int], list[int]]:
        """Of augmentation and of dropout, for C² and for each epoch."""
        training = prepared(*SEVEN)
        of_augmentation, of_dropout, batches = [], [], training.data.train_batches

        def look(index_batches: Sequence[Tensor], seed: int) -> Iterator[Any]:
            of_augmentation.append(seed)
            of_dropout.append(torch.initial_seed())
            yield from batches(index_batches, seed)

        monkeypatch.setattr(training.data, "train_batches", look)
        train(training)
        return of_augmentation, of_dropout

    augmentation, dropout = seeds()
    monkeypatch.setattr(Ranks, "seed_suffix", property(lambda _: (3,)))  # This is rank 3.
    augmentation_there, dropout_there = seeds()
    assert augmentation_there == augmentation
    assert len({*augmentation, *dropout, *dropout_there}) == 9


def test_a_twin_has_the_dropout_of_the_next_update() -> None:
    """At weights that stand still it then is the gradient that the next update has."""
    run = prepared(*TINY, "engine.precision=fp32", "learning_rate=1e-30")
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    still = torch.optim.SGD(network.parameters(), lr=1e-30)
    schedule = igo.Schedule(still, run.batches)
    twins = train(replace(run, network=network, optimizer=still, schedule=schedule)).twins
    assert twins
    assert {(log_change, lack) for log_change, _, lack in twins} == {(0.0, 0.0)}


def test_evaluated_less_often_a_training_has_the_same_bits() -> None:
    for interval, epochs in ((2, [2, 4, 6]), (100, [6])):
        run = (*TINY, "epochs=5", "dataset.validation=0.25", "schedule.final_updates=1")
        often, seldom = (prepared(*run, f"evaluate_every={n}") for n in (1, interval))
        expected_records, records = timeless(train(often).records), timeless(train(seldom).records)
        assert_equal(seldom.network.state_dict(), often.network.state_dict())
        for record in expected_records:
            if record["epoch"] not in epochs:
                record |= {
                    f"{part}/{n}": None
                    for part in ("test", "validation")
                    for n in ("loss", "accuracy")
                }
        assert records == expected_records


def test_ranks_average_their_running_statistics_before_each_evaluation() -> None:
    calls, together = ("average_statistics", "_evaluate"), mock.Mock()
    with mock.patch.multiple(loop, **{name: getattr(together, name) for name in calls}):
        together._evaluate.return_value = {"test/accuracy": None}
        train(prepared(*TINY, "epochs=2"))
    assert [call[0] for call in together.mock_calls] == [*calls, *calls]
