"""The studies: what the rows say follows from the records, by SciPy and statsmodels too."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, run_folder
from forked import forge
from PIL import Image
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW
from torch import nn

from igo.ground.seeds import derive_seed, generator
from igo.ground.statistics import LEVEL
from igo.runs.assemble import load_folder
from igo.train.engine import Engine
from lab.study import __main__ as program
from lab.study import ends, methods, path, records, rows, seeds, table
from lab.study.records import ROOT, Run, of_archives, write_archive

Row = dict[str, Any]


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return of_archives()


@pytest.fixture(scope="module")
def study() -> list[Row]:
    return [row for row in rows.read() if row["found"]]


@pytest.mark.slow
def test_the_rows_are_what_the_records_come_to(runs: dict[str, Run]) -> None:
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


def test_the_pages_show_the_rows(runs: dict[str, Run]) -> None:
    all_rows = rows.read()
    claims = path.fill(runs)
    for page, text in {
        "results/cifar100.md": methods.summary(all_rows),
        "results/path.md": path.summary(claims, runs),
    }.items():
        assert table.between((ROOT / page).read_text()) == text
    means = (ROOT / "results" / "cifar100_means.csv").read_text()
    assert means == methods.means(all_rows, runs)


@pytest.mark.slow
def test_differences_and_powers_are_other_libraries(runs: dict[str, Run], study: list[Row]) -> None:
    for family in rows.families(study):
        seeds = rows.planned_seeds(family[0])[: family[0]["found"]["n"]]
        for row in family:
            ends_of_arm, ends_of_other = rows.values(row, runs, seeds)
            numbers, d = row["found"], ends_of_arm - ends_of_other
            interval = stats.ttest_rel(ends_of_arm, ends_of_other).confidence_interval(0.95)
            recorded_numbers = [numbers[name] for name in ("statistic", "low", "high", "sd")]
            np.testing.assert_allclose(
                recorded_numbers, [d.mean(), *interval, d.std(ddof=1)], rtol=1e-4
            )
            if row["test"] == "none":  # Few seeds have no p of equality.
                continue
            margin = row.get("margin", rows.MARGIN)
            p_equal, *_ = DescrStatsW(d).ttost_mean(-margin, margin)
            np.testing.assert_allclose(numbers["p_equal"], p_equal, rtol=1e-4)
            power = {"nobs": len(d), "alpha": LEVEL / len(family), "power": 0.8}
            size = TTestPower().solve_power(**power) * numbers["sd"]
            assert size < numbers["detectable"] < 1.4 * size  # few seeds: the sign-flip test's


def test_runs_finished_and_the_arms_of_a_row_share_seed_and_data(
    runs: dict[str, Run], study: list[Row]
) -> None:
    for run in runs.values():
        assert run.status["state"] == "finished"
        assert run.epochs[-1]["epoch"] == len(run.epochs)
    for row in study:
        seeds = rows.planned_seeds(row)[: row["found"]["n"]]
        names_of_runs = np.array(rows.names(row, seeds))
        assert len(set(names_of_runs.ravel())) == names_of_runs.size
        for seed, names in zip(seeds, names_of_runs.T, strict=True):
            assert all(f"\nseed: {seed}\n" in runs[name].files["config.yaml"] for name in names)
            assert all("\n  validation: 0.0\n" in runs[n].files["config.yaml"] for n in names)
            assert len({runs[name].status["data"]["fingerprint"] for name in names}) == 1


def test_an_archive_gives_back_what_was_put_in(tmp_path: Path) -> None:
    put = [Run(f"run-{i}", {"status.json": f'{{"i": {i}}}', "config.yaml": "δ: 1\n"}) for i in "12"]
    for name in ("a", "b"):
        write_archive(tmp_path / f"{name}.tar.xz", put)
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    assert of_archives(tmp_path) == {run.name: run for run in put}


def test_statistics_are_new_and_the_run_is_left_as_it_was(tmp_path: Path) -> None:
    """By an evaluation of its own, on all training images as one batch, then on augmented ones."""
    settings = ("tracking=none", "engine.precision=fp32", "dataset.augment.crop=2")
    forge.run(tmp_path, *TINY, *settings).good()
    folder = run_folder(tmp_path)
    checkpoint = (folder / "checkpoint.pt").read_bytes()
    numbers = ends.measure(folder, load_folder(folder))
    assert (folder / "checkpoint.pt").read_bytes() == checkpoint
    run = load_folder(folder)
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
    for name, value in (("RUNS", tmp_path), ("REVERSED", tmp_path / ".reversed")):
        monkeypatch.setattr(records, name, value)
        monkeypatch.setattr(seeds, name, value)
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
    arms = [tiny, {**tiny, "order": "reversed"}]
    row = {"experiment": "cifar100_many", "seeds": 2, "anneal": 0.01, "first": arms[0]}
    seeds.run([{**row, "second": arms[0]}], range(1))
    backward = Engine.backward

    def counted(*arguments: Any) -> Any:
        sizes.append(len(arguments[3]))
        return backward(*arguments)

    monkeypatch.setattr(Engine, "backward", counted)
    seeds.run([{**row, "second": arms[1]}], range(1))
    assert sizes == [16] * (2 + 60 + 14) + [32] * 4  # two measure C² before training, 14 are twins
    both_arms = {**row, "second": arms[1]}
    falling, rising = (records.of_study()[name] for (name,) in rows.names(both_arms, range(1)))
    for name in ("eta_m", "stage", "updates", "reference_variance", "train/loss"):
        numbers, other_numbers = ([e[name] for e in run.epochs] for run in (falling, rising))
        assert (numbers == other_numbers) is (name in ("stage", "updates", "reference_variance")), (
            name
        )
    etas = [[e["eta_m"] for e in run.epochs] for run in (falling, rising)]
    assert etas[0] == etas[1][::-1] == sorted(etas[0], reverse=True)
    assert falling.after.keys() == rising.after.keys() >= {"anew_log_loss", "annealed_accuracy"}
    assert len(rows.whole_seeds([both_arms], records.of_study())) == 2  # seed 1 has no run
    assert not rows.whole_seeds([both_arms], {falling.name: falling})
    judged = {**both_arms, "endpoint": "anew_accuracy", "test": "compare"}
    judged |= {"claim": "falls", "family": ""}
    monkeypatch.setattr(rows, "read", lambda: [judged])
    monkeypatch.setattr(seeds, "one", lambda *_: None)
    names_of_arms = zip(rows.names(judged, range(100, 102)), (falling, rising), strict=True)
    runs_of_seeds = {name: run for names, run in names_of_arms for name in names}
    monkeypatch.setattr(records, "of_study", lambda: runs_of_seeds)
    for n, start, cell in (("3", "100", "| falls | 2 |"), ("2", "102", "not judged")):
        monkeypatch.setattr("sys.argv", ["study", "seeds", "cifar100_many", start, n])
        program.main()
        assert cell in capsys.readouterr().out
