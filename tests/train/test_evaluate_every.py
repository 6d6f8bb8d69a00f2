"""evaluate_every: the same training, evaluated less often; whoever reads the record copes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, assert_equal, configure, records
from recorded import record_runs
from trained import prepared, timeless, train

from igo.report import content, results

RUN = (*TINY, "epochs=5", "dataset.validation=0.25", "optimizer=shb")
TESTED = ("test/loss", "test/accuracy", "validation/loss", "validation/accuracy")


@pytest.mark.parametrize(("every", "evaluated"), [(2, [2, 4, 5]), (100, [5])])
def test_training_has_the_same_bits(every: int, evaluated: list[int]) -> None:
    often, seldom = (prepared(configure(*RUN, f"evaluate_every={n}")) for n in (1, every))
    wanted, some = timeless(train(often).records), timeless(train(seldom).records)
    assert_equal(seldom.network.state_dict(), often.network.state_dict())
    for record in wanted:
        if record["epoch"] not in evaluated:
            record.update(dict.fromkeys(TESTED))
    assert some == wanted


def test_curves_go_from_one_evaluation_to_the_next(tmp_path: Path) -> None:
    """And runs that were evaluated at other epochs are of one setting."""
    folders = [*record_runs(tmp_path, "p=0.5", "split=1"), *record_runs(tmp_path, "p=1", "split=1")]
    for folder in folders:
        rows = records(folder, timings=True)
        rows[0] |= {"test/accuracy": None, "test/loss": None}
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)
    file = folders[0] / "config.yaml"
    file.write_text(file.read_text().replace("evaluate_every: 1\n", "evaluate_every: 3\n"))
    found = results.read(folders)
    assert found.settings["n"].to_list() == [3, 3]
    (section,) = content.compared(found)
    lines = section.figures[0].drawing.axes[0].get_lines()
    assert [np.ravel(line.get_xdata()).tolist() for line in lines] == [[2, 3]] * 2
