"""The study of results/smoothing.md: its steps, and what its page says of the records."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, configure
from torch import Tensor

from igo.config.load import make_plan
from igo.runs.assemble import prepare
from igo.train.on_device import Batch
from igo.train.record import Training
from lab.study import cause, smoothing, smoothing_page
from lab.study.design import Record, key
from lab.study.smoothing import ABSOLUTE, BALL, BATCHES, RELATIVE, SMOOTHED, Steps


def prepared() -> Training:
    config = configure(*TINY, "schedule=method1", "engine.precision=fp32")
    run = prepare(config, make_plan(config))
    run.network.train()
    return run


def point(run: Training) -> Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in run.network.parameters()])


@pytest.mark.parametrize(("name", "like"), [(SMOOTHED, "smoothed"), (RELATIVE, "k8")])
def test_an_arm_is_that_of_the_study_on_the_cause_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, name: str, like: str
) -> None:
    """Where its step has k8's variance; and to draw steps changes nothing."""
    monkeypatch.setattr(smoothing, "STEP", (1 / 8,) * 5)
    monkeypatch.setattr(smoothing, "DRAWN", (1,))
    ours, theirs = prepared(), prepared()
    steps = Steps(ours, name, [])
    others = cause.Steps(theirs, cause.ARMS[like], cause.RATE)
    for number in range(2):
        steps.step(0, number)
        others.step(0, number)
    assert torch.equal(point(ours), point(theirs))
    for mine, other in zip(ours.network.buffers(), theirs.network.buffers(), strict=True):
        assert torch.equal(mine, other)
    assert [drawn["update"] for drawn in steps.drawn] == [1]


def test_a_variance_is_that_of_numpy() -> None:
    drawn = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    halves = [[row[:2].clone(), row[2:].clone()] for row in drawn]
    assert smoothing.variance(halves) == pytest.approx(np.var(drawn.numpy(), 0, ddof=1).sum())


def test_a_step_of_each_arm_has_the_variance_that_it_is_to_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over all pairs of three batches, each as often, E‖step − E[step]‖² is exact."""
    monkeypatch.setattr(smoothing, "BATCHES", dict.fromkeys(BATCHES, 2))
    monkeypatch.setattr(smoothing, "STEP", (0.8,) * 5)
    run = prepared()
    target = 3.0
    for name, asked in ((RELATIVE, lambda plain: 0.8 * plain), (ABSOLUTE, lambda _: 0.8 * target)):
        steps = Steps(run, name, [target])
        drawn = list(itertools.islice(steps.batches, 3))
        singles = [steps._gradient(batch)[0] for batch in drawn]
        plain = smoothing.variance(singles) * 2 / 3  # of all three, each as often
        steps.recent.append((plain, plain))
        squares = steps.squares(0, 0)
        pairs = [cause.mean([*pair], squares) for pair in itertools.product(singles, repeat=2)]
        found = smoothing.variance(pairs) * 8 / 9
        assert found == pytest.approx(max(asked(plain), plain / 2), rel=1e-3)


def test_ball_goes_as_far_as_its_own_noise_in_other_directions() -> None:
    run = prepared()
    steps = Steps(run, BALL, [])
    places: list[Tensor] = []
    start = point(run)

    def seen(batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            places.append(point(run) - start)
            yield batch

    with torch.no_grad():
        _, found = steps.taken(0, seen(steps.batches), steps.others, look=True)
    distances = [float(place.norm()) for place in places]
    assert distances == pytest.approx(steps.distances, rel=1e-3)
    assert found["shift"] == pytest.approx(np.mean(np.square(distances)), rel=1e-3)
    assert found["plain"] > 0
    cosines = torch.corrcoef(torch.stack(places)) - torch.eye(len(places))
    assert float(cosines.abs().max()) < 0.2
    torch.testing.assert_close(point(run), start, rtol=1e-4, atol=1e-6)


def record(arm: str, seed: int, fresh: float, step: float = 0.2, train: float = 98) -> Record:
    drawn = [{"update": update, "step": step * 4, "plain": 4.0} for update in (25, 525)]
    stage = {"plain": 4.0, "shift": 1.0, "beside": 5.0, "squares": 1 / 8}
    of_arm: dict[str, Any] = {"fresh": fresh, "annealed": fresh, "train": train, "finite": True}
    return of_arm | {"job": {"arm": arm, "seed": seed}, "drawn": drawn, "norms": [1.0] * 5,
                     "stages": [stage] * 5, "passes": 100, "cpu": "x", "torch": "2"}  # fmt: skip


@pytest.mark.parametrize(
    ("n", "step", "train", "verdict"),
    [
        (smoothing.LEAST, 0.2, 98, "higher"),
        (smoothing.LEAST, 0.21, 98, "higher"),
        (smoothing.LEAST, 0.23, 98, "not judged: steps of 1.15 and 1.15"),
        (smoothing.LEAST, 0.2, 96, "not judged: not trained to the end"),
        (smoothing.LEAST - 1, 0.2, 98, "not judged: too few seeds"),
    ],
)
def test_smoothing_is_judged_where_the_steps_are_as_noisy(
    n: int, step: float, train: float, verdict: str
) -> None:
    random = np.random.default_rng(0)
    arms = {name: [record(name, seed, 60 + 2 * (name == SMOOTHED) + random.normal(0, 0.5), 0.2)
                   for seed in range(n)] for name in BATCHES}  # fmt: skip
    arms[RELATIVE] = [record(RELATIVE, seed, 60 + random.normal(), step, train)
                      for seed in range(n)]  # fmt: skip
    judged = dict(zip([x for x in BATCHES if x != SMOOTHED], smoothing_page.verdicts(arms),
                      strict=True))  # fmt: skip
    assert judged[RELATIVE] == verdict
    runs = {str(of["job"]): of for records in arms.values() for of in records}
    keyed = {key(of["job"] | {"seed": 400 + of["job"]["seed"]}):
             of | {"job": of["job"] | {"seed": 400 + of["job"]["seed"]}}
             for of in runs.values()}  # fmt: skip
    shown = smoothing_page.summary(keyed) or ""
    assert f"| {verdict} |" in shown
    assert smoothing_page.summary({}) is None
