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
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import polars as pl
from polars import DataFrame

from igo.config import schema
from igo.config.load import record_values
from igo.config.names import leaves, spelled_out
from igo.ground.errors import UserError, first_line, printable
from igo.ground.files import NUMBER, OBJECT, Record, read_bytes, read_json, write_output
from igo.ground.statistics import reach
from igo.runs.folder import read_records, read_status, state_of
from igo.runs.manifest import COMPUTING

# Entries of the last record that are the results of the whole run.
LAST: dict[str, type] = {
    "updates": int, "samples": int,
    **dict.fromkeys((
        "test/accuracy", "test/loss", "validation/accuracy", "validation/loss", "train/loss",
        "train/accuracy", "delta_m", "delta_measured", "eta_m", "b_m"), float),
}  # fmt: skip
# The digest of the user's own data; a run's name does not depend on their place.
FINGERPRINT = "dataset.fingerprint"
# Columns of a row before and after its settings.
HEAD: dict[str, type] = {"run": str, "state": str, "error": str}
RESULTS: dict[str, type] = {
    "epochs_done": int,
    **LAST,
    "test/accuracy_best": float,
    "test/accuracy_best_epoch": int,
    "seconds": float,
    "images_per_second": float,
    "worst_case": float,  # of sharpness.json
    "worst_case_of": str,  # its settings
    "commit": str,  # of each start of the run whose epochs count, where they differ
    "code": str,  # likewise, the digest of the sources, and the versions that losses depend on
    "host": str,
    "device": str,
    "started": str,
    "command": str,  # without the seed and the folders
    "hardware": str,
    "software": str,
}
THEN = " then "  # between the values of a run's starts, where they differ
# The line of the seed in a config.yaml.
SEED = re.compile(r"^seed: (\d+)\n", re.MULTILINE)
# Words of a command that change no result.
LOCAL = re.compile(r"(seed|runs_dir|data_dir|hydra\.launcher\.\w+|fresh)=|-m$")
METRICS = ("test/accuracy", "test/accuracy_best", "test/loss", "train/loss", "updates", "seconds",
           "validation/accuracy", "validation/loss")  # fmt: skip


def _type(setting: schema.Setting) -> type:
    """The type of a column: str for a list (JSON) and for several types, such as int or "auto"."""
    kinds = [kind for kind in get_args(setting.kind) if kind is not type(None)] or [setting.kind]
    return str if get_origin(setting.kind) is list or len(kinds) > 1 else kinds[0]


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
    model, optimizer and profile; the results.
    """
    rows = [read_run(folder) for folder in folders]
    arguments = sorted(set[str]().union(*rows) - KINDS.keys())
    runs = DataFrame(
        rows,
        schema=list(dict.fromkeys((*HEAD, *SETTINGS, *arguments, *KINDS))),
        schema_overrides=KINDS,
        strict=False,
        infer_schema_length=None,  # the types of arguments are those of all runs
    )
    return runs.drop(FINGERPRINT) if runs[FINGERPRINT].is_null().all() else runs


def read_run(folder: Path) -> Record:
    """Read one run folder; what is missing or damaged makes ``state`` unreadable.

    Returns:
        ``run`` (the folder's name), ``state`` (folder.state_of, or unreadable), ``error`` (the
        first line, or why it is unreadable); every setting by its full name, lists as JSON;
        FINGERPRINT; and RESULTS. There are no settings if there is no folder yet (``new``), or if
        config.yaml cannot be read. Accuracies are shares of 1. ``images_per_second`` is the median
        over epochs.
    """
    row: Record = {"run": printable(os.fsencode(folder.name).decode(errors="backslashreplace"))}
    if not folder.exists():
        return row | {"state": "new"}
    files = {"config.yaml": _settings, "status.json": _status, "metrics.jsonl": _results,
             "sharpness.json": _sharpness}  # fmt: skip
    name = "status.json"
    try:
        status = read_status(folder)  # before the records: a finished run has all of them
        for name, read in files.items():  # noqa: B007 (an error has the name)
            found = read(folder, row, status)
            row |= {key: _typed(key, value) for key, value in found.items()}
        return row
    except UserError as error:
        reason = str(error).removeprefix(f"{folder}/")
    except FileNotFoundError:
        reason = f"{name} is missing"
    except Exception as error:  # whatever it holds, it must not end the table of all runs
        reason = f"{name} cannot be read ({first_line(error)})"
    return row | {"state": "unreadable", "error": printable(reason)}


def _settings(folder: Path, _row: Record, _status: Record) -> Record:
    """Every setting by its full name. A setting that the record does not have has its default."""
    text = read_bytes(folder / "config.yaml").decode()
    seed = SEED.search(text)
    if seed is None:
        return _settings_in(text)
    # Runs of one setting differ in the seed alone, so that the rest is parsed once for all.
    return _settings_in(SEED.sub("", text)) | {"seed": int(seed[1])}


@cache
def _settings_in(text: str) -> Record:
    """The settings in a config.yaml, or in one without its seed."""
    values = record_values(text)
    row = DEFAULTS | dict(leaves(values))
    if other := sorted(SETTINGS.keys() ^ row.keys()):
        raise UserError(f"config.yaml is of no run, or of another version: see {other[0]}")
    return row | dict(leaves(spelled_out(values)))


def _typed(name: str, value: Any) -> Any:
    """The value as its column has it; a ValueError if the column cannot hold it."""
    if value is None:
        return None
    number = isinstance(value, int | float) and abs(value) < 2**63
    kind: type = KINDS.get(name) or (type(value) if number else str)  # else of one's own
    if kind is str:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        text.encode()  # half of a surrogate pair is no text
        return printable(text)
    typed = kind(value)
    if not math.isfinite(typed) or (kind is int and abs(typed) >= 2**63):
        raise ValueError(f"{name} is {typed:g}")
    return typed


def _status(folder: Path, row: Record, status: Record) -> Record:
    if not status:
        raise FileNotFoundError
    state = status.get("state") or "new"
    hardware = status.get("hardware") or {}
    software = {"Python": status.get("python"), **(status.get("versions") or {})}
    starts = [*(status.get("earlier") or ()), status]
    codes = [_code(start) for start in starts]
    names = dict.fromkeys(name for code in codes for name in code)
    parts = {name: str(_then(code.get(name) for code in codes)) for name in names}
    command = shlex.split(status.get("command") or "")
    if command[1:] and command[1].endswith("train.py"):
        command[:2] = "igo", "train"
    found = {
        "state": state_of(folder) if state == "running" else state,  # its process may be dead
        "error": (status.get("error") or "").partition("\n")[0] or None,
        "device": hardware.get("device"),
        "command": shlex.join(word for word in command if not LOCAL.match(word)) or None,
        "commit": _then(start.get("commit") for start in starts),
        "code": _listed(parts),
        "hardware": _listed(hardware),
        "software": _listed(software),
        **{name: status.get(name) for name in ("seconds", "host", "started")},
    }
    if row["dataset.file"] or row["dataset.root"]:
        found[FINGERPRINT] = (status.get("data") or {}).get("fingerprint")
    return found


def _listed(values: Record) -> str:
    """Names and values, but for those that are not known."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))


