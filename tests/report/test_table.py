"""The table of many runs: against the standard library, SciPy's t, brute force; real runs too."""

import json
import math
import re
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT, python, records
from omegaconf import OmegaConf
from recorded import edit, record_runs, words_of
from scipy import stats

from igo.config.schema import SETTINGS
from igo.ground.errors import UserError
from igo.ground.files import Record
from igo.report import report, table
from igo.report.report import write_output
from igo.report.results import read_results
from igo.report.runs import read_runs
from igo.report.settings import differing
from igo.runs.find import find
from igo.runs.folder import RunFolder


def make_run(
    root: Path,
    *overrides: str,
    seed: int = 0,
    accuracies: Sequence[float] = (0.5, 0.75, 0.625),
    last_entries: Record | None = None,
    **status: object,
) -> Path:
    """A run of an epoch for each accuracy; entries of its last record and status may be given."""
    (folder,) = record_runs(root, *overrides, seeds=[seed])
    rows = records(folder, timings=True)[: len(accuracies)]
    for row, accuracy in zip(rows, accuracies, strict=True):
        row["test/accuracy"] = accuracy
    if rows:
        rows[-1] |= last_entries or {}
    RunFolder(folder).write_records(rows)
    edit(folder, **status)
    return folder


def test_a_row_has_every_setting_and_what_the_run_reached(tmp_path: Path) -> None:
    folder = make_run(
        tmp_path,
        "p=0.25",
        "schedule.batch_multiple=4",
        "optimizer=shb",
        "optimizer.weight_decay=1e-5",
        "tracking.group='12:30'",
        "tracking.tags=[a,'1']",
        "data_dir=elsewhere",
        seed=3,
        seconds=12.5,
        last_entries={"eta_largest": 0.2, "b_largest": 64, "eta_over_sqrt_b": 0.01},
    )
    (row,) = read_runs([folder]).to_dicts()
    config = OmegaConf.load(folder / "config.yaml")
    for name in SETTINGS:
        value = OmegaConf.select(config, name)
        value = json.dumps(list(value)) if OmegaConf.is_list(value) else value
        assert row[name] == value, name
        assert type(row[name]) is type(value), name
    assert (row["p"], row["tracking.group"], row["tracking.tags"]) == (0.25, "12:30", '["a", "1"]')
    rows = records(folder)
    updates = np.diff([record["updates"] for record in rows], prepend=0)
    copied = {"test/accuracy", "test/loss", "train/loss", "train/accuracy", "delta_m", "eta_m"}
    copied |= {"updates", "samples", "b_m", "delta_measured"}
    expected = {
        "run": folder.name,
        "state": "finished",
        "error": None,
        "epochs_done": 3,
        **{name: rows[-1][name] for name in copied},
        "test/accuracy_best": 0.75,
        "validation/accuracy": None,
        "validation/loss": None,
        "eta_sum": pytest.approx(np.dot(updates, [record["eta_m"] for record in rows])),
        "eta_max": 0.2,
        **{
            name: pytest.approx(statistics.fmean(record[of_epoch] for record in rows))
            for name, of_epoch in (("eta_over_sqrt_b",) * 2, ("delta", "delta_measured"))
        },
        "b_max": 64,
        "seconds": 12.5,
        "commit": "c0ffee" * 6,
        "code.igo": "unknown",
        "code.torch": "2.9.0",
        "device": "cpu",
        "hardware": "device cpu, cpu A CPU, cores 2, threads 1, precision bfloat16",
        "software": "Python 3.11.0, torch 2.9.0",
        "started": "2025-01-02T03:04:05+0000",
        "command": "igo train p=0.25 schedule.batch_multiple=4 optimizer=shb"
        " optimizer.weight_decay=1e-5 tracking.group=12:30 'tracking.tags=[a,1]'",
    }
    assert {name: row[name] for name in row.keys() - SETTINGS.keys()} == expected


def test_an_argument_of_ones_own_model_may_be_any_number(tmp_path: Path) -> None:
    words = ("model=own", "model._target_=unittest.mock.Mock")
    values = ("99999999999999999999", "inf", "2")  # The first two fit no column of numbers.
    folders = [make_run(tmp_path, *words, f"+model.big={value}") for value in values]
    assert {*read_runs(folders)["model.arguments.big"]} == {"99999999999999999999", "Infinity", "2"}


