"""Send offline runs to W&B: the epochs of each run that the server lacks, in their order.

`wandb sync` alone is not enough (0.31). At the file of a run that was killed in its first second it
stops for all runs, with exit code 0. If it is interrupted, the next call sends every row again. Its
marks are used: neither `wandb sync` nor this program sends a file that has a mark.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from igo.config.load import read_config, split_off
from igo.ground.errors import ConfigError, UserError, first_line
from igo.ground.files import Record, write_atomically
from igo.ground.words import counted
from igo.runs import login, tracking, trained, wandb_files
from igo.runs.folder import read_status, state_of
from igo.runs.terminal import Terminal

NO_ANSWER = ("deadline exceeded", "timed out", "timeout")  # in W&B's errors about a silent server


class Unanswered(UserError):
    """The server does not answer, or W&B failed, so that no other run can be sent either."""

    def __init__(self, reason: str, failure: str = "does not answer") -> None:
        super().__init__(f"W&B {failure} ({reason}); all runs are kept, start this again")


@dataclass
class SyncSettings:
    """The settings of `igo sync` (conf/sync.yaml)."""

    runs_dir: str = "runs"


@dataclass(frozen=True)
class Offline:
    """A run to send: the arguments of wandb.init, a record for each epoch, and how it ended."""

    arguments: dict[str, Any]
    records: list[Record]
    exit_code: int
    model: Path | None = None  # to attach


def run(composed: DictConfig) -> None:
    """Send every run that has no mark.

    Raises:
        SystemExit: 1 if a run could not be sent; the others were sent.
    """
    settings, _ = split_off(composed, SyncSettings)
    root = Path(settings.runs_dir).resolve()
    if not root.is_dir():
        raise ConfigError("runs_dir", settings.runs_dir, "there is no such folder")
    terminal, failed = Terminal(), 0
    folders = [file.parent for file in sorted(root.glob("*/status.json"))]
    owners = {read_status(folder).get("wandb_id"): folder for folder in folders}
    without_file = [i for i, folder in owners.items() if i and read_status(folder).get("unsent")]
    ids = list(dict.fromkeys([*unsent(root), *without_file]))
    if not ids:
        terminal.say(f"nothing to send: W&B has every run of {root / 'wandb'}")
        return
    login.leave_the_home(root)
    _log_in()
    for number, run_id in enumerate(ids, 1):
        folder = owners.get(run_id)
        try:
            outcome = _send(root, run_id, folder)
        except Unanswered:
            raise
        except UserError as error:
            outcome, failed = f"failed: {error}", failed + 1
        terminal.say(f"[{number}/{len(ids)}] {folder.name if folder else run_id}: {outcome}")
    if failed:
        raise SystemExit(1)


def unsent(root: Path) -> list[str]:
    """Ids of the runs with a W&B file in root/wandb that has no mark, the oldest first."""
    files = [
        file for file in (root / "wandb").glob("*run-*/run-*.wandb")
        if not (file.parent.is_symlink() or file.with_suffix(wandb_files.MARK).exists())
    ]  # fmt: skip
    files.sort(key=lambda file: file.parent.name.removeprefix("offline-"))
    return list(dict.fromkeys(file.stem.removeprefix("run-") for file in files))


def _log_in() -> None:
    import wandb

    wandb.setup(wandb.Settings(silent=True))  # its warnings advise a command that sends rows twice
    if not login.knows_key():
        raise UserError(
            "no W&B key is known here; run `wandb login` or set WANDB_API_KEY, then start this"
            " again. Nothing was sent, and all runs are kept"
        )


def _send(root: Path, run_id: str, folder: Path | None) -> str:
    """Send one run, and mark its files once the server has everything; return the outcome.

    Raises:
        Unanswered: see there.
    """
    from wandb.errors import CommError

    if folder and state_of(folder) == "running":
        return "skipped: it is running"
    offline = _from_folder(folder, run_id) if folder else _from_files(root, run_id)
    if offline is None:
        return "skipped: its file is empty, and it has no run folder"
    try:
        opened = tracking.open_run("online", root, offline.arguments)
    except Exception as error:  # CommError, or any other after a strange answer
        tracking.give_up()  # else the attempt still uses the id
        reason = first_line(error)
        if not isinstance(error, CommError):
            raise Unanswered(reason, "failed") from None
        kind = Unanswered if any(word in reason for word in NO_ANSWER) else UserError
        raise kind(reason) from None
    complaints: list[str] = []
    try:
        tracker = tracking.tracker_of(opened, root, offline.records, complaints.append)
        if offline.model:
            tracker.attach(offline.model)
        tracker.finish(offline.exit_code)
    except Exception as error:  # its service may have died
        tracking.give_up()
        raise Unanswered(first_line(error), "failed") from None
    if complaints:
        kind = UserError if tracker.answered else Unanswered
        raise kind(f"W&B did not take all of {offline.arguments['name']}")
    if folder and (status := read_status(folder)).pop("unsent", False):
        write_atomically(folder / "status.json", json.dumps(status, indent=2) + "\n")
    present = len(offline.records) - tracker.sent
    return f"{counted(tracker.sent, 'epoch')} sent{f', {present} were there' if present else ''}"


def _from_folder(folder: Path, run_id: str) -> Offline:
    """A run from its folder, which has the record of every epoch."""
    config = read_config(folder / "config.yaml")
    arguments = tracking.identity(config, folder.name, run_id)
    file = folder / "metrics.jsonl"
    try:
        lines = file.read_bytes().decode().splitlines(keepends=True) if file.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]  # not a torn line
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error})") from None
    model = folder / trained.FILE
    finished = read_status(folder).get("state") == "finished"
    artifact = model if finished and config.tracking.artifact and model.is_file() else None
    return Offline(arguments, records, int(not finished), artifact)


def _from_files(root: Path, run_id: str) -> Offline | None:
    """A run from W&B's own files; its run folder is gone, or has another W&B run now."""
    run, records, exit_code = None, dict[int, Record](), 1
    for folder in wandb_files.folders_of(root, run_id):
        for kind, entry in wandb_files.entries(folder):
            if kind == "run":
                run = entry
            elif kind == "history" and "epoch" in entry["item"]:
                row = {key: value for key, value in entry["item"].items() if key[0] != "_"}
                records[int(row["epoch"])] = row
            elif kind == "exit":
                exit_code = int(entry.get("exit_code", 0))
    if run is None:
        return None
    config = {k: v for k, v in run.get("config", {}).get("update", {}).items() if k != "_wandb"}
    names = {"project": "project", "entity": "entity", "group": "run_group", "tags": "tags",
             "name": "display_name", "id": "run_id"}  # fmt: skip
    arguments = {ours: run.get(theirs) for ours, theirs in names.items()} | {"config": config}
    return Offline(arguments, [records[epoch] for epoch in sorted(records)], exit_code)
