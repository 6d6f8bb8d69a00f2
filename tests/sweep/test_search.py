"""A search through the command line: Optuna draws runs, and learns the validation accuracy."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, TINY, Ended, command, python, records
from forked import forge

pytestmark = pytest.mark.skipif(
    find_spec("optuna") is None, reason="the extra `search` is not installed"
)

PLAIN = (*TINY, "tracking.mode=disabled", "dataset.validation=0.25")


def search(place: Path, *typed: str, launcher: str = "basic") -> Ended:
    """A search among runs below a folder; ``basic`` runs them in one process, one by one."""
    chosen = ("hydra/sweeper=search", f"hydra/launcher={launcher}")
    return forge.run(place, *chosen, *PLAIN, *typed, "-m")


def trials(place: Path) -> dict[str, dict[str, Any]]:
    """By run folder: its configuration, when it was last written to, and its final accuracy."""
    runs = {}
    for file in place.glob("runs/*/metrics.jsonl"):
        folder = file.parent
        runs[folder.name] = {
            "config": yaml.safe_load((folder / "config.yaml").read_text()),
            "written": (folder / "checkpoint.pt").stat().st_mtime_ns,
            "accuracy": records(folder)[-1]["validation/accuracy"],
        }
    return runs


def result(place: Path) -> dict[str, Any]:
    """What the one search below a folder wrote."""
    (file,) = (place / "runs").rglob("optimization_results.yaml")
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """Where four trials are, and how that search ended; no test changes it."""
    place = tmp_path_factory.mktemp("search")
    return place, search(place, "hydra.sweeper.n_trials=4", launcher="local")


def test_the_best_of_the_trials_is_written_and_said(searched: tuple[Path, Ended]) -> None:
    place, ended = searched
    assert ended.returncode == 0, ended.stderr
    there = trials(place)
    assert len(there) == 4
    for line in there.values():
        assert 0 < line["config"]["p"] <= 1
        assert 0 <= line["config"]["split"] <= 1
    assert len({trial["config"]["p"] for trial in there.values()}) == 4

    written = result(place)
    assert written["best_value"] == max(trial["accuracy"] for trial in there.values())
    best = [
        trial
        for trial in there.values()
        if {"p": trial["config"]["p"], "split": trial["config"]["split"]} == written["best_params"]
    ]
    assert [trial["accuracy"] for trial in best] == [written["best_value"]]
    *_, summary, where = lines = ended.stdout.splitlines()
    best_so_far = 0.0
    form = re.compile(r"trial (\d)/4: p=(.*) split=(.*): validation accuracy (.*)%, .*")
    trial_lines = [line for line in lines if line.startswith("trial ")]
    for number, line in enumerate(trial_lines, start=1):
        match = form.fullmatch(line)
        assert int(match[1]) == number
        (accuracy,) = [
            run["accuracy"]
            for run in there.values()
            if (run["config"]["p"], run["config"]["split"]) == (float(match[2]), float(match[3]))
        ]
        best_so_far = max(best_so_far, accuracy)
        assert float(match[4]) == pytest.approx(100 * accuracy, abs=0.0051)
        assert line.endswith(f"best {best_so_far:.2%}")
    assert number == 4
    assert not any("test accuracy" in line for line in lines if line.startswith("["))
    assert sum("] finished p=" in line for line in lines) == 4, "the launcher's own lines"
    assert summary.startswith(f"best trial: p={written['best_params']['p']} split=")
    assert summary.endswith(f"validation accuracy {written['best_value']:.2%}")
    assert yaml.safe_load(Path(where.removeprefix("written to ")).read_text()) == written


def test_again_it_draws_the_same_trials_and_runs_none_twice(
    searched: tuple[Path, Ended], tmp_path: Path
) -> None:
    shutil.copytree(searched[0] / "runs", tmp_path / "runs")
    before, best = trials(tmp_path), result(tmp_path)
    search(tmp_path, "hydra.sweeper.n_trials=4", launcher="local").good()
    assert trials(tmp_path) == before
    assert result(tmp_path) == best
    search(tmp_path, "hydra.sweeper.n_trials=6", launcher="local").good()
    after = trials(tmp_path)
    assert len(after) == 6, "the first four are those that were there"
    assert {name: after[name] for name in before} == before
    assert result(tmp_path)["best_value"] == max(o["accuracy"] for o in after.values())
    (book,) = (tmp_path / "runs" / "sweeps").glob("search-*/sweep.json")
    assert {entry["run"] for entry in json.loads(book.read_text())["runs"]} == set(after)
    groups = {trial["config"]["tracking"]["group"] for trial in after.values()}
    assert groups == {book.parent.name}, "the runs of all batches are one sweep and one group"


def test_it_draws_what_optuna_draws_from_these_accuracies(tmp_path: Path) -> None:
    """Twelve trials: after ten, the sampler goes by the results that it was told."""
    import optuna

    search(tmp_path, "hydra.sweeper.n_trials=12", "epochs=1", "schedule.stages=1").good()
    there = trials(tmp_path)
    accuracies = {
        (run["config"]["p"], run["config"]["split"]): run["accuracy"] for run in there.values()
    }
    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(6):
        pair = [study.ask(), study.ask()]
        drawn = [(t.suggest_float("p", 0.01, 1), t.suggest_float("split", 0, 1)) for t in pair]
        for trial, point in zip(pair, drawn, strict=True):
            study.tell(trial, accuracies.pop(point))
    assert not accuracies


def test_what_is_typed_comes_on_top_and_the_seed_draws_others(
    searched: tuple[Path, Ended], tmp_path: Path
) -> None:
    place, _ = searched
    search(
        tmp_path, "hydra.sweeper.n_trials=2", "hydra.sweeper.seed=1", "p=1",
        "split=interval(0.2,0.3)",
    ).good()  # fmt: skip
    drawn = [trial["config"] for trial in trials(tmp_path).values()]
    assert [config["p"] for config in drawn] == [1, 1]
    assert all(0.2 <= config["split"] <= 0.3 for config in drawn)
    assert not set(trials(tmp_path)) & set(trials(place))
    assert set(result(tmp_path)["best_params"]) == {"split"}


FAILING = ("hydra.sweeper.params=null", "hydra.sweeper.n_trials=4")


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(tmp_path: Path) -> None:
    ended = search(tmp_path, *FAILING, "learning_rate=choice(0.1,1e30)", launcher="local").good()
    assert "the loss or its gradient is not finite at update" in ended.stderr
    assert result(tmp_path)["best_params"] == {"learning_rate": 0.1}
    assert "warning: trial " in ended.stderr
    ended = search(tmp_path, *FAILING, "learning_rate=choice(1e30,2e30)")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: no trial of the search has a result")
    assert "Traceback" not in ended.stderr


def test_a_search_is_refused_in_one_line(tmp_path: Path) -> None:
    for typed, wanted in {
        "dry_run=true": "error: dry_run=true is not allowed: a search draws its runs",
        "dataset.validation=0": "error: dataset.validation=0 is not allowed: a search needs images",
        "hydra.sweeper.n_trials=0": "error: hydra.sweeper.n_trials=0 is not allowed: it must be",
        "hydra.sweeper.n_jobs=x": "error: hydra.sweeper.n_jobs=x is not allowed: it must be",
        "p=interval(1,0.5)": "error: p=interval(1,0.5): ",
        "learning_rate=tag(log,interval(0,1))": "error: learning_rate=tag(log,interval(0,1)): ",
        "seed=range(3,3)": "error: seed=range(3,3): it holds no value to draw",
        "hydra.sweeper.params=null": "error: there is nothing to search: give a setting several",
    }.items():
        assert search(tmp_path, typed).error().startswith(wanted)
    assert not (tmp_path / "runs").exists()


def test_without_optuna_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text("raise ImportError('there is no optuna')\n")
    line = command(tmp_path, "-m", "hydra/sweeper=search", *PLAIN)[1:]
    ended = python(tmp_path, *line, PYTHONPATH=f"{tmp_path}:{ROOT / 'src'}")
    assert ended.error().endswith("pip install -e '.[search]'")


@pytest.mark.slow
def test_each_kind_of_values_is_drawn_as_hydra_means_it(tmp_path: Path) -> None:
    """Whole numbers below the range's end, texts as they are typed, lists, and null."""
    typed = (
        "hydra.sweeper.params=null", "hydra.sweeper.n_trials=8", "epochs=1", "schedule.stages=1",
        "seed=range(3,9,2)", "learning_rate=tag(log,interval(0.001,1))", "tracking.tags=[a,b],[c]",
        "max_batch_size=int(interval(100,101))", "engine.micro_batch_size=null,64",
    )  # fmt: skip
    search(tmp_path, *typed).good()
    drawn = [trial["config"] for trial in trials(tmp_path).values()]
    assert {config["seed"] for config in drawn} <= {3, 5, 7}
    assert all(0.001 <= config["learning_rate"] <= 1 for config in drawn)
    assert min(config["learning_rate"] for config in drawn) < 0.2  # half of them are below 0.032
    assert {tuple(config["tracking"]["tags"]) for config in drawn} <= {("a", "b"), ("c",)}
    assert {config["engine"]["micro_batch_size"] for config in drawn} <= {None, 64}
    best = result(tmp_path)["best_params"]
    assert any(
        best.items() >= {"seed": config["seed"], "learning_rate": config["learning_rate"]}.items()
        and best["tracking.tags"] == config["tracking"]["tags"]
        for config in drawn
    )
