"""Send runs to W&B: from each run folder the epochs that the server lacks, in their order.

`wandb sync` is not enough (0.31). It stops at the file of a run that was killed in its first
second, and if it is interrupted, the next call sends every row again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from igo.config.load import read_config, split_off
from igo.config.schema import Config
from igo.ground.errors import ConfigError, UserError, first_line
from igo.ground.words import counted
from igo.runs.folder import RunFolder, read_records, read_status, state_of
from igo.runs.loggers import wandb as logger
from igo.runs.terminal import Terminal


@dataclass
class SyncSettings:
    """The settings of `igo sync` (conf/sync.yaml)."""

    runs_dir: str = "runs"


def run(composed: DictConfig) -> None:
    """Send every run that W&B does not have whole, whatever WANDB_MODE says.

    Raises:
        SystemExit: 1 if a run could not be sent; the others were sent.
    """
    settings, _ = split_off(composed, SyncSettings)
    root = Path(settings.runs_dir).resolve()
    if not root.is_dir():
        raise ConfigError("runs_dir", settings.runs_dir, "there is no such folder")
    terminal, failed = Terminal(), 0
    folders = [file.parent for file in sorted(root.glob("*/status.json"))]
    folders = [folder for folder in folders if "wandb_id" in read_status(folder)]
    logger.prepare(root)
    if folders and not logger.knows_key():
        raise UserError(
            "no W&B key is known here; run `wandb login` or set WANDB_API_KEY, then start this"
            " again. Nothing was sent, and all runs are kept"
        )
    for number, folder in enumerate(folders, 1):
        try:
            outcome = _send(folder)
        except (UserError, OSError) as error:
            outcome, failed = f"failed: {error}", failed + 1
        terminal.say(f"[{number}/{len(folders)}] {folder.name}: {outcome}")
    if not folders:
        terminal.say(f"nothing to send: no run of {root} was tracked by W&B")
    if failed:
        raise SystemExit(1)


def _send(place: Path) -> str:
    """Send one run; return the outcome."""
    if state_of(place) == "running":
        return "skipped: it is running"
    config = read_config(place / "config.yaml")
    folder, status, records = RunFolder(place), read_status(place), read_records(place)
    there = _rows_there(config, status["wandb_id"])
    if there >= len(records):
        return f"W&B has all of its {counted(len(records), 'epoch')}"
    try:
        sending = logger.WandB("online", config, folder, records, stats=False)
        sending.close(int(status.get("state") != "finished"))
    except Exception as error:  # CommError, or any other after a strange answer
        raise UserError(f"{first_line(error)}; it is kept, start this again") from None
    sent = counted(len(records) - there, "epoch")
    return f"{sent} sent{f', {there} were there' if there else ''}"


def _rows_there(config: Config, run_id: str) -> int:
    """How many rows of a run the server has; 0 if it does not know the run, or does not answer."""
    import wandb

    entity = f"{config.tracking.entity}/" if config.tracking.entity else ""
    try:
        api = wandb.Api(timeout=logger.INIT_TIMEOUT)
        run = api.run(f"{entity}{config.tracking.project}/{run_id}")
        return int(run.historyLineCount or 0)
    except Exception:  # W&B's errors, or any other after a strange answer
        return 0
