"""What a person sees, in a terminal of 80 columns and through a pipe that closes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT, TINY, clean_environment, command, configure

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.ground.files import Record
from igo.runs import manifest, plan_table, terminal
from igo.runs.folder import RunFolder, digests
from igo.runs.session import run

RECORD: Record = {
    "epoch": 137, "stage": 137, "updates": 191_234, "eta_m": 0.0056234132, "b_m": 1437 / 36,
    "beta_m": 0.0, "delta_m": 0.0012345, "delta_measured": 0.00098765,
    "delta_measured_low": 0.00087654, "delta_measured_high": 0.0010987,
    "train/loss": 12.3456, "train/accuracy": 0.98765, "test/loss": 0.045678,
    "test/accuracy": 0.97531, "images_per_second": 123_456.7,
}  # fmt: skip


@pytest.mark.parametrize("typed", [
    (), ("split=0", "epochs=10"), ("experiment=cifar100", "schedule=method4"),
    ("dataset=imagenet", "model=resnet18", "epochs=90", "batch_size=256"),
])  # fmt: skip
def test_a_plan_fits_and_its_rates_lead_to_the_next_stage(typed: tuple[str, ...]) -> None:
    plan = make_plan(configure(*typed))
    titles, *rows = (line.split() for line in plan_table.lines(plan, cut=False))
    assert max(map(len, plan_table.lines(plan, cut=False))) <= 80
    assert [row[0] for row in rows] == [str(stage.stage) for stage in plan.stages]
    phi, gamma = titles.index("δ_m/δ_1"), titles.index("γ_m")
    for row, after in pairwise(rows):
        assert float(row[gamma]) == pytest.approx(float(after[phi]) / float(row[phi]), abs=1e-3)


def test_notes_say_what_the_numbers_do_not() -> None:
    """Where b meets its cap, η rises, or rounding lowers η, computed by hand."""

    def notes(*typed: str) -> str:
        config = configure(*typed)
        return "\n".join(plan_table.notes(config, make_plan(config)))

    assert notes("epochs=5", "batch_size=64") == ""
    assert "one stage" in notes("epochs=1")
    # φ_m² = (11 - m)/10, k_1 = 90: 90 φ² is 27 and 18 in stages 8 and 9; the cap allows 23 or more
    capped = notes("epochs=10", "split=0", "max_batch_size=64")
    assert "b meets its cap, max_batch_size=64, in stage 9:" in capped
    # φ_m² = (11 - m)/10, k = ⌈3 φ⌉ is 3 in stage 6 and 2 in stage 7: κ_6 = √(0.4/0.5) √(3/2) > 1
    assert "η rises after 1 stage" in notes("epochs=10", "split=0.5", "batch_size=479")
    # k = 90, 45, ⌈22.5⌉, ⌈11.25⌉, ⌈5.625⌉: √(5.625/6) = 0.96825 of η_1
    assert "falls to 0.096825" in notes("schedule=method3")
    # 240, 120, 60, 30 and 15 batches of 6 samples
    assert notes("schedule=method3", "batch_size=6") == ""
    # (1 + cos(9π/10))/2 = 0.02447, k = ⌈90 · 0.02447⌉ = 3 at split = 0.5: b = 1437/3 = 479
    assert "b grows from 16.0 to 479.0" in notes("epochs=10", "schedule=cosine")


@pytest.mark.parametrize("more", [{}, {"validation/accuracy": 0.25}, {"delta_measured": None}])
def test_an_epochs_line_fits_below_its_heading(more: Record) -> None:
    record = {**RECORD, **more}
    titles, line = terminal.epoch_heading(record), terminal.epoch_line(record)
    assert len(titles) == len(line) <= 79
    shown = dict(zip(titles.split(), line.split(), strict=True))
    measured = "–" if "delta_measured" in more else "0.0009877"
    assert (shown["δ_m"], shown["measured"], shown["b_m"]) == ("0.001234", measured, "39.9")
    assert shown["test"] == "97.53%"
    assert shown.get("validation", "25.00%") == "25.00%"


def in_terminal(width: int, arguments: list[str], folder: Path) -> str:
    """What a program writes to a real terminal of this width."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = clean_environment(TERM="xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen(
        arguments, cwd=folder, env=environment, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        written = b""
        while True:
            try:
                written += os.read(leader, 65536)
            except OSError:  # the program has ended
                break
    os.close(leader)
    assert process.returncode == 0, written.decode()
    return written.decode()


def test_in_a_real_terminal_epochs_stay_above_one_bar(tmp_path: Path) -> None:
    shown = in_terminal(80, command(tmp_path, *TINY, "tracking=none"), tmp_path)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    lines = [line for part in plain.split("\n") for line in part.split("\r") if line.strip()]
    epochs = [line for line in lines if re.match(r" +[123] +\d\.\d+ ", line)]
    assert [line.split()[0] for line in epochs] == ["1", "2", "3"]
    bars = [line for line in lines if "━" in line and "epoch" in line]
    assert bars
    assert all(re.search(r"epoch \d/3.* left$", line.rstrip()) for line in bars)
    assert max(map(len, [*epochs, *bars])) <= 80


@pytest.mark.parametrize("typed", [("dry_run=true", "epochs=3000"), ("--help",)])
def test_a_closed_pipe_ends_quietly(typed: tuple[str, ...], tmp_path: Path) -> None:
    with subprocess.Popen(
        command(tmp_path, *typed) if typed != ("--help",) else
        [sys.executable, str(ROOT / "src/train.py"), "--help"],
        cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def finished_run(tmp_path: Path, config: Config, last: Record) -> RunFolder:
    """A folder whose record says that the run is finished."""
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    records = [{**RECORD, "epoch": 1}, {**RECORD, "epoch": 2, "updates": 97, **last}]
    folder.write_plan(make_plan(config))
    folder.begin_records(records)
    folder.begin_status(state="finished", code=manifest.code(), commit="a" * 40)
    folder.update_status(sha256=digests(folder.path))
    return folder


def test_a_finished_run_says_that_the_code_has_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure("epochs=2", f"runs_dir={tmp_path}")
    folder = finished_run(tmp_path, config, {})
    run(config)
    output = capfd.readouterr().out
    assert "finished before; fresh=true runs it again: test accuracy 97.53%" in output
    folder.update_status(code="0123456789")
    run(config)
    output = capfd.readouterr().out
    assert re.search(r"finished before under commit a{10}, now ([0-9a-f]{10}|unknown)", output)
