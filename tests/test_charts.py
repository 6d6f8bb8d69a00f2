"""What `wandb leet` is given to show, and a report that is not made twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from igo.analysis.report import inputs
from igo.config.plan import make_plan
from igo.config.schema import Config
from igo.errors import ConfigError
from igo.runs.folder import RunFolder

sys.path.insert(0, str(ROOT / "launch"))
import charts

Make = Callable[..., Config]


def recorded(runs_dir: Path, config: Config, times: tuple[str, ...]) -> RunFolder:
    """A run that W&B has files of, one for each start."""
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    folder.write_plan(make_plan(config))
    run_id = f"{folder.path.name[-10:]}-ab12cd"
    folder.begin_status(state="finished", wandb_id=run_id)
    for time in times:
        place = runs_dir / "wandb" / f"offline-run-{time}-{run_id}"
        place.mkdir(parents=True)
        (place / f"run-{run_id}.wandb").write_text(f"{folder.path.name} {time}")
    return folder


def test_runs_are_shown_by_p_split_and_seed(make_config: Make, tmp_path: Path) -> None:
    here = f"runs_dir={tmp_path}"
    times = ("20260101_000000", "20260101_000005")  # started twice
    one = recorded(tmp_path, make_config("p=0.25", "split=0", "seed=7", here), times)
    two = recorded(tmp_path, make_config("schedule=cosine", here), times[:1])
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
        assert held == (two if "cosine" in name else one).path.name


def test_runs_of_one_label_that_started_together_are_told_apart(
    make_config: Make, tmp_path: Path
) -> None:
    for epochs in (3, 4):
        config = make_config(f"epochs={epochs}", f"runs_dir={tmp_path}")
        recorded(tmp_path, config, ("20260101_000000",))
    shown = sorted(path.name for path in charts.view(tmp_path).iterdir())
    assert shown == ["run-20260101_000000-p0.5 s0.5 #0", "run-20260101_000000-p0.5 s0.5 #0 (2)"]


def test_a_run_without_a_record_is_shown_by_its_id(tmp_path: Path) -> None:
    place = tmp_path / "wandb" / "run-20260101_000000-abc"
    place.mkdir(parents=True)
    (place / "run-abc.wandb").touch()
    assert [path.name for path in charts.view(tmp_path).iterdir()] == ["run-20260101_000000-abc"]


def test_no_runs_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="W&B has no runs there"):
        charts.view(tmp_path)


def test_a_report_is_current_until_a_run_a_setting_or_a_file_changes(
    make_config: Make, tmp_path: Path
) -> None:
    here = f"runs_dir={tmp_path / 'runs'}"
    folders = [recorded(tmp_path, make_config(f"seed={seed}", here), ()).path for seed in (0, 1)]
    page = tmp_path / "report" / "index.html"
    page.parent.mkdir()
    made = inputs.fingerprint(folders, "settings")
    inputs.keep(page, made)
    assert not inputs.is_current(page, made)  # no page
    page.touch()
    assert inputs.is_current(page, inputs.fingerprint(folders[::-1], "settings"))
    (folders[0] / "checkpoint.pt").touch()  # no part of a report
    assert inputs.is_current(page, inputs.fingerprint(folders, "settings"))
    assert not inputs.is_current(page, inputs.fingerprint(folders, "others"))
    assert not inputs.is_current(page, inputs.fingerprint(folders[:1], "settings"))
    os.utime(folders[1] / "status.json", (0, 0))
    assert not inputs.is_current(page, inputs.fingerprint(folders, "settings"))
