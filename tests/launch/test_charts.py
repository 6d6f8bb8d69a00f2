"""What `wandb leet` is given to show, and a report that is not made twice."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import ROOT, configure

from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.ground.errors import ConfigError
from igo.report import program
from igo.runs.folder import RunFolder

sys.path.insert(0, str(ROOT / "launch"))
import charts


def recorded(runs_dir: Path, config: Config, times: tuple[str, ...]) -> RunFolder:
    """A run that W&B has files of, one for each start."""
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    folder.write_plan(make_plan(config))
    run_id = f"{folder.path.name[-10:]}-ab12cd"
    folder.begin_status(state="finished", wandb_id=run_id)
    for begun in times:
        place = runs_dir / "wandb" / f"offline-run-{begun}-{run_id}"
        place.mkdir(parents=True)
        (place / f"run-{run_id}.wandb").write_text(f"{folder.path.name} {begun}")
    return folder


def test_runs_are_shown_by_p_split_and_seed(tmp_path: Path) -> None:
    here = f"runs_dir={tmp_path}"
    times = ("20260101_000000", "20260101_000005")  # started twice
    steps = recorded(tmp_path, configure("p=0.25", "split=0", "seed=7", here), times)
    cosine = recorded(tmp_path, configure("schedule=cosine", here), times[:1])
    for _ in range(2):  # made anew each time
        view = charts.view(tmp_path)
        shown = [path.name for path in view.iterdir()]
        assert sorted(shown) == [
            "run-20260101_000000-cosine s0.5 #0",
            "run-20260101_000000-p0.25 s0 #7",
            "run-20260101_000005-p0.25 s0 #7",
        ]
    for path in view.iterdir():  # leet finds run-ID.wandb in a folder run-TIME-ID
        name = path.name.split("-", 2)[2]
        held = (path / f"run-{name}.wandb").read_text().split()[0]
        assert held == (cosine if "cosine" in name else steps).path.name


def test_runs_of_one_label_that_started_together_are_told_apart(tmp_path: Path) -> None:
    for epochs in (3, 4):
        config = configure(f"epochs={epochs}", f"runs_dir={tmp_path}")
        recorded(tmp_path, config, ("20260101_000000",))
    shown = sorted(path.name for path in charts.view(tmp_path).iterdir())
    assert shown == ["run-20260101_000000-p0.5 s0.5 #0", "run-20260101_000000-p0.5 s0.5 #0 (2)"]


def test_runs_of_several_data_sets_are_shown_by_them(tmp_path: Path) -> None:
    for name in ("cifar10", "cifar100", "digits"):
        config = configure(f"dataset={name}", f"runs_dir={tmp_path}")
        recorded(tmp_path, config, ("20260101_000000",))
    shown = sorted(
        path.name.partition("-20260101_000000-")[2] for path in charts.view(tmp_path).iterdir()
    )
    assert shown == ["cifar10 p0.5 s0.5 #0", "cifar100 p0.5 s0.5 #0", "digits p0.5 s0.5 #0"]


CHILD = """
import os, sys, termios, tty
tty.setraw(0)
os.write(1, b"Metrics")
read = b""
while not read.endswith(b"q"):
    read += os.read(0, 1)
os.write(1, b"read %r of %r" % (read, os.get_terminal_size()[:2]))
sys.exit(3)
"""


def test_keys_are_typed_into_a_program_and_a_persons_own_follow(tmp_path: Path) -> None:
    """In a terminal of 80 columns; the program sees its size and every key, and its exit counts."""
    outside = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'launch')!r}); import terminal;"
        f"sys.exit(terminal.show([sys.executable, '-c', {CHILD!r}], b'/x\\r', b'Metrics'))"
    )
    child, master = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", outside])
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    output, sent = b"", False
    with contextlib.suppress(OSError):  # EIO: it has ended
        while select.select([master], [], [], 60)[0]:
            output += os.read(master, 4096)
            if b"Metrics" in output and not sent:
                time.sleep(3)  # the keys before
                os.write(master, b"q")
                sent = True
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert b"read b'/x\\rq' of (80, 24)" in output


def test_a_run_without_a_record_is_shown_by_its_id(tmp_path: Path) -> None:
    place = tmp_path / "wandb" / "run-20260101_000000-abc"
    place.mkdir(parents=True)
    (place / "run-abc.wandb").touch()
    assert [path.name for path in charts.view(tmp_path).iterdir()] == ["run-20260101_000000-abc"]


def test_no_runs_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="W&B has no runs there"):
        charts.view(tmp_path)


def test_a_report_is_current_until_a_run_a_setting_or_a_file_changes(tmp_path: Path) -> None:
    here = f"runs_dir={tmp_path / 'runs'}"
    folders = [recorded(tmp_path, configure(f"seed={seed}", here), ()).path for seed in (0, 1)]
    output = tmp_path / "report"
    output.mkdir()
    inputs = program.fingerprint(folders, "settings")
    (output / program.STAMP).write_text(inputs)
    assert not program.is_current(output, inputs)  # no page
    (output / program.PAGE).touch()
    assert program.is_current(output, program.fingerprint(folders[::-1], "settings"))
    (folders[0] / "checkpoint.pt").touch()  # no part of a report
    assert program.is_current(output, program.fingerprint(folders, "settings"))
    assert not program.is_current(output, program.fingerprint(folders, "others"))
    assert not program.is_current(output, program.fingerprint(folders[:1], "settings"))
    os.utime(folders[1] / "status.json", (0, 0))
    assert not program.is_current(output, program.fingerprint(folders, "settings"))
