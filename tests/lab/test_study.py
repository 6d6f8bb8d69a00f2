"""The studies on CIFAR-100: their rows, their records, and how their seeds are trained."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, archived, run_folder
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


def test_a_seed_is_whole_with_all_arms_and_the_reversed_one_differs_in_order_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's end is measured before and after the anneal; a second start trains nothing."""
    monkeypatch.setattr(design, "RUNS", tmp_path)
    monkeypatch.setattr("sys.argv", [""])
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    arrays: Any = {
        "images": random.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8),
        "labels": np.arange(200) % 2,
    }
    (tmp_path / "data").mkdir()
    np.savez("data/cifar100.npz", **arrays, **{f"test_{k}": v for k, v in arrays.items()})
    monkeypatch.setattr(ends, "ANNEAL", 4)
    monkeypatch.setattr(ends, "ANNEAL_SIZE", 32)
    sizes: list[int] = []
    tiny = {
        "schedule": "method2",
        "dataset.classes": 2,
        "dataset.image_size": 8,
        "dataset.samples": 96,
        "model.width": 4,
        "epochs": 10,
        "batch_size": 16,
        "noise.batches": 2,
    }
    row = {"experiment": "cifar100_many", "seeds": 1, "anneal": 0.01, "first": tiny}
    rows.studies([{**row, "second": tiny}])["cifar100_many"].run()
    backward = Engine.backward

    def counted(*arguments: Any) -> Any:
        sizes.append(len(arguments[3]))
        return backward(*arguments)

    monkeypatch.setattr(Engine, "backward", counted)
    both_arms = {**row, "second": {**tiny, "order": "reversed"}}
    study = rows.studies([both_arms])["cifar100_many"]
    study.run()
    study.run()
    assert sizes == [16] * (2 + 60 + 14) + [32] * 4  # two measure C² before training, 14 are twins
    runs = study.read()
    names = {rows.title(job): records.name_of(job) for job in study.jobs({})}
    falling, rising = (runs[names[arm]] for arm in ("Method 2", "Method 2 reversed"))
    for name in ("eta_m", "stage", "updates", "reference_variance", "train/loss"):
        numbers, other_numbers = ([e[name] for e in run["epochs"]] for run in (falling, rising))
        is_same = name in ("stage", "updates", "reference_variance")
        assert (numbers == other_numbers) is is_same, name
    etas = [[e["eta_m"] for e in run["epochs"]] for run in (falling, rising)]
    assert etas[0] == etas[1][::-1] == sorted(etas[0], reverse=True)
    assert falling.keys() == rising.keys() >= {"anew_log_loss", "annealed_accuracy"}
    assert falling.keys() >= {"commit", "changes", "time"}
    assert len(study.whole_seeds(runs)[0]) == 2
    assert not study.whole_seeds({names["Method 2"]: falling})
    judged = {**both_arms, "endpoint": "anew_accuracy", "test": "compare"}
    judged |= {"claim": "falls", "family": ""}
    monkeypatch.setattr(rows, "read", lambda: [judged])
    monkeypatch.setattr(design.Study, "run", lambda _: None)
    other_runs = {
        records.name_of({**job, "seed": seed}): runs[records.name_of(job)]
        for job in study.jobs({})
        for seed in (100, 101)
    }
    monkeypatch.setattr(design.Study, "read", lambda _: other_runs)
    for n, start, cell in (("3", "100", "| falls | 2 |"), ("2", "102", "not judged")):
        monkeypatch.setattr("sys.argv", ["study", "seeds", "cifar100_many", start, n])
        program.main()
        assert cell in capsys.readouterr().out
