"""Run folders as a table, a row for each, and their settings with means over seeds."""

import io
import json
import math
import os
import re
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import polars as pl
from polars import DataFrame

from igo.config import schema
from igo.config.load import record_values
from igo.config.names import leaves
from igo.ground.errors import UserError, first_line, printable
from igo.ground.files import Record, read_bytes
from igo.ground.statistics import reach
from igo.report.output import csv_of, write_output
from igo.runs.folder import read_records, read_status, state_of
from igo.runs.manifest import COMPUTING

# Entries of the last record that are the results of the whole run.
LAST: dict[str, type] = {
    "updates": int,
    "samples": int,
    "test/accuracy": float,
    "test/loss": float,
    "validation/accuracy": float,
    "validation/loss": float,
    "train/loss": float,
    "train/accuracy": float,
    "delta_m": float,
    "delta_measured": float,
    "eta_m": float,
    "b_m": float,
}
# What a whole training took and did, in words: settings that are compared may differ in it.
TOTALS = {
    "updates": "updates",
    "samples": "images",
    "eta_sum": "Σ η",
    "eta_max": "largest η",
    "eta_over_sqrt_b": "mean η/√b",
    "delta": "mean δ measured",
    "b_max": "largest b",
    "seconds": "seconds",
}
# The digest of the user's own data; a run's name does not depend on their place.
FINGERPRINT = "dataset.fingerprint"
# Columns of a row before and after its settings.
HEAD: dict[str, type] = {"run": str, "state": str, "error": str}
RESULTS: dict[str, type] = {
    "epochs_done": int,
    **LAST,
    "test/accuracy_best": float,
    "test/accuracy_best_epoch": int,
    "eta_sum": float,  # This sum is over updates; the two means are over images.
    "eta_max": float,
    "eta_over_sqrt_b": float,
    "delta": float,
    "b_max": float,
    "seconds": float,
    "images_per_second": float,
    "commit": str,  # One for each start whose epochs count, where these differ.
    "host": str,
    "device": str,
    "started": str,
    "command": str,  # The seed and the folders are left out.
    "hardware": str,
    "software": str,
}
# Columns with this prefix have what the losses depend on: digests of sources, and versions.
CODE = "code."
THEN = " then "  # It stands between the values of a run's starts, where they differ.
# These words of a command change no result.
LOCAL = re.compile(r"(seed|runs_dir|data_dir|hydra\.launcher\.\w+|fresh)=|-m$")
METRICS = (
    "test/accuracy",
    "test/accuracy_best",
    "test/loss",
    "train/loss",
    "validation/accuracy",
    "validation/loss",
    *TOTALS,
)


def _type(setting: schema.Setting) -> type:
    """The type of a column: str for a list (JSON), a table, and several types: int or "auto"."""
    kinds = [kind for kind in get_args(setting.kind) if kind is not type(None)] or [setting.kind]
    of_text = get_origin(setting.kind) is list or len(kinds) > 1 or get_origin(kinds[0]) is dict
    return str if of_text else kinds[0]


SETTINGS = {name: _type(setting) for name, setting in schema.SETTINGS.items()}
DEFAULTS = {
    name: setting.default
    for name, setting in schema.SETTINGS.items()
    if setting.default is not MISSING
}
KINDS: dict[str, Any] = {**HEAD, **SETTINGS, FINGERPRINT: str, **RESULTS}


def read_runs(folders: Iterable[Path]) -> DataFrame:
    """Read run folders, also damaged ones, a row for each (see ``read_run``).

    Columns: run, state, error; the settings by their full names, also the arguments of one's own
    model, optimizer and profile; the results; CODE.
    """
    rows = [read_run(folder) for folder in folders]
    other_names = sorted(set[str]().union(*rows) - KINDS.keys())
    code = [name for name in other_names if name.startswith(CODE)]
    arguments = [name for name in other_names if name not in code]
    runs = DataFrame(
        rows,
        schema=list(dict.fromkeys((*HEAD, *SETTINGS, *arguments, *KINDS, *code))),
        schema_overrides=KINDS,
        strict=False,
        infer_schema_length=None,  # All runs together tell the types of arguments.
    )
    return runs.drop(FINGERPRINT) if runs[FINGERPRINT].is_null().all() else runs


