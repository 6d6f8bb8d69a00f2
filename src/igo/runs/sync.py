"""The command `igo sync`: it sends runs to W&B from their metrics.jsonl.

`wandb sync` is not enough (0.31). It stops at the file of a run that was killed in its first
second, and if it is interrupted, the next call sends every row again.
"""

import shlex
from pathlib import Path

from omegaconf import DictConfig

from igo.config.load import read_config
from igo.config.schema import TrackingConfig
from igo.ground.errors import UserError, counted, first_line, printable, told
from igo.runs.find import find, named
from igo.runs.folder import RunFolder, read_records, read_status, state_of
from igo.runs.loggers.wandb import WandB, destination, knows_key, prepare, updates_there
from igo.runs.terminal import Terminal


def run(composed: DictConfig) -> None:
    """Send every run that W&B does not have whole, whatever WANDB_MODE says.

    A folder may be from somebody else. So a run that names another project or entity than those
    asked for is not sent.

    Raises:
        SystemExit: 1 if a run could not be sent; the others were sent.
    """
    target = TrackingConfig(project=composed.project, entity=composed.entity)
    terminal, failures = Terminal(), 0
    all_folders = [folder.resolve() for folder in find(named(composed.runs))]  # one at least
    prepare(all_folders[0].parent)
    folders = [folder for folder in all_folders if _is_tracked(folder)]
    if not folders:
        terminal.say(f"nothing to send: no run of {composed.runs} was tracked by W&B")
        return
    if not knows_key():
        raise UserError(
            "no valid W&B key is known here; run `wandb login` or set WANDB_API_KEY, then start"
            " this again. Nothing was sent, and all runs are kept"
        )
    for index, folder in enumerate(folders, 1):
        try:
            outcome = _send(folder, target)
        except Exception as error:  # W&B raises CommError, or any other after a strange answer.
            failures += 1
            reason = told(error) or first_line(error)
            outcome = f"failed: {reason}; it is kept, start this again"
        terminal.say(f"[{index}/{len(folders)}] {printable(f'{folder.name}: {outcome}')}")
    if failures:
        raise SystemExit(1)


def _is_tracked(folder: Path) -> bool:
    """Whether a run has a W&B run; of a damaged one ``_send`` says what is damaged."""
    try:
        return "wandb_id" in read_status(folder)
    except UserError:
        return True


def _send(folder: Path, target: TrackingConfig) -> str:
    """Send one run to the project and entity that are asked for; return the outcome in words."""
    status = read_status(folder)
    if state_of(folder) == "running":
        return "skipped: it is running"
    # A configuration that names the user's own code is read, too: nothing of that is called here.
    config = read_config(folder / "config.yaml", trust=True)
    own_destination = destination(config.tracking)
    if own_destination != destination(target):
        raise UserError(
            "its config.yaml names another project or entity than this command: type"
            f" {shlex.join(own_destination)} to send it there"
        )
    records = read_records(folder, status.get("epochs"))
    last_updates = updates_there(config, status["wandb_id"])
    rows_there = sum(record["updates"] <= last_updates for record in records)
    if rows_there == len(records):
        return f"W&B has all of its {counted(len(records), 'epoch')}"
    logger = WandB("online", config, RunFolder(folder), records, stats=False)
    logger.close(exit_code=0 if status.get("state") == "finished" else 1)
    outcome = f"{counted(len(records) - rows_there, 'epoch')} sent"
    return f"{outcome}, {rows_there} were there" if rows_there else outcome
