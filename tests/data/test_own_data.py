"""Your own images, in folders or an .npz, without code: what is in them is found and told."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import configure, records, run_folder, status
from data_files import write_images, write_npz
from forked import Death, forge
from PIL import Image
from resumed import MOVED
from torchvision.transforms.v2 import functional as torchvision

from igo.data import folders, identity, readers
from igo.data.readers import Missing, Place
from igo.ground.errors import UserError
from igo.train import datasets
from igo.train.datasets import open_data
from igo.train.on_device import TensorData
from igo.train.on_disk import DiskData

CPU = torch.device("cpu")
SHORT = ("epochs=2", "batch_size=8", "model.width=4", "noise.batches=2", "tracking=none")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def assert_recorded(place: Path, channels: int, size: int, pixels: np.ndarray) -> None:
    """Sixty images of three classes; ``pixels`` are theirs, in [0, 255]."""
    facts = yaml.safe_load((run_folder(place) / "config.yaml").read_text())["dataset"]
    counts = [facts[name] for name in ("classes", "channels", "image_size", "samples")]
    assert counts == [3, channels, size, 60]
    shares = pixels.reshape(-1, channels) / 255
    np.testing.assert_allclose(facts["mean"], shares.mean(axis=0), atol=5e-5)
    np.testing.assert_allclose(facts["std"], shares.std(axis=0), atol=5e-5)


def test_arrays_train_and_their_facts_are_recorded(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "mine.npz", shape=(8, 8, 3), test=15)
    settings = (*SHORT, "dataset=arrays", f"dataset.file={file}")
    assert "n = 60" in forge.run(*settings, "dry_run=true").stdout
    assert not Path("runs").exists()
    forge.run(*settings).good()
    assert_recorded(tmp_path, 3, 8, np.load(file)["images"])
    assert status()["data"]["read_from"] == str(file)
    assert records()[-1]["samples"] == 120
    assert "finished before" in forge.run(*settings).good().stdout


def test_without_a_test_set_a_stratified_fifth_becomes_one(tmp_path: Path) -> None:
    place = Place(tmp_path, file=write_npz(tmp_path / "mine.npz"))
    train, test = readers.read("arrays", place)
    assert np.bincount(train.labels).tolist() == [16, 16, 16]
    assert np.bincount(test.labels).tolist() == [4, 4, 4]
    images = np.concatenate([train.images, test.images])
    images_of_file = np.load(tmp_path / "mine.npz")["images"][..., None]
    assert sorted(map(bytes, images)) == sorted(map(bytes, images_of_file))


def test_images_in_folders_train_and_the_name_of_a_run_does_not_say_where(tmp_path: Path) -> None:
    root, copy = write_images(tmp_path / "mine", val=4), tmp_path / "copy"
    settings, count = (*SHORT, "dataset=folder"), 3 * (20 + 4)
    death = Death("igo.data.folders.stamp", count + 1, error="listed again")
    forge.run(*settings, f"dataset.root={root}", death=death).good()
    files = sorted(root.glob("train/*/*.png"))
    assert_recorded(tmp_path, 3, 12, np.stack([np.asarray(Image.open(file)) for file in files]))
    shutil.copytree(root, copy)
    process = forge.run(*settings, f"dataset.root={copy}").good()
    assert "finished before" in process.stdout
    shutil.copy(root / "val/cat/000.png", copy / "val" / "cow" / "000.png")
    line = forge.run(*settings, f"dataset.root={copy}").error()
    assert str(root) in line
    assert str(copy) in line
    assert len(list(Path("runs").glob("folder-*"))) == 1


def test_the_test_set_is_in_val_or_else_in_test(tmp_path: Path) -> None:
    root = write_images(tmp_path / "mine", val=4)
    (root / "val").rename(root / "test")
    counts = [len(images) for images in folders.splits("folder", Place(tmp_path, root))]
    assert counts == [60, 12]
    shutil.copytree(root / "test", root / "val")
    (root / "val" / "cat" / "000.png").unlink()
    counts = [len(images) for images in folders.splits("folder", Place(tmp_path, root))]
    assert counts == [60, 11]


def test_grey_images_have_one_channel_unless_told_otherwise(tmp_path: Path) -> None:
    root = write_images(tmp_path / "mine", mode="L")
    settings = ("dataset=folder", f"dataset.root={root}", f"data_dir={tmp_path}", "batch_size=8")
    grey, colour = configure(*settings), configure(*settings, "dataset.channels=3")
    assert (grey.dataset.channels, colour.dataset.channels) == (1, 3)
    assert colour.dataset.mean == grey.dataset.mean * 3
    single, three = (next(open_data(c, CPU).test_batches())[0] for c in (grey, colour))
    torch.testing.assert_close(three, single.expand(-1, 3, -1, -1))


def test_images_of_any_size_are_resized_and_cropped_as_torchvision_does(tmp_path: Path) -> None:
    root = write_images(tmp_path / "mine", size=(30, 20), train=5)
    Image.new("RGB", (9, 9)).save(root / "train/cat/small.png")
    with pytest.raises(UserError, match=r"of sizes 9x9, 20x30; set dataset.image_size"):
        identity.find_facts("folder", Place(tmp_path, root))
    smooth = Image.fromarray(np.linspace(0, 255, 60 * 40).reshape(60, 40).astype(np.uint8))
    smooth.save(root / "train/cat/000.png")
    place = Place(tmp_path, root, image_size=20, channels=1)
    train, _ = folders.splits("folder", place)
    image = np.asarray(train[train.names.tolist().index(b"train/cat/000.png")], int)
    resized = torchvision.resize(smooth, [20], antialias=True)
    expected = np.asarray(torchvision.center_crop(resized, [20, 20]), int)
    assert np.abs(image - expected).max() <= 2


@pytest.mark.parametrize("workers", [2, 0])
def test_images_that_do_not_fit_in_memory_give_the_same_batches(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images(tmp_path / "mine", val=4, size=(14, 13))
    config = configure(
        "dataset=folder",
        f"dataset.root={root}",
        f"data_dir={tmp_path}",
        "batch_size=8",
        "dataset.image_size=10",
        "dataset.validation=0.2",
        f"dataset.workers={workers}",
        *MOVED,
    )
    in_memory = open_data(config, CPU)
    monkeypatch.setattr(datasets, "MOST_BYTES", 0)
    on_disk = open_data(config, CPU)
    assert isinstance(in_memory, TensorData)
    assert isinstance(on_disk, DiskData)
    assert in_memory.n == on_disk.n == 48
    order = [*torch.randperm(48).split(20), torch.tensor([], dtype=torch.int64)]
    for batches_of in (
        lambda data: data.train_batches(order, 3),
        lambda data: data.plain_batches(order),
        lambda data: data.test_batches(),
        lambda data: data.test_batches(part="validation"),
    ):
        pairs = zip(batches_of(in_memory), batches_of(on_disk), strict=True)
        for (images, labels), (images_of_disk, labels_of_disk) in pairs:
            # Each part is made on the device by itself.
            parts = torch.cat([images_of_disk[:7], images_of_disk[7:]])
            torch.testing.assert_close(images[:], parts, rtol=0, atol=0)
            assert torch.equal(labels, labels_of_disk)


LINKS = [
    ("cat/up", "..", "cat/up is a folder that is in it already"),
    ("cat/root", "../../..", "cat/root.* is a folder that is in it"),
    ("cat/x", "../cow", "is a folder that is in it already"),
    ("cat/zero.png", "/dev/zero", "it is no file: .*zero.png"),
    ("cat/fifo.png", None, "it is no file: .*fifo.png"),
]


@pytest.mark.parametrize(("link", "target", "message"), LINKS)
def test_links_that_lead_back_and_files_without_an_end_are_one_line(
    link: str, target: str | None, message: str, tmp_path: Path
) -> None:
    root = write_images(tmp_path / "mine", val=4)
    if target:
        (root / "train" / link).symlink_to(target)
    else:
        os.mkfifo(root / "train" / link)
    if link == "cat/x":  # The two folders have each other.
        (root / "train/cow/y").symlink_to("../cat")
    with pytest.raises(UserError, match=message):
        folders.splits("folder", Place(tmp_path, root))


def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    root = write_images(tmp_path / "mine", val=4)
    (root / "train/cow").rename(root / "elsewhere")
    (root / "train/cow").symlink_to("../elsewhere")
    assert len(folders.splits("folder", Place(tmp_path, root))[0]) == 60


def grey(n: int, *shape: int) -> np.ndarray:
    return np.zeros((n, *(shape or (8, 8))), dtype=np.uint8)


THIRDS = np.arange(60) % 3
HUGE = np.r_[10**9, THIRDS[1:]]
# As int64 the first label is -100, which PyTorch's cross entropy passes over.
NEGATIVE_AS_INT64 = np.r_[np.uint64(2**64 - 100), THIRDS[1:].astype(np.uint64)]


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
        ({"images": grey(2), "labels": np.arange(2)}, "a fifth of 2 images is no test set"),
        ({"labels": np.array([None] * 60)}, "cannot be read"),
        ({"test_images": grey(3)}, "has no array test_labels"),
        ({"test_images": grey(3), "test_labels": np.arange(3) + 1}, "test_labels has 3, a class"),
        ({"labels": HUGE}, "a class from 0 to"),
        ({"labels": NEGATIVE_AS_INT64}, "a class from 0 to"),
    ],
)
def test_wrong_arrays_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "mine.npz")
    arrays = {**np.load(file), **changes}
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=message) as caught:
        readers.read("arrays", Place(tmp_path, file=file))
    assert "\n" not in str(caught.value)


def test_of_an_npz_its_four_arrays_are_read_alone(tmp_path: Path) -> None:
    """Others, which may be large or pickled, are not; a zip may hold any file under their names."""
    file = write_npz(tmp_path / "mine.npz")
    arrays = {**np.load(file), "names": np.array([None])}
    np.savez(file, **arrays)
    assert len(readers.read("arrays", Place(tmp_path, file=file))[0].labels) == 48
    for name in ("images.npy", "test_labels.npy"):
        write_npz(file)
        with zipfile.ZipFile(file) as source:
            contents = {entry: source.read(entry) for entry in source.namelist()}
        with zipfile.ZipFile(file, "w") as target:
            for entry, content in {**contents, name: b"no array"}.items():
                target.writestr(entry, content)
        with pytest.raises(UserError, match="has no array"):
            readers.read("arrays", Place(tmp_path, file=file))


def test_own_data_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    nowhere, root = tmp_path / "nowhere", write_images(tmp_path / "mine", val=2)
    for name, place, message in (
        ("arrays", Place(tmp_path), "dataset.file=None is missing: an .npz of"),
        ("arrays", Place(tmp_path, file=nowhere), f"dataset.file={nowhere} is missing"),
        ("folder", Place(tmp_path, nowhere), f"no images to read in {nowhere}/train"),
    ):
        with pytest.raises(Missing, match=message):
            identity.find_facts(name, place)
    (root / "train/cow/003.png").write_bytes(b"\x89PNG, but no more")
    with pytest.raises(UserError, match=r"003.png cannot be read"):
        identity.find_facts("folder", Place(tmp_path, root))
    Image.fromarray(np.zeros((12, 12), dtype=np.uint16)).save(root / "train/cow/003.png")
    with pytest.raises(UserError, match=r"003.png cannot be read .Pillow's mode I;16"):
        identity.find_facts("folder", Place(tmp_path, root))


def test_a_file_of_the_same_size_and_time_is_another_file(tmp_path: Path) -> None:
    """As `cp -p` and tar make it."""
    source, new_file = tmp_path / "file", tmp_path / "new"
    source.write_text("a")
    new_file.write_text("b")
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    os.utime(new_file, ns=times)
    digests = [readers.digest(source), readers.digest(source)]
    new_file.replace(source)
    digests.append(readers.digest(source))
    source.write_text("c")  # The file is the same, its content is not.
    os.utime(source, ns=times)
    digests.append(readers.digest(source))
    assert digests[0] == digests[1]
    assert len({*digests}) == 3


def test_labels_with_gaps_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_npz(tmp_path / "mine.npz")
    arrays = dict(np.load(file))
    np.savez(file, images=arrays["images"], labels=2 * arrays["labels"])
    assert identity.find_facts("arrays", Place(tmp_path, file=file))["classes"] == 5
    assert "labels has 3 classes from 0 to 4;" in capsys.readouterr().err
