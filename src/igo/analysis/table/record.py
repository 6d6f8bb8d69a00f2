"""One run folder as one row: its settings, how it ended, and what it reached."""

from __future__ import annotations

import json
import statistics
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

from igo.config import schema
from igo.config.load import record_values
from igo.config.settings import Setting
from igo.ground.errors import UserError
from igo.ground.words import leaves
from igo.runs.folder import check_unchanged, state_of

Row = dict[str, Any]

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
    "commit": str,
    "host": str,
    "device": str,
}


def read_run(folder: Path) -> Row:
    """Read one run folder; what is missing or damaged makes ``state`` unreadable.

    Returns:
        ``run`` (the folder's name), ``state`` (folder.state_of, or unreadable), ``error`` (the
        first line, or why it is unreadable); every setting by its full name, ``p`` for
        ``schedule.p``, lists as JSON; FINGERPRINT; and the known ones of RESULTS. There are no
        settings if there is no folder yet (``new``), or if config.yaml cannot be read. Accuracies
        are shares of 1. ``images_per_second`` is the median over epochs.
    """
    row: Row = {"run": folder.name}
    if not folder.exists():
        return row | {"state": "new"}
    try:
        row |= _settings(_text(folder / "config.yaml"))
        status = _object(_text(folder / "status.json"), "status.json")
        check_unchanged(folder, status)
        data = status.get("data")
        if (row.get("dataset.file") or row.get("dataset.root")) and isinstance(data, dict):
            row[FINGERPRINT] = str(data.get("fingerprint"))
        row |= _status(status)  # before the records: a finished run has all of them
        if row["state"] == "running":
            row["state"] = state_of(folder)  # its process may be dead
        if row["state"] != "finished" and not (folder / "metrics.jsonl").exists():
            row["epochs_done"] = 0  # it ended before its first epoch
        else:
            row |= _results(_text(folder / "metrics.jsonl"), row)
    except UserError as error:
        row |= {"state": "unreadable", "error": str(error)}
    if row["state"] == "failed" and not row["error"]:
        row["error"] = _last_line(folder / "error.txt")
    return row


def _last_line(path: Path) -> str | None:
    """The last line of a traceback, which says what went wrong."""
    try:
        lines = path.read_bytes().decode(errors="replace").split("\n")
    except OSError:
        return None
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise UserError(f"{path.name} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"{path.name} cannot be read ({reason})") from None


def _type(setting: Setting) -> type:
    """The type of a column: str for a list (JSON) and for several types, such as bool or "auto"."""
    if setting.kind in (Any, int | str):  # typed as a number or a word, recorded as a number
        return type(setting.default)
    kinds = [kind for kind in get_args(setting.kind) if kind is not type(None)] or [setting.kind]
    return str if get_origin(setting.kind) is list or len(kinds) > 1 else kinds[0]


SETTINGS = {name: _type(setting) for name, setting in schema.SETTINGS.items()}
DEFAULTS = {
    name: json.dumps(setting.default) if isinstance(setting.default, list) else setting.default
    for name, setting in schema.SETTINGS.items()
    if setting.default is not MISSING
}
NULLABLE = {name for name, s in schema.SETTINGS.items() if type(None) in get_args(s.kind)}
REQUIRED = SETTINGS.keys() - DEFAULTS.keys()


def _settings(text: str) -> Row:
    """Every setting by its full name. A setting that the record does not have has its default."""
    # Runs of one setting differ only in the line of the seed, so the other lines are parsed once.
    before, mark, rest = text.partition("\nseed:")
    seed, _, after = rest.partition("\n")
    row = DEFAULTS | _values(f"{before}\n{after}") | _values(f"{mark}{seed}")
    missing = sorted(REQUIRED - row.keys())
    if missing:
        raise UserError(f"config.yaml is not of a run: it has no {missing[0]}")
    row["p"] = row.pop("schedule.p")
    return row


@cache
def _values(text: str) -> Row:
    """The settings in a part of a config.yaml, by their full names."""
    try:
        values = record_values(text)
    except ValueError as error:
        raise UserError(f"config.yaml cannot be read ({str(error).splitlines()[0]})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError("config.yaml does not hold settings")
    return {name: _setting(name, value) for name, value in leaves(values, lists=False)}


def _setting(name: str, value: Any) -> Any:
    if isinstance(value, list):
        value = json.dumps(value, default=str)
    if name not in SETTINGS:  # of another version: as text
        return value if isinstance(value, str | None) else json.dumps(value, default=str)
    if value is None and name not in NULLABLE:
        raise UserError(f"config.yaml: {name} is null")
    if isinstance(value, bool | int) and SETTINGS[name] is str:  # such as engine.threads
        value = json.dumps(value)
    return _typed(value, SETTINGS[name], f"config.yaml: {name}")


def _typed(value: object, kind: type, where: str) -> Any:
    """The value; an int is converted where the type is float."""
    if value is None or type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    raise UserError(f"{where} is {value!r}, not of type {kind.__name__}")


def _object(text: str, where: str) -> Row:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{where} is damaged: no JSON object")
    return content


def _status(status: Row) -> Row:
    hardware = status.get("hardware")
    status = {**status, "device": hardware.get("device") if isinstance(hardware, dict) else None}
    row = {
        name: _typed(status.get(name), {**HEAD, **RESULTS}[name], f"status.json: {name}")
        for name in ("state", "error", "seconds", "commit", "host", "device")
    }
    if row["state"] is None:
        raise UserError("status.json has no state")
    row["error"] = (row["error"] or "").partition("\n")[0] or None
    return row


def _results(text: str, row: Row) -> Row:
    """The results in metrics.jsonl; its last line may be torn unless the run is finished."""
    *lines, torn = text.split("\n")
    records = [_object(line, f"metrics.jsonl, line {i}") for i, line in enumerate(lines, 1)]
    if [record.get("epoch") for record in records] != list(range(1, len(records) + 1)):
        raise UserError("metrics.jsonl is damaged: its epochs are not 1, 2, 3, …")
    planned = row["epochs"] + row["schedule.final_updates"]
    if row["state"] == "finished" and (torn or len(records) < planned):
        raise UserError(f"metrics.jsonl of a finished run has {len(records)} of {planned} epochs")
    if not records:
        return {"epochs_done": 0}
    accuracies = _numbers(records, "test/accuracy")
    best = max(accuracies, default=None)
    rates = _numbers(records, "images_per_second")
    return {
        "epochs_done": len(records),
        **{name: _typed(records[-1].get(name), LAST[name], f"metrics.jsonl: {name}")
           for name in LAST},
        "test/accuracy_best": best,
        "test/accuracy_best_epoch": next(
            (r["epoch"] for r in records if r.get("test/accuracy") == best), None
        ),
        "images_per_second": statistics.median(rates) if rates else None,
    }  # fmt: skip


def _numbers(records: list[Row], name: str) -> list[float]:
    """The values of one entry in all records, without null."""
    values = [_typed(record.get(name), float, f"metrics.jsonl: {name}") for record in records]
    return [value for value in values if value is not None]
