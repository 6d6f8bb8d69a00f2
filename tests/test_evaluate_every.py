"""evaluate_every: the same training, evaluated less often; whoever reads the record copes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, records, run_folder
from forked import Death, shared_forge
from test_report import epochs_of, methods, only, read

from igo.analysis.report import curves
from igo.analysis.report.families import families
from igo.analysis.table import table
from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.runs import assemble, epoch_line
from igo.runs.folder import signature
from igo.train import loop
from igo.train.state import Progress, Training

Make = Callable[..., Config]
RUN = (*TINY, "epochs=5", "dataset.validation=0.25", "optimizer=shb")
TESTED = ("test/loss", "test/accuracy", "validation/loss", "validation/accuracy")


class Quiet:
    """A progress bar that shows nothing."""

    def begin_epoch(self, *_: object) -> None: ...
    def advance(self, *_: object) -> None: ...
    def end_epoch(self, *_: object) -> None: ...


def train(config: Config) -> tuple[Training, Progress]:
    training, progress = assemble.prepare(config, make_plan(config)), Progress()
    loop.train(training, progress, Quiet(), lambda _: None, lambda: None)
    return training, progress


@pytest.mark.parametrize(("every", "evaluated"), [(2, [2, 4, 5]), (5, [5]), (100, [5])])
def test_training_has_the_same_bits(every: int, evaluated: list[int], make_config: Make) -> None:
    often, all_of_them = train(make_config(*RUN))
    seldom, some = train(make_config(*RUN, f"evaluate_every={every}"))
    state = seldom.network.state_dict()
    for name, value in often.network.state_dict().items():
        assert torch.equal(value, state[name]), name
    for one, other in zip(all_of_them.records, some.records, strict=True):
        there = other["epoch"] in evaluated
        for name in one:
            if name in TESTED and not there:
                assert other[name] is None
            elif name not in ("seconds", "images_per_second"):
                assert other[name] == one[name]


def test_every_epoch_is_the_neutral_value(make_config: Make) -> None:
    names = [signature(make_config(*RUN, *more)) for more in ((), ("evaluate_every=1",))]
    assert names[0] == names[1] != signature(make_config(*RUN, "evaluate_every=2"))


def test_a_line_has_a_dash_for_it(make_config: Make) -> None:
    _, progress = train(make_config(*RUN, "evaluate_every=2", "epochs=2"))
    first, second = progress.records
    assert " test " not in epoch_line.describe(first)
    assert " test " in epoch_line.describe(second)
    columns = epoch_line.columns(140, validation=True)
    width = len(epoch_line.heading(columns))
    assert len(epoch_line.line(columns, first)) == len(epoch_line.line(columns, second)) == width
    assert epoch_line.line(columns, first).count(" –") == 3


def test_killed_and_continued_it_has_the_same_record(tmp_path: Path) -> None:
    """And the end of the run, and the table, take the evaluations that there are."""
    forge, typed = shared_forge(), (*TINY, "epochs=5", "evaluate_every=2", "tracking=none")
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for place in (whole, torn):
        place.mkdir()
    ended = forge.run(whole, *typed)
    assert ended.returncode == 0, ended.stderr
    assert "finished: test accuracy" in ended.stdout
    forge.run(torn, *typed, death=Death("igo.runs.checkpoint.save", 3, "after"))
    assert forge.run(torn, *typed).returncode == 0
    rows = records(run_folder(whole))
    assert rows == records(run_folder(torn))
    (row,) = table.read_runs([run_folder(whole)]).to_dicts()
    found = [one["test/accuracy"] for one in rows if one["test/accuracy"] is not None]
    assert len(found) == 3
    assert row["test/accuracy"] == found[-1]
    assert row["test/accuracy_best"] == max(found)


def test_curves_go_from_one_evaluation_to_the_next(tmp_path: Path) -> None:
    for folder in itertools.chain(*methods(tmp_path, seeds=2).values()):
        rows = epochs_of(folder)
        rows[0] |= {"test/accuracy": None, "test/loss": None}
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)
    results = read(tmp_path)
    family = only(families(results.settings), "methods")
    drawn = curves._series(results, family, tuple(family.settings), "test/accuracy")
    assert [one.x["epochs"] for one in drawn] == [[2, 3]] * 4
    assert all(value is not None for one in drawn for value in one.y)
