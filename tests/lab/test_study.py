"""The study: what the rows say follows from the records, by SciPy and statsmodels too."""

from __future__ import annotations

import itertools
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import python
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from lab.study import __main__ as program
from lab.study import judge, reproduce, rows, table, tuning, written
from lab.study.records import Run, of_archives, write_archive

Row = dict[str, Any]
PAIRED = ("above", "equal")
MOST_BRUTE = 12  # seeds whose every sign is tried here; of more, SciPy draws some


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return of_archives()


@pytest.fixture(scope="module")
def study() -> list[Row]:
    return written.read()


@pytest.fixture(scope="module")
def of_rows(runs: dict[str, Run], study: list[Row]) -> dict[str, np.ndarray]:
    """The endpoints of each row that was run, (arms, seeds)."""
    values = {}
    for family in rows.families(study):
        for row in family:
            if seeds := rows.seeds_of(row, family, runs):
                what = row.get("endpoint", "accuracy")
                values[row["row"]] = rows.values(row, runs, seeds, what)
    return values


@pytest.mark.slow
def test_the_rows_are_what_the_records_come_to(runs: dict[str, Run], study: list[Row]) -> None:
    again = written.read()
    rows.fill(again, runs)
    for row, expected in zip(study, again, strict=True):
        assert (row["found"] is None) == (expected["found"] is None), row["row"]
        for name, value in (expected["found"] or {}).items():
            if isinstance(value, float | list):
                np.testing.assert_allclose(row["found"][name], value, rtol=1e-4, atol=1e-9)
            else:
                assert row["found"][name] == value, (row["row"], name)


def test_the_pages_show_the_rows(study: list[Row]) -> None:
    assert table.between(table.README.read_text()) == table.readme(study)
    assert table.between(table.PAGE.read_text()) == table.page(study)
    shown = table.readme(study).splitlines()[2:]
    assert all(line.split(" | ")[0].removeprefix("| ") in table.page(study) for line in shown)


def test_the_last_epoch_is_scipys(runs: dict[str, Run], study: list[Row]) -> None:
    """Paired t intervals and Holm by other libraries, from the records' own last lines."""
    families: dict[str, list[tuple[Row, float]]] = defaultdict(list)
    for row in study:
        if row["found"] is None or "last_epoch" not in row["found"]:
            continue
        seeds = rows.planned_seeds(row)[: row["found"]["n"]]
        first, second = (
            [100 * runs[name].epochs[-1]["test/accuracy"] for name in arm]
            for arm in rows.names(row, seeds)
        )
        theirs = stats.ttest_rel(first, second)
        expected = [np.mean(first) - np.mean(second), *theirs.confidence_interval(0.95)]
        np.testing.assert_allclose(row["found"]["last_epoch"], expected, rtol=1e-4, atol=1e-6)
        d = np.subtract(first, second)
        p = brute_sign_flip(d) if len(d) <= MOST_BRUTE else np.nan
        families[row["family"]].append((row, p))
    assert {"a", "a_fashion", "b_methods", "b_fashion", "b_splits", "c"} == set(families)
    for name in ("a_fashion", "b_fashion", "c"):  # of twelve seeds
        adjusted = multipletests([p for _, p in families[name]], method="holm")[1]
        written_p = [row["found"]["last_epoch_p"] for row, _ in families[name]]
        np.testing.assert_allclose(written_p, adjusted, rtol=1e-4)


def test_equal_and_different_are_both_said() -> None:
    equal = {"n": 9, "statistic": 0.3, "low": 0.1, "high": 0.4, "verdict": "confirmed",
             "p_equal_adjusted": 0.01, "seeds_to_equate": 4}  # fmt: skip
    row = {"claim": "x", "test": "equal", "endpoint": "end_accuracy"}
    for p, end in (
        (0.04, "| confirmed, and different |"),
        (0.06, "| confirmed |"),
        (None, "| confirmed |"),
    ):
        line = table.table([{**row, "found": equal | {"p_adjusted": p}}]).splitlines()[-1]
        assert line.endswith(end)
        assert "| last epoch |" in line


@pytest.mark.parametrize("test", PAIRED)
def test_two_seeds_alike_are_undecided(test: str) -> None:
    """As `make reproduce … SEEDS=2` may have them: an accuracy comes in steps."""
    result = judge.paired(np.array([98.0, 97.5]), np.array([98.0, 97.5]))
    judge.adjusted([result])
    row = {"claim": "x", "test": test, "found": result}
    found = result | {"verdict": rows.verdict(row, result)}
    line = table.table([{**row, "found": found}]).splitlines()[-1]
    assert line.endswith("| undecided |")


