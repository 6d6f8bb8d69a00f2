"""The study of the exchange: its stages are the protocol's, and it finds a planted exponent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from igo.data.readers import Split
from igo.train.on_device import Batch, TensorData
from lab.study import which

DESIGNS = ("equal Σ η", "equal images")


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("exponent", [None, *which.EXPONENTS])
def test_stages_are_the_protocols(exponent: float | None, design: str) -> None:
    stages = which.stages(exponent, design)
    assert sum(sum(sizes) for _, sizes in stages) <= 60_000  # each image at most once
    for m, (share, sizes) in enumerate(stages):
        falling = 2 ** (-m / 2)
        assert share == pytest.approx(1 if exponent is not None else falling)
        b = 16 * 2 ** ((exponent or 0) * m / 2)
        assert np.mean(sizes) == pytest.approx(b, rel=0.05)  # of few batches
        assert max(sizes) - min(sizes) <= 1
        if design == "equal Σ η":
            assert share * len(sizes) == pytest.approx(200 * falling, rel=0.005)
        else:
            assert sum(sizes) == 3200


def planted(e_hat: float, n: int) -> list[Any]:
    """Seeds whose losses fall with e, so that they are those of Method 2 at ê."""
    random = np.random.default_rng(0)
    found = []
    for level in random.normal(-60, 5, n):
        arms = {f"{e:g}": [level + 3 * (e_hat - e) + random.normal(0, 2), 80.0]
                for e in which.EXPONENTS}  # fmt: skip
        arms[which.FALLING] = [level, 80.0]
        found.append({f"{rate:g}": dict.fromkeys(DESIGNS, arms) for rate in which.RATES})
    return found


@pytest.mark.parametrize(
    ("e_hat", "said"), [(2.0, "1/κ² (2)"), (1.0, "1/κ (1)"), (1.5, "neither"), (9.0, "neither")]
)
def test_a_planted_exponent_is_found(e_hat: float, said: str) -> None:
    found = planted(e_hat, 60)
    sample = which.differences(found, which.RATES[0], DESIGNS[0])
    value, low, high = which.estimate(sample)
    assert value == pytest.approx(e_hat, abs=0.2) or (value, e_hat) == (math.inf, 9.0)
    assert low <= value <= high
    assert which.verdict(low, high, 0.01) == said
    assert which.verdict(low, high, 0.2).startswith("not judged")
    assert f"| {said} |" in which.summary(found)


def test_intervals_hold_as_often_as_they_say() -> None:
    """97.5 % of 100 studies, within four standard errors; by numpy's interp and a sort."""
    random, e, inside = np.random.default_rng(1), np.array(which.EXPONENTS), 0
    for _ in range(100):
        sample = 3 * (1.75 - e) + random.normal(0, 2, (40, len(e)))
        value, low, high = which.estimate(sample)
        means = sample.mean(axis=0)
        assert value == pytest.approx(np.interp(0, means[::-1], e[::-1]))
        inside += low <= 1.75 <= high
    assert inside / 100 == pytest.approx(0.975, abs=0.06)


def test_whole_seeds_count_without_a_gap() -> None:
    found = dict.fromkeys(range(50), "of a seed")
    assert len(which.counted(found)) == 50
    assert len(which.counted({**found, 55: "of a seed"})) == 50
    assert which.counted({seed: "" for seed in found if seed != 39}) == []


def test_a_seed_is_run_once_and_no_image_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (("RECORD", tmp_path / "record.jsonl"), ("UPDATES", 8), ("EXPONENTS", (0.0, 2.0)),
                ("RATES", (0.1,)), ("images", Few), ("SEEDS", range(4)))  # fmt: skip
    for name, value in settings:
        monkeypatch.setattr(which, name, value)
    seen: list[list[int]] = []
    plain = Few.plain_batches

    def watched(few: Few, indices: Sequence[torch.Tensor]) -> Iterator[Batch]:
        seen.append(torch.cat(list(indices)).tolist())
        return plain(few, indices)

    monkeypatch.setattr(Few, "plain_batches", watched)
    for _ in range(2):
        which.exchange(["1", "2"])
    found = which.recorded()
    assert list(found) == [1, 3]
    assert found[1]["0.1"].keys() == set(DESIGNS)
    assert len(seen) == 2 * 5  # seeds; Method 2, and two exponents in two designs
    assert all(len(set(run)) == len(run) for run in seen)
    assert seen[0][:100] == seen[1][:100] != seen[5][:100]


class Few(TensorData):
    """60,000 black images."""

    def __init__(self) -> None:
        split = Split(np.zeros((60_000, 14, 14, 1), np.uint8), np.arange(60_000) % 10)
        test = Split(split.images[:10], split.labels[:10])
        super().__init__(which.DATA, split, test, torch.device("cpu"))
