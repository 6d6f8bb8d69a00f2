"""The studies on CIFAR-100: their images, their records, and how their seeds are trained."""

import pickle
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TINY, run_folder
from data_files import write_npz
from forked import forge
from PIL import Image
from torch import nn
from trained import loaded

from igo.ground.seeds import derive_seed, generator
from igo.train.engine import Engine
from lab.study import __main__ as program
from lab.study import design, ends, records
from lab.study.design import Job, Record, Runs


def test_statistics_are_new_and_the_run_is_left_as_it_was() -> None:
    """By an evaluation of its own, on all training images as one batch, then on augmented ones."""
    settings = ("tracking=none", "engine.precision=fp32", "dataset.augment.crop=2")
    forge.run(*TINY, *settings).good()
    folder = run_folder()
    checkpoint = (folder / "checkpoint.pt").read_bytes()
    numbers = ends.measure(folder, loaded(folder))
    assert (folder / "checkpoint.pt").read_bytes() == checkpoint
    run = loaded(folder)
    ((images, labels),) = run.data.plain_batches([torch.arange(run.data.n)])
    order = torch.randperm(run.data.n, generator=generator(0, "statistics"))
    ((augmented, _),) = run.data.train_batches([order], derive_seed(0, "statistics"))
    for module in run.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    for name, batch in (("anew", images), ("anew_augmented", augmented)):
        with torch.no_grad():
            run.network.train()(batch)
            logits = run.network.eval()(images)
            right = [(run.network(x).argmax(1) == y).float() for x, y in run.data.test_batches()]
        loss = nn.functional.cross_entropy(logits, labels)
        assert numbers[f"{name}_train_loss"] == pytest.approx(float(loss), rel=1e-4)
        assert numbers[f"{name}_accuracy"] == pytest.approx(100 * float(torch.cat(right).mean()))
    assert numbers["anew_augmented_train_loss"] != pytest.approx(numbers["anew_train_loss"])


def test_cifar100_is_the_same_from_its_files_and_from_class_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    classes, random = np.array(["bear", "apple", "aquarium_fish"]), np.random.default_rng(0)
    files = tmp_path / "files" / "cifar-100-python"
    files.mkdir(parents=True)
    (files / "meta").write_bytes(pickle.dumps({"fine_label_names": classes.tolist()}, 2))
    expected = {}
    for prefix, split, n in (("", "train", 12), ("test_", "test", 6)):
        labels = random.permutation(np.arange(n) % 3)
        names = np.array([f"photo_s_{number:06}.png" for number in random.permutation(n)])
        images = random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        contents = {
            "filenames": names.tolist(),
            "fine_labels": labels.tolist(),
            "data": images.transpose(0, 3, 1, 2).reshape(n, 3072),
        }
        (files / split).write_bytes(pickle.dumps(contents, 2))
        for class_name, name, image in zip(classes[labels], names, images, strict=True):
            (tmp_path / "folders" / split / class_name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "folders" / split / class_name / name)
        expected[f"{prefix}images"] = images[np.lexsort((names, classes[labels]))]
        expected[f"{prefix}labels"] = np.repeat([0, 1, 2], n // 3)
    for form in ("files", "folders"):
        monkeypatch.setattr("sys.argv", ["study", "cifar100", form])
        program.main()
        with np.load("data/cifar100.npz") as arrays:
            assert arrays.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(arrays[name], array)


METHOD_2 = {
    "schedule": "method2",
    "dataset.classes": 3,
    "dataset.image_size": 8,
    "dataset.samples": 96,
    "model.width": 4,
    "epochs": 10,
    "batch_size": 16,
    "noise.batches": 2,
}
ARMS = {"falling": METHOD_2, "rising": METHOD_2 | {"control": "reversed"}}


def jobs(_: Runs) -> Iterator[Job]:
    yield from ({"arm": arm, "seed": 0} for arm in ARMS)


def settings(job: Job) -> dict[str, Any]:
    return {"experiment": "cifar100_many", **ARMS[job["arm"]], "seed": job["seed"]}


class TinyStudy(NamedTuple):
    """The runs of a study of one seed, and the sizes of its batches in training."""

    runs: dict[str, Record]
    sizes: list[int]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """The study was started twice."""
    place, sizes = tmp_path_factory.mktemp("study"), list[int]()
    backward = Engine.backward

    def counted(*arguments: Any) -> Any:
        sizes.append(arguments[3])
        return backward(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(design, "RUNS", place)
        patched.setattr(ends, "ANNEAL", 4)
        patched.setattr(ends, "ANNEAL_SIZE", 32)
        patched.setattr(Engine, "backward", counted)
        patched.setattr("sys.argv", [""])
        patched.chdir(place)
        (place / "data").mkdir()
        write_npz(place / "data" / "cifar100.npz", n=200, shape=(8, 8, 3), test=200)
        study = records.study("tiny", jobs, settings, [0], 1, itemgetter("arm"), anneal=0.01)
        study.run()
        study.run()
        arms = study.arms(study.read())
    return TinyStudy({arm: run for arm, [run] in arms.items()}, sizes)


def test_an_arm_is_trained_once_and_measured_before_and_after_the_anneal(tiny: TinyStudy) -> None:
    # 14 of an arm are twins. What measures C² before training is not the engine's.
    assert tiny.sizes == 2 * ([16] * (60 + 14) + [32] * 4)
    columns = {"anew_log_loss", "annealed_accuracy", "commit", "changes", "time"}
    assert all(tiny.runs[arm].keys() >= columns for arm in ARMS)


def test_the_reversed_arm_differs_in_its_order_alone(tiny: TinyStudy) -> None:
    falling, rising = (pl.DataFrame(tiny.runs[arm]["epochs"]) for arm in ARMS)
    same_columns = ("stage", "updates", "reference_variance")
    assert falling.select(same_columns).equals(rising.select(same_columns))
    assert not falling["train/loss"].equals(rising["train/loss"])
    etas, etas_of_reversed = falling["eta_m"].to_list(), rising["eta_m"].to_list()
    assert etas == etas_of_reversed[::-1] == sorted(etas, reverse=True)
    assert etas != etas_of_reversed
