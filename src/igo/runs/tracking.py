"""The logger `tracking=wandb`. Each epoch is one row, logged once however often the run was killed.

An online start asks W&B how many rows it has, and sends only the others. An offline start writes
the rows of its own epochs into a W&B folder of its own; `igo sync` sends a run from metrics.jsonl.
Under `wandb agent` the rows go to the agent's W&B run, so that the W&B sweep gets the results.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from igo.config.schema import Config
from igo.ground.errors import ConfigError, first_line
from igo.ground.files import Record
from igo.runs.folder import RunFolder
from igo.runs.loggers import OpeningTracker, Tracker

INIT_TIMEOUT = 20  # seconds that a start waits for a server, and then goes on offline
FINISH_TIMEOUT = 60  # seconds that the end waits for a server to take the last rows
LONGEST_NAME = 128  # characters that W&B takes


def sweep_run() -> str | None:
    """Id of the W&B run that `wandb agent` started this process for, None without an agent."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def leave_the_home(root: Path) -> None:
    """W&B, which is not started yet, writes into root/wandb: a node's home may be read-only."""
    os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb"))  # artifacts before they are sent
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / "wandb" / "cache"))  # its server's log


def knows_key() -> bool:
    """Whether there is a key to log in with; no server is asked."""
    import wandb

    os.environ["WANDB_MODE"] = "online"  # else wandb.login does not look for one
    with contextlib.redirect_stderr(io.StringIO()):
        return bool(wandb.login(prompt=False, verify=False))


def check(config: Config) -> None:
    """Raise a ConfigError if an online run has no key to log in with."""
    leave_the_home(Path(config.runs_dir).resolve())
    if config.tracking.mode == "online" and not knows_key():
        raise ConfigError(
            "tracking.mode", "online", "no W&B key is known here; run `wandb login`, set"
            " WANDB_API_KEY, or use tracking.mode=offline and `make sync` later"
        )  # fmt: skip


def start(
    config: Config, folder: RunFolder, records: Sequence[Record], warn: Callable[[str], None]
) -> Tracker:
    """Open the run's W&B run, whose id is in status.json, and send it the records that it lacks."""
    if config.tracking.mode == "disabled":
        return Tracker()
    threading.excepthook = _excepthook
    root = Path(config.runs_dir).resolve()
    name = folder.path.name
    recorded_id = folder.status().get("wandb_id")
    run_id = sweep_run() or recorded_id
    if not run_id:
        import secrets

        run_id = f"{name[-10:]}-{secrets.token_hex(3)}"  # a deleted id can never be used again
    if run_id != recorded_id:
        with folder.writing():
            folder.update_status(wandb_id=run_id)
    known_records = list(records)  # as they are now

    def open_tracker() -> Tracker:
        return WandbTracker(_init(config, root, name, run_id, warn), known_records, warn)

    # DataLoader's workers must not be forked while this thread works.
    forks = config.dataset.name in ("imagenet", "folder")
    return OpeningTracker(open_tracker, lambda error: _give_up_on(error, warn), beside=not forks)


def _excepthook(error: threading.ExceptHookArgs) -> None:
    """Print no error of W&B's threads: after its service died, the run has warned already."""
    if not (error.thread and error.thread.name.startswith("wandb")):
        threading.__excepthook__(error)


def _give_up_on(error: Exception, warn: Callable[[str], None]) -> None:
    warn(
        f"W&B failed ({first_line(error)}): this run goes on without it; `make sync` sends it later"
    )
    give_up()


def give_up() -> None:
    """End W&B's service, or what is left of it; else it fails again when the process ends."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


class WandbTracker(Tracker):
    """A W&B run, online or offline. A server's run gets those of the records that it lacks."""

    def __init__(self, run: Any, records: Sequence[Record], warn: Callable[[str], None]) -> None:
        self._run, self._warn = run, warn
        run.pin_config_keys(("p", "split", "seed", "epochs", "learning_rate", "batch_size"))
        run.define_metric("*", step_metric="epoch")
        run.define_metric("updates", step_metric="epoch", summary="last")
        for split in ("test", "validation"):
            run.define_metric(f"{split}/accuracy", step_metric="epoch", summary="max,last")
            run.define_metric(f"{split}/loss", step_metric="epoch", summary="min,last")
        online = run.settings.mode == "online"
        # Each epoch is one row, in their order, so the number of rows gives the last epoch.
        self._logged = int(run.starting_step or 0) if online else len(records)
        for record in records:
            self.log(record)

    def log(self, record: Record) -> None:
        """See Tracker. An epoch that has its row is skipped, even if it was trained again."""
        if record["epoch"] > self._logged:
            self._logged = record["epoch"]
            self._run.log({key: value for key, value in record.items() if value is not None})

    def attach(self, model: Path) -> None:
        """See Tracker. W&B makes one version of a file with the same content."""
        import wandb

        artifact = wandb.Artifact(f"model-{self._run.id}", type="model")
        artifact.add_file(str(model))
        self._run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """See Tracker."""
        try:
            self._run.finish(exit_code=exit_code)
        except TimeoutError:
            self._warn("W&B did not take all rows; `make sync` sends them later")


def _init(config: Config, root: Path, name: str, run_id: str, warn: Callable[[str], None]) -> Any:
    arguments = identity(config, name, run_id)
    if config.tracking.mode == "online":
        try:
            return open_run("online", root, arguments)
        except Exception as error:  # CommError, or any other after a strange answer
            reason = first_line(error)
            warn(f"no W&B run online ({reason}): it goes on offline; `make sync` sends it later")
            give_up()  # else the attempt still uses the id
    return open_run("offline", root, arguments)


def identity(config: Config, name: str, run_id: str) -> dict[str, Any]:
    """The arguments of wandb.init for a run."""
    tracking = config.tracking
    task = f"{config.dataset.name}-{config.model.name}-{config.schedule.profile}"
    return {
        "project": tracking.project,
        "entity": tracking.entity,
        "group": tracking.group or os.environ.get("WANDB_SWEEP_ID") or task,
        "tags": [*tracking.tags, config.schedule.profile],
        "name": title(config, name),
        "id": run_id,
        "config": asdict(config),
    }


def title(config: Config, name: str) -> str:
    """The name that W&B shows: the main settings, then the name of the folder."""
    p = "" if config.p is None else f" p={config.p:g}"
    settings = f"{config.schedule.profile}{p} split={config.split:.4g} seed={config.seed}"
    return f"{settings} {name}"[:LONGEST_NAME]


def open_run(mode: Literal["online", "offline"], root: Path, arguments: Mapping[str, Any]) -> Any:
    """Open or resume a W&B run whose files are in root/wandb.

    Raises:
        Exception: no server answers, or it refuses the run: CommError, or any other.
    """
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_transaction_log_flush_interval=1,  # SIGKILL loses a second, not fifteen
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
    )
    return wandb.init(mode=mode, settings=settings, resume="allow", dir=str(root), **arguments)
