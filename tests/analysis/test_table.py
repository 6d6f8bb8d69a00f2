"""The table of many runs: against the standard library, SciPy's t, brute force; real runs too."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import random
import re
import resource
import runpy
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

from igo.analysis.table import program as table_program
from igo.analysis.table import show, table
from igo.config.plan import make_plan
from igo.config.rules import CHOICES
from igo.config.schema import known_settings
from igo.ground.errors import UserError
from igo.report import results
from igo.runs.folder import RunFolder, digests, read_records
from igo.runs.manifest import Entry, Manifest

Program = Callable[..., Ended]
Shown = Callable[[pl.DataFrame, int], list[str]]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))


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
    folder.records.begin(rows)
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
        if name == "schedule.p":
            continue
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


def test_a_setting_of_several_types_is_text(tmp_path: Path) -> None:
    for typed in ("auto", "2"):
        folder = make_run(tmp_path / typed, f"engine.threads={typed}")
        assert only(table.read_runs([folder]))["engine.threads"] == typed


def test_p_is_the_schedules_own(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path, "schedule=cosine"),
        make_run(tmp_path, "schedule=polynomial", "p=2"),
        make_run(tmp_path, "schedule.p=0.75"),
    ]
    assert table.read_runs(folders)["p"].to_list() == [None, 2.0, 0.75]


def test_the_types_of_the_columns_are_the_same_whatever_the_runs(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    some = table.read_runs([make_run(tmp_path), tmp_path / "foreign"])
    assert some.schema == table.read_runs([]).schema
    assert pl.Null not in some.dtypes


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
    "config.yaml cannot be read (not UTF-8)": lambda f: (f / "config.yaml").write_bytes(b"\xff"),
    "config.yaml is not of a run: it has no dataset.": lambda f: (f / "config.yaml").write_text(
        "lr: 0.1\nlayers: 3\n"
    ),
    "config.yaml does not hold settings": lambda f: (f / "config.yaml").write_text("- 3\n"),
    "config.yaml: epochs is 'three', not of type int": replace(
        "config.yaml", "\nepochs: 3", "\nepochs: three"
    ),
    "config.yaml: epochs is null": replace("config.yaml", "\nepochs: 3", "\nepochs: null"),
    "status.json is missing": remove("status.json"),
    "status.json is damaged": torn("status.json"),
    "status.json has no state": replace("status.json", '"state"', '"stat"'),
    "metrics.jsonl is missing": remove("metrics.jsonl"),
    "metrics.jsonl, line 2 is damaged": replace("metrics.jsonl", '{"epoch": 2,', '{"epoch: 2,'),
    "metrics.jsonl is damaged: its epochs": replace("metrics.jsonl", '"epoch": 2', '"epoch": 1'),
    "metrics.jsonl: test/accuracy is 'x'": replace(
        "metrics.jsonl", '"test/accuracy": 0.75', '"test/accuracy": "x"'
    ),
    "metrics.jsonl of a finished run has 2 of 3 epochs": torn("metrics.jsonl"),
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
    replace("config.yaml", "  feedback_limit: 2.0\n", "")(old)
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


@pytest.mark.slow
def test_ten_thousand_runs_against_brute_force(tmp_path: Path) -> None:
    count, epochs = 10_000, 30
    BENCHMARK["make_runs"](tmp_path, count, epochs)
    runs = table.read_runs(sorted(tmp_path.iterdir()))
    assert len(runs) == count
    assert (runs["state"] == "finished").all()
    distinct = BENCHMARK["DISTINCT"]
    drawn = [BENCHMARK["records"](random.Random(i), epochs) for i in range(distinct)]
    groups: dict[tuple[float, float], list[int]] = defaultdict(list)
    best = [max((r["test/accuracy"], -r["epoch"]) for r in rows) for rows in drawn]
    for i, row in enumerate(runs.iter_rows(named=True)):
        last = drawn[i % distinct][-1]
        assert [row[name] for name in table.METRICS[:5]] == [
            last["test/accuracy"], best[i % distinct][0], last["test/loss"], last["train/loss"],
            last["updates"],
        ]  # fmt: skip
        assert row["test/accuracy_best_epoch"] == -best[i % distinct][1]
        groups[row["p"], row["split"]].append(i)
    rates = [statistics.median(r["images_per_second"] for r in rows) for rows in drawn]
    assert runs["images_per_second"].to_list() == rates * (count // distinct)
    for k, key in enumerate((p, s) for s in BENCHMARK["SPLIT"] for p in BENCHMARK["P"]):
        assert groups[key] == list(range(k, count, 30))
    summary = table.summarise(runs)
    assert summary.select("p", "split").rows() == sorted(groups)
    for row in summary.iter_rows(named=True):
        members = groups[row["p"], row["split"]]
        values = [drawn[i % distinct][-1]["test/loss"] for i in members]
        assert (row["n"], row["unfinished"], row["repeated"]) == (len(members), 0, 0)
        assert row["test/loss_mean"] == pytest.approx(statistics.fmean(values), rel=1e-12)
        assert row["test/loss_sd"] == pytest.approx(statistics.stdev(values), rel=1e-9)
        reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        assert row["test/loss_high"] - row["test/loss_mean"] == pytest.approx(reach, rel=1e-9)


def test_run_folders_are_found(tmp_path: Path) -> None:
    first, second = (make_run(tmp_path / "runs", f"seed={s}") for s in (0, 1))
    other = make_run(tmp_path / "more", "seed=2")
    for name in ("wandb", "sweeps", ".multirun", "empty"):
        (tmp_path / "runs" / name).mkdir()
    empty, runs = tmp_path / "runs" / "empty", str(tmp_path / "runs")
    assert set(table_program.find([runs])) == {first, second, empty}
    assert table_program.find([str(first)]) == [first]
    assert set(table_program.find([f"{runs}/digits-*"])) == {first, second}
    assert set(table_program.find([f"{tmp_path}/*/digits-*"])) == {first, second, other}
    assert set(table_program.find([f"{tmp_path}/*"])) == {first, second, empty, other}
    assert len(table_program.find([runs, str(first), str(tmp_path / "more")])) == 4


@pytest.mark.parametrize(
    ("place", "name"),
    [(".", "runs/sweeps/p-1"), ("runs/sweeps", "p-1"), ("runs/sweeps/p-1", "."),
     ("runs/sweeps/p-1/slurm", ".."), ("runs", "../runs/sweeps/p-1")],
)  # fmt: skip
def test_a_sweeps_folder_is_found_from_any_folder(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs", "seed=0")
    sweep = Manifest("p-1", "", "", [Entry(run.name, [], "", 1)])
    sweep.write(tmp_path / "runs")
    (sweep.folder(tmp_path / "runs") / "slurm").mkdir()
    monkeypatch.chdir(tmp_path / place)
    assert [folder.resolve() for folder in table_program.find([name])] == [run.resolve()]


WRONG: dict[str, tuple[Any, Any, str]] = {  # runs, output, what is said
    "no folder": ("nowhere", None, r"runs=nowhere .*no such folder"),
    "no match": ("runs/cifar*", None, r"runs=runs/cifar\* .*no such folder"),
    "no runs": ("empty", None, r"runs=empty .*holds no runs"),
    "one of two": (["runs", "empty"], "out", r"runs=empty .*holds no runs"),
    "a file": ("file", None, r"runs=file .*is a file"),
    "a number": (3, None, r"runs=3 .*a folder"),
    "none": ([], None, r"runs=\[\] .*a folder"),
    "output is a file": ("runs", "file", r"output=file .*name of a folder"),
    "output is below a file": ("runs", "file/x", r"output: file/x cannot be written"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs"))
    Path("empty").mkdir()
    Path("file").touch()
    runs, output, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        table_program.run(OmegaConf.create({"runs": runs, "output": output}))


@pytest.mark.parametrize("name", ["runs/digits-*", "one run", ["runs", "more"]])
def test_without_one_folder_to_write_in_the_table_is_shown(
    name: str | list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_run(Path("runs"))
    make_run(Path("more"), "seed=1")
    before = sorted(tmp_path.rglob("*"))
    runs = str(folder) if name == "one run" else name
    table_program.run(OmegaConf.create({"runs": runs, "output": None}))
    out = capsys.readouterr().out
    assert "62.50" in out
    assert out.endswith("not written: runs is not one folder of runs (output=tables writes it)\n")
    assert sorted(tmp_path.rglob("*")) == before


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


def test_a_full_disk_leaves_the_table_of_before_and_nothing_else(tmp_path: Path) -> None:
    """As a limit on the size of files has it; the tables are above it in turn."""
    (folder,) = [make_run(tmp_path / "runs", "seed=1", accuracies=(0.0, 0.5, 0.6))]
    runs = table.read_runs([folder])
    place = tmp_path / "tables"
    sizes = sorted({path.stat().st_size for path in table.write(runs, place)})
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in sizes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
        try:
            with pytest.raises(UserError, match="cannot be written"):
                table.write(runs, place)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before


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
    assert cells[1][-3:] == ["135", "9.0", "[9.0, 9.0]"]
    assert cells[2][0] == "1"
    assert not any(line.startswith("columns hidden") for line in lines)
    assert "failed: " in lines[-1]
    assert lines[-1].endswith(": it burst")
    for width in (50, 80, 120):
        narrow = shown(runs, width)
        (end,) = (i for i, line in enumerate(narrow) if line.startswith("columns hidden"))
        assert max(len(line) for line in narrow[:end]) <= width
        assert any("55.00 ± 7.07" in line for line in narrow)
        assert "seconds" in narrow[end]
        titled, legend = "\n".join(narrow[:end]), "\n".join(narrow[end + 1 :])
        assert ("interval" in legend) == ("95 %" in titled)
        assert ("accuracy_best" in legend) == ("accuracy_best" in titled)


def test_what_follows_from_another_column_is_not_shown(tmp_path: Path, shown: Shown) -> None:
    folders = [
        make_run(tmp_path, "epochs=2", accuracies=(0.1, 0.2)),
        make_run(tmp_path, "epochs=3"),
        make_run(tmp_path, "dataset=fashion_mnist", "dataset.samples=96"),
        make_run(tmp_path, "dataset=fashion_mnist", "dataset.samples=200"),
    ]
    runs = table.read_runs(folders)
    (title,) = (line for line in shown(runs, 200) if "test/accuracy %" in line)
    assert title.split()[:4] == ["data", "images", "epochs", "n"]
    assert "dataset.image_size" in table.summarise(runs).columns


def test_many_settings_that_differ_are_words(tmp_path: Path, shown: Shown) -> None:
    folders = [
        make_run(tmp_path, "p=0.5", "optimizer.weight_decay=1e-4"),
        make_run(tmp_path, "schedule=cosine", "split=1", "epochs=2", accuracies=(0.1, 0.2)),
        make_run(tmp_path, "dataset=fashion_mnist", "dataset.samples=200", "noise.batches=4"),
        make_run(tmp_path, "schedule=constant", "learning_rate=0.2", "batch_size=8"),
    ]
    runs = table.read_runs(folders)
    for width in (60, 70):
        lines = shown(runs, width)
        (end,) = (i for i, line in enumerate(lines) if line.startswith("columns hidden"))
        assert max(len(line) for line in lines[:end]) <= width
        (title,) = (i for i, line in enumerate(lines) if "test/accuracy %" in line)
        assert lines[title].split()[:2] == ["setting", "n"]
        text = re.sub(r"\s+", " ", " ".join(lines[title + 1 :]))
        for words in ("Fashion-MNIST", "cosine", "0.0001", "η₁", "b₁"):
            assert words in text, words
        assert "0.286" not in text  # a mean of pixels
    assert lines[1].startswith("all: resnet8 of width 4, SGD")
    (title,) = (line for line in shown(runs, 250) if "test/accuracy %" in line)
    assert title.split()[0] == "data"
    assert not {"p", "mean", "std", "profile"} & set(title.split())


def test_a_run_that_failed_before_its_first_epoch_says_why(tmp_path: Path) -> None:
    known = make_run(tmp_path, state="failed", error="it burst", accuracies=())
    unknown = make_run(tmp_path, "seed=1", state="failed", accuracies=())
    for folder in (known, unknown):
        (folder / "metrics.jsonl").unlink()
        (folder / "error.txt").write_text("Traceback …\n  File x\nValueError: no »data«\n\n")
    runs = table.read_runs([known, unknown])
    assert runs["state"].to_list() == ["failed", "failed"]
    assert runs["error"].to_list() == ["it burst", "ValueError: no »data«"]
    assert runs["epochs_done"].to_list() == [0, 0]


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


def test_help_and_errors_from_the_command_line(tmp_path: Path) -> None:
    text = run_table(tmp_path, "--help").stdout
    assert re.search(r"^  runs=runs +\w", text, re.MULTILINE)
    assert re.search(r"^  output=null +\w", text, re.MULTILINE)
    for typed, message in (("runs=nowhere", "no such folder"), ("rnus=x", "Did you mean 'runs'")):
        assert message in run_table(tmp_path, typed).error()


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
