"""Your own images in an .npz, without code: what is in them is found and told."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import records, run_folder, status
from data_files import write_npz
from forked import forge

from igo.data import identity
from igo.data.readers import Missing, Place
from igo.ground.errors import UserError

SHORT = ("epochs=2", "batch_size=8", "model.width=4", "noise.batches=2", "tracking=none")


def test_arrays_train_and_their_facts_are_recorded(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "mine.npz", shape=(8, 8, 3), test=15)
    settings = (*SHORT, "dataset=arrays", f"dataset.file={file}")
    assert "n = 60" in forge.run(*settings, "dry_run=true").stdout
    assert not Path("runs").exists()
    forge.run(*settings).good()
    facts = yaml.safe_load((run_folder() / "config.yaml").read_text())["dataset"]
    counts = [facts[name] for name in ("classes", "channels", "image_size", "samples")]
    assert counts == [3, 3, 8, 60]
    shares = np.load(file)["images"].reshape(-1, 3) / 255
    np.testing.assert_allclose(facts["mean"], shares.mean(axis=0), atol=5e-5)
    np.testing.assert_allclose(facts["std"], shares.std(axis=0), atol=5e-5)
    assert status()["data"]["read_from"] == str(file)
    assert records()[-1]["samples"] == 120
    assert "finished before" in forge.run(*settings).good().stdout


def test_without_a_test_set_a_stratified_fifth_becomes_one(tmp_path: Path) -> None:
    place = Place(tmp_path, file=write_npz(tmp_path / "mine.npz"))
    train, test = identity.read("arrays", place)
    assert np.bincount(train.labels).tolist() == [16, 16, 16]
    assert np.bincount(test.labels).tolist() == [4, 4, 4]
    images = np.concatenate([train.images, test.images])
    images_of_file = np.load(tmp_path / "mine.npz")["images"][..., None]
    assert sorted(map(bytes, images)) == sorted(map(bytes, images_of_file))


def grey(n: int, *shape: int) -> np.ndarray:
    return np.zeros((n, *(shape or (8, 8))), dtype=np.uint8)


THIRDS = np.arange(60) % 3
HUGE = np.r_[10**9, THIRDS[1:]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "has no array labels; it has images"),
        ({"images": np.zeros((60, 8, 8))}, "it must be uint8"),
        ({"images": grey(60, 8, 9)}, r"shape \(60, 8, 9\)"),
        ({"labels": np.zeros(5, dtype=int)}, "for each of the 60 images"),
        ({"labels": THIRDS + 1}, "labels has no 0; it has 1 upwards: subtract 1"),
        ({"labels": np.full(60, -1)}, "class from 0"),
        ({"images": grey(60, 8, 8, 0)}, "it must be uint8"),
        ({"images": grey(2), "labels": np.arange(2)}, "for each of the 2 images, three at least"),
        ({"labels": np.array([None] * 60)}, "cannot be read"),
        ({"test_images": grey(3)}, "has no array test_labels"),
        ({"test_images": grey(3), "test_labels": np.arange(3) + 1}, "test_labels has 3, a class"),
        ({"labels": HUGE}, "a class from 0 to"),
    ],
)
def test_wrong_arrays_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "mine.npz")
    arrays = {**np.load(file), **changes}
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=message) as caught:
        identity.read("arrays", Place(tmp_path, file=file))
    assert "\n" not in str(caught.value)


def test_of_an_npz_its_four_arrays_are_read_alone(tmp_path: Path) -> None:
    """Others, which may be large or pickled, are not; a zip may hold any file under their names."""
    file = write_npz(tmp_path / "mine.npz")
    arrays = {**np.load(file), "names": np.array([None])}
    np.savez(file, **arrays)
    assert len(identity.read("arrays", Place(tmp_path, file=file))[0].labels) == 48
    for name in ("images.npy", "test_labels.npy"):
        write_npz(file)
        with zipfile.ZipFile(file) as source:
            contents = {entry: source.read(entry) for entry in source.namelist()}
        with zipfile.ZipFile(file, "w") as target:
            for entry, content in {**contents, name: b"no array"}.items():
                target.writestr(entry, content)
        with pytest.raises(UserError, match="has no array"):
            identity.read("arrays", Place(tmp_path, file=file))


def test_an_npz_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"dataset.file=None is missing: an .npz of"):
        identity.find_facts("arrays", Place(tmp_path))
    with pytest.raises(Missing, match=f"dataset.file={tmp_path}/nowhere is missing"):
        identity.find_facts("arrays", Place(tmp_path, file=tmp_path / "nowhere"))


def test_labels_with_gaps_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_npz(tmp_path / "mine.npz")
    arrays = dict(np.load(file))
    np.savez(file, images=arrays["images"], labels=2 * arrays["labels"])
    assert identity.find_facts("arrays", Place(tmp_path, file=file))["classes"] == 5
    assert "labels has 3 classes from 0 to 4;" in capsys.readouterr().err