def read_run(folder: Path) -> Record:
    """Read one run folder; what is missing or damaged makes ``state`` unreadable.

    Returns:
        ``run`` (the folder's name), ``state`` (folder.state_of, or unreadable), ``error`` (the
        first line, or why it is unreadable); every setting by its full name, lists as JSON;
        FINGERPRINT; RESULTS; and CODE. There are no settings if there is no folder yet (``new``),
        or if config.yaml cannot be read. Accuracies are shares of 1. ``images_per_second`` is the
        median over epochs.
    """
    row: Record = {"run": printable(os.fsencode(folder.name).decode(errors="backslashreplace"))}
    if not folder.exists():
        return row | {"state": "new"}
    files = {
        "config.yaml": _settings,
        "status.json": _status,
        "metrics.jsonl": _results,
    }
    name = "status.json"
    try:
        # The state is read before the records: a run that has finished has all of them.
        status = read_status(folder)
        for name, reader in files.items():  # noqa: B007 (an error has the name)
            entries = reader(folder, row, status)
            row |= {key: _typed(key, value) for key, value in entries.items()}
        return row
    except UserError as error:
        reason = str(error).removeprefix(f"{folder}/")
    except FileNotFoundError:
        reason = f"{name} is missing"
    except Exception as error:  # One bad file, whatever it holds, must not end the whole table.
        reason = f"{name} cannot be read ({first_line(error)})"
    return row | {"state": "unreadable", "error": printable(reason)}


def _settings(folder: Path, _row: Record, _status: Record) -> Record:
    """Every setting by its full name. A setting that the record does not have has its default."""
    row = DEFAULTS | dict(leaves(record_values(read_bytes(folder / "config.yaml").decode())))
    settings = {name for name in row if ".arguments." not in name}
    if differences := sorted(SETTINGS.keys() ^ settings):
        raise UserError(f"config.yaml is of no run, or of another version: see {differences[0]}")
    return row


def _typed(name: str, value: Any) -> Any:
    """The value as its column has it; a ValueError if the column cannot hold it."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and abs(value) < 2**63
    # An argument of one's own model has no declared type.
    kind: type = KINDS.get(name) or (type(value) if is_number else str)
    if kind is str:
        text = str(value) if isinstance(value, str | dict) else json.dumps(value, default=str)
        text.encode()  # It raises a ValueError for half of a surrogate pair.
        return printable(text)
    number = kind(value)
    if not math.isfinite(number) or (kind is int and abs(number) >= 2**63):
        raise ValueError(f"{name} is {number:g}")
    return number


def _status(folder: Path, row: Record, status: Record) -> Record:
    if not status:
        raise FileNotFoundError
    state = status.get("state") or "new"
    hardware = status.get("hardware") or {}
    software = {"Python": status.get("python"), **(status.get("versions") or {})}
    starts = [*(status.get("earlier") or ()), status]
    codes = [_code(start) for start in starts]
    command = shlex.split(status.get("command") or "")
    if command[1:] and command[1].endswith("train.py"):
        command[:2] = "igo", "train"
    entries = {
        # The process of a run that says "running" may be dead.
        "state": state_of(folder) if state == "running" else state,
        "error": (status.get("error") or "").partition("\n")[0] or None,
        "device": hardware.get("device"),
        "command": shlex.join(word for word in command if not LOCAL.match(word)) or None,
        "commit": _then(start.get("commit") for start in starts),
        "hardware": _listed(hardware),
        "software": _listed(software),
        **{name: status.get(name) for name in ("seconds", "host", "started")},
        **{name: _then(code.get(name) for code in codes) for name in set[str]().union(*codes)},
    }
    if row["dataset.file"] or row["dataset.root"]:
        entries[FINGERPRINT] = (status.get("data") or {}).get("fingerprint")
    return entries


def _listed(values: Record) -> str:
    """Names and values, but for those that are not known."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))


def _code(start: Record) -> dict[str, str]:
    """What a start's losses depend on: digests of igo's and the user's sources, and versions."""
    versions = start.get("versions") or {}
    calls = start.get("own_code") or {}
    parts = {"igo": start.get("code") or "unknown"}
    parts |= {call.partition("(")[0]: digest for call, digest in calls.items()}
    parts |= {name: versions[name] for name in COMPUTING if versions.get(name)}
    return {f"{CODE}{name}": part for name, part in parts.items()}


