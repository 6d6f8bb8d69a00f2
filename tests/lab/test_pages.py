"""The pages of the studies show their archives, and call an outcome as the protocol does."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from igo.config.load import make_plan
from lab.study import __main__ as program
from lab.study import fewer_updates, fewer_updates_page, path, records
from lab.study.design import ROOT
from lab.study.table import END, RESULTS, START, Page

N = 10  # seeds
REFERENCE = "cosine"
HALF, ZERO = "cosine, split ½", "cosine, split 0"
BATCH = "cosine, b = 32"
NEAREST, FARTHER = "cosine, 0.7 of the epochs", "cosine, 0.5 of the epochs"
SECONDS = {HALF: 0.71, ZERO: 0.62, BATCH: 0.6, NEAREST: 0.7, FARTHER: 0.5}  # cosine has 1
GAIN, FEWER, BETTER, NEITHER = itertools.product((True, False), repeat=2)
DECIMAL = re.compile(r"\d+\.\d+")
MANY_RUNS = ("path", "fewer_updates")


def assert_same(text: str, expected: str) -> None:
    """The words are equal; a decimal may differ by one in its last digit, as libraries round it."""
    assert DECIMAL.sub("#", text) == DECIMAL.sub("#", expected)
    for decimal, wanted in zip(DECIMAL.findall(text), DECIMAL.findall(expected), strict=True):
        last_digit = 10.0 ** -len(wanted.partition(".")[2])
        assert abs(float(decimal) - float(wanted)) < 1.5 * last_digit


def between(text: str) -> str:
    """The text between the marks."""
    return text.partition(START)[2].partition(END)[0]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name in MANY_RUNS))
        for page in program.PAGES
    ],
)
def test_the_pages_show_the_archives(page: Page, tmp_path: Path) -> None:
    runs = page.study.archived()
    arms = page.study.arms(runs)
    assert_same(page.summary(arms), between((RESULTS / f"{page.name}.md").read_text()))
    for file, text in page.csvs(runs, arms).items():
        assert_same(text, (RESULTS / file).read_text())
    page.draw(arms, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    if page is fewer_updates_page.PAGE:
        assert_same(fewer_updates_page.readme(), between((ROOT / "README.md").read_text()))


def test_a_growing_batch_gains_if_it_is_equal_and_above_training_less() -> None:
    """The numbers are means less that of cosine, in points; an outcome says whether A, B hold."""
    for half, zero, batch, nearest, outcomes in (
        (0.0, 0.1, -1.0, -1.0, [GAIN, GAIN]),
        (0.0, -0.1, 0.0, -0.1, [FEWER, FEWER]),
        (-1.0, 0.0, -3.0, 2.0, [BETTER, FEWER]),
        (2.0, -2.0, 2.0, -2.0, [NEITHER, NEITHER]),
    ):
        means = {
            REFERENCE: 0.0,
            HALF: half,
            ZERO: zero,
            BATCH: batch,
            NEAREST: nearest,
            FARTHER: 50.0,
        }
        random = np.random.default_rng(0)
        base = 60 + random.normal(size=N)
        ends = {name: base + mean + random.normal(0, 0.3, N) for name, mean in means.items()}
        outcomes_of_claims = fewer_updates_page.claims(ends, SECONDS)
        rivals = [outcome.claim.name.rpartition(" − ")[2] for outcome in outcomes_of_claims]
        assert rivals == [REFERENCE, REFERENCE, BATCH, NEAREST]
        a_half, a_zero, b_half, b_zero = (outcome.verdict for outcome in outcomes_of_claims)
        pairs = ((a_half, b_half), (a_zero, b_zero))
        assert [(a == "equal", b == "higher") for a, b in pairs] == outcomes


def test_a_failed_run_counts_as_chance_and_has_no_updates() -> None:
    machine = {"versions": {"torch": "2"}, "hardware": {"cpu": "x", "instructions": "y"}}
    epoch = {"test/accuracy": 0.6, "train/accuracy": 0.9, "train/loss": 0.1, "updates": 70}
    failed_run, finished_run = (
        records.record_of(
            {
                "status.json": json.dumps(machine | {"state": state}),
                "metrics.jsonl": json.dumps(epoch) + "\n",
                "after.json": json.dumps({"anew_accuracy": 61.0}),
            }
        )
        for state in ("failed", "finished")
    )
    arms = {(name, 80): [failed_run, finished_run] for name in fewer_updates.ARMS}
    for endpoint, accuracy in (("running", 60), ("fresh", 61)):
        ends = fewer_updates_page.ends(arms, 80, endpoint)
        assert ends[REFERENCE] == pytest.approx([10, accuracy])
    assert fewer_updates_page.updates(arms, REFERENCE) == 70
    assert failed_run["cpu"] == finished_run["cpu"] == "x, y"


def test_the_arms_of_the_path_have_the_stages_of_its_protocol() -> None:
    """η of each stage at 5 epochs, relative to that of Method 1; b alone changes in Method 3."""
    stages = {}
    for arm in path.ARMS:
        settings = path.settings({"arm": arm, "epochs": 5, "seed": 0})
        plan = make_plan(records.config_of(settings))
        rates = [row.eta_m / path.RATE for row in plan.rows for _ in row.epoch_range]
        stages[arm] = ([round(rate, 3) for rate in rates], plan.rows[-1].b_m)
    falling_rates = [1, 0.707, 0.5, 0.354, 0.25]
    assert stages["Method 1"] == ([1] * 5, 16)
    assert stages["Method 2"] == (falling_rates, 16)
    assert stages["Method 2 reversed"] == (falling_rates[::-1], 16)
    assert stages["Method 3"][1] == 250
    assert stages["Method 4"][1] == 80
    assert stages["late fall"] == ([1, 1, 1, 1, 0.25], 16)
    assert stages["η₁/4 throughout"] == ([0.25] * 5, 16)
