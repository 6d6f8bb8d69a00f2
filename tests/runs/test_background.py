"""Writing beside training: in order, one at a time, no error lost, and training does go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Quiet, assert_equal, configure

from igo.config.plan import make_plan
from igo.ground.files import Record
from igo.runs import assemble, background, checkpoint, session
from igo.runs.background import Writer
from igo.train import loop
from igo.train.engine import Engine
from igo.train.state import Progress


def test_work_is_done_in_order_and_at_most_one_is_behind() -> None:
    writer, done, begin = Writer(beside=True), [], threading.Event()

    def first() -> None:
        assert begin.wait()
        done.append(1)

    writer.do(first)
    assert done == []  # and the caller goes on
    begin.set()
    writer.do(lambda: done.append(2))
    assert done[0] == 1  # waited for
    writer.wait()
    assert done == [1, 2]
    writer.close()


def test_not_beside_it_is_done_at_once() -> None:
    writer, done = Writer(beside=False), []
    writer.do(lambda: done.append(threading.current_thread()))
    assert done == [threading.current_thread()]


def fail() -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize("beside", [True, False])
def test_an_error_is_raised_once_and_at_the_latest_at_the_end(beside: bool) -> None:
    with pytest.raises(OSError, match="full"), background.writer(beside) as writer:
        writer.do(fail)
    done: list[int] = []
    with background.writer(beside) as writer:
        with pytest.raises(OSError, match="full"):
            _both(writer, fail, lambda: done.append(1))
        writer.do(lambda: done.append(2))
    assert done == [2]


def test_the_bodys_own_error_is_the_one_to_tell() -> None:
    done: list[int] = []
    for work in (lambda: done.append(1), fail):
        with pytest.raises(KeyError):
            _ended_by_its_own_error(work)
    assert done == [1]


def _ended_by_its_own_error(work: Callable[[], None]) -> None:
    with background.writer(beside=True) as writer:
        writer.do(work)
        raise KeyError


def _both(writer: Writer, first: Callable[[], None], other: Callable[[], None]) -> None:
    writer.do(first)
    writer.do(other)


@pytest.mark.parametrize(
    ("setting", "device", "beside"),
    [("auto", "cpu", True), ("auto", "cuda", False), (True, "cuda", True), (False, "cpu", False),
     ("true", "cuda", True), ("false", "cpu", False)],
)  # fmt: skip
def test_auto_is_beside_on_a_cpu(setting: bool | str, device: str, beside: bool) -> None:
    assert background.wanted(setting, device) == beside


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is not finished before a step of the second epoch is; the last is, at the end."""
    stepped, save, step, epochs = threading.Event(), checkpoint.save, Engine.step, []

    def slow(path: Path, state: Any) -> None:
        if state["progress"]["epoch"] == 1:
            assert stepped.wait(timeout=300)
        save(path, state)
        epochs.append(state["progress"]["epoch"])

    def noticed(self: Engine, *arguments: Any) -> Any:
        result = step(self, *arguments)
        if stepping:
            stepped.set()
        return result

    def began(*arguments: Any) -> Any:
        (progress,) = (argument for argument in arguments if isinstance(argument, Progress))
        if progress.epoch == 1:
            stepping.append(True)
        return begin_epoch(*arguments)

    stepping: list[bool] = []
    begin_epoch = loop._begin_epoch
    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(Engine, "step", noticed)
    monkeypatch.setattr(loop, "_begin_epoch", began)
    session.run(configure(*TINY, "tracking=none", f"runs_dir={tmp_path}"))
    assert epochs == [1, 2, 3]


def test_a_state_is_as_it_was_when_training_has_gone_on(tmp_path: Path) -> None:
    config = configure(*TINY, "optimizer=shb")
    training, progress = assemble.prepare(config, make_plan(config)), Progress()
    states: list[Any] = []

    def epoch_done(record: Record) -> None:
        states.append(assemble.state_of("run", None, training, progress))
        state = assemble.state_of("run", None, training, progress)
        checkpoint.save(tmp_path / f"{len(states)}.pt", state)

    loop.train(training, progress, Quiet(), epoch_done, lambda: None)
    for number, state in enumerate(states, start=1):
        there, _ = checkpoint.load(tmp_path / f"{number}.pt", "run")
        assert there.pop("version") == checkpoint.VERSION
        assert_equal(there, state)
