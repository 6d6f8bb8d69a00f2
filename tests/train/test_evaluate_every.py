"""evaluate_every: the same training, evaluated less often; whoever reads the record copes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, assert_equal, configure, records, run_folder
from forked import Death, forge
from test_own_data import write_npz
from test_report import methods, only, read
from trained import prepared, timeless, train

from igo.analysis.table import table
from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.ground.errors import ConfigError
from igo.report import curves
from igo.runs import epoch_line, plan_table
from igo.runs.folder import signature
from igo.train import engine
from igo.train.state import Progress, Training

RUN = (*TINY, "epochs=5", "dataset.validation=0.25", "optimizer=shb")
TESTED = ("test/loss", "test/accuracy", "validation/loss", "validation/accuracy")


def finished(config: Config) -> tuple[Training, Progress]:
    training = prepared(config)
    return training, train(training)


@pytest.mark.parametrize(("every", "evaluated"), [(2, [2, 4, 5]), (5, [5]), (100, [5])])
def test_training_has_the_same_bits(every: int, evaluated: list[int]) -> None:
    often, all_of_them = finished(configure(*RUN))
    seldom, some = finished(configure(*RUN, f"evaluate_every={every}"))
    assert_equal(seldom.network.state_dict(), often.network.state_dict())
    wanted = timeless(all_of_them.records)
    for record in wanted:
        if record["epoch"] not in evaluated:
            record.update(dict.fromkeys(TESTED))
    assert timeless(some.records) == wanted


def test_every_epoch_is_the_neutral_value() -> None:
    names = [signature(configure(*RUN, *more)) for more in ((), ("evaluate_every=1",))]
    assert names[0] == names[1] != signature(configure(*RUN, "evaluate_every=2"))


@pytest.mark.parametrize("epochs", [1, 2, 7, 30, 200])
@pytest.mark.parametrize("samples", [10, 240, 1000, 1437])
@pytest.mark.parametrize("tests", [1, 900, 1001, 2000, 7000])
def test_auto_evaluates_as_often_as_a_twentieth_of_the_time_allows(
    epochs: int, samples: int, tests: int
) -> None:
    """Evaluating an image takes a quarter of training on it; this counts the evaluations."""
    config = configure(f"dataset.samples={samples}", f"dataset.test_samples={tests}",
                         f"epochs={epochs}", "batch_size=8")  # fmt: skip

    def evaluations(every: int) -> int:
        return sum(epoch % every == 0 or epoch == epochs for epoch in range(1, epochs + 1))

    def allowed(every: int) -> bool:
        return 0.25 * tests * evaluations(every) <= 0.05 * samples * epochs * (1 + 1e-12)

    every = int(config.evaluate_every)
    if tests <= 1000:
        assert every == 1
    elif allowed(epochs):
        assert every == min(candidate for candidate in range(1, epochs + 1) if allowed(candidate))
    else:
        assert evaluations(every) == 1


def test_auto_counts_held_out_images_and_is_recorded_as_a_number() -> None:
    held = ("dataset.samples=1400", "dataset.validation=0.5", "dataset.test_samples=700")
    config = configure(*held, "epochs=20", "evaluate_every=auto")
    assert config.evaluate_every == 10  # 0.25 · 1,400 · 2 of 700 · 20 is 5 %
    (note,) = (note for note in plan_table.notes(config, make_plan(config)) if "evaluated" in note)
    assert "every 10 epochs" in note
    typed = configure(*held, "epochs=20", "evaluate_every=10")
    assert signature(typed) == signature(config)


def test_evaluations_in_training_are_those_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = engine.Engine.evaluate

    def counted(self: engine.Engine, *args: Any) -> tuple[float, float]:
        calls.append(1)
        return real(self, *args)

    monkeypatch.setattr(engine.Engine, "evaluate", counted)
    finished(configure(*TINY, "epochs=9", "dataset.test_samples=60"))
    assert len(calls) == 9
    calls.clear()
    _, progress = finished(
        configure(*TINY, "dataset.samples=1280", "batch_size=320", "epochs=9",
                    "dataset.test_samples=1200", "noise.online=0")
    )  # fmt: skip
    assert len(calls) == 1  # 1,280 · 9 // (5 · 1,200)
    assert progress.records[-1]["test/accuracy"] is not None


@pytest.mark.parametrize(
    "choice",
    [f"dataset={name}" for name in ("digits", "fashion_mnist", "cifar10", "cifar100", "imagenet")]
    + [f"experiment={name}" for name in ("fashion_mnist", "study_fashion_mnist", "study_digits")],
)
def test_whole_data_sets_are_evaluated_after_every_epoch(choice: str) -> None:
    """So that runs of them have the names of before."""
    model = () if "experiment" in choice else ("model=resnet18", "model.stem=cifar")
    assert configure(choice, *model).evaluate_every == 1


def test_a_line_has_a_dash_for_it() -> None:
    _, progress = finished(configure(*RUN, "evaluate_every=2", "epochs=2"))
    first, second = progress.records
    assert " test " not in epoch_line.describe(first)
    assert " test " in epoch_line.describe(second)
    columns = epoch_line.columns(140, validation=True)
    width = len(epoch_line.heading(columns))
    assert len(epoch_line.line(columns, first)) == len(epoch_line.line(columns, second)) == width
    assert epoch_line.line(columns, first).count(" –") == 3


def test_killed_and_continued_it_has_the_same_record(tmp_path: Path) -> None:
    """And the end of the run, and the table, take the evaluations that there are."""
    typed = (*TINY, "epochs=5", "evaluate_every=2", "tracking=none")
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    ended = forge.run(whole, *typed).good()
    assert "finished: test accuracy" in ended.stdout
    forge.run(torn, *typed, death=Death("igo.runs.checkpoint.save", 3, "after"))
    forge.run(torn, *typed).good()
    rows = records(run_folder(whole))
    assert rows == records(run_folder(torn))
    (row,) = table.read_runs([run_folder(whole)]).to_dicts()
    accuracies = [record["test/accuracy"] for record in rows if record["test/accuracy"] is not None]
    assert len(accuracies) == 3
    assert row["test/accuracy"] == accuracies[-1]
    assert row["test/accuracy_best"] == max(accuracies)


def test_curves_go_from_one_evaluation_to_the_next(tmp_path: Path) -> None:
    for folder in itertools.chain(*methods(tmp_path, seeds=2).values()):
        rows = records(folder, timings=True)
        rows[0] |= {"test/accuracy": None, "test/loss": None}
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)
    results = read(tmp_path)
    family = only(results, "methods")
    drawn = curves._series(results, family, tuple(family.settings), "test/accuracy")
    assert [curve.x["epochs"] for curve in drawn] == [[2, 3]] * 4
    assert all(value is not None for curve in drawn for value in curve.y)


def test_auto_counts_the_test_images_of_own_data(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "mine.npz", n=1000, shape=(4, 4), test=2000)
    typed = ("dataset=arrays", f"dataset.file={file}", "epochs=20")
    config = configure(*typed)
    assert (config.dataset.test_samples, config.evaluate_every) == (2000, 10)
    assert configure(*typed, "evaluate_every=3").evaluate_every == 3
    with pytest.raises(ConfigError, match=r"test_samples=2001 .*arrays has 2000"):
        configure(*typed, "dataset.test_samples=2001")


def test_runs_evaluated_at_other_epochs_are_of_one_setting(tmp_path: Path) -> None:
    folders = [folder for both in methods(tmp_path, seeds=2).values() for folder in both]
    before = read(tmp_path).settings["n"].to_list()
    for folder in folders[::2]:
        file = folder / "config.yaml"
        text = file.read_text()
        assert "evaluate_every: 1\n" in text
        file.write_text(text.replace("evaluate_every: 1\n", "evaluate_every: 3\n"))
    assert read(tmp_path).settings["n"].to_list() == before
