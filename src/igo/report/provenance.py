"""By which commands, from which code and on which machines runs were made."""

import re
import shlex
from collections.abc import Collection, Iterable, Sequence

import polars as pl
from polars import DataFrame
from polars.selectors import starts_with

from igo.ground.files import Record
from igo.runs.manifest import COMPUTING

# Columns with this prefix have what the losses depend on: digests of sources, and versions.
CODE = "code."
THEN = " then "  # This word stands between the values of a run's starts, where they differ.
# These words of a command change no result.
LOCAL = re.compile(r"(seed|runs_dir|data_dir|hydra\.launcher\.\w+|fresh)=|-m$")


def provenance(status: Record) -> Record:
    """What a run's status.json says of its command, machine and code.

    A run that was continued has several starts: status.json is of the last, and its ``earlier`` has
    the others. Columns: device, command, commit, hardware, software, seconds, started; and under
    CODE what the losses depend on.
    """
    hardware = status.get("hardware") or {}
    software = {"Python": status.get("python"), **(status.get("versions") or {})}
    starts = [*(status.get("earlier") or ()), status]
    sources = [_sources(start) for start in starts]
    command = shlex.split(status.get("command") or "")
    # In a clone, python src/train.py is igo train.
    if command[1:] and command[1].endswith("train.py"):
        command[:2] = "igo", "train"
    return {
        "device": hardware.get("device"),
        "command": shlex.join(word for word in command if not LOCAL.match(word)) or None,
        "commit": _in_order(start.get("commit") for start in starts),
        "hardware": _listed(hardware),
        "software": _listed(software),
        "seconds": status.get("seconds"),
        "started": status.get("started"),
        **{
            f"{CODE}{name}": _in_order(of_start.get(name) for of_start in sources)
            for name in set[str]().union(*sources)
        },
    }


def _listed(values: Record) -> str:
    """Names and values, but for those that are not known."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))


def _sources(start: Record) -> Record:
    """What a start's losses depend on: digests of igo's and the user's sources, and versions."""
    versions = start.get("versions") or {}
    calls = start.get("own_code") or {}  # The digests of the user's code, by calls with arguments.
    return {
        "igo": start.get("code") or "unknown",
        **{call.partition("(")[0]: digest for call, digest in calls.items()},
        **{name: versions[name] for name in COMPUTING if versions.get(name)},
    }


def _in_order(values: Iterable[str | None]) -> str | None:
    """The different values of a run's starts, ``a then b``; None if no start has one."""
    return THEN.join(dict.fromkeys(filter(None, values))) or None


def mixed(runs: DataFrame, settings: Collection[int]) -> list[str]:
    """A sentence on the code and versions in which the counted runs of settings differ, if any."""
    runs = runs.filter("counted", pl.col("setting").is_in([*settings]))
    differences = []
    for column in runs.select(starts_with(CODE)):
        values = column.drop_nulls().unique().sort()
        if len(values) > 1 or any(THEN in value for value in values):
            differences.append(f"{column.name.removeprefix(CODE)} {', '.join(values)}")
    if not differences:
        return []
    commits = ", ".join(map(short, runs["commit"].fill_null("unknown").unique().sort()))
    return [f"The runs are of different code: {'; '.join(differences)}; commits {commits}."]


def short(commit: str) -> str:
    """A commit, or those of a run's starts, by seven digits each; other text is kept."""
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]+", r"\1", commit)


def commands(runs: DataFrame, settings: Sequence[int]) -> list[str]:
    """The commands of the counted runs, each once, with all of the seeds that it ran with."""
    runs = runs.filter("counted", pl.col("setting").is_in(settings)).drop_nulls("command")
    by_command = runs.group_by("command").agg(pl.col("seed").unique().sort()).sort("command")
    lines = []
    for command, seeds in by_command.iter_rows():
        multirun = " -m" if len(seeds) > 1 else ""
        lines.append(f"{command} seed={','.join(map(str, seeds))}{multirun}")
    return lines
