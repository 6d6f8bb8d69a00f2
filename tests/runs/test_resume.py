"""A run that was stopped anywhere, in any way, ends with the same bits, and no row twice."""

import os
import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, contents_of, interpreter, records, run_folder, status
from damages import torn
from forked import Death, forge
from resumed import KINDS, assert_same, assert_whole, outcome, start, undisturbed
from trained import prepared
from wandb_server import exit_codes, history

from igo.runs import checkpoint, recording, stopping
from igo.runs.folder import RunFolder
from igo.train.training import Progress

STEP = "igo.runs.terminal.ProgressBar.advance"


@pytest.mark.parametrize(
    ("ending", "epoch"), [({}, 1), ({"signal": 15}, 3), ({"error": RuntimeError("fire")}, 3)]
)
def test_epochs_since_a_checkpoint_are_written_unless_the_run_is_killed(
    ending: dict[str, Any], epoch: int, tmp_path: Path
) -> None:
    """In epoch 4, where only the first and the last epoch write a checkpoint in time.

    A crash is on record until the run goes on.
    """
    words = (*KINDS["W&B"], "checkpoint_seconds=1e6")
    death = Death(STEP, 10, **ending)
    process, folder = forge.run(*words, death=death), run_folder()
    assert [row["epoch"] for row in records(folder)] == [1, 2, 3][:epoch]
    if "error" in ending:
        assert (process.returncode, "RuntimeError: fire" in process.stderr) == (1, True)
        assert (status(folder)["state"], status(folder)["error"]) == ("failed", "fire")
        assert (folder / "error.txt").read_text().endswith("RuntimeError: fire\n")
    assert f"continuing after epoch {epoch} of 4" in forge.run(*words).good().stdout
    assert_whole(tmp_path, "W&B")
    assert "error" not in status(folder)
    assert not (folder / "error.txt").exists()


def without_optimizer(file: Path) -> None:
    state = checkpoint.load(file, file.parent.name)
    del state["optimizer"]
    checkpoint.save(file, state)


def test_what_a_killed_run_lacks_is_made_again_but_records_that_are_lost_stop_it(
    tmp_path: Path,
) -> None:
    """Without status.json data, plan and code cannot be compared, which is said."""
    start(tmp_path / "killed", "sgd", Death("igo.runs.checkpoint.save", 3, "after"))
    for names, damage in (
        ("config.yaml plan.csv", torn),
        ("checkpoint.pt", without_optimizer),
        ("status.json", Path.unlink),
        ("checkpoint.pt", Path.unlink),
        ("config.yaml plan.csv status.json metrics.jsonl", Path.unlink),
    ):
        place = tmp_path / f"{names} {damage.__name__}"
        shutil.copytree(tmp_path / "killed", place)
        folder = run_folder(place)
        for name in names.split():
            damage(folder / name)
        contents = contents_of(folder)
        process = start(place, "sgd")
        if damage is without_optimizer or "metrics.jsonl" in names:
            reason = r"is damaged|does not fit this program \('optimizer'\)"
            assert re.search(reason, process.error()), process
            assert contents_of(folder) == contents
            continue
        assert bool(process.stderr) == (names == "status.json"), process
        assert ("continuing after epoch 3 of 4" in process.stdout) == (names != "checkpoint.pt")
        assert_same(outcome(place), undisturbed("sgd"))


def test_fresh_starts_over_even_if_killed_while_clearing_the_folder(tmp_path: Path) -> None:
    start(tmp_path, "sgd").good()
    death = Death("pathlib.Path.unlink", 1, "after")
    process = forge.run(*KINDS["sgd"], "fresh=true", death=death)
    assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, "sgd")
    assert "finished before" not in process.stdout
    assert_same(outcome(), undisturbed("sgd"))


def test_control_c_before_the_run_ends_it_at_once() -> None:
    """As a KeyboardInterrupt it would get lost at some moments of composing, and training began."""
    for call in (1, 200):
        death = Death("omegaconf.base.Node._invalidate_flags_cache", call, signal=signal.SIGINT)
        process = forge.run(*TINY, "tracking=none", death=death)
        assert (process.returncode, process.stdout, process.stderr) == (-signal.SIGINT, "", "")
        assert not Path("runs").exists()


CLOSE = "igo.runs.loggers.wandb.WandB.close"