def _then(values: Iterable[str | None]) -> str | None:
    """The value of all starts of a run; where they differ, theirs in order."""
    return THEN.join(dict.fromkeys(filter(None, values))) or None


def _results(folder: Path, row: Record, status: Record) -> Record:
    """The results in metrics.jsonl, of the epochs that are sealed; earlier versions sealed none."""
    finished = row["state"] == "finished"
    last_epoch = row["epochs"] + row["schedule.final_updates"] if finished else status.get("epochs")
    records = read_records(folder, last_epoch)
    if not records:
        return {"epochs_done": 0}
    tests = [record for record in records if record.get("test/accuracy") is not None]
    best = max(tests, key=lambda record: float(record["test/accuracy"]), default={})
    rates = [rate for record in records if (rate := record.get("images_per_second")) is not None]
    return {
        "epochs_done": len(records),
        **{name: records[-1].get(name) for name in LAST},
        "test/accuracy_best": best.get("test/accuracy"),
        "test/accuracy_best_epoch": best.get("epoch"),
        "images_per_second": statistics.median(rates) if rates else None,
        **_totals(records),
    }


def _totals(records: Sequence[Record]) -> Record:
    """Those of TOTALS that only all epochs together tell; None where an epoch does not tell it."""
    updates, images, eta, b, delta = (
        np.array([record.get(name) for record in records], float)
        for name in ("updates", "samples", "eta_m", "b_m", "delta_measured")
    )
    updates, images = np.diff(updates, prepend=0), np.diff(images, prepend=0)
    measured = np.isfinite(delta)  # An epoch of one batch has no δ.
    totals = {
        "eta_sum": eta @ updates,
        "eta_max": eta.max(),
        "eta_over_sqrt_b": eta / np.sqrt(b) @ images / images.sum(),
        "delta": delta[measured] @ images[measured] / (images[measured].sum() or np.nan),
        "b_max": b.max(),
    }
    return {name: total if np.isfinite(total) else None for name, total in totals.items()}


def constants(settings: DataFrame) -> Record:
    """What all settings have in common, without null."""
    columns = {name: settings[name].unique() for name in names_in(settings)}
    return {name: v[0] for name, v in columns.items() if len(v) == 1 and v[0] is not None}


def names_in(settings: DataFrame) -> list[str]:
    """The columns of ``by_setting``'s settings that are settings."""
    return settings.columns[1 : settings.columns.index("data")]


def differing(settings: DataFrame) -> list[str]:
    """The settings that are not the same in all rows."""
    return [name for name in names_in(settings) if settings[name].n_unique() > 1]


