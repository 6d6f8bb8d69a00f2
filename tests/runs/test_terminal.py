"""What a person sees, in a terminal of 80 columns and through a pipe that closes."""

import math
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, clean_environment, command, configure, status
from hydra.core.override_parser.overrides_parser import OverridesParser
from recorded import record_runs

from igo.config.load import make_plan, read_config
from igo.runs import run, terminal
from igo.runs.folder import RunFolder, read_records


def test_notes_say_what_the_numbers_do_not() -> None:
    """That there is one stage; that a batch is all samples; and whose δ it is."""

    def notes(*words: str) -> str:
        config = configure(*words)
        return "\n".join(terminal.plan_notes(config, make_plan(config)))

    assert notes("epochs=5", "batch_size=64") == ""
    assert "M = 1" in notes("epochs=1", "schedule.stages=1")
    assert notes("epochs=5", "batch_size=512", "split=0").endswith(" max_batch_size keeps some")
    # φ_5 = √(1/5), and η_5/η_1 = φ_5 √(b_5/b_1).
    assert "δ of shb changes to between 0.45 and 0.66 of" in notes("epochs=5", "optimizer=shb")
    assert notes("epochs=5", "optimizer=shb", "split=1") == ""


def test_a_plan_is_shown_with_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    """No formula of another optimizer; and a stage of one batch in an epoch is not all samples."""

    def shown(*words: str) -> str:
        config = configure(*words)
        terminal.Terminal().show_plan(config, make_plan(config))
        return capsys.readouterr().out

    for optimizer in ("shb", "adamw"):
        assert "√(C²/b)" not in shown(f"optimizer={optimizer}")
    words = "epochs=2", "dataset.samples=96", "batch_size=8", "split=0", "schedule.stages=12"
    output = shown("schedule=cosine", *words)
    assert " 2 epochs in 12 stages, " in output
    assert "b reaches n" not in output


def test_a_run_ends_with_its_best_accuracy_and_what_is_left_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A loss that is no number is said, and the command that sends the run can be typed."""
    (folder,) = record_runs(Path("runs"), "tracking.mode=offline", seeds=[0], accuracies=[0.25])
    place = folder.parent.rename("my (b=1), runs") / folder.name
    rows = read_records(place)
    rows[-1]["test/loss"] = math.nan
    RunFolder(place).write_records(rows)
    config = read_config(place / "config.yaml")
    run._conclude(config, RunFolder(place), terminal.Terminal(), was_finished=False)
    printed = capsys.readouterr()
    best = max(row["test/accuracy"] for row in rows)
    assert f"finished: test accuracy 25.00%, best {best:.2%}\n" in printed.out
    assert printed.err.startswith("warning: the test loss is not a number")
    command = printed.out.split("to send it: ")[1].splitlines()[0]
    *program, runs, project = shlex.split(command)
    assert (program, project) == (["igo", "sync"], "project=igo")
    assert OverridesParser.create().parse_override(runs).value() == str(place)


def test_a_run_ends_with_where_its_noise_went() -> None:
    (place,) = record_runs(Path("runs"), "tracking.mode=offline", seeds=[0])
    last = read_records(place)[-1]
    for c2, note in (
        (0.004, "C² fell from 40 to 0.004: δ as measured ended at 1/100 of the plan"),
        (640.0, "C² rose from 40 to 640: δ as measured ended at 4 times the plan"),
        (80.0, ""),  # δ is √2 times the plan.
    ):
        delta = last["eta_m"] * math.sqrt(c2 / last["b_m"])
        last |= {"gradient_variance": c2, "delta_measured": delta}
        assert terminal.noise_note(last) == note
        assert terminal.noise_note(last | {"delta_m": None}) == ""


def test_in_a_terminal_of_80_columns_epochs_stay_above_one_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = record_runs(Path("runs"), seeds=[0])
    plan = make_plan(read_config(place / "config.yaml"))
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    with terminal.Terminal().progress(plan) as bar:
        for record in read_records(place):
            bar.begin_epoch(record["epoch"], record["delta_m"])
            bar.advance(96)
            bar.end_epoch(record)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    lines = [line for part in plain.split("\n") for line in part.split("\r") if line.strip()]
    epochs = [line for line in lines if re.match(r" +[123] +\d\.\d+ ", line)]
    assert [line.split()[0] for line in epochs] == ["1", "2", "3"]
    bars = [line for line in lines if "━" in line and "epoch" in line]
    assert bars
    assert all(re.search(r"epoch \d/3.* left$", line.rstrip()) for line in bars)
    assert max(map(len, lines)) <= 80


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    for words in (["dry_run=true", "epochs=3000"], [*TINY], []):
        with subprocess.Popen(
            command(tmp_path, *words) if words else [sys.executable, "-m", "igo", "--help"],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            if words == [*TINY]:
                next(line for line in process.stdout if b"images/s" in line)
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode in (128 + signal.SIGPIPE, -signal.SIGPIPE)  # 141 in a shell
        if words == [*TINY]:
            assert status()["error"] == "[Errno 32] Broken pipe"