def _code(start: Record) -> dict[str, str]:
    """What a start's losses depend on: digests of igo's and the user's sources, and versions."""
    versions = start.get("versions") or {}
    known = {name: versions[name] for name in COMPUTING if versions.get(name)}
    own = {call.partition("(")[0]: file for call, file in (start.get("own_code") or {}).items()}
    return {"igo": start.get("code") or "unknown", **own, **known}


def _then(values: Iterable[str | None]) -> str | None:
    """The value of all starts of a run; where they differ, theirs in order."""
    return THEN.join(dict.fromkeys(filter(None, values))) or None


def _results(folder: Path, row: Record, _status: Record) -> Record:
    """The results in metrics.jsonl; of a run that is not finished the last line may be torn."""
    last = row["epochs"] + row["schedule.final_updates"] if row["state"] == "finished" else None
    records = read_records(folder, last)
    if not records:
        return {"epochs_done": 0}
    evaluated = [record for record in records if record.get("test/accuracy") is not None]
    best = max(evaluated, key=lambda record: float(record["test/accuracy"]), default={})
    rates = [rate for record in records if (rate := record.get("images_per_second")) is not None]
    return {
        "epochs_done": len(records),
        **{name: records[-1].get(name) for name in LAST},
        "test/accuracy_best": best.get("test/accuracy"),
        "test/accuracy_best_epoch": best.get("epoch"),
        "images_per_second": statistics.median(rates) if rates else None,
    }


def _sharpness(folder: Path, _row: Record, _status: Record) -> Record:
    """Of `igo sharpness`, if it has measured this run."""
    found = read_json(folder / "sharpness.json", {"settings": OBJECT, "worst_case": NUMBER})
    of = _listed(found.get("settings") or {})
    return {"worst_case": found.get("worst_case"), "worst_case_of": of or None}


def constants(settings: DataFrame) -> Record:
    """What all settings have in common, without null."""
    values = {name: settings[name].unique() for name in names_in(settings)}
    return {name: v[0] for name, v in values.items() if len(v) == 1 and v[0] is not None}


def names_in(settings: DataFrame) -> list[str]:
    """The columns of ``by_setting``'s settings that are settings."""
    return settings.columns[1 : settings.columns.index("data")]


