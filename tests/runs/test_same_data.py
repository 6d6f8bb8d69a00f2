"""The data are part of a run: other data never get, nor go on with, what these were given."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Ended, records, run_folder, status
from forked import Death, forge
from test_own_data import write_images
from test_readers import write_idx

from igo.data import identity, readers
from igo.data.source import Place, Source, Split

CHOSEN = {
    "fashion_mnist": ("dataset=fashion_mnist",),
    "imagenet": (
        "dataset=imagenet", "dataset.classes=3", "dataset.image_size=8", "dataset.workers=0",
        "batch_size=16", "dataset.samples=48",
    ),
}  # fmt: skip
KINDS = list(CHOSEN)


def write_data(data_dir: Path, kind: str, seed: int) -> None:
    """A small data set in the genuine format; another seed, other pixels or labels."""
    if kind == "imagenet":
        write_images(data_dir / kind, train=17, val=3, size=(10, 10), seed=seed)
        return
    draw = np.random.default_rng(seed)
    for part, n in (("train", 120), ("t10k", 20)):
        raw = data_dir / "FashionMNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (n, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", draw.permutation(np.arange(n) % 10))


def start(place: Path, kind: str, data_dir: Path, *typed: str, death: Death | None = None) -> Ended:
    settings = ("tracking=none", f"data_dir={data_dir}", *typed)
    return forge.run(place, *TINY, *CHOSEN[kind], *settings, death=death)


def refusal(ended: Ended) -> str:
    """The one line in which a start ended."""
    assert "test accuracy" not in ended.stdout
    return ended.error()


def fingerprint(place: Path) -> str:
    return str(status(place)["data"]["fingerprint"])


@pytest.fixture(scope="module", params=KINDS)
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Where a finished run and the data ``a`` and ``b`` are; no test changes it."""
    place, kind = tmp_path_factory.mktemp("finished"), request.param
    for seed, name in enumerate("ab"):
        write_data(place / name, kind, seed)
    start(place, kind, place / "a").good()
    return place, kind


def test_status_says_which_data_were_read(finished: tuple[Path, str]) -> None:
    place, kind = finished
    data = status(place)["data"]
    inside = {"fashion_mnist": "a/FashionMNIST/raw", "imagenet": "a/imagenet"}[kind]
    assert data["read_from"] == str(place / inside)
    assert data["n"] == {"fashion_mnist": 120, "imagenet": 51}[kind]
    assert data["name"] == kind
    assert len(bytes.fromhex(data["fingerprint"])) == 8


def test_a_finished_run_does_not_answer_for_other_data(finished: tuple[Path, str]) -> None:
    place, kind = finished
    message = refusal(start(place, kind, place / "b"))
    for part in (str(place / "a"), str(place / "b"), "data_dir", "fresh", fingerprint(place)):
        assert part in message
    again = start(place, kind, place / "a").good()
    assert "finished before" in again.stdout
    assert not again.stderr


def test_the_same_data_elsewhere_are_the_same(finished: tuple[Path, str], tmp_path: Path) -> None:
    place, kind = finished
    shutil.copytree(place / "runs", tmp_path / "runs")
    shutil.copytree(place / "a", tmp_path / "moved", ignore=shutil.ignore_patterns("cache"))
    ended = start(tmp_path, kind, tmp_path / "moved")
    assert "finished before" in ended.stdout
    assert not ended.stderr


