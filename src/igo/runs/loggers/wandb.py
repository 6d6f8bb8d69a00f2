"""The logger `tracking=wandb`. Each epoch is one row, logged once however often the run was killed.

An online start asks W&B how many rows it has, and sends only the others. An offline start writes
the rows of its own epochs into a W&B folder of its own; `igo sync` sends a run from metrics.jsonl.
Under `wandb agent` the rows go to the agent's W&B run, so that the W&B sweep gets the results.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from igo.config.schema import Config
from igo.ground.errors import ConfigError, first_line
from igo.ground.files import Record
from igo.runs.folder import RunFolder, setting_of
from igo.runs.loggers import Logger

INIT_TIMEOUT = 20  # seconds that a start waits for a server, and then goes on offline
FINISH_TIMEOUT = 60  # seconds that the end waits for a server to take the last rows
LONGEST_NAME = 128  # characters that W&B takes
MANIFEST = ("command", "commit", "code", "python", "versions", "hardware", "data")


def knows_key() -> bool:
    """Whether there is a key to log in with; no server is asked."""
    import wandb

    os.environ["WANDB_MODE"] = "online"  # else wandb.login does not look for one
    os.environ["WANDB_SILENT"] = "true"  # else it advises `wandb sync`, which sends rows twice
    with contextlib.redirect_stderr(io.StringIO()):
        return bool(wandb.login(prompt=False, verify=False))


def prepare(root: Path) -> None:
    """Before W&B starts: it writes into root/wandb, as a node's home may be read-only."""
    os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb"))  # artifacts before they are sent
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / "wandb" / "cache"))  # its server's log
    # No reports about itself: if their server is slow, the process could not end.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    logging.raiseExceptions = False  # or each line that a full disk keeps out of its log is 60 here


def check(config: Config) -> None:
    """Raise a ConfigError if an online run has no key to log in with."""
    prepare(Path(config.runs_dir).resolve())
    if config.tracking.mode == "online" and not knows_key():
        raise ConfigError(
            "tracking.mode", "online", "no W&B key is known here; run `wandb login`, set"
            " WANDB_API_KEY, or use tracking.mode=offline and `make sync` later"
        )  # fmt: skip


def start(
    config: Config, folder: RunFolder, records: Sequence[Record], warn: Callable[[str], None]
) -> Logger:
    """Open the run's W&B run, whose id is in status.json, and send it the records that it lacks."""
    if config.tracking.mode == "disabled":
        return Logger()
    recorded = folder.status().get("wandb_id")
    of_agent = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    # A deleted id can never be used again, so a part of it is drawn.
    run_id = of_agent or recorded or f"{folder.path.name[-10:]}-{secrets.token_hex(3)}"
    if run_id != recorded:
        folder.update_status(wandb_id=run_id)
    if config.tracking.mode == "online":
        try:
            return WandB("online", config, folder, records)
        except Exception as error:  # CommError, or any other after a strange answer
            reason = first_line(error)
            warn(f"no W&B run online ({reason}): it goes on offline; `make sync` sends it later")
    return WandB("offline", config, folder, records)


def plan_of(folder: Path) -> list[Record]:
    """The rows of plan.csv, with None for an empty cell."""
    with (folder / "plan.csv").open(newline="") as file:
        return [
            {name: float(cell) if cell else None for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]


class WandB(Logger):
    """The W&B run whose id is in status.json, made or resumed. Its files are in RUNS_DIR/wandb.

    Args:
        mode: online, or offline.
        config: the run's settings.
        folder: the run's folder.
        records: the run's records so far; those that W&B lacks are sent.
        stats: whether W&B measures the machine, when online.

    Raises:
        Exception: no server answers, or it refuses the run: CommError, or any other.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"],
        config: Config,
        folder: RunFolder,
        records: Sequence[Record],
        *,
        stats: bool = True,
    ) -> None:
        import wandb

        self._config, self._folder = config, folder
        status, tracking, name = folder.status(), config.tracking, folder.path.name
        model, profile = (s.partition("(")[0] for s in (config.model.name, config.schedule.profile))
        p = "" if config.p is None else f" p={config.p:g}"
        title = f"{profile}{p} split={config.split:.4g} seed={config.seed} {name}"
        plan = plan_of(folder.path)
        self._rates = {int(row["stage"]): (row["kappa_m"], row["lambda_m"]) for row in plan}
        task = f"{config.dataset.name}-{model}-{profile}"
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,  # the manifest has the commit
            disable_code=True,
            x_disable_stats=mode == "offline" or not stats,
            init_timeout=INIT_TIMEOUT,
            finish_timeout=FINISH_TIMEOUT,
            finish_timeout_raises=True,
        )
        with _or_teardown():
            self._run: Any = wandb.init(
                mode=mode,
                settings=settings,
                resume="allow",
                dir=str(folder.path.resolve().parent),
                project=tracking.project,
                entity=tracking.entity,
                group=tracking.group or os.environ.get("WANDB_SWEEP_ID") or task,
                tags=[*tracking.tags, profile],
                name=title[:LONGEST_NAME],
                id=status["wandb_id"],
                config={
                    **asdict(config),
                    "setting": setting_of(config),
                    "plan": {key: [row[key] for row in plan] for key in plan[0]},
                    "manifest": {key: status.get(key) for key in MANIFEST},
                },
            )
        self._run.define_metric("*", step_metric="epoch")
        self._run.define_metric("updates", step_metric="epoch", summary="last")
        for split in ("test", "validation"):
            self._run.define_metric(f"{split}/accuracy", step_metric="epoch", summary="max,last")
            self._run.define_metric(f"{split}/loss", step_metric="epoch", summary="min,last")
        # Each epoch is one row, in their order, so the number of rows gives the last epoch.
        there = int(self._run.starting_step or 0)
        self._logged = there if mode == "online" else len(records)
        for record in records:
            self.log(record, record["epoch"])

    def log(self, metrics: Record, step: int) -> None:
        """See Logger. An epoch that has its row is skipped, even if it was trained again."""
        if step <= self._logged:
            return
        self._logged = step
        kappa, lam = self._rates[metrics["stage"]]  # None in the last stage
        row = {**metrics, "kappa_m": kappa, "lambda_m": lam}
        with _or_teardown():
            self._run.log({key: value for key, value in row.items() if value is not None})
            # Else W&B's summary keeps an earlier stage's value; a null accuracy is not new.
            if gone := [key for key, value in row.items() if value is None and "/" not in key]:
                self._run.summary.update(dict.fromkeys(gone))

    def close(self, exit_code: int = 0) -> None:
        """See Logger. W&B makes one version of a model with the same content."""
        with _or_teardown():
            if exit_code == 0 and self._config.tracking.artifact:
                import wandb

                from igo.runs.checkpoint import export

                artifact = wandb.Artifact(f"model-{self._run.id}", type="model")
                artifact.add_file(str(export(self._folder, self._config)))
                self._run.log_artifact(artifact)
            self._run.finish(exit_code=exit_code)


@contextmanager
def _or_teardown() -> Iterator[None]:
    """After an error end W&B's service: else it fails again when the process ends."""
    try:
        yield
    except Exception:
        import wandb

        with contextlib.suppress(Exception):
            wandb.teardown()
        raise
