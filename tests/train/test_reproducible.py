"""What benchmarks/reproducible.py measures: the same bits, or rounding where sums are reordered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import reproducible
from benchmarks.reproducible import Comparison, Trace, distance, trained

TINY = ("epochs=2", "dataset.samples=128", "model.width=4", "engine.precision=fp32")


def test_the_same_run_has_the_same_bits_and_another_seed_has_not() -> None:
    run, again, other = (trained((*TINY, f"seed={seed}")) for seed in (3, 3, 4))
    assert len(run.epochs) == 2
    for a, b in zip([run.first, *run.epochs], [again.first, *again.epochs], strict=True):
        assert torch.equal(a, b)
    for a, b in zip([run.first, *run.epochs], [other.first, *other.epochs], strict=True):
        assert distance(a, b) > 0.1


@pytest.mark.parametrize("other", ["engine.micro_batch_size=16", "engine.threads=2"])
def test_sums_in_another_order_differ_by_rounding(other: str) -> None:
    """To the end where the activation is smooth; BatchNorm would see the parts."""
    whole = trained((*TINY, "engine.threads=1"), "GELU, GroupNorm")
    parts = trained((*TINY, "engine.threads=1", other), "GELU, GroupNorm")
    assert distance(whole.first, parts.first) < 1e-6
    assert distance(whole.epochs[-1], parts.epochs[-1]) < 1e-5


def test_with_batchnorm_parts_are_another_result() -> None:
    """Which is why engine.micro_batch_size is part of what a run is."""
    whole, parts = trained(TINY), trained((*TINY, "engine.micro_batch_size=16"))
    assert distance(whole.first, parts.first) > 1e-3


def test_a_row_shows_bits_distances_and_accuracies() -> None:
    theta = torch.tensor([3.0, 4.0], dtype=torch.float64)
    trace = Trace(theta, [theta, theta], [{}, {"test/accuracy": 0.975}])
    other = replace(
        trace, epochs=[theta + 1e-5, theta * 1.1], records=[{}, {"test/accuracy": 0.97}]
    )
    what = Comparison("threads", "fp32", (), ())
    assert reproducible.row(what, trace, other) == [
        "threads", "as it is", "fp32", "same bits", "3e-06", "1e-01", "97.50 %, -0.50",
    ]  # fmt: skip