def test_what_was_tuned_follows_from_the_held_out_images(runs: dict[str, Run]) -> None:
    accuracies = tuning.validation(runs.values())
    assert (table.ROOT / "results" / "tuning.md").read_text() == tuning.table(accuracies)


def test_every_run_finished_and_none_was_tuned_on(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert run.status["state"] == "finished"
        assert run.epochs[-1]["epoch"] == len(run.epochs)
        assert "validation/accuracy" in run.epochs[-1] or int(setting(run, "seed")) < 1000


def setting(run: Run, name: str) -> str:
    lines = run.files["config.yaml"].splitlines()
    return next(line for line in lines if line.startswith(f"{name}:")).partition(":")[2].strip()


def test_arms_of_a_row_differ_and_share_seed_and_data(
    runs: dict[str, Run], study: list[Row]
) -> None:
    for row in study:
        if row["found"] is None:
            continue
        seeds = rows.planned_seeds(row)[: row["found"]["n"]]
        named = np.array(rows.names(row, seeds))
        assert len(set(named.ravel())) == named.size
        for seed, names in zip(seeds, named.T, strict=True):
            assert {setting(runs[name], "seed") for name in names} == {str(seed)}
            assert len({runs[name].status["data"]["fingerprint"] for name in names}) == 1


def test_differences_and_intervals_are_scipys(
    of_rows: dict[str, np.ndarray], study: list[Row]
) -> None:
    for row in study:
        if row["row"] not in of_rows or row["test"] not in PAIRED:
            continue
        first, second = of_rows[row["row"]]
        result, theirs = row["found"], stats.ttest_rel(first, second)
        interval = theirs.confidence_interval(0.95)
        numbers = [result[name] for name in ("statistic", "low", "high", "sd")]
        expected = [np.mean(first - second), *interval, np.std(first - second, ddof=1)]
        np.testing.assert_allclose(numbers, expected, rtol=1e-4)
        if len(first) <= MOST_BRUTE:
            np.testing.assert_allclose(result["p"], brute_sign_flip(first - second), rtol=1e-4)
        if "p_equal" in result:
            p_equal, *_ = DescrStatsW(first - second).ttost_mean(-judge.MARGIN, judge.MARGIN)
            np.testing.assert_allclose(result["p_equal"], p_equal, rtol=1e-4)


def test_the_sign_flip_of_twenty_seeds_is_scipys(
    of_rows: dict[str, np.ndarray], study: list[Row]
) -> None:
    """Of 20,000 signs that SciPy draws: within five standard errors."""
    row = next(row for row in study if row["row"] == "a_method2")
    first, second = of_rows["a_method2"]
    drawn = stats.permutation_test(
        (first, second), lambda x, y, axis: np.mean(x - y, axis=axis), n_resamples=20_000,
        permutation_type="samples", rng=np.random.default_rng(0),
    ).pvalue  # fmt: skip
    error = np.sqrt(drawn * (1 - drawn) / 20_000)
    assert abs(row["found"]["p"] - drawn) < 5 * error


def brute_sign_flip(d: np.ndarray) -> float:
    """Every one of the 2^n signs."""
    numbers = np.arange(2 ** len(d))
    sums = np.zeros(len(numbers))
    for i, value in enumerate(d):
        sums += np.where(numbers >> i & 1, value, -value)
    return float(np.mean(np.abs(sums) >= abs(d.sum()) - 1e-9))


@pytest.mark.slow
def test_adjustment_and_power_are_those_of_statsmodels(study: list[Row]) -> None:
    families: dict[str, list[Row]] = defaultdict(list)
    for row in study:
        if row["found"] is not None and row["test"] in PAIRED:
            families[row.get("family", row["row"])].append(row["found"])
    for family in families.values():
        for name in ("p", "p_equal"):
            raw = [result[name] for result in family if name in result]
            if raw:
                ours = [result[f"{name}_adjusted"] for result in family]
                np.testing.assert_allclose(ours, multipletests(raw, method="holm")[1], rtol=1e-4)
        for result in family:
            size = TTestPower().solve_power(
                nobs=result["n"], alpha=judge.LEVEL / len(family), power=0.8
            )
            np.testing.assert_allclose(result["detectable"], size * result["sd"], rtol=1e-3)


def test_the_order_is_judged_by_all_orders(
    of_rows: dict[str, np.ndarray], study: list[Row]
) -> None:
    for row in study:
        if row["test"] != "order" or row["row"] not in of_rows:
            continue
        means = of_rows[row["row"]].mean(axis=1)
        published = [arm["published"] for arm in row["arms"]]
        taus = [concordance(means, other) for other in itertools.permutations(published)]
        tau = concordance(means, published)
        np.testing.assert_allclose(row["found"]["statistic"], tau, rtol=1e-4)
        p = np.mean(np.abs(taus) >= abs(tau) - 1e-9)
        np.testing.assert_allclose(row["found"]["p"], p, rtol=1e-4)


def concordance(x: Any, y: Any) -> float:
    """Kendall's τ without ties: concordant less discordant pairs, over all."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    return float(np.mean([np.sign((x[i] - x[j]) * (y[i] - y[j])) for i, j in pairs]))


SURE, UNSURE = {"p_adjusted": 0.01}, {"p_adjusted": 0.3}
NEAR, FAR = {"p_equal_adjusted": 0.01}, {"p_equal_adjusted": 0.3}
UP, DOWN = {"statistic": 0.4, "high": 0.7}, {"statistic": -0.4, "high": -0.1}


@pytest.mark.parametrize(
    ("test", "result", "verdict"),
    [
        ("above", SURE | FAR | UP, "confirmed"),
        ("above", SURE | NEAR | UP, "confirmed"),
        ("above", SURE | FAR | DOWN, "refuted"),
        ("above", UNSURE | NEAR | UP, "refuted"),
        ("above", UNSURE | FAR | UP, "undecided"),
        ("above", {"p_adjusted": None} | FAR | UP, "undecided"),
        ("equal", SURE | NEAR | UP, "confirmed"),
        ("equal", SURE | FAR | UP, "refuted"),
        ("equal", UNSURE | FAR | DOWN, "undecided"),
        ("order", SURE | UP, "confirmed"),
        ("order", UNSURE | DOWN, "refuted"),
        ("order", UNSURE | UP, "undecided"),
    ],
)
def test_verdicts_are_the_protocols(test: str, result: Row, verdict: str) -> None:
    assert judge.verdict(test, result) == verdict


def test_an_archive_gives_back_what_was_put_in(tmp_path: Any) -> None:
    put = [Run(f"run-{i}", {"status.json": f'{{"i": {i}}}', "config.yaml": "δ: 1\n"}) for i in "12"]
    for name in ("a", "b"):
        write_archive(tmp_path / f"{name}.tar.xz", put)
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    assert of_archives(tmp_path) == {run.name: run for run in put}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("anneal", "error: name a sweep"),
        ("archive", "error: name the sweeps"),
        ("archive nothing", "error: no sweep nothing was run"),
        ("reproduce nothing", "error: there is no row 'nothing'. make reproduce alone lists"),
        ("reproduce a_metod2", "error: there is no row 'a_metod2'. Did you mean 'a_method2'?"),
        ("reproduce a_method2 x", "error: SEEDS=x: it must be a whole number"),
    ],
)
def test_a_mistake_is_one_line(typed: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["study", *typed.split()])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert str(ended.value).startswith(message)
    assert "\n" not in str(ended.value)


def test_the_list_of_rows_is_there_at_once(study: list[Row]) -> None:
    """Without PyTorch, Hydra and SciPy, which take seconds."""
    code = (
        "import sys; from lab.study.__main__ import main; sys.argv = ['', 'reproduce'];"
        "main(); print(*sys.modules.keys() & {'torch', 'hydra', 'scipy'})"
    )
    done = python(table.ROOT, "-c", code).good()
    *lines, heavy = done.stdout.splitlines()
    assert not heavy
    assert max(map(len, lines)) <= 80
    for row in study:
        (line,) = [line for line in lines if line.split()[:1] == [row["row"]]]
        runs = np.size(rows.names(row, rows.planned_seeds(row)))
        assert line.split()[1] == str(max(runs, 2 * len(written.arms(row))))
        assert line.endswith(row["claim"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (1, "error: 4 of 4 runs did not finish, the table above says why; the same command runs"),
        (0, "error: 4 of 4 runs did not finish"),
        (2, "2"),  # a setting was refused: the sweep said it
        (130, "130"),  # stopped by Ctrl-C: the sweep said how to continue
        (-9, "error: the sweep was killed by SIGKILL; the same command continues it"),
    ],
)
def test_a_reproduction_says_how_its_sweep_ended(
    code: int, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def ended(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(reproduce, "RUNS", tmp_path)
    monkeypatch.setattr(reproduce.subprocess, "run", ended)
    monkeypatch.setattr(reproduce.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        reproduce.reproduce(["a_method2", "2"])
    assert str(stopped.value).startswith(message)
    assert "hydra.launcher.retry_failed=true" in commands[0]
