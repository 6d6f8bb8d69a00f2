"""The study of results/path.md on made-up records: its rows, its verdicts and its page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from igo.config.load import make_plan
from lab.study import path, records, rows
from lab.study.records import Run

SHIFT = {"1": 0.0, "2": 3.0, "3": 3.0, "4": 0.0, "reversed": 0.0, "late": 2.0, "quiet": -1.0}


def test_claims_are_judged_at_the_longest_training_if_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal arms are equal, a shift of 3 points is higher, and less than 99 % is no end."""
    monkeypatch.setattr(path, "SEEDS", 12)
    monkeypatch.setattr(path, "LEAST", 12)
    random, runs = np.random.default_rng(0), {}
    status = {"hardware": {"cpu": "", "instructions": ""}, "versions": {"torch": ""}, "seconds": 7}
    for seed in range(12):
        for arm, settings in path.ARMS.items():
            for epochs in path.LENGTHS:
                right = (50 + seed + SHIFT[arm] + random.normal() / 10) / 100
                train = 0.5 if epochs == 5 else 0.98 if arm == "quiet" else 0.995
                record = {
                    "test/accuracy": right,
                    "train/accuracy": train,
                    "train/loss": 0.1,
                    "delta_measured": epochs * 10 ** (seed - 6),
                    "updates": 8000,
                }
                name = records.name_of(path.EXPERIMENT, settings | {"epochs": epochs}, seed)
                after_text = json.dumps({"anew_accuracy": 100 * right})
                files = {"metrics.jsonl": json.dumps(record), "status.json": json.dumps(status)}
                runs[name] = Run(name, files | {"after.json": after_text})
    assert len(runs) == 12 * 7 * 4 == len(rows.whole_seeds(path.rows(range(12)), runs))
    claims = path.fill(runs)
    judged = {row["claim"]: row["found"]["verdict"] for row in claims if row["test"] != "none"}
    assert judged == {
        f"80 epochs, running: {claim}": verdict
        for claim, verdict in {
            "2 − 1": "higher",
            "3 − 1": "higher",
            "4 − 1": "equal",
            "3 − 2": "equal",
            "4 − 2": "lower",
            "2 − quiet": "not judged: training has not ended",
        }.items()
    }
    page = path.summary(claims, runs)
    assert "| 2 | 50.00 /" in page
    assert "| 44 | 8,000 | 7 |\n" in page  # δ between 8 and 80; updates and seconds of 80 epochs
    assert "80 epochs, running: 4 − 2 | 12 | −3." in page
    (unjudged,) = re.findall(r"^\| 80 epochs, running: 2 − quiet .*$", page, re.M)
    assert unjudged.endswith("| – | – | not judged: training has not ended |")
    (estimates,) = re.findall(r"^\| 2 − late (.*)$", page, re.M)  # four lengths; the last, fresh
    assert estimates.count("| +1.0") + estimates.count("| +0.9") == 5
    assert re.search(r"^\| late@20 − 2@80 \| −(1\.0|0\.9).*\| −(1\.0|0\.9)", page, re.M)
    path.draw(claims, tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 10_000


def test_the_arms_have_the_stages_of_the_protocol() -> None:
    """η of each stage at 5 epochs, relative to that of Method 1; b alone changes in Method 3."""
    stages = {}
    for arm, settings in path.ARMS.items():
        plan = make_plan(records.config(path.EXPERIMENT, settings | {"epochs": 5}, 0))
        rates = [row.eta_m / path.RATE for row in plan.rows for _ in row.epoch_range]
        stages[arm] = ([round(rate, 3) for rate in rates], plan.rows[-1].b_m)
    falling = [1, 0.707, 0.5, 0.354, 0.25]
    assert stages["1"] == ([1] * 5, 16)
    assert stages["2"] == stages["reversed"] == (falling, 16)  # turned round when it is trained
    assert stages["3"][1] == 250
    assert stages["4"][1] == 80
    assert stages["late"] == ([1, 1, 1, 1, 0.25], 16)
    assert stages["quiet"] == ([0.25] * 5, 16)
