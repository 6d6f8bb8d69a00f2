"""Questions (ii), (iv) and (vi): sweeps are the arms that are judged, pages are the records'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from igo.data import readers
from igo.data.source import Split
from igo.ground.errors import UserError
from lab.exponent import answers, program, trainings
from lab.study.records import ROOT, name_of, of_archives


@pytest.mark.parametrize("question", list(answers.OF))
def test_the_sweep_is_the_arms_that_are_judged(question):
    of = answers.OF[question]
    sweep = yaml.safe_load((ROOT / "launch" / "sweep" / f"{of.sweep}.yaml").read_text())
    runs = []
    for grid in sweep["hydra"]["sweeper"]["grids"]:
        assert grid.pop("seed") == f"range({of.seeds})"
        runs.append(name_of(grid.pop("experiment"), tuple(grid.items()), 3))
    assert sorted(runs) == sorted(names[0] for names in of.names([3]).values())
    assert len(set(runs)) == len(of.arms)


def test_every_cell_of_the_stream_is_one_pass_at_equal_sums_of_eta():
    for settings in answers.OF["stream"].arms.values():
        updates = settings["dataset.samples"] / settings["batch_size"]
        assert updates == int(updates)
        assert updates * settings["learning_rate"] == pytest.approx(80)
        assert settings["dataset.samples"] <= trainings.STREAM_IMAGES


def test_every_cell_of_the_sizes_is_whole_epochs_at_equal_sums_of_eta():
    for settings in answers.OF["sizes"].arms.values():
        n, b = settings["dataset.samples"], settings["batch_size"]
        assert n % b == 0
        assert settings["epochs"] * n / b * settings["learning_rate"] == pytest.approx(102.4)


def test_no_image_is_both_trained_and_evaluated_on(tmp_path, monkeypatch):
    images = np.arange(60_000, dtype=np.uint32).view(np.uint8).reshape(60_000, 2, 2, 1)
    whole = Split(images, np.repeat(np.arange(10), 6000))
    monkeypatch.setattr(readers, "read", lambda *_: (whole, whole))
    trainings.make_stream_data(tmp_path / "made" / "stream.npz")
    arrays = np.load(tmp_path / "made" / "stream.npz")
    numbers = [arrays[name].reshape(-1).view(np.uint32) for name in ("images", "test_images")]
    assert [len(part) for part in numbers] == [52_000, 8_000]
    assert sorted(np.concatenate(numbers)) == list(range(60_000))
    assert (np.bincount(arrays["test_labels"]) == 800).all()
    assert (arrays["labels"] == numbers[0] // 6000).all()


def test_small_images_are_the_means_of_squares_of_pixels(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    splits = [Split(random.integers(0, 256, (n, 28, 28, 1)).astype(np.uint8),
                    random.integers(0, 10, n)) for n in (30, 20)]  # fmt: skip
    monkeypatch.setattr(readers, "read", lambda *_: splits)
    trainings.make_small_data(tmp_path / "made" / "small.npz")
    arrays = np.load(tmp_path / "made" / "small.npz")
    for part, split in zip(("", "test_"), splits, strict=True):
        pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2).double()
        means = F.avg_pool2d(pixels, 2).round().permute(0, 2, 3, 1)
        assert arrays[f"{part}images"].dtype == np.uint8
        assert (arrays[f"{part}images"] == means.numpy()).all()
        assert (arrays[f"{part}labels"] == split.labels).all()


def test_a_stop_while_the_images_are_written_leaves_no_file_of_a_part(tmp_path, monkeypatch):
    def stopped(file, **_):
        file.write(b"PK")
        raise KeyboardInterrupt

    images = Split(np.zeros((60_000, 1, 1, 1), np.uint8), np.repeat(np.arange(10), 6000))
    monkeypatch.setattr(readers, "read", lambda *_: (images, images))
    monkeypatch.setattr(np, "savez", stopped)
    with pytest.raises(KeyboardInterrupt):
        trainings.make_stream_data(tmp_path / "stream.npz")
    assert not (tmp_path / "stream.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("question", list(answers.OF))
def test_the_page_follows_from_the_records(question):
    page = ROOT / "results" / "exponent" / f"{question}.md"
    of = answers.OF[question]
    if not page.is_file():
        pytest.skip("not run")
    runs = of_archives(pattern=f"{of.sweep}.tar.xz")
    assert answers.page_of(question, runs, range(of.seeds)) == page.read_text()


@pytest.mark.slow
def test_the_page_of_the_repetition_follows_from_the_records():
    page = ROOT / "results" / "exponent" / "stream_again.md"
    runs = of_archives(pattern="exponent_stream.tar.xz")
    assert answers.page_of("stream", runs, range(100, 116)) == page.read_text()


def test_below_half_of_the_seeds_there_is_no_verdict():
    of = answers.OF["momentum"]
    assert [of.verdict(n, "refuted") for n in (5, 6)] == ["not run", "refuted"]


def test_seeds_are_the_planned_ones_unless_asked_otherwise():
    for question, n in (("stationary", 20), ("stream", 8), ("sizes", 8), ("momentum", 12),
                        ("methods", 12)):  # fmt: skip
        assert len(program.Settings(question=question).range_of_seeds) == n
    assert list(program.Settings(seeds=2, first_seed=7).range_of_seeds) == [7, 8]
    with pytest.raises(UserError, match="predictions"):
        program.check(program.Settings(question="stream", stage="predictions"))
    with pytest.raises(UserError, match="2 or more"):
        answers.page_of("stream", {}, range(8))