def differing(settings: DataFrame) -> list[str]:
    """The settings that are not the same in all rows."""
    return [name for name in names_in(settings) if settings[name].n_unique() > 1]


def by_setting(runs: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The runs with the numbers of their settings, and a row for each setting.

    Runs of one setting differ in REPEATED alone, or in values that change no result.

    Returns:
        The runs of ``read_runs`` with ``setting`` (null if config.yaml cannot be read) and
        ``counted`` (finished, and the first run of its seed). The settings in the order of their
        values: ``setting``; each setting that changes a result; ``data``, the name of the user's
        own file or folder; ``unfinished`` and ``repeated`` (finished runs with a seed that is
        counted already); ``n`` and the statistics of METRICS over the counted runs.
    """
    runs, settings = _numbered(runs)
    finished = pl.col("state") == "finished"
    first = pl.struct("setting", "seed", finished).is_first_distinct()
    runs = runs.with_columns(counted=finished & first & pl.col("setting").is_not_null())
    file = pl.coalesce("dataset.file", "dataset.root").first()
    others = (
        runs.drop_nulls("setting")
        .group_by("setting")
        .agg(
            data=file.str.extract("([^/]+)/*$"),
            unfinished=(~finished).sum().cast(pl.Int64),
            repeated=(finished & ~pl.col("counted")).sum().cast(pl.Int64),
        )
    )
    of_counted = averaged(runs.filter("counted"), ["setting"], METRICS)
    for table in (others, of_counted):
        settings = settings.join(table, on="setting", how="left", maintain_order="left")
    return runs, settings.with_columns(pl.col("n").fill_null(0))


def _numbered(runs: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The runs with ``setting``, and the values of each setting that change a result."""
    no_settings = {*HEAD, *RESULTS, *schema.REPEATED}
    names = [name for name in runs.columns if name not in no_settings and schema.has_effect(name)]
    # Null where it has no effect, see schema.result_settings.
    cache = pl.when(pl.col("dataset.name") == "imagenet").then("dataset.cache")
    acting = runs.select(names).with_columns(cache.alias("dataset.cache"))
    known = acting.drop_nulls("schedule.profile")  # it is null where config.yaml cannot be read
    settings = known.unique().sort(names, nulls_last=True).with_row_index("setting")
    settings = settings.cast({"setting": pl.Int64})
    numbered = acting.join(settings, on=names, how="left", nulls_equal=True, maintain_order="left")
    return runs.with_columns(numbered["setting"]), settings


def summarise(settings: DataFrame) -> DataFrame:
    """The settings that differ, with ``data`` if its content differs, and the statistics."""
    varied = differing(settings)
    if FINGERPRINT in varied:
        varied = ["data", *varied]
    return settings.select(*varied, "n", "unfinished", "repeated", *statistics_of(METRICS))


def statistics_of(metrics: Iterable[str]) -> list[str]:
    """The columns of ``averaged``, without n."""
    return [f"{m}_{statistic}" for m in metrics for statistic in ("mean", "sd", "low", "high")]


def averaged(rows: DataFrame, by: Sequence[str], metrics: Sequence[str]) -> DataFrame:
    """``n``, the rows that are alike in ``by``, and for each metric its statistics over them.

    They are the mean (``…_mean``), the sample standard deviation (``…_sd``) and Student's 95 %
    interval of the mean (``…_low``, ``…_high``). If a row has no value, as its loss overflowed,
    there is no mean. With n = 1 there is no deviation and no interval. Intervals are cut at 0, and
    for accuracies also at 1. An accuracy that is the same in all rows has no interval: accuracies
    come in steps, and 0 is no estimate of their spread.
    """
    values = pl.col(metrics)
    whole = pl.when(values.null_count() == 0)
    groups = rows.group_by(by).agg(
        pl.len().cast(pl.Int64).alias("n"),
        whole.then(values.mean()).name.suffix("_mean"),
        whole.then(values.std()).name.suffix("_sd"),
    )
    ends = []
    half = pl.Series(reach(1.0, groups["n"].to_numpy())).fill_nan(None)
    for metric in metrics:
        deviation, largest = pl.col(f"{metric}_sd"), None
        if "accuracy" in metric:
            deviation, largest = pl.when(deviation > 0).then(deviation), 1.0
        for sign, end in ((-1, "low"), (1, "high")):
            value = pl.col(f"{metric}_mean") + sign * half * deviation
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
        "table.csv": runs.write_csv().encode(),
        "table.parquet": parquet.getvalue(),
        "summary.csv": summarise(settings).write_csv().encode(),
    }
    write_output(folder, contents)
    return [folder / name for name in contents]