@pytest.mark.parametrize(
    ("death", "code", "line", "epochs"),
    [
        # In a terminal SIGINT goes to the whole process group: to W&B's own process, too.
        (Death(STEP, 7, signal=signal.SIGINT, group=True), 130, "SIGINT; the same command", 2),
        # The status is written when the run begins, with its seals, with the id of the W&B run,
        # after each of three epochs, and at the end.
        (Death("igo.runs.folder.RunFolder.update_status", 7, "after"), -signal.SIGKILL, "", 3),
        (Death(CLOSE, signal=signal.SIGTERM), 143, "SIGTERM\n", 3),
    ],
)
def test_what_ends_a_run_is_on_record_in_wandb_too(
    death: Death, code: int, line: str, epochs: int
) -> None:
    """What is called finished is whole there: no later start would bring what is missing."""
    process = forge.run(*TINY, death=death)
    assert (process.returncode, process.stderr) == (code, "")
    assert process.stdout.partition("stopped by ")[2].startswith(line)
    assert status()["state"] == ("finished" if epochs == 3 else "interrupted")
    (folder,) = Path("runs/wandb").glob("offline-run-*")
    for rows in (records(), history(folder)):
        assert [row["epoch"] for row in rows] == [*range(1, epochs + 1)]
    assert exit_codes(folder) == [0 if epochs == 3 else code]


def test_a_second_signal_ends_it_at_once_and_the_handlers_are_put_back() -> None:
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
        own_handler = signal.signal(number, signal.SIG_DFL)  # under nohup SIGHUP is ignored
        try:
            handlers = signal.getsignal(number), signal.getsignal(signal.SIGINT)
            with suppress(stopping.Stopped), stopping.signals() as check_stop:
                check_stop()
                os.kill(os.getpid(), number)
                with pytest.raises(stopping.Stopped) as first_stop:
                    check_stop()
                with pytest.raises(stopping.Stopped) as second_stop:
                    os.kill(os.getpid(), signal.SIGINT)
            assert (first_stop.value.code, second_stop.value.code) == (128 + number, 130)
            assert (signal.getsignal(number), signal.getsignal(signal.SIGINT)) == handlers
        finally:
            signal.signal(number, own_handler)


def test_a_hangup_that_was_ignored_stays_so() -> None:
    """As under nohup: the terminal goes, the run stays."""
    own_handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        numbers: list[int] = []
        context = stopping.handled(stopping.STOPPING, lambda number, _: numbers.append(number))
        with stopping.signals() as check_stop, context:
            os.kill(os.getpid(), signal.SIGHUP)
            check_stop()
        assert numbers == []
    finally:
        signal.signal(signal.SIGHUP, own_handler)


def test_where_scaling_begins_or_ends_a_checkpoint_goes_on(tmp_path: Path) -> None:
    """One run, precision=auto: bf16 on a new GPU, then fp16 on an old one, and back."""
    precisions = ("engine.precision=fp32", "engine.precision=fp16")
    plain_run, scaled_run = (prepared(*TINY, precision) for precision in precisions)
    scaler_state = scaled_run.engine.scaler.state_dict()
    folder = RunFolder(tmp_path)
    for saved_run, loaded_run in ((plain_run, scaled_run), (scaled_run, plain_run)):
        state = recording.snapshot(tmp_path.name, saved_run, Progress(epoch=1))
        checkpoint.save(folder.checkpoint, state)
        assert recording.resume(folder, loaded_run) == Progress(epoch=1)
    assert scaled_run.engine.scaler.state_dict() == scaler_state


def test_the_whole_way_as_a_user_walks_it(tmp_path: Path) -> None:
    """A fork and a program of its own compute the same bits: the other tests here rest on it.

    In fp16, whose scaler comes back as well. A finished run is told without loading torch.
    """
    kind = "fp16 with a scaler, nshb"
    process = start(tmp_path, kind, Death("igo.runs.checkpoint.save", 2, "after"))
    assert process.returncode == -signal.SIGKILL
    interpreter(*KINDS[kind]).good()
    assert_same(outcome(), undisturbed(kind))
    scaler, fresh = undisturbed(kind).state["scaler"], torch.amp.GradScaler("cpu").state_dict()
    assert scaler.keys() == fresh.keys()
    assert scaler != fresh
    folder = run_folder()
    contents = contents_of(folder)
    process = interpreter(*KINDS[kind], PYTHONPROFILEIMPORTTIME="1").good()
    assert "finished before" in process.stdout
    assert f"{records(folder)[-1]['test/accuracy']:.2%}" in process.stdout
    process.assert_light("igo.runs.run")
    assert contents_of(folder) == contents
