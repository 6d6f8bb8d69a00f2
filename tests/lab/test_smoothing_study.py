"""The study of results/smoothing.md: its steps, and what its page says of the records."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import Tensor
from trained import prepared

from igo.train.on_device import Batch
from igo.train.training import Training
from lab.study import cause, smoothing, smoothing_page
from lab.study.design import Record
from lab.study.smoothing import ABSOLUTE, BALL, BATCHES, CORRECTED, RELATIVE, SMOOTHED, Steps


def in_training() -> Training:
    run = prepared(*TINY, "schedule=method1", "engine.precision=fp32")
    run.network.train()
    return run


def point(run: Training) -> Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in run.network.parameters()])


def test_an_arm_is_that_of_the_study_on_the_cause_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where its step has k8's variance; and to draw steps changes nothing."""
    for name, arm_of_cause in ((SMOOTHED, "smoothed"), (RELATIVE, "k8"), (CORRECTED, "k8")):
        monkeypatch.setattr(smoothing, "STEP", dict.fromkeys(BATCHES, (1 / 8,) * 5))
        monkeypatch.setattr(smoothing, "DRAWN", (1,))
        run, run_of_cause = in_training(), in_training()
        steps = Steps(run, name, [])
        steps_of_cause = cause.Steps(run_of_cause, cause.ARMS[arm_of_cause], cause.RATE)
        for number in range(2):
            steps.step(0, number)
            steps_of_cause.step(0, number)
        states = run.network.state_dict(), run_of_cause.network.state_dict()
        torch.testing.assert_close(*states, rtol=0, atol=0)
        assert [point["update"] for point in steps.drawn] == [1]


def test_a_variance_is_that_of_numpy() -> None:
    vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    gradients = [[vector[:2].clone(), vector[2:].clone()] for vector in vectors]
    variance = np.var(vectors.numpy(), 0, ddof=1).sum()
    assert smoothing.variance(gradients) == pytest.approx(variance)


def test_a_step_of_each_arm_has_the_variance_that_it_is_to_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over all pairs of three batches, each as often, E‖step − E[step]‖² is exact."""
    monkeypatch.setattr(smoothing, "BATCHES", dict.fromkeys(BATCHES, 2))
    monkeypatch.setattr(smoothing, "STEP", dict.fromkeys(BATCHES, (0.8,) * 5))
    run = in_training()
    target = 3.0
    for name in (RELATIVE, ABSOLUTE):
        steps = Steps(run, name, [target])
        gradients = [steps._gradient(batch)[0] for batch in itertools.islice(steps.batches, 3)]
        plain = smoothing.variance(gradients) * 2 / 3  # The three are the whole population.
        steps.recent.append((plain, plain))
        squares = steps.squares(0, 0)
        pairs = [cause.mean([*pair], squares) for pair in itertools.product(gradients, repeat=2)]
        variance = 0.8 * (plain if name == RELATIVE else target)
        assert smoothing.variance(pairs) * 8 / 9 == pytest.approx(
            max(variance, plain / 2), rel=1e-3
        )


def test_ball_goes_as_far_as_its_own_noise_in_other_directions() -> None:
    run = in_training()
    steps = Steps(run, BALL, [])
    places: list[Tensor] = []
    start = point(run)

    def watched(batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            places.append(point(run) - start)
            yield batch

    with torch.no_grad():
        batches = watched(steps.batches)
        _, numbers = steps.gradients_of_update(0, batches, steps.others, measures=True)
    distances = [float(place.norm()) for place in places]
    assert distances == pytest.approx(steps.distances, rel=1e-3)
    assert numbers["shift"] == pytest.approx(np.mean(np.square(distances)), rel=1e-3)
    assert numbers["plain"] > 0
    cosines = torch.corrcoef(torch.stack(places)) - torch.eye(len(places))
    assert float(cosines.abs().max()) < 0.2
    torch.testing.assert_close(point(run), start, rtol=1e-4, atol=1e-6)


def records(arm: str, ends: np.ndarray, step: float = 0.2, train: float = 98) -> list[Record]:
    """The whole seeds of an arm, with the variance of a step relative to that of one batch."""
    steps = [{"update": update, "step": step * 4, "plain": 4.0} for update in (25, 525)]
    stage = {"plain": 4.0, "shift": 1.0, "beside": 5.0, "squares": 1 / 8}
    path: Record = {"drawn": steps, "norms": [1.0] * 5, "stages": [stage] * 5, "passes": 100}
    machine = {"train": train, "finite": True, "cpu": "x", "torch": "2"}
    return [
        {"job": {"arm": arm, "seed": seed}, "fresh": end, "annealed": end, **path, **machine}
        for seed, end in enumerate(ends, smoothing.SEEDS[0])
    ]


def test_smoothing_is_judged_where_the_steps_are_as_noisy() -> None:
    """RELATIVE has these numbers; the steps of the other arms are as noisy as those of SMOOTHED."""
    for step, train, verdict in (
        (0.2, 98, "higher"),
        (0.21, 98, "higher"),
        (0.23, 98, "not judged: steps of 1.15 and 1.15"),
        (0.2, 96, "not judged: not trained to the end"),
    ):
        random, n = np.random.default_rng(0), smoothing.LEAST
        arms = {name: records(name, 60 + random.normal(0, 0.5, n)) for name in BATCHES}
        arms[SMOOTHED] = records(SMOOTHED, 62 + random.normal(0, 0.5, n))
        arms[RELATIVE] = records(RELATIVE, 60 + random.normal(size=n), step, train)
        rivals = [name for name in BATCHES if name != SMOOTHED]
        assert smoothing_page.judged_claims(arms)[rivals.index(RELATIVE)].verdict == verdict
        assert f"| {verdict} |" in smoothing_page.summary(arms)