def test_settings_are_told_apart_with_means_of_their_seeds(tmp_path: Path) -> None:
    """Null is a value; what changes no result is none. Spread by the standard library and SciPy."""
    truth = {
        ("p=0.5", "max_batch_size=64"): [0.31],
        ("p=0.5",): [0.42, 0.47],
        ("p=1", "max_batch_size=64"): [0.61, 0.62, 0.64],
        ("p=1",): [0.9, 0.99, 0.92, 1.0],  # An accuracy is a share: the interval is cut.
        ("schedule=cosine",): [0.71],
        ("schedule=step", "schedule.stages=3", "schedule.gamma=0.5"): [0.625] * 2,
        ("schedule=step", "schedule.stages=3"): [0.2, 0.1, 0.25],
        ("schedule=polynomial", "p=0.5"): [0.8, 0.82, 0.81, 0.79],
    }
    for settings, values in truth.items():
        for seed, accuracy in enumerate(values):
            local = ("engine=cpu", "tracking.group=g") if seed == 1 else ()
            accuracies = (0.1, 0.2, accuracy)
            make_run(tmp_path / "runs", *settings, *local, seed=seed, accuracies=accuracies)
    make_run(tmp_path / "twice", *next(iter(truth)))  # Seed 0 runs twice.
    settings_of_runs = read_results(find([f"{tmp_path}/*"])).settings
    names = ["schedule.profile", "schedule.gamma", "p", "max_batch_size"]
    assert differing(settings_of_runs) == names
    assert {("graduated", None, 0.5, None), ("cosine", None, None, None)} < {
        *settings_of_runs.select(names).rows()
    }
    columns = [f"test/accuracy_{name}" for name in ("mean", "sd", "low", "high")]
    rows = settings_of_runs.sort(columns[0]).select("n", *columns).rows()
    for row, values in zip(rows, sorted(truth.values(), key=statistics.fmean), strict=True):
        n, mean = len(values), statistics.fmean(values)
        sd = statistics.stdev(values) if n > 1 else None
        ends = [math.nan] * 2
        if sd:  # Accuracies come in steps, and 0 is no estimate of their spread.
            ends = np.clip(stats.t.interval(0.95, n - 1, mean, sd / math.sqrt(n)), 0, 1).tolist()
        expected = np.array((n, mean, sd, *ends), dtype=float)
        assert np.array(row, dtype=float) == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_other_data_of_the_same_size_are_another_setting(tmp_path: Path, capsys: Any) -> None:
    """Labels that differ change neither the settings nor the facts of the images."""
    for name in ("clean", "noisy"):
        images = np.arange(60 * 64, dtype=np.uint8).reshape(60, 8, 8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(60) % 2)
        words = ("dataset=arrays", f"dataset.file={tmp_path / name}.npz", "epochs=3")
        for folder in record_runs(tmp_path / name, *words, "schedule.stages=3", tiny=False):
            edit(folder, data={"fingerprint": name})
    results = read_results(sorted(tmp_path.glob("*/arrays-*")))
    assert results.settings["data"].to_list() == ["clean.npz", "noisy.npz"]
    assert results.settings["n"].to_list() == [3, 3]
    table.print_summary(results)
    output = capsys.readouterr().out
    assert [word in output for word in ("clean.npz", "noisy.npz", "fingerprint")] == [1, 1, 0]
    folders = sorted(tmp_path.glob("clean/arrays-*"))
    for folder in folders:
        edit(folder, data={"fingerprint": folder.name})
        config = folder / "config.yaml"
        config.write_text(config.read_text().replace("clean.npz", f"{folder.name}.npz"))
    for n, counts in ((2, [1, 1]), (3, [3])):  # Two files are two data sets, three are draws.
        settings = read_results(folders[:n]).settings
        assert settings["n"].to_list() == counts
    assert settings["data"].to_list() == ["own data for each seed"]


