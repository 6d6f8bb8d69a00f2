"""Run folders as a table, a row for each."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import numpy as np
from polars import DataFrame

from igo.config import schema
from igo.config.load import record_values
from igo.config.names import leaves
from igo.ground.errors import UserError, first_line, printable
from igo.ground.files import Record, fits, read_bytes
from igo.ground.statistics import Array
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
# What only all epochs together tell. eta_sum is over updates; eta_over_sqrt_b and delta are means
# over images.
OF_ALL_EPOCHS = (
    "test/accuracy_best",
    "eta_sum",
    "eta_max",
    "eta_over_sqrt_b",
    "delta",
    "b_max",
)
# The digest of the user's own data is compared as a setting is, and the path of the data is not.
FINGERPRINT = "dataset.fingerprint"
# Columns of a row before and after its settings.
HEAD: dict[str, type] = dict.fromkeys(("run", "state", "error"), str)
RESULTS: dict[str, type] = {
    "epochs_done": int,
    **dict.fromkeys(LAST, float),
    "updates": int,
    "samples": int,
    **dict.fromkeys((*OF_ALL_EPOCHS, "seconds"), float),
    # ``commit`` has that of each start whose epochs count, where the commits differ. ``command`` is
    # without the seed and the folders.
    **dict.fromkeys(("commit", "device", "started", "command", "hardware", "software"), str),
}


def _column_type(setting: schema.Setting) -> type:
    """The type of a setting's column: str also for lists and for tables of batch sizes."""
    for kind in (bool, int, float):
        if setting.kind in (kind, kind | None):
            return kind
    return str


DEFAULTS = {
    name: setting.default
    for name, setting in schema.SETTINGS.items()
    if setting.default is not MISSING
}
# The types of all columns but those of arguments and of CODE, which a run alone may have.
KINDS: dict[str, Any] = {
    **HEAD,
    **{name: _column_type(setting) for name, setting in schema.SETTINGS.items()},
    FINGERPRINT: str,
    **RESULTS,
}


