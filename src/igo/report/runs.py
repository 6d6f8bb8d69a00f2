"""Run folders as a table, a row for each."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
from polars import DataFrame

from igo.config import schema
from igo.config.load import record_values
from igo.config.names import leaves
from igo.ground.errors import UserError, first_line, printable
from igo.ground.files import Record, fits, read_bytes
from igo.report.provenance import CODE, provenance
from igo.runs.folder import read_records, read_status, state_of

# Entries of the last record that are the results of the whole run.
LAST = (
    "updates",
    "samples",
    "test/accuracy",
    "test/loss",
    "validation/accuracy",
    "validation/loss",
    "train/loss",
    "train/accuracy",
    "delta_m",
    "delta_measured",
    "eta_m",
    "b_m",
)
# What only all epochs together tell. The sum is over updates; the two means are over images.
OF_ALL_EPOCHS = ("eta_sum", "eta_max", "eta_over_sqrt_b", "delta", "b_max")
INSIDE = ("eta_largest", "b_largest", "eta_over_sqrt_b")  # of an epoch, where η or b changes
# The digest of the user's own data; a run's name does not depend on their place.
FINGERPRINT = "dataset.fingerprint"
# Columns of a row before and after its settings.
HEAD: dict[str, type] = dict.fromkeys(("run", "state", "error"), str)
RESULTS: dict[str, type] = {
    "epochs_done": int,
    **dict.fromkeys(LAST, float),
    "updates": int,
    "samples": int,
    "test/accuracy_best": float,
    **dict.fromkeys((*OF_ALL_EPOCHS, "seconds"), float),
    # A commit for each start whose epochs count, where these differ. The command is without the
    # seed and the folders.
    **dict.fromkeys(("commit", "device", "started", "command", "hardware", "software"), str),
}


def _type(setting: schema.Setting) -> type:
    """The type of a column: str for a list, which is JSON there, and for a table."""
    kinds = [kind for kind in get_args(setting.kind) if kind is not type(None)] or [setting.kind]
    of_text = get_origin(setting.kind) is list or get_origin(kinds[0]) is dict
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
        or if config.yaml cannot be read. Accuracies are shares of 1.
    """
    row: Record = {"run": printable(folder.name)}
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
    """The value as its column has it."""
    if value is None:
        return None
    # An argument of one's own model has no declared type.
    kind: type = KINDS.get(name) or (type(value) if fits(value, (bool, int, float)) else str)
    if kind is str:
        text = str(value) if isinstance(value, str | dict) else json.dumps(value, default=str)
        return printable(text)
    return kind(value)


def _status(folder: Path, row: Record, status: Record) -> Record:
    if not status:
        raise FileNotFoundError
    state = status.get("state") or "new"
    entries = {
        # The process of a run that says "running" may be dead.
        "state": state_of(folder) if state == "running" else state,
        "error": (status.get("error") or "").partition("\n")[0] or None,
        **provenance(status),
    }
    if row["dataset.file"] or row["dataset.root"]:
        entries[FINGERPRINT] = (status.get("data") or {}).get("fingerprint")
    return entries


def _results(folder: Path, row: Record, status: Record) -> Record:
    """The results in metrics.jsonl, of the epochs that are sealed."""
    finished = row["state"] == "finished"
    last_epoch = row["epochs"] + row["schedule.final_updates"] if finished else status.get("epochs")
    records = read_records(folder, last_epoch)
    if not records:
        return {"epochs_done": 0}
    accuracies = [record.get("test/accuracy") for record in records]
    return {
        "epochs_done": len(records),
        **{name: records[-1].get(name) for name in LAST},
        "test/accuracy_best": max((x for x in accuracies if x is not None), default=None),
        **_totals(records),
    }


def _totals(records: Sequence[Record]) -> Record:
    """OF_ALL_EPOCHS; δ is the mean over the epochs that have one."""
    updates, images, eta, delta, largest_eta, largest_b, eta_over_sqrt_b = (
        np.array([record.get(name) for record in records], float)
        for name in ("updates", "samples", "eta_m", "delta_measured", *INSIDE)
    )
    updates, images = np.diff(updates, prepend=0), np.diff(images, prepend=0)
    has_delta = np.isfinite(delta)  # An epoch of one batch has no δ.
    totals = (
        eta @ updates,
        largest_eta.max(),
        eta_over_sqrt_b @ images / images.sum(),
        delta[has_delta] @ images[has_delta] / (images[has_delta].sum() or np.nan),
        largest_b.max(),
    )
    return {
        name: total if np.isfinite(total) else None
        for name, total in zip(OF_ALL_EPOCHS, totals, strict=True)
    }
