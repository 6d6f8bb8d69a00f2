"""The studies on CIFAR-100: their rows, their records, and how their seeds are trained."""

import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TINY, archived, run_folder
from data_files import write_npz
from forked import forge
from PIL import Image
from torch import nn
from trained import loaded

from igo.ground.seeds import derive_seed, generator
from igo.train.engine import Engine
from lab.study import __main__ as program
from lab.study import design, ends, methods, records, rows, table
from lab.study.design import ROOT, Record

Row = dict[str, Any]


@pytest.fixture(scope="module")
def runs() -> dict[str, Record]:
    return {**records.of_archive("cifar100_many"), **records.of_archive("cifar100_few")}


@pytest.fixture(scope="module")
def study() -> list[Row]:
    return [row for row in rows.read() if row["found"]]


@pytest.mark.slow
def test_the_rows_are_what_the_records_come_to(runs: dict[str, Record]) -> None:
    """Which `make study` would write."""
    filled_rows = rows.read()
    rows.fill(filled_rows, runs)
    for row, expected in zip(rows.read(), filled_rows, strict=True):
        assert (row["found"] or {}).keys() == (expected["found"] or {}).keys()
        for name, value in (expected["found"] or {}).items():
            if isinstance(value, float):
                np.testing.assert_allclose(row["found"][name], value, rtol=1e-4, atol=1e-9)
            else:
                assert row["found"][name] == value, (row["row"], name)


def test_the_page_shows_the_rows(runs: dict[str, Record]) -> None:
    all_rows = rows.read()
    page, means = (ROOT / "results" / name for name in ("cifar100.md", "cifar100_means.csv"))
    assert table.between(page.read_text()) == methods.summary(all_rows)
    assert means.read_text() == methods.means(all_rows, runs)


def test_runs_finished_and_the_arms_of_a_seed_share_their_data(study: list[Row]) -> None:
    """By the files in the archives; the name of a run has its settings."""
    for experiment, of_rows in rows.studies(study).items():
        files = archived(experiment)
        fingerprints: dict[int, set[str]] = {}
        for job in of_rows.jobs({}):
            name, seed = records.name_of(job), job["seed"]
            if name in files:
                status = json.loads(files[name]["status.json"])
                epochs = [json.loads(line) for line in files[name]["metrics.jsonl"].splitlines()]
                assert status["state"] == "finished"
                assert epochs[-1]["epoch"] == len(epochs)
                assert f"\nseed: {seed}\n" in files[name]["config.yaml"]
                assert "\n  validation: 0.0\n" in files[name]["config.yaml"]
                fingerprints.setdefault(seed, set()).add(status["data"]["fingerprint"])
        assert len(fingerprints) == study[-1 if "few" in experiment else 0]["found"]["n"]
        assert all(len(of_seed) == 1 for of_seed in fingerprints.values())


def test_statistics_are_new_and_the_run_is_left_as_it_was(tmp_path: Path) -> None:
    """By an evaluation of its own, on all training images as one batch, then on augmented ones."""
    settings = ("tracking=none", "engine.precision=fp32", "dataset.augment.crop=2")
    forge.run(tmp_path, *TINY, *settings).good()
    folder = run_folder(tmp_path)
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
ROW = {
    "experiment": "cifar100_many",
    "seeds": 1,
    "anneal": 0.01,
    "first": METHOD_2,
    "second": {**METHOD_2, "order": "reversed"},
}


class TinyStudy(NamedTuple):
    """A study of one seed, all records that it reads, and the sizes of its batches in training."""

    study: design.Study
    runs: dict[str, Record]
    sizes: list[int]

    @property
    def names(self) -> dict[str, str]:
        return {rows.title(job): records.name_of(job) for job in self.study.jobs({})}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """The study was started twice."""
    place, sizes = tmp_path_factory.mktemp("study"), list[int]()
    backward = Engine.backward

    def counted(*arguments: Any) -> Any:
        sizes.append(len(arguments[3]))
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
        study = rows.studies([ROW])["cifar100_many"]
        study.run()
        study.run()
        return TinyStudy(study, study.read(), sizes)


def test_an_arm_is_trained_once_and_measured_before_and_after_the_anneal(tiny: TinyStudy) -> None:
    # Two batches measure C² before training, and 14 of an arm are twins.
    assert tiny.sizes == 2 * ([16] * (2 + 60 + 14) + [32] * 4)
    columns = {"anew_log_loss", "annealed_accuracy", "commit", "changes", "time"}
    for name in tiny.names.values():
        assert tiny.runs[name].keys() >= columns


def test_the_reversed_arm_differs_in_its_order_alone(tiny: TinyStudy) -> None:
    falling, rising = (
        pl.DataFrame(tiny.runs[tiny.names[arm]]["epochs"])
        for arm in ("Method 2", "Method 2 reversed")
    )
    same_columns = ("stage", "updates", "reference_variance")
    assert falling.select(same_columns).equals(rising.select(same_columns))
    assert not falling["train/loss"].equals(rising["train/loss"])
    etas, etas_of_reversed = falling["eta_m"].to_list(), rising["eta_m"].to_list()
    assert etas == etas_of_reversed[::-1] == sorted(etas, reverse=True)
    assert etas != etas_of_reversed


def test_a_seed_with_all_arms_is_whole_and_is_judged(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command with other seeds, of which some are there."""
    study, runs, _ = tiny
    assert len(study.whole_seeds(runs)[0]) == 2
    name = tiny.names["Method 2"]
    assert not study.whole_seeds({name: runs[name]})
    claim = {"endpoint": "anew_accuracy", "test": "compare", "claim": "falls", "family": ""}
    monkeypatch.setattr(rows, "read", lambda: [ROW | claim])
    monkeypatch.setattr(design.Study, "run", lambda _: None)
    other_runs = {
        records.name_of({**job, "seed": seed}): runs[records.name_of(job)]
        for job in study.jobs({})
        for seed in (100, 101)
    }
    monkeypatch.setattr(design.Study, "read", lambda _: other_runs)
    for n, start, cell in (("3", "100", "| claim, 2 seeds |"), ("2", "102", "not judged")):
        monkeypatch.setattr("sys.argv", ["study", "seeds", "cifar100_many", start, n])
        program.main()
        assert cell in capsys.readouterr().out
