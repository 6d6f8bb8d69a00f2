"""The benchmark's contenders are what they say and do equal work; `make gpu` without a GPU."""

import math
from collections import defaultdict
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT, python
from torch import Tensor
from torchvision.transforms.v2 import functional

from benchmarks import page, ratios, script
from benchmarks.gpu import graphs
from benchmarks.gpu import page as gpu_page
from benchmarks.gpu.part import Part, configured
from benchmarks.task import Task
from igo.train.training import Training

ALONE = """
import sys
sys.modules["igo"] = None  # an import of igo fails
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from benchmarks import limit, published, script
from benchmarks.task import Task
from benchmarks.worker import serve

class Turns:
    def begin(self): pass
    def end(self, images, updates, seconds=None): print(images, updates)

for samples in (20, 10):  # an epoch a turn, and half of one
    task = Task(Path("grey.npz"), "resnet8", ((3, 0.05), (2, 0.02)), samples, 4, 15, ("for igo",))
    for contender in (script, limit, published):
        weights = [p.detach() for p in contender.train(task, Turns()).parameters()]
        assert all(p.isfinite().all() for p in weights)
"""


def write_images(file: Path, n: int, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, channels), dtype=np.uint8)
    labels = np.arange(n) % 10
    np.savez(file, images=images, labels=labels, test_images=images, test_labels=labels)


def test_nothing_but_ours_needs_igo(tmp_path: Path) -> None:
    """Each trains where igo cannot be imported, in as many updates as was asked for."""
    write_images(tmp_path / "grey.npz", 20, 1)
    process = python(tmp_path, "-c", ALONE, str(ROOT))
    assert process.returncode == 0, process.stderr
    turns = [line.split() for line in process.stdout.splitlines() if line[0].isdigit()]
    expected = 3 * [["20", "3"], ["20", "2"]] + 3 * [["10", "3"], ["10", "2"]]
    assert turns == expected


def test_the_script_moves_images_as_torchvision() -> None:
    """Each image by itself; crops to the bit, rotations but for pixels that fall between two."""
    for crop, rotation in ((4, 0), (0, 15)):
        task = Task(Path(), "resnet18", ((1, 0.1),), 40, crop, rotation, ("for igo",))
        images, random = torch.rand(40, 3, 32, 32), torch.rand(4, 40)
        with mock.patch("torch.rand", return_value=random):
            moved = script.augmented(images, task)
        size, equal = 2 * crop + 1, []
        for image, made, (flip, turn, right, down) in zip(images, moved, random.T, strict=True):
            left, top = int(size * right), int(size * down)
            expected = functional.pad(image, [crop])[:, top : top + 32, left : left + 32]
            expected = functional.horizontal_flip(expected) if flip < 0.5 else expected
            expected = functional.rotate(expected, float(2 * turn - 1) * rotation)
            equal.append((made == expected).float().mean())
        assert min(equal) > (0.98 if rotation else 0.9999)


def test_unequal_work_is_no_comparison() -> None:
    row = {"contender": "ours", "round": 1, "images": 10, "updates": 2, "seconds": 1.0}
    rows = [row, {**row, "contender": "script", "seconds": 2.0}]
    accuracies = {"ours": 0.5, "script": 0.6}
    assert ratios.summary(rows, accuracies)[1]["ours_over_it"].median == 2
    rows[1]["updates"] = 3
    with pytest.raises(RuntimeError, match="unequal work"):
        ratios.summary(rows, accuracies)


def test_a_stage_has_two_shapes_and_fixed_inputs_change_nothing(tmp_path: Path) -> None:
    """What a CUDA graph needs. The warm-up before its capture is undone to the bit."""
    write_images(tmp_path / "colour-150.npz", 150, 3)
    part, shapes = Part("graphs", tmp_path, math.inf, dry=True), defaultdict[float, set[int]](set)

    def recording(training: Training) -> graphs.Update:
        update = graphs.eager(training)

        def record(images: Tensor, labels: Tensor) -> Tensor:
            shapes[float(training.optimizer.param_groups[0]["lr"])].add(len(images))
            return update(images, labels)

        return record

    plan = ("schedule=graduated", "split=0.5", "epochs=4", "schedule.stages=4", "batch_size=8")
    config = configured(part, tmp_path, *plan, "optimizer=shb")
    _, *expected = graphs.trained(config, recording)
    assert sorted(map(sorted, shapes.values())) == [[7, 8], [8, 9], [10, 11], [15]]
    _, *results = graphs.trained(config, graphs.Graphs)
    assert all(map(torch.equal, results, expected))
    graphs.items(part, tmp_path)
    assert "No CUDA graph of resnet8 b 8 is faster." in gpu_page.text(tmp_path)


def test_the_page_has_the_numbers_of_the_last_run() -> None:
    assert page.made() == page.PAGE.read_text()
