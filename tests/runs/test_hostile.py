"""Run folders that somebody else made: nothing in them runs.

tests/runs/test_checkpoint.py has checkpoints, tests/data/test_cache.py arrays, and
tests/report/test_report_page.py the report.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY, configure
from recorded import record_runs

from igo.config.load import read_config
from igo.ground.errors import UserError
from igo.report.table import read_run


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run folder where ``read_config`` and the table find no fault."""
    (folder,) = record_runs(tmp_path / "runs", seeds=[0])
    assert read_config(folder / "config.yaml") == configure(*TINY, f"runs_dir={tmp_path}/runs")
    assert read_run(folder)["state"] == "finished"
    return folder


def test_a_tag_in_a_configuration_is_refused(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recorded.parent)
    path = recorded / "config.yaml"
    path.write_text(path.read_text() + "p: !!python/object/apply:os.mkdir [ran]\n")
    with pytest.raises(UserError, match="could not determine a constructor"):
        read_config(path)
    assert "could not determine a constructor" in read_run(recorded)["error"]
    assert not (recorded.parent / "ran").exists()


def test_what_is_no_configuration_is_refused(recorded: Path) -> None:
    path, none = recorded / "config.yaml", "does not hold a run's configuration"
    for content, reason in (
        *((text, none) for text in (b"[1]", b"", b"null", b"a")),
        (b"p: \xff", r"config.yaml cannot be read \('utf-8' codec"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=reason):
            read_config(path)
    path.unlink()
    with pytest.raises(UserError, match=r"config.yaml cannot be read \(.*No such file"):
        read_config(path)