def test_only_finished_runs_count(tmp_path: Path) -> None:
    """A running run holds its lock; one that says so without was killed.

    One whose settings cannot be read is of no setting.
    """
    running = make_run(tmp_path, seed=1, accuracies=(0.9, 0.8), state="running")
    killed = make_run(tmp_path, seed=4, accuracies=(0.7,), state="running")
    (killed / ".lock").touch()
    no_settings = make_run(tmp_path, seed=5)
    (no_settings / "config.yaml").write_text("p: [0.5\n")
    with (running / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "test/acc')  # A reader may come while a line is written.
    reason = "the training loss is nan\nmore"
    no_numbers = {"test/loss": math.nan, "train/loss": math.inf}  # The record has null.
    folders = [
        make_run(tmp_path, last_entries=no_numbers),
        running,
        make_run(tmp_path, seed=2, accuracies=(), state="failed", error=reason),
        make_run(tmp_path, seed=3, accuracies=(0.9,), state="interrupted", seconds=3),
        make_run(tmp_path, "p=1", accuracies=(0.1,), state="failed", error=reason),
        killed,
        tmp_path / "not-yet",
        no_settings,
    ]
    with RunFolder(running).held():
        results = read_results(folders)
    error = pl.col("error").str.split(" (").list.first()
    assert results.runs.select(
        "state", "epochs_done", "test/accuracy", "seconds", error
    ).rows() == [
        ("finished", 3, 0.625, 2.5, None),
        ("running", 2, 0.8, 2.5, None),
        ("failed", 0, None, 2.5, "the training loss is nan"),
        ("interrupted", 1, 0.9, 3.0, None),
        ("failed", 1, 0.1, 2.5, "the training loss is nan"),
        ("interrupted", 1, 0.7, 2.5, None),
        ("new", None, None, None, None),
        ("unreadable", None, None, None, "config.yaml cannot be read"),
    ]
    p_half, p_one = results.settings.iter_rows(named=True)
    assert (p_half["p"], p_half["n"], p_half["unfinished"]) == (0.5, 1, 4)
    assert (p_half["test/accuracy_mean"], p_half["test/loss_mean"]) == (0.625, None)
    assert (p_one["p"], p_one["n"], p_one["unfinished"]) == (1.0, 0, 1)
    assert p_one["test/accuracy_mean"] is p_one["updates_mean"] is None


def test_a_failed_run_hides_no_finished_one_of_its_seed(tmp_path: Path) -> None:
    failed_run, finished_run = (make_run(tmp_path / name) for name in "ab")
    edit(failed_run, state="failed")
    assert read_results([failed_run, finished_run]).settings["n"].to_list() == [1]


def test_runs_of_different_code_are_said_to_be_mixed(tmp_path: Path, capsys: Any) -> None:
    """By the table, the verdict and the page, with "+changes"; a run may be mixed by itself."""
    root, out = tmp_path / "runs", tmp_path / "out"
    plain = record_runs(root, "p=0.5")
    same: Record = {"code": "a" * 10, "commit": "c0ffee1" * 5, "versions": {"torch": "2.9.0"}}
    for folder in (*plain, *record_runs(root, "p=1")):
        edit(folder, **same)
    # No result depends on wandb's version.
    edit(plain[1], versions={"torch": "2.9.0", "wandb": "0.2"})
    edit(plain[2], code="b" * 10, commit="c0ffee1" * 5 + "+changes")
    mixed = "The runs are of different code: "

    def assert_said(line: str) -> None:
        table.run(words_of(root))
        assert f"{mixed}{line}.\n" in capsys.readouterr().out

    line = "igo aaaaaaaaaa, bbbbbbbbbb; commits c0ffee1, c0ffee1+changes"
    assert_said(line)
    report.run(words_of(root, out))
    assert f"{mixed}{line}" in capsys.readouterr().out
    page = (out / "index.html").read_text()
    assert f"{mixed}{line}" in page.replace("\u00a0", " ")
    assert "<code>c0ffee1+changes</code>" in page
    start = {"code": "d" * 10, "commit": "decade5", "versions": same["versions"]}
    edit(plain[2], earlier=[start], **same)
    assert_said("igo aaaaaaaaaa, dddddddddd then aaaaaaaaaa; commits c0ffee1, decade5 then c0ffee1")
    for folder, file in zip(plain, "xyy", strict=True):
        own_code = {"my.net(width=8)": file}
        if folder == plain[1]:  # What one run alone has is no difference.
            own_code["my.curve()"] = "z"
        edit(folder, own_code=own_code, earlier=[])
    assert_said("my.net x, y; commits c0ffee1")


def test_two_that_write_into_one_folder_take_turns(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: write_output(tmp_path, {"a": b"1", "b/c": b"2"}), range(50)))
    assert len(list(tmp_path.rglob("*"))) == 3


def test_run_folders_are_found(tmp_path: Path) -> None:
    seeds = record_runs(tmp_path / "runs", seeds=range(2))
    all_runs = [*seeds, *record_runs(tmp_path / "more", seeds=[2])]
    shutil.copytree(seeds[0], tmp_path / "runs" / ".hidden")
    (tmp_path / "runs" / "report").mkdir()
    runs, more = str(tmp_path / "runs"), str(tmp_path / "more")
    for names, folders in {
        (runs,): seeds,
        (str(seeds[0]),): seeds[:1],
        (f"{runs}/digits-*",): seeds,
        (f"{runs}/*",): seeds,
        (f"{tmp_path}/*/digits-*",): all_runs,
        (f"{tmp_path}/*",): all_runs,
        (runs, str(seeds[0]), more): all_runs,
    }.items():
        assert find(names) == sorted(folders), names
    for name, fault in (("report", "it holds no runs"), ("nowhere", "there is no such folder")):
        with pytest.raises(UserError, match=f"{name} is not allowed: {fault}"):
            find([f"{runs}/{name}"])


def test_the_table_from_the_command_line_needs_no_torch(tmp_path: Path) -> None:
    truth = {"0.5": [0.5, 0.75], "1": [0.625, 0.5]}
    for p, values in truth.items():
        record_runs(tmp_path / "runs", f"p={p}", seeds=range(2), accuracies=values)
    environment = {"PYTHONPATH": str(ROOT / "src"), "PYTHONPROFILEIMPORTTIME": "1"}
    process = python(tmp_path, "-m", "igo", "table", **environment).good()
    process.assert_light("igo.report.runs")
    lines = process.stdout.splitlines()
    assert lines[0] == "4 runs (4 finished), 2 settings"
    cells = [re.split(r" {2,}", line.strip())[:3] for line in lines]
    for p, values in truth.items():
        mean, sd = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
        assert [f"p = {p}", "2", f"{mean:.2f} ± {sd:.2f}"] in cells
