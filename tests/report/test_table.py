"""The table of many runs: against the standard library, SciPy's t, brute force; real runs too."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import random
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT, TINY, Ended, configure, python, records
from forked import forge
from omegaconf import OmegaConf
from polars.testing import assert_frame_equal
from recorded import edit, record_runs
from scipy import stats

from igo.config.plan import make_plan
from igo.config.rules import CHOICES
from igo.config.schema import known_settings
from igo.ground.errors import UserError
from igo.report import results, show, table
from igo.runs.find import find
from igo.runs.folder import RunFolder, digests, read_records

Program = Callable[..., Ended]
Shown = Callable[[pl.DataFrame, int], list[str]]


def record(epoch: int, accuracy: float, **more: float | None) -> dict[str, Any]:
    """What a run writes of an epoch, numbers that tell their epoch."""
    return {
        "epoch": epoch, "stage": epoch, "updates": 45 * epoch, "samples": 96 * epoch,
        "eta_m": 0.1 / epoch, "b_m": 32 + epoch, "delta_m": 1 / epoch, "delta_measured": 2 / epoch,
        "train/loss": 3 / epoch, "train/accuracy": accuracy + 0.01, "test/loss": 4 / epoch,
        "test/accuracy": accuracy, "images_per_second": 1000.0 * epoch**2, **more,
    }  # fmt: skip


def make_run(
    root: Path,
    *overrides: str,
    accuracies: tuple[float, ...] = (0.5, 0.75, 0.625),
    state: str = "finished",
    last: dict[str, float | None] | None = None,
    **status: object,
) -> Path:
    """A run folder by the writers of real ones, its results given."""
    config = configure(*TINY, *overrides, f"runs_dir={root}")
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    folder.write_plan(make_plan(config))
    rows = [record(e, accuracy) for e, accuracy in enumerate(accuracies, 1)]
    if rows:
        rows[-1] |= last or {}
    folder.begin_records(rows)
    folder.begin_status(
        state=state, commit="c0ffee", host="here", hardware={"device": "cpu"}, **status
    )
    return folder.path


def only(frame: pl.DataFrame) -> dict[str, Any]:
    assert len(frame) == 1
    return frame.row(0, named=True)


def test_a_row_has_every_setting_and_what_the_run_reached(tmp_path: Path) -> None:
    folder = make_run(
        tmp_path, "p=0.25", "seed=3", "schedule.batch_multiple=4", "optimizer=shb",
        "optimizer.weight_decay=1e-5", "tracking.group='12:30'", "tracking.tags=[a,'1']",
        seconds=12.5,
    )  # fmt: skip
    row = only(table.read_runs([folder]))
    config = OmegaConf.load(folder / "config.yaml")
    names = known_settings()
    leaves = [n for n in names if not any(other.startswith(f"{n}.") for other in names)]
    for name in leaves:
        value = OmegaConf.select(config, name)
        value = json.dumps(list(value)) if OmegaConf.is_list(value) else value
        value = str(value).lower() if name in CHOICES and value is False else value  # beside auto
        assert row[name] == value, name
        assert type(row[name]) is type(value), name
    assert (row["p"], row["tracking.group"], row["tracking.tags"]) == (0.25, "12:30", '["a", "1"]')
    results = {
        "run": folder.name, "state": "finished", "error": None, "epochs_done": 3, "updates": 135,
        "samples": 288, "test/accuracy": 0.625, "test/accuracy_best": 0.75,
        "test/accuracy_best_epoch": 2, "test/loss": 4 / 3, "train/loss": 1.0,
            "validation/accuracy": None, "validation/loss": None,
        "train/accuracy": 0.635, "delta_m": 1 / 3, "delta_measured": 2 / 3, "eta_m": 0.1 / 3,
        "b_m": 35, "seconds": 12.5, "images_per_second": 4000.0, "commit": "c0ffee",
        "host": "here", "device": "cpu",
    }  # fmt: skip
    assert set(row) - set(leaves) == set(results)
    assert {name: row[name] for name in results} == results


def test_statistics_are_those_of_the_standard_library_and_scipy(tmp_path: Path) -> None:
    drawn, folders, truth = random.Random(0), [], {}
    for p, n in ((0.25, 1), (0.5, 2), (1.0, 5)):
        truth[p] = [round(drawn.random(), 4) for _ in range(n)]
        folders += [
            make_run(tmp_path, f"p={p}", f"seed={seed}", accuracies=(0.1, 0.2, accuracy))
            for seed, accuracy in enumerate(truth[p])
        ]
    drawn.shuffle(folders)
    summary = table.summarise(table.read_runs(folders))
    assert summary.columns[:4] == ["p", "n", "unfinished", "repeated"]
    assert summary["p"].to_list() == sorted(truth)
    for row in summary.iter_rows(named=True):
        values = truth[row["p"]]
        n, mean = len(values), statistics.fmean(values)
        assert row["n"] == n
        assert row["test/accuracy_mean"] == pytest.approx(mean, rel=1e-12)
        spread = [row[f"test/accuracy_{what}"] for what in ("sd", "low", "high")]
        if n == 1:
            assert spread == [None] * 3
            continue
        deviation = statistics.stdev(values)
        low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=deviation / math.sqrt(n))
        within = [max(low, 0.0), min(high, 1.0)]  # an accuracy is a share
        assert spread == pytest.approx([deviation, *within], rel=1e-9)


def test_settings_are_told_apart_with_null_among_their_values(tmp_path: Path) -> None:
    grid = (
        ("p=0.5", "max_batch_size=64"), ("p=0.5",), ("p=1", "max_batch_size=64"), ("p=1",),
        ("schedule=cosine",), ("schedule=step", "schedule.stages=3", "schedule.gamma=0.5"),
        ("schedule=step", "schedule.stages=3"),
        ("schedule=polynomial", "p=0.5"),
    )  # fmt: skip
    accuracies = {
        (settings, seed): round(0.1 * i + 0.01 * seed, 4)
        for i, settings in enumerate(grid)
        for seed in range(2)
    }
    folders = [
        make_run(tmp_path, *settings, f"seed={seed}", accuracies=(0.0, 0.0, accuracy))
        for (settings, seed), accuracy in accuracies.items()
    ]
    runs = table.read_runs(folders)
    summary = table.summarise(runs)
    varied = ["schedule.profile", "schedule.gamma", "p", "max_batch_size"]
    assert summary.columns[:5] == [*varied, "n"]
    assert summary["n"].to_list() == [2] * len(grid)
    means = sorted(summary["test/accuracy_mean"].to_list())
    expected = [
        statistics.fmean(accuracies[settings, seed] for seed in range(2)) for settings in grid
    ]
    assert means == pytest.approx(sorted(expected))
    keys = summary.select(varied).rows()
    assert ("graduated", None, 0.5, None) in keys
    assert ("cosine", None, None, None) in keys
    common = table.constants(runs)
    assert common["epochs"] == 3
    assert not {*varied, "seed", "runs_dir", "engine.threads"} & common.keys()


def test_what_changes_no_result_makes_no_setting(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / "a", "seed=0"),
        make_run(tmp_path / "b", "seed=1", "engine=cpu", "tracking.group=g", "engine.threads=1"),
        make_run(tmp_path / "c", "seed=2", "engine.threads=null"),
    ]
    row = only(table.summarise(table.read_runs(folders)))
    assert next(iter(row)) == "n"
    assert row["n"] == 3


def test_other_data_of_the_same_size_are_another_setting(tmp_path: Path, capsys: Any) -> None:
    """Labels that differ change neither the settings nor the facts of the images."""
    for name in ("clean", "noisy"):
        images = np.arange(60 * 64, dtype=np.uint8).reshape(60, 8, 8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(60) % 2)
        place = f"dataset.file={tmp_path / name}.npz"
        for folder in record_runs(
            tmp_path / name, "dataset=arrays", place, "epochs=3", "schedule.stages=3", tiny=False
        ):
            edit(folder / "status.json", data={"fingerprint": name})
    runs = table.read_runs(sorted(tmp_path.glob("*/arrays-*")))
    summary = table.summarise(runs)
    assert summary["data"].to_list() == ["clean.npz", "noisy.npz"]
    assert summary["n"].to_list() == [3, 3]
    show.show_summary(runs)
    shown = capsys.readouterr().out
    assert "clean.npz" in shown
    assert "noisy.npz" in shown
    assert "fingerprint" not in shown


def test_a_seed_counts_once(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / place, f"seed={s}") for place in "ab" for s in range(2)]
    row = only(table.summarise(table.read_runs(folders)))
    assert (row["n"], row["repeated"], row["unfinished"]) == (2, 2, 0)


def test_only_finished_runs_count(tmp_path: Path) -> None:
    """A running run holds its lock; one that says so without was killed."""
    running = make_run(tmp_path, "seed=1", accuracies=(0.9, 0.8), state="running")
    killed = make_run(tmp_path, "seed=4", accuracies=(0.7,), state="running")
    (killed / ".lock").touch()
    with (running / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "test/acc')  # as a reader may find it
    lost = "the training loss is nan\nmore"
    folders = [
        make_run(tmp_path, "seed=0"), running,
        make_run(tmp_path, "seed=2", accuracies=(), state="failed", error=lost),
        make_run(tmp_path, "seed=3", accuracies=(0.9,), state="interrupted", seconds=3),
        make_run(tmp_path, "seed=0", "p=1", accuracies=(0.1,), state="failed", error=lost),
        killed, tmp_path / "not-yet",
    ]  # fmt: skip
    with (running / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs = table.read_runs(folders)
    assert runs["state"].to_list() == [
        "finished", "running", "failed", "interrupted", "failed", "interrupted", "new",
    ]  # fmt: skip
    first_line = "the training loss is nan"
    assert runs["error"].to_list() == [None, None, first_line, None, first_line, None, None]
    assert runs["epochs_done"].to_list() == [3, 2, 0, 1, 1, 1, None]
    assert runs["test/accuracy"].to_list() == [0.625, 0.8, None, 0.9, 0.1, 0.7, None]
    assert runs["seconds"].to_list() == [None, None, None, 3.0, None, None, None]
    first, second = table.summarise(runs).iter_rows(named=True)
    assert (first["p"], first["n"], first["unfinished"]) == (0.5, 1, 4)
    assert first["test/accuracy_mean"] == 0.625
    assert (second["p"], second["n"], second["unfinished"]) == (1.0, 0, 1)
    assert second["test/accuracy_mean"] is second["updates_mean"] is None


def test_a_loss_that_overflowed_has_no_mean(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path, "seed=0", last={"test/loss": math.nan}),  # null in the record
        make_run(tmp_path, "seed=1"),
    ]
    runs = table.read_runs(folders)
    assert runs["test/loss"].to_list() == [None, 4 / 3]
    row = only(table.summarise(runs))
    assert row["n"] == 2
    assert row["test/loss_mean"] is row["test/loss_sd"] is row["test/loss_high"] is None
    assert row["train/loss_mean"] == 1.0


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def torn(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) - 20])

    return damage


DAMAGE = {
    "config.yaml is missing": remove("config.yaml"),
    "config.yaml cannot be read (": replace("config.yaml", "classes: 10", "classes: [10"),
    "status.json is missing": remove("status.json"),
    "config.yaml cannot be read (epochs is null)": replace(
        "config.yaml", "\nepochs: 3", "\nepochs: null"
    ),
    "status.json cannot be read (": torn("status.json"),
    "metrics.jsonl is missing": remove("metrics.jsonl"),
    "metrics.jsonl cannot be read (Expecting": replace(
        "metrics.jsonl", '{"epoch": 2,', '{"epoch: 2,'
    ),
    "metrics.jsonl cannot be read (could not convert string to float: 'x')": replace(
        "metrics.jsonl", '"test/accuracy": 0.75', '"test/accuracy": "x"'
    ),
    "metrics.jsonl cannot be read (a finished run has 2 of 3 epochs)": torn("metrics.jsonl"),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_folder_is_a_row_that_says_why(reason: str, tmp_path: Path) -> None:
    whole, damaged = make_run(tmp_path, "seed=0"), make_run(tmp_path, "seed=1")
    DAMAGE[reason](damaged)
    runs = table.read_runs([whole, damaged])
    assert runs["run"].to_list() == [whole.name, damaged.name]
    assert runs["state"].to_list() == ["finished", "unreadable"]
    assert runs["error"][1].startswith(reason)
    assert runs["test/accuracy"].to_list() == [0.625, None]
    row = only(table.summarise(runs))
    known = not reason.startswith("config.yaml")  # then it is a run of this setting
    assert (row["n"], row["unfinished"]) == (1, int(known))


def test_runs_of_other_versions_are_told_apart_and_completed(tmp_path: Path) -> None:
    """A setting that was not yet there has its default; one that is no more counts, as text."""
    old, new = make_run(tmp_path, "seed=0"), make_run(tmp_path, "seed=1")
    replace("config.yaml", "  batch_multiple: 1\n", "")(old)
    runs = table.read_runs([old, new])
    assert only(table.summarise(runs))["n"] == 2
    replace("config.yaml", "schedule:\n", "schedule:\n  warmup: [1, 2]\n")(old)
    runs = table.read_runs([old, new])
    assert runs["schedule.warmup"].to_list() == ["[1, 2]", None]
    assert table.summarise(runs)["n"].to_list() == [1, 1]


def test_csv_and_parquet_hold_the_same_values_and_types(tmp_path: Path) -> None:
    (tmp_path / "runs" / "foreign").mkdir(parents=True)
    folders = [
        make_run(tmp_path / "runs", "learning_rate=1e-7", last={"test/loss": 1 / 3e-9}),
        make_run(tmp_path / "runs", "max_batch_size=64", "tracking.group='a, \"b\"'"),
        make_run(tmp_path / "runs", "schedule=cosine", state="failed", error="no, »loss«"),
        tmp_path / "runs" / "foreign",
    ]
    runs = table.read_runs(folders)
    paths = table.write(runs, tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        path.name for path in paths
    )
    as_csv, as_parquet, as_summary = paths
    assert_frame_equal(pl.read_parquet(as_parquet), runs, check_exact=True)
    typed = pl.read_csv(as_csv, schema=runs.schema)
    assert_frame_equal(typed, runs, check_exact=True)
    read = {pl.String: str, pl.Float64: float, pl.Int64: int, pl.Boolean: "true".__eq__}
    for path, frame in ((as_csv, runs), (as_summary, table.summarise(runs))):
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        kinds = [read[kind.base_type()] for kind in frame.dtypes]
        assert header == frame.columns
        by_hand = [
            tuple(kind(cell) if cell else None for kind, cell in zip(kinds, line, strict=True))
            for line in lines
        ]
        assert by_hand == frame.rows()


def test_run_folders_are_found(tmp_path: Path) -> None:
    first, second = (make_run(tmp_path / "runs", f"seed={s}") for s in (0, 1))
    other = make_run(tmp_path / "more", "seed=2")
    for name in ("wandb", "sweeps", ".multirun", "empty"):
        (tmp_path / "runs" / name).mkdir()
    empty, runs = tmp_path / "runs" / "empty", str(tmp_path / "runs")
    assert set(find([runs])) == {first, second, empty}
    assert find([str(first)]) == [first]
    assert set(find([f"{runs}/digits-*"])) == {first, second}
    assert set(find([f"{tmp_path}/*/digits-*"])) == {first, second, other}
    assert set(find([f"{tmp_path}/*"])) == {first, second, empty, other}
    assert len(find([runs, str(first), str(tmp_path / "more")])) == 4


def test_seeds_that_end_in_one_accuracy_have_no_interval(tmp_path: Path, capsys: Any) -> None:
    """A spread of 0 comes from the steps of accuracy: an interval without a width is wrong."""
    for seed in (0, 1):
        make_run(tmp_path, f"seed={seed}", accuracies=(0.1, 0.2 + seed / 10, 0.985))
    runs = table.read_runs(sorted(tmp_path.iterdir()))
    row = only(table.summarise(runs))
    assert (row["test/accuracy_mean"], row["test/accuracy_sd"]) == (0.985, 0)
    assert (row["test/accuracy_low"], row["test/accuracy_high"]) == (None, None)
    show.show(runs)
    out = capsys.readouterr().out
    assert "[98.50, 98.50]" not in out
    assert "no interval: one seed, or one value in all seeds" in out


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Shown:
    """What a terminal of a width shows of runs, colours removed."""

    def lines(runs: pl.DataFrame, width: int) -> list[str]:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
        show.show(runs)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()

    return lines


def test_the_terminal_shows_what_fits(tmp_path: Path, shown: Shown) -> None:
    folders = [
        make_run(tmp_path, f"p={p}", f"seed={s}", accuracies=(0.1, 0.9, 0.5 + 0.1 * s), seconds=9)
        for p in (1, 0.5) for s in (0, 1)
    ]  # fmt: skip
    burst = make_run(tmp_path, "p=0.25", state="failed", accuracies=(), error="it burst")
    runs = table.read_runs([*folders, burst])
    lines = shown(runs, 300)
    assert lines[0] == "5 runs (4 finished, 1 failed), 3 settings"
    (title,) = (i for i, line in enumerate(lines) if "test/accuracy %" in line)
    assert lines[title].split()[:3] == ["p", "n", "unfinished"]
    cells = [re.split(r" {2,}", line.strip()) for line in lines[title + 1 : title + 4]]
    assert cells[0][:4] == ["0.25", "0", "1", "–"]
    half = stats.t.ppf(0.975, 1) * 5  # sd of 50 and 60 % over √2 is 5
    assert cells[1][:5] == [
        "0.5",
        "2",
        "0",
        "55.00 ± 7.07",
        f"[{max(55 - half, 0):.2f}, {min(55 + half, 100):.2f}]",
    ]
    assert cells[1][-2:] == ["135", "9.0"]
    assert cells[2][0] == "1"
    assert not any(line.startswith("columns hidden") for line in lines)
    assert "failed: " in lines[-1]
    assert lines[-1].endswith(": it burst")
    for width in (50, 80, 100):
        narrow = shown(runs, width)
        (end,) = (i for i, line in enumerate(narrow) if line.startswith("columns hidden"))
        assert max(len(line) for line in narrow[:end]) <= width
        assert any("55.00 ± 7.07" in line for line in narrow)
        assert "seconds" in narrow[end]


def run_table(cwd: Path, *arguments: str) -> Ended:
    return forge.run(cwd, *arguments, command="table")


def test_a_sweeps_table_from_the_command_line(program: Program, tmp_path: Path) -> None:
    program("-m", *TINY, "tracking=none", "p=0.5,1", "seed=0,1").good()
    program(*TINY, "tracking=none", "epochs=1", "seed=7")  # beside the sweep
    (sweep,) = (path.parent for path in (tmp_path / "runs" / "sweeps").glob("*/sweep.json"))
    sweep = sweep.relative_to(tmp_path)
    done = run_table(tmp_path, f"runs={sweep}").good()
    lines = done.stdout.splitlines()
    assert lines[0] == "4 runs (4 finished), 2 settings"
    assert lines[-1] == f"wrote {sweep}/table.csv, {sweep}/table.parquet, {sweep}/summary.csv"
    with (tmp_path / sweep / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_p: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        kept = records(tmp_path / "runs" / row["run"])
        accuracies = [epoch["test/accuracy"] for epoch in kept]
        assert float(row["test/accuracy"]) == accuracies[-1]
        assert float(row["test/accuracy_best"]) == max(accuracies)
        assert int(row["updates"]) == kept[-1]["updates"]
        assert row["device"] == "cpu"
        assert float(row["seconds"]) > 0
        by_p[row["p"]].append(accuracies[-1])
    (title,) = (i for i, line in enumerate(lines) if "test/accuracy %" in line)
    for p, line in zip(("0.5", "1"), lines[title + 1 : title + 3], strict=True):
        values = by_p[p if "." in p else f"{p}.0"]
        cell = f"{100 * statistics.fmean(values):.2f} ± {100 * statistics.stdev(values):.2f}"
        assert re.split(r" {2,}", line.strip())[:3] == [p, "2", cell]
    everything = run_table(tmp_path)  # runs=runs
    assert everything.stdout.splitlines()[0] == "5 runs (5 finished), 3 settings"
    run_table(tmp_path, "runs=runs/digits-*", "output=elsewhere").good()
    for name in table.FILES:
        expected = (tmp_path / "runs" / name).read_bytes()
        assert (tmp_path / "elsewhere" / name).read_bytes() == expected


def test_the_table_needs_no_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "runs")
    code = (
        "import sys, igo.__main__\n"
        "igo.__main__.main()\n"
        "print('HEAVY', sorted({'torch', 'timm', 'wandb', 'sklearn'} & set(sys.modules)))"
    )
    line = ("-c", code, "table", f"runs={tmp_path / 'runs'}")
    done = python(tmp_path, *line, PYTHONPATH=str(ROOT / "src")).good()
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("name", ["config.yaml", "plan.csv", "metrics.jsonl"])
def test_a_finished_record_that_was_changed_is_not_shown_as_true(name: str, tmp_path: Path) -> None:
    """Neither in a table nor in a report, whose numbers are these."""
    folders = record_runs(tmp_path / "runs")
    for folder in folders:
        edit(folder / "status.json", sha256=digests(folder))
    changed = folders[1] / name
    text = changed.read_text()
    changed.write_text(text.replace("1", "2", 1))
    assert changed.read_text() != text
    states = {row["run"]: row for row in table.read_runs(folders).to_dicts()}
    row = states.pop(folders[1].name)
    assert row["state"] == "unreadable"
    assert row["error"].startswith(f"{name}: not what the run wrote")
    assert {row["state"] for row in states.values()} == {"finished"}
    report = results.read(folders)
    assert report.runs.filter(pl.col("counted"))["run"].len() == 2
    assert report.epochs["seed"].n_unique() == 2
    with pytest.raises(UserError, match="not what the run wrote"):
        read_records(folders[1])
