"""What benchmarks/reproducible.py measures: the same bits, or rounding where sums are reordered."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT

from igo import models

sys.path.insert(0, str(ROOT))
from benchmarks import reproducible
from benchmarks.reproducible import Comparison, Trace, distance, trained

TINY = ("epochs=2", "dataset.samples=128", "model.width=4", "engine.precision=fp32")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the models as they were, which a process of its own need not."""
    monkeypatch.setattr(models, "BUILDERS", dict(models.BUILDERS))


@pytest.mark.usefixtures("plain")
def test_the_same_run_has_the_same_bits_and_another_seed_has_not() -> None:
    one, two, other = (trained((*TINY, f"seed={seed}")) for seed in (3, 3, 4))
    assert len(one.epochs) == 2
    for a, b in zip([one.first, *one.epochs], [two.first, *two.epochs], strict=True):
        assert torch.equal(a, b)
    for a, b in zip([one.first, *one.epochs], [other.first, *other.epochs], strict=True):
        assert distance(a, b) > 0.1


@pytest.mark.usefixtures("plain")
def test_parts_of_a_batch_are_the_batch_to_rounding_without_batchnorm() -> None:
    whole = trained(TINY, batchnorm=False)
    parts = trained((*TINY, "engine.micro_batch_size=16"), batchnorm=False)
    assert 0 < distance(whole.first, parts.first) < 1e-6
    assert 0 < distance(whole.epochs[-1], parts.epochs[-1]) < 1e-3


@pytest.mark.usefixtures("plain")
def test_with_batchnorm_parts_are_another_result() -> None:
    """Which is why engine.micro_batch_size is part of what a run is."""
    whole, parts = trained(TINY), trained((*TINY, "engine.micro_batch_size=16"))
    assert distance(whole.first, parts.first) > 1e-3


def test_a_row_shows_bits_distances_and_accuracies() -> None:
    theta = torch.tensor([3.0, 4.0], dtype=torch.float64)
    one = Trace(theta, [theta, theta], [{}, {"test/accuracy": 0.975}])
    other = replace(one, epochs=[theta + 1e-5, theta * 1.1], records=[{}, {"test/accuracy": 0.97}])
    what = Comparison("threads", "fp32", (), ())
    assert reproducible.row(what, one, other) == [
        "threads", "fp32", "same bits", "3e-06", "1e-01", "97.50 %, -0.50",
    ]  # fmt: skip
