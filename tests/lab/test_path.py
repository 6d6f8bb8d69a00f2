"""The study of results/path.md on made-up records: its verdicts and its page."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from igo.config.load import make_plan
from lab.study import design, path, records
from lab.study.design import Record

SHIFT = {"1": 0.0, "2": 3.0, "3": 3.0, "4": 0.0, "reversed": 0.0, "late": 2.0, "quiet": -1.0}


def test_claims_are_judged_at_the_longest_training_if_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal arms are equal, a shift of 3 points is higher, and less than 99 % is no end."""
    monkeypatch.setattr(path, "STUDY", replace(path.STUDY, key=design.key))
    random, runs = np.random.default_rng(0), dict[str, Record]()
    for job in path.jobs({}):
        arm, epochs, seed = job["arm"], job["epochs"], job["seed"]
        accuracy = 50 + seed + SHIFT[arm] + random.normal() / 10
        epoch = {"delta_measured": epochs * 10 ** (seed - 6), "updates": 8000}
        record = {"cpu": "", "torch": "", "seconds": 7, "epochs": [epoch]}
        record |= dict.fromkeys(path.ENDPOINTS.values(), accuracy)
        record["end_train_accuracy"] = 50 if epochs == 5 else 98 if arm == "quiet" else 99.5
        if seed < 12 or (seed > 12 and arm != "1"):
            runs[design.key(job)] = record
    page = path.summary(runs)
    verdicts = dict(
        re.findall(r"^\| 80 epochs, running: (\S+ − \S+) \| 12 .* \| (.*) \|$", page, re.M)
    )
    assert verdicts == {
        "2 − 1": "higher",
        "3 − 1": "higher",
        "4 − 1": "equal",
        "3 − 2": "equal",
        "4 − 2": "lower",
        "2 − quiet": "not judged: training has not ended",
    }
    assert "| 2 | 50.00 /" in page
    assert "| 44 | 8,000 | 7 |\n" in page  # δ between 8 and 80; updates and seconds of 80 epochs
    assert re.search(r"80 epochs, running: 4 − 2 \| 12 \| −(3\.0|2\.9)", page)
    (unjudged,) = re.findall(r"^\| 80 epochs, running: 2 − quiet .*$", page, re.M)
    assert unjudged.endswith("| – | – | not judged: training has not ended |")
    (estimates,) = re.findall(r"^\| 2 − late (.*)$", page, re.M)  # four lengths; the last, fresh
    assert estimates.count("| +1.0") + estimates.count("| +0.9") == 5
    assert re.search(r"^\| late@20 − 2@80 \| −(1\.0|0\.9).*\| −(1\.0|0\.9)", page, re.M)
    path.draw(runs, tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 10_000


def test_the_arms_have_the_stages_of_the_protocol() -> None:
    """η of each stage at 5 epochs, relative to that of Method 1; b alone changes in Method 3."""
    stages = {}
    for arm in path.ARMS:
        settings = path.settings({"arm": arm, "epochs": 5, "seed": 0})
        plan = make_plan(records.config_of(settings))
        rates = [row.eta_m / path.RATE for row in plan.rows for _ in row.epoch_range]
        stages[arm] = ([round(rate, 3) for rate in rates], plan.rows[-1].b_m)
    falling = [1, 0.707, 0.5, 0.354, 0.25]
    assert stages["1"] == ([1] * 5, 16)
    assert stages["2"] == stages["reversed"] == (falling, 16)  # turned round when it is trained
    assert stages["3"][1] == 250
    assert stages["4"][1] == 80
    assert stages["late"] == ([1, 1, 1, 1, 0.25], 16)
    assert stages["quiet"] == ([0.25] * 5, 16)