def read_runs(folders: Iterable[Path]) -> DataFrame:
    """Read run folders, also damaged ones, a row for each (see ``read_run``).

    Columns: HEAD; the settings by their full names, then the arguments of one's own model,
    optimizer and profile; FINGERPRINT, if a run has one; RESULTS; and those of CODE.
    """
    rows = [read_run(folder) for folder in folders]
    # Some run has these, and igo declares no setting of these names.
    other_names = sorted(set[str]().union(*rows) - KINDS.keys())
    code = [name for name in other_names if name.startswith(CODE)]
    arguments = [name for name in other_names if name not in code]
    runs = DataFrame(
        rows,
        schema=[*HEAD, *schema.SETTINGS, *arguments, FINGERPRINT, *RESULTS, *code],
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
    file = "status.json"  # An error names the file that is being read.
    try:
        # The status is read before the records: a run that has finished has all of them.
        status = read_status(folder)
        file = "config.yaml"
        row |= _cells(_settings(folder))
        file = "status.json"
        row |= _cells(_status(folder, row, status))
        file = "metrics.jsonl"
        row |= _cells(_results(folder, row, status))
        return row
    except UserError as error:
        reason = str(error).removeprefix(f"{folder}/")
    except FileNotFoundError:
        reason = f"{file} is missing"
    except Exception as error:  # One bad file, whatever it holds, must not end the whole table.
        reason = f"{file} cannot be read ({first_line(error)})"
    return row | {"state": "unreadable", "error": printable(reason)}


def _cells(entries: Record) -> Record:
    """The entries of a row as their columns have them, see ``_cell``."""
    return {name: _cell(name, value) for name, value in entries.items()}


def _cell(name: str, value: Any) -> Any:
    """A value as the column of this name has it; a text has no control characters.

    Raises:
        TypeError, ValueError: the value is of another type than the column.
    """
    if value is None:
        return None
    if KINDS.get(name) in (bool, int, float):
        return KINDS[name](value)
    # An argument of one's own model has no declared type. Its numbers stay numbers, except those
    # that need more than 64 bits, for which a table has no column.
    if name not in KINDS and fits(value, (bool, int, float)):
        return value
    # A dict is written by ``str``. JSON would turn its keys, which are numbers in a table of batch
    # sizes, into text.
    as_it_is = isinstance(value, str | dict)
    return printable(str(value) if as_it_is else json.dumps(value, default=str))


def _settings(folder: Path) -> Record:
    """Every setting by its full name. A setting that config.yaml does not have has its default."""
    row = DEFAULTS | dict(leaves(record_values(read_bytes(folder / "config.yaml").decode())))
    settings = {name for name in row if ".arguments." not in name}
    # Names that the file has and igo does not, and the other way round.
    if differences := sorted(schema.SETTINGS.keys() ^ settings):
        raise UserError(f"config.yaml is of no run, or of another version: see {differences[0]}")
    return row


def _status(folder: Path, row: Record, status: Record) -> Record:
    """The state, the error, the provenance and, of the user's own data, the FINGERPRINT.

    ``row`` has the settings.

    Raises:
        FileNotFoundError: there is no status.json, for which ``status`` is empty.
    """
    if not status:
        raise FileNotFoundError
    state = status["state"]
    error = status.get("error") or ""
    entries = {
        # The process of a run that says "running" may be dead.
        "state": state_of(folder) if state == "running" else state,
        "error": error.partition("\n")[0] or None,
        **provenance(status),
    }
    if row["dataset.file"] or row["dataset.root"]:
        entries[FINGERPRINT] = (status.get("data") or {}).get("fingerprint")
    return entries


def _results(folder: Path, row: Record, status: Record) -> Record:
    """The results of a run, from its records up to the last epoch that status.json counts.

    Later records are of an epoch that will be trained again. ``row`` has the settings and state.
    """
    last_epoch = status.get("epochs")
    if row["state"] == "finished":
        # No epoch of the plan may be missing. An update of the final stage is an epoch, too.
        last_epoch = row["epochs"] + row["schedule.final_updates"]
    records = read_records(folder, last_epoch)
    if not records:
        return {"epochs_done": 0}
    last_entries = {name: records[-1].get(name) for name in LAST}
    return {"epochs_done": len(records), **last_entries, **_totals(records)}


def _totals(records: Sequence[Record]) -> Record:
    """The entries OF_ALL_EPOCHS, from all records of a run; an entry that is not known is None."""

    def column(name: str) -> Array:
        """An entry of each record, NaN where it is null."""
        return np.array([record.get(name) for record in records], float)

    # A record counts updates and samples from the start of the run.
    updates = np.diff(column("updates"), prepend=0)
    images = np.diff(column("samples"), prepend=0)
    delta = column("delta_measured")
    has_delta = np.isfinite(delta)  # An epoch of one batch has no δ.
    delta, images_with_delta = delta[has_delta], images[has_delta]
    # Without any δ the mean is 0/NaN, which is NaN, and not 0/0, of which numpy warns.
    image_count = images_with_delta.sum() or np.nan
    # A sum of products a₁b₁ + a₂b₂ + … is a @ b.
    totals = {
        # ``fmax`` leaves out NaN, which stands for an epoch that was not evaluated.
        "test/accuracy_best": np.fmax.reduce(column("test/accuracy")),
        "eta_sum": column("eta_m") @ updates,  # A record's eta_m is the mean over its updates.
        "eta_max": column("eta_largest").max(),
        "eta_over_sqrt_b": column("eta_over_sqrt_b") @ images / images.sum(),
        "delta": delta @ images_with_delta / image_count,
        "b_max": column("b_largest").max(),
    }
    return {name: total if np.isfinite(total) else None for name, total in totals.items()}