def test_data_that_are_not_here_are_said_not_to_be_compared(
    finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, kind = finished
    if kind == "fashion_mnist" and readers.DEBIAN_FASHION_MNIST.is_dir():
        message = refusal(start(place, kind, tmp_path / "nowhere"))  # those are others
        assert str(readers.DEBIAN_FASHION_MNIST) in message
        return
    ended = start(place, kind, tmp_path / "nowhere").good()
    assert "finished before" in ended.stdout
    (warning,) = ended.stderr.splitlines()
    assert "so they were not compared" in warning
    assert f"data_dir={tmp_path / 'nowhere'} does not exist" in warning
    assert not (tmp_path / "nowhere").exists()


def test_data_changed_in_place_are_noticed(finished: tuple[Path, str], tmp_path: Path) -> None:
    place, kind = finished
    shutil.copytree(place / "runs", tmp_path / "runs")
    shutil.copytree(place / "a", tmp_path / "a")
    assert "finished before" in start(tmp_path, kind, tmp_path / "a").stdout
    if kind == "fashion_mnist":
        file = tmp_path / "a" / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
        content = file.read_bytes()
        file.write_bytes(content[:8] + content[8:][::-1])
    else:
        (tmp_path / "a/imagenet/train/cat/000.png").rename(tmp_path / "a/imagenet/train/dog/x.png")
    refusal(start(tmp_path, kind, tmp_path / "a"))


def test_fresh_trains_on_the_other_data(finished: tuple[Path, str], tmp_path: Path) -> None:
    place, kind = finished
    shutil.copytree(place / "runs", tmp_path / "runs")
    start(tmp_path, kind, place / "b", "fresh=true").good()
    assert fingerprint(tmp_path) != fingerprint(place)
    assert records(run_folder(tmp_path)) != records(run_folder(place))
    assert "finished before" in start(tmp_path, kind, place / "b").stdout


def test_an_unfinished_run_refuses_other_data(finished: tuple[Path, str], tmp_path: Path) -> None:
    place, kind = finished
    death = Death("igo.runs.checkpoint.save", 1, "after")
    assert start(tmp_path, kind, place / "a", death=death).returncode == -signal.SIGKILL
    before = records(run_folder(tmp_path))
    line = refusal(start(tmp_path, kind, place / "b"))
    assert str(place / "a") in line
    assert str(place / "b") in line
    assert records(run_folder(tmp_path)) == before
    (run_folder(tmp_path) / "status.json").unlink()  # the checkpoint knows it too
    assert start(tmp_path, kind, place / "b").returncode == 2
    start(tmp_path, kind, place / "a").good()
    assert records(run_folder(tmp_path)) == records(run_folder(place))


def test_a_sweep_skips_no_runs_of_other_data(finished: tuple[Path, str], tmp_path: Path) -> None:
    place, kind = finished
    shutil.copytree(place / "runs", tmp_path / "runs")
    typed = (*TINY, *CHOSEN[kind], "tracking=none", "seed=0")
    line = forge.run(tmp_path, "-m", *typed, f"data_dir={place / 'b'}").error()
    assert fingerprint(place) in line
    again = forge.run(tmp_path, "-m", *typed, f"data_dir={place / 'a'}").good()
    assert "1 finished" in again.stdout


def test_measurements_are_not_made_of_other_data(finished: tuple[Path, str]) -> None:
    def igo(command: str, *typed: str) -> Ended:
        return forge.run(place, *typed, command=command)

    place, kind = finished
    if kind == "imagenet":
        pytest.skip("one kind is enough here")
    folder = run_folder(place)
    few = (f"runs={folder}", "samples=20", "steps=1")
    igo("sharpness", *few).good()
    for fresh in ((), ("fresh=true",)):
        ended = igo("sharpness", *few, f"data_dir={place / 'b'}", *fresh)
        assert ended.returncode == 1
        assert "1 failed" in ended.stdout
        assert fingerprint(place) in ended.stdout
    assert "1 measured before" in igo("sharpness", *few).stdout


def test_a_record_without_data_says_that_it_could_not_be_compared(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    place, kind = finished
    shutil.copytree(place / "runs", tmp_path / "runs")
    file = run_folder(tmp_path) / "status.json"
    file.write_text(json.dumps({k: v for k, v in status(tmp_path).items() if k != "data"}))
    ended = start(tmp_path, kind, place / "a")
    assert "finished before" in ended.stdout
    assert "does not say which data" in ended.stderr


def small_splits(change: Callable[[dict[str, Any]], None] = lambda _: None) -> tuple[Split, Split]:
    arrays = {
        "train": np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1), "labels": np.array([0, 1, 0]),
        "test": np.zeros((2, 4, 4, 1), dtype=np.uint8), "test_labels": np.array([1, 0]),
    }  # fmt: skip
    change(arrays)
    return Split(arrays["train"], arrays["labels"]), Split(arrays["test"], arrays["test_labels"])


def test_a_fingerprint_is_of_all_pixels_labels_and_shapes() -> None:
    def pixel(arrays: dict[str, Any]) -> None:
        arrays["test"][1, 3, 3, 0] = 1

    def label(arrays: dict[str, Any]) -> None:
        arrays["labels"][2] = 1

    def shape(arrays: dict[str, Any]) -> None:
        arrays["train"] = arrays["train"].reshape(3, 2, 8, 1)

    def kind(arrays: dict[str, Any]) -> None:
        arrays["labels"] = arrays["labels"].astype(np.uint8)

    first, *others = (
        identity.fingerprint(identity.content(small_splits(change)))
        for change in (lambda _: None, pixel, label, shape, kind)
    )
    assert len({first, *others[:3]}) == 4
    assert others[3] == first


def test_a_fingerprint_is_found_once_for_files_that_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "file", []

    def reader(_: Place) -> Source:
        return Source(str(file), (file,), lambda: (reads.append(1), small_splits())[1])

    monkeypatch.setitem(readers.READERS, "made", reader)
    file.write_text("a")
    first = identity.identify("made", Place(tmp_path))
    assert identity.identify("made", Place(tmp_path)) == first
    assert len(reads) == 1
    os.utime(file, ns=(1, 1))
    assert identity.identify("made", Place(tmp_path)) == first
    assert len(reads) == 2
