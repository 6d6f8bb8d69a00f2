"""Bring offline runs to W&B: each run's epochs that the server has not got, in their order.

`wandb sync` alone is not enough (0.31): a run that was killed in its first second leaves a file
that stops it for all runs, with exit code 0; and stopped on the way, it sends every row of a run
again. Its marks are kept: what has one is not sent, by it or here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from igo.config.load import of_file, split_off
from igo.errors import ConfigError, UserError, first_line
from igo.files import Record, from_json, read_bytes, write_atomically
from igo.runs import login, tracking, trained, wandb_files
from igo.runs.folder import read_status, state_of
from igo.runs.terminal import Terminal
from igo.words import counted

NO_ANSWER = ("deadline exceeded", "timed out", "timeout")  # in what W&B says of a silent server


class Unanswered(UserError):
    """The server does not answer, or W&B failed, so no other run can be sent either."""

    def __init__(self, reason: str, what: str = "does not answer") -> None:
        super().__init__(f"W&B {what} ({reason}); all runs are kept, start this again")


@dataclass
class SyncSettings:
    """What `igo sync` can be told (conf/sync.yaml)."""

    runs_dir: str = "runs"


@dataclass(frozen=True)
class Offline:
    """A run to send: the arguments of wandb.init, a record an epoch, and how it ended."""

    made: dict[str, Any]
    records: list[Record]
    exit_code: int
    model: Path | None = None  # to attach


def run(composed: DictConfig) -> None:
    """Send every run that has no mark.

    Raises:
        SystemExit: 1 where a run could not be sent; the others were.
    """
    settings, _ = split_off(composed, SyncSettings)
    root = Path(settings.runs_dir).resolve()
    if not root.is_dir():
        raise ConfigError("runs_dir", settings.runs_dir, "there is no such folder")
    terminal, failed = Terminal(), 0
    folders = [file.parent for file in sorted(root.glob("*/status.json"))]
    owners = {read_status(folder).get("wandb_id"): folder for folder in folders}
    without_file = [name for name, one in owners.items() if name and read_status(one).get("unsent")]
    ids = list(dict.fromkeys([*unsent(root), *without_file]))
    if not ids:
        terminal.say(f"nothing to send: W&B has every run of {root / 'wandb'}")
        return
    _log_in()
    for place, run_id in enumerate(ids, 1):
        folder = owners.get(run_id)
        try:
            said = _send(root, run_id, folder)
        except Unanswered:
            raise
        except UserError as error:
            said, failed = f"failed: {error}", failed + 1
        terminal.say(f"[{place}/{len(ids)}] {folder.name if folder else run_id}: {said}")
    if failed:
        raise SystemExit(1)


def unsent(root: Path) -> list[str]:
    """Ids of the runs with a W&B file in root/wandb that has no mark, by the time of the first."""
    files = [
        file for file in (root / "wandb").glob("*run-*/run-*.wandb")
        if not (file.parent.is_symlink() or file.with_suffix(wandb_files.MARK).exists())
    ]  # fmt: skip
    files.sort(key=lambda file: file.parent.name.removeprefix("offline-"))
    return list(dict.fromkeys(file.stem.removeprefix("run-") for file in files))


def _log_in() -> None:
    import wandb

    wandb.setup(wandb.Settings(silent=True))  # its warnings advise what would send rows twice
    if not login.knows_key():
        raise UserError(
            "no W&B key is known here; run `wandb login` or set WANDB_API_KEY, then start this"
            " again. Nothing was sent, and all runs are kept"
        )


def _send(root: Path, run_id: str, folder: Path | None) -> str:
    """Send one run, and mark its files once the server has everything; say what was done.

    Raises:
        Unanswered: by the server.
    """
    from wandb.errors import CommError

    if folder and state_of(folder) == "running":
        return "left for later, it is running"
    offline = _of_folder(folder, run_id) if folder else _of_files(root, run_id)
    if offline is None:
        return "passed over: its file is empty, and it has no run folder"
    try:
        opened = tracking.open_run("online", root, offline.made)
    except Exception as error:  # CommError, or whatever a strange answer leads to
        tracking.give_up()  # else the id is still in use by the attempt
        reason = first_line(error)
        if not isinstance(error, CommError):
            raise Unanswered(reason, "failed") from None
        kind = Unanswered if any(word in reason for word in NO_ANSWER) else UserError
        raise kind(reason) from None
    complaints: list[str] = []
    try:
        tracker = tracking.of_run(opened, root, offline.records, complaints.append)
        if offline.model:
            tracker.attach(offline.model)
        tracker.finish(offline.exit_code)
    except Exception as error:  # its service may have died
        tracking.give_up()
        raise Unanswered(first_line(error), "failed") from None
    if complaints:
        kind = UserError if tracker.answered else Unanswered
        raise kind(f"it did not take all of {offline.made['name']}")
    if folder and (status := read_status(folder)).pop("unsent", False):
        write_atomically(folder / "status.json", json.dumps(status, indent=2) + "\n")
    there = len(offline.records) - tracker.sent
    return f"{counted(tracker.sent, 'epoch')} sent" + (f", {there} were there" if there else "")


def _of_folder(folder: Path, run_id: str) -> Offline:
    """A run by its own record, which has every epoch."""
    config = of_file(folder / "config.yaml")
    made = tracking.identity(config, folder.name, run_id)
    file = folder / "metrics.jsonl"
    try:
        lines = read_bytes(file).decode().splitlines(keepends=True) if file.exists() else []
        records = [from_json(line) for line in lines if line.endswith("\n")]  # not a torn one
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error})") from None
    model = folder / trained.FILE
    finished = read_status(folder).get("state") == "finished"
    attached = model if finished and config.tracking.artifact and model.is_file() else None
    return Offline(made, records, int(not finished), attached)


def _of_files(root: Path, run_id: str) -> Offline | None:
    """A run whose folder is gone, or has another W&B run since, by W&B's own files."""
    made, records, exit_code = None, dict[int, Record](), 1
    for folder in wandb_files.folders_of(root, run_id):
        for kind, entry in wandb_files.entries(folder):
            if kind == "run":
                made = entry
            elif kind == "history" and "epoch" in entry["item"]:
                row = {key: value for key, value in entry["item"].items() if key[0] != "_"}
                records[int(row["epoch"])] = row
            elif kind == "exit":
                exit_code = int(entry.get("exit_code", 0))
    if made is None:
        return None
    config = {k: v for k, v in made.get("config", {}).get("update", {}).items() if k != "_wandb"}
    names = {"project": "project", "entity": "entity", "group": "run_group", "tags": "tags",
             "name": "display_name", "id": "run_id"}  # fmt: skip
    arguments = {ours: made.get(theirs) for ours, theirs in names.items()} | {"config": config}
    return Offline(arguments, [records[epoch] for epoch in sorted(records)], exit_code)