def by_setting(runs: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The runs with the numbers of their settings, and a row for each setting.

    Runs of one setting differ in REPEATED alone, or in values that change no result, or each seed
    has data of its own.

    Returns:
        The runs of ``read_runs`` with ``setting`` (null if config.yaml cannot be read) and
        ``counted`` (finished, and the first run of its seed). The settings in the order of their
        values: ``setting``; each setting that changes a result; ``data``, the name of the user's
        own file or folder; ``unfinished`` and ``repeated`` (finished runs with a seed that is
        counted already); ``n`` and the statistics of METRICS over the counted runs.
    """
    runs, settings = _numbered(runs)
    finished = pl.col("state") == "finished"
    first_of_seed = pl.struct("setting", "seed", finished).is_first_distinct()
    runs = runs.with_columns(counted=finished & first_of_seed & pl.col("setting").is_not_null())
    files = pl.coalesce("dataset.file", "dataset.root").str.extract("([^/]+)/*$")
    several = files.n_unique() > 1
    run_counts = (
        runs.drop_nulls("setting")
        .group_by("setting")
        .agg(
            data=pl.when(several).then(pl.lit("own data for each seed")).otherwise(files.first()),
            unfinished=(~finished).sum().cast(pl.Int64),
            repeated=(finished & ~pl.col("counted")).sum().cast(pl.Int64),
        )
    )
    statistics_of_settings = averaged(runs.filter("counted"), ["setting"], METRICS)
    for table in (run_counts, statistics_of_settings):
        settings = settings.join(table, on="setting", how="left", maintain_order="left")
    return runs, settings.with_columns(pl.col("n").fill_null(0))


def _numbered(runs: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The runs with ``setting``, and the values of each setting that change a result."""
    no_settings = {*HEAD, *RESULTS, *schema.REPEATED}
    names = [
        name
        for name in runs.columns
        if name not in no_settings and not name.startswith(CODE) and schema.has_effect(name)
    ]
    if FINGERPRINT in names and _has_data_of_its_own(runs):
        names.remove(FINGERPRINT)
    # The cache is null where it has no effect, see schema.result_settings.
    cache = pl.when(pl.col("dataset.name") == "imagenet").then("dataset.cache")
    values = runs.select(names).with_columns(cache.alias("dataset.cache"))
    # The profile is null where config.yaml cannot be read.
    rows = values.drop_nulls("schedule.profile").unique().sort(names, nulls_last=True)
    settings = rows.with_row_index("setting").cast({"setting": pl.Int64})
    numbers = values.join(settings, on=names, how="left", nulls_equal=True, maintain_order="left")
    return runs.with_columns(numbers["setting"]), settings


def _has_data_of_its_own(runs: DataFrame) -> bool:
    """Whether each seed has data of its own, as where it draws them: they are of one setting."""
    pairs = runs.select("seed", FINGERPRINT).unique()
    alone = pairs.select(pl.all().is_unique().all()).row(0) == (True, True)
    return alone and len(pairs) > 2  # Two files with a seed each may be two data sets.


def summarise(settings: DataFrame) -> DataFrame:
    """The settings that differ, with ``data`` if its content differs, and the statistics."""
    names = differing(settings)
    if FINGERPRINT in names:
        names = ["data", *names]
    return settings.select(*names, "n", "unfinished", "repeated", *statistics_of(METRICS))


def statistics_of(metrics: Iterable[str]) -> list[str]:
    """The columns of ``averaged``, without n."""
    return [f"{m}_{statistic}" for m in metrics for statistic in ("mean", "sd", "low", "high")]


def averaged(rows: DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> DataFrame:
    """``n``, the rows that are alike in ``keys``, and for each metric its statistics over them.

    They are the mean (``…_mean``), the sample standard deviation (``…_sd``) and Student's 95 %
    interval of the mean (``…_low``, ``…_high``). If a row has no value, as its loss overflowed,
    there is no mean. With n = 1 there is no deviation and no interval. Intervals are cut at 0, and
    for accuracies also at 1. An accuracy that is the same in all rows has no interval: accuracies
    come in steps, and 0 is no estimate of their spread.
    """
    values = pl.col(metrics)
    complete = pl.when(values.null_count() == 0)
    groups = rows.group_by(keys).agg(
        pl.len().cast(pl.Int64).alias("n"),
        complete.then(values.mean()).name.suffix("_mean"),
        complete.then(values.std()).name.suffix("_sd"),
    )
    ends = []
    half_width = pl.Series(reach(1.0, groups["n"].to_numpy())).fill_nan(None)
    for metric in metrics:
        deviation, largest = pl.col(f"{metric}_sd"), None
        if "accuracy" in metric:
            deviation, largest = pl.when(deviation > 0).then(deviation), 1.0
        for sign, end in ((-1, "low"), (1, "high")):
            value = pl.col(f"{metric}_mean") + sign * half_width * deviation
            ends.append(value.clip(0.0, largest).alias(f"{metric}_{end}"))
    return groups.with_columns(ends)


def write(runs: DataFrame, settings: DataFrame, folder: Path) -> Sequence[Path]:
    """Write table.csv, table.parquet and summary.csv whole or not at all; return their paths.

    ``runs`` and ``settings`` are as in ``by_setting``.
    """
    runs = runs.drop("setting", "counted", "folder", strict=False)
    parquet = io.BytesIO()
    runs.write_parquet(parquet)
    contents = {
        "table.csv": csv_of(runs),
        "table.parquet": parquet.getvalue(),
        "summary.csv": csv_of(summarise(settings)),
    }
    write_output(folder, contents)
    return [folder / name for name in contents]
