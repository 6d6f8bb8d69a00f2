"""Points within an epoch: by a clock that has 40 seconds between two updates."""

import itertools
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import TINY, assert_equal, configure, timeless
from trained import prepared, train

from igo.train import loop, measure, minutes
from igo.train.engine import Engine
from igo.train.record import Progress


def test_points_are_of_their_batches_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(*TINY, "epochs=2", "batch_size=8", "schedule.warmup=1", "split=0")
    monkeypatch.setattr(measure, "ENOUGH", 0)  # No update has a twin, which is a forward pass.
    plain = prepared(config)
    expected = train(plain)
    training, batches, points = prepared(config), list[tuple[float, int]](), list[Any]()
    backward = Engine.backward

    def noted(engine: Engine, network: Any, images: Any, labels: Any, *rest: Any) -> Any:
        sums = backward(engine, network, images, labels, *rest)
        batches.append((sums[0].item(), len(labels)))
        return sums

    monkeypatch.setattr(Engine, "backward", noted)
    monkeypatch.setattr(minutes, "time", Mock(monotonic=Mock(side_effect=itertools.count(0, 40))))
    progress = Progress()
    loop.train(training, progress, Mock(), lambda _: None, lambda: None, points.append)
    assert_equal(timeless(progress.records), timeless(expected.records))
    assert_equal(training.network.state_dict(), plain.network.state_dict())
    plan = training.plan
    ends = list(itertools.accumulate(map(plan.batches_of_epoch, (1, 2)), initial=0))
    # Each second update of an epoch has a point, but not the last, which the record is of.
    numbers = [u for start, end in itertools.pairwise(ends) for u in range(start + 2, end, 2)]
    assert [point["minute/updates"] for point in points] == numbers
    assert len(numbers) > 5
    reference = progress.reference
    assert reference
    of_updates = batches[config.noise.batches :]
    for point in points:
        update = plan.at(point["minute/updates"])
        (loss_1, b_1), (loss_2, b_2) = of_updates[update.number - 2 : update.number]
        eta, b = update.learning_rate, update.batch_size
        assert point == {
            "minute/updates": update.number,
            "minute/train/loss": pytest.approx((loss_1 + loss_2) / (b_1 + b_2), rel=1e-6),
            "minute/eta_m": eta,
            "minute/b_m": b,
            "minute/delta_m": pytest.approx(eta * (reference.variance / b) ** 0.5),
        }
