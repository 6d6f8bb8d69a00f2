"""By which commands, from which code and on which machines runs were made."""

import re
import shlex
from collections.abc import Iterable

from polars import DataFrame, col
from polars.selectors import starts_with

from igo.ground.files import Record
from igo.runs.manifest import COMPUTING

# Columns with this prefix have what the losses depend on: digests of sources, and versions.
CODE = "code."
THEN = " then "  # This word stands between the values of a run's starts, where they differ.
# Words that ``provenance`` leaves out of a run's command: they change no result, or they are the
# seed, which ``commands`` adds again.
LOCAL = re.compile(r"(seed|runs_dir|data_dir|hydra\.launcher\.\w+|fresh)=|-m$")


def provenance(status: Record) -> Record:
    """The columns of a run that say its command, machine and code, from its status.json.

    They are device, command, commit, hardware, software, seconds and started; and under CODE what
    the losses depend on. A run that was continued has several starts: the entries of status.json
    are of the last one, and the entry ``earlier`` has those of the others.
    """
    hardware = status.get("hardware") or {}
    software = {"Python": status.get("python"), **(status.get("versions") or {})}
    starts = [*(status.get("earlier") or ()), status]
    sources = [_sources(start) for start in starts]
    names = set[str]().union(*sources)
    command = shlex.split(status.get("command") or "")
    # In a clone the command may be python src/train.py, which is igo train.
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
        **{f"{CODE}{name}": _in_order(source.get(name) for source in sources) for name in names},
    }


def _listed(values: Record) -> str:
    """Names and values as ``cpu A CPU, cores 2``, without values that are not known."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))


def _sources(start: Record) -> Record:
    """What a start's losses depend on, by name: digests of sources, and versions of packages."""
    versions = start.get("versions") or {}
    digests = start.get("own_code") or {}  # Of the user's sources, by calls such as my.net(width=8)
    return {
        "igo": start.get("code") or "unknown",
        **{call.partition("(")[0]: digest for call, digest in digests.items()},
        **{name: versions[name] for name in COMPUTING if versions.get(name)},
    }


def _in_order(values: Iterable[str | None]) -> str | None:
    """The different values of a run's starts, as ``a then b``; None if no start has one."""
    return THEN.join(dict.fromkeys(filter(None, values))) or None


def mixed(runs: DataFrame) -> list[str]:
    """A sentence that tells in which code and versions the runs of a comparison differ.

    The list is empty if they do not differ. A source that only some runs have, such as a model of
    the user's own, is no difference.
    """
    differences = []
    for column in runs.select(starts_with(CODE)):
        values = column.drop_nulls().unique().sort()
        # The starts of one run may differ, too.
        if len(values) > 1 or any(THEN in value for value in values):
            differences.append(f"{column.name.removeprefix(CODE)} {', '.join(values)}")
    if not differences:
        return []
    commits = ", ".join(map(short, runs["commit"].fill_null("unknown").unique().sort()))
    return [f"The runs are of different code: {'; '.join(differences)}; commits {commits}."]


def short(commit: str) -> str:
    """A text with seven digits of each commit in it; what else it says is kept."""
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]+", r"\1", commit)


def commands(runs: DataFrame) -> list[str]:
    """The commands that make these runs again, as a person types them.

    Runs that differ in the seed alone have one command with all of their seeds. Hydra needs -m to
    run several.
    """
    by_command = (
        runs.drop_nulls("command")
        .group_by("command")
        .agg(col("seed").unique().sort())
        .sort("command")
    )
    lines = []
    for command, seeds in by_command.iter_rows():
        multirun = " -m" if len(seeds) > 1 else ""
        lines.append(f"{command} seed={','.join(map(str, seeds))}{multirun}")
    return lines
