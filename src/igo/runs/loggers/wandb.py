"""The logger `tracking=wandb`. A run has one row for each epoch, however often it was killed.

An online start asks W&B for the updates of its last row, and sends only later rows. An offline
start writes the rows of its own epochs into a W&B folder of its own; `igo sync` (``runs.sync``)
sends a run from metrics.jsonl.
Under `wandb agent` the rows go to the agent's W&B run, so that the W&B sweep gets the results.
"""

import io
import logging
import os
import re
import secrets
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from igo.config.names import ALWAYS, leaves, schedule_name, words
from igo.config.schema import Config, TrackingConfig
from igo.ground.errors import UserError, first_line, require
from igo.ground.files import Record
from igo.runs.folder import RunFolder, read_plan
from igo.runs.loggers import Logger, Say
from igo.runs.name import setting_of

INIT_TIMEOUT = 20  # in seconds; without an answer until then a start goes on offline
FINISH_TIMEOUT = 60  # in seconds; the end of a run waits for its last rows until then
LONGEST_NAME, LONGEST_TAG = 128, 64  # the most characters that W&B takes
# The settings in the name of a line in the dashboard. Runs of all tasks may be in one project.
NAMED = (
    *ALWAYS,
    "dataset.name",
    "dataset.samples",
    "model.name",
    "model.width",
    "optimizer.name",
    "optimizer.momentum",
    "optimizer.weight_decay",
)
# A filter of W&B is typed on a keyboard. igo puts no letters into a name but these and ASCII's.
LETTERS = str.maketrans(
    {"η": "eta", "β": "beta", "γ": "gamma", "₁": "_1", "¼": "0.25", "½": "0.5", "¾": "0.75"}
)
CURE = "; `igo sync` sends the rows later"  # the end of the warning that W&B failed
# The entries of status.json that W&B gets
MANIFEST = ("command", "commit", "code", "python", "versions", "hardware", "data")


def knows_key() -> bool:
    """Whether there is a key to log in to W&B with; no server is asked."""
    import wandb

    # W&B is silent: it would advise `wandb sync`, which sends rows twice.
    os.environ["WANDB_SILENT"] = "true"
    mode = os.environ.get("WANDB_MODE")
    os.environ["WANDB_MODE"] = "online"  # Offline wandb.login does not look for a key.
    try:
        with redirect_stderr(io.StringIO()):
            return bool(wandb.login(prompt=False, verify=False))
    except wandb.errors.AuthenticationError:  # What is there has not the form of a key.
        return False
    finally:  # The next run of this process reads WANDB_MODE as the user set it.
        if mode is None:
            del os.environ["WANDB_MODE"]
        else:
            os.environ["WANDB_MODE"] = mode


def mode_of(tracking: TrackingConfig) -> str:
    """``online``, ``offline`` or ``disabled``: ``auto`` is online where a key is known."""
    if tracking.mode != "auto":
        return tracking.mode
    return "online" if knows_key() else "offline"


def prepare(root: Path) -> None:
    """Set the environment that W&B starts in, so that its files are in root/wandb.

    W&B's default is the home, which may be read-only on a node. What the user has set stays.
    """
    if (root / "wandb").is_symlink():
        raise UserError(f"{root / 'wandb'} is a link, through which W&B would write: remove it")
    os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb"))  # Artifacts wait there.
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / "wandb" / "cache"))
    # W&B sends no reports about itself: if their server is slow, the process could not end.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    # W&B writes a log of its own. On a full disk Python's `logging` would print a traceback of 60
    # lines for each line of that log.
    logging.raiseExceptions = False


def check(config: Config) -> None:
    """Raise a ConfigError if an online run has no key to log in with."""
    prepare(Path(config.runs_dir).resolve())
    require(
        config.tracking.mode != "online" or knows_key(),
        "tracking.mode",
        "online",
        "no valid W&B key is known here; run `wandb login`, set WANDB_API_KEY, or use"
        " tracking.mode=offline and `igo sync` later",
    )


def logs_again() -> bool:
    """Whether a finished run is sent again: for `wandb agent` alone, as `igo sync` sends others."""
    return "WANDB_SWEEP_ID" in os.environ


def advice(config: Config, folder: RunFolder) -> str:
    """A line on how to send an offline run, with the command; empty for other runs."""
    if mode_of(config.tracking) != "offline":
        return ""
    path = str(folder.path)
    if not re.fullmatch(r"[\w ./-]+", path):  # For Hydra a path with other signs needs quotes.
        path = f'"{path}"'
    command = shlex.join(["igo", "sync", f"runs={path}", *destination(config.tracking)])
    reason = ", as no key is known (`wandb login`)" if config.tracking.mode == "auto" else ""
    return f"W&B is offline{reason}; to send it: {command}"


def start(config: Config, folder: RunFolder, records: Sequence[Record], warn: Say) -> Logger:
    """Open the run's W&B run, whose id is in status.json, and send it the records that it lacks.

    Without an answer of the server it is opened offline. `wandb agent` has chosen the W&B run of a
    run that it started.
    """
    mode = mode_of(config.tracking)
    if mode == "disabled":
        return Logger()
    own_id = folder.status().get("wandb_id")
    # An id that was deleted in W&B can never be used again. So a new one has a part that is drawn.
    run_id = own_id or f"{folder.path.name[-10:]}-{secrets.token_hex(3)}"
    if logs_again():
        run_id = os.environ.get("WANDB_RUN_ID") or run_id
    if run_id != own_id:
        folder.update_status(wandb_id=run_id)
    if mode == "online":
        try:
            return WandB("online", config, folder, records)
        except Exception as error:  # W&B raises CommError, or any other after a strange answer.
            reason = first_line(error)
            warn(f"no W&B run online ({reason}): it goes on offline; `igo sync` sends it later")
    return WandB("offline", config, folder, records)


class WandB(Logger):
    """The W&B run whose id is in status.json, made or resumed. Its files are in RUNS_DIR/wandb.

    Args:
        mode: online, W&B gets those of the records that it lacks. Offline, the files of the run's
            earlier starts have them.
        config: the run's.
        folder: the run's.
        records: of the complete epochs so far.
        stats: whether W&B measures this machine, which it does online alone.

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
        status, tracking = folder.status(), config.tracking
        with _or_teardown():
            self._run: Any = wandb.init(
                mode=mode,
                settings=wandb.Settings(
                    silent=True,
                    console="wrap" if mode == "online" else "off",  # It is W&B's tab of logs.
                    # W&B would look for git where the run was started, not where igo's code is.
                    disable_git=True,
                    git_commit=(status.get("commit") or "").removesuffix("+changes") or None,
                    disable_code=True,
                    x_disable_stats=mode == "offline" or not stats,
                    init_timeout=INIT_TIMEOUT,
                    finish_timeout=FINISH_TIMEOUT,
                    # Without this setting, rows that never arrive would pass in silence.
                    finish_timeout_raises=True,
                ),
                # A run whose id W&B has goes on, and another one is made.
                resume="allow",
                dir=str(folder.path.resolve().parent),
                project=tracking.project,
                entity=tracking.entity,
                job_type="train",
                id=status["wandb_id"],
                config=_values(config, folder),
                **_names(config, folder),
            )
            self._define_metrics()
        if mode == "online":
            self.address = self._run.url or ""
        # The updates of the newest row that W&B has: ``log`` skips all rows up to that one. In W&B
        # a row's step is its updates, and a run goes on at the step after its newest row.
        self._updates = int(self._run.starting_step or 0) - 1
        if mode == "offline" and records:
            self._updates = records[-1]["updates"]
        for record in records:
            self.log(record, record["epoch"])

    def _define_metrics(self) -> None:
        """Draw all over epochs, and keep the best and the last value of what is evaluated."""
        summaries = {
            "*": None,  # W&B's own choice, which is the last value
            "updates": "last",
            "test/accuracy": "max,last",
            "test/loss": "min,last",
            "validation/accuracy": "max,last",
            "validation/loss": "min,last",
        }
        for name, summary in summaries.items():
            self._run.define_metric(name, step_metric="epoch", summary=summary)

    def log(self, metrics: Record, step: int) -> None:  # noqa: ARG002
        """Send a row. An epoch whose row W&B has is skipped, even if it was trained again.

        ``step``, the epoch, is not used: the step of a row of W&B's is its number of updates.
        """
        updates = metrics["updates"]
        if updates <= self._updates:
            return
        self._updates = updates
        row = {name: value for name, value in metrics.items() if value is not None}
        with _or_teardown():
            self._run.log(row, step=updates, commit=True)
            # W&B's summary would keep the value that an entry had before it became null. That is
            # right for accuracies and losses, whose names have a /: not each epoch is evaluated.
            nulls = [name for name, value in metrics.items() if value is None and "/" not in name]
            if nulls:
                self._run.summary.update(dict.fromkeys(nulls))

    def close(self, exit_code: int = 0) -> None:
        """See Logger. With tracking.artifact the model of a finished run is sent, too.

        If W&B has a model with the same content, it makes no new version of the artifact.
        """
        with _or_teardown():
            if exit_code == 0 and self._config.tracking.artifact:
                import wandb

                from igo.runs.checkpoint import export

                artifact = wandb.Artifact(f"model-{self._run.id}", type="model")
                artifact.add_file(str(export(self._folder, self._config)))
                self._run.log_artifact(artifact)
            self._run.finish(exit_code=exit_code)


def _names(config: Config, folder: RunFolder) -> dict[str, Any]:
    """The name, the group and the tags that the run has in W&B, none longer than W&B takes.

    What the user has set is taken. Tags for the data and the noise profile are added.
    """
    tracking, schedule = config.tracking, schedule_name(config)
    name = tracking.name or typeable(f"{schedule}, seed {config.seed}, {folder.path.name}")
    group = tracking.group or os.environ.get("WANDB_SWEEP_ID")
    # An element of tracking.tags may hold several tags with commas, as WANDB_TAGS does.
    own_tags = [tag.strip() for tag in ",".join(tracking.tags).split(",")]
    curve = typeable(schedule.partition(",")[0])
    tags = [*filter(None, own_tags), config.dataset.name[:LONGEST_TAG], curve[:LONGEST_TAG]]
    return {
        "name": name[:LONGEST_NAME],
        "group": group or _setting_name(config)[:LONGEST_NAME],
        "tags": tags,
    }


def _setting_name(config: Config) -> str:
    """The name that the runs of one setting share: words, and four digits of ``setting_of``."""
    texts = [schedule_name(config), *words(dict(leaves(asdict(config))), NAMED)]
    return typeable(f"{', '.join(texts)} ({setting_of(config)[:4]})")


def _values(config: Config, folder: RunFolder) -> Record:
    """The configuration that W&B shows: the settings, with the plan and the manifest."""
    values = asdict(config)
    values["schedule"]["name"] = schedule_name(config)
    gamma = config.schedule.gamma
    # κ = γ^s and 1/√λ = γ^(1 - s), with the split s. The config has γ in place of κ and λ.
    if gamma is not None and not config.control:
        values["schedule"] |= {
            "kappa": round(gamma**config.split, 12),
            "lam": round(gamma ** (2 * config.split - 2), 12),
        }
    status = folder.status()
    return {
        **values,
        "setting": setting_of(config),
        "setting_name": _setting_name(config),
        "plan": read_plan(folder.path),
        "manifest": {key: status.get(key) for key in MANIFEST},
    }


@contextmanager
def _or_teardown() -> Iterator[None]:
    """If the body raises an error, end W&B's service, which would fail again at the exit."""
    try:
        yield
    except Exception:
        import wandb

        wandb.teardown()
        raise


def typeable(text: str) -> str:
    """The text, with igo's own letters outside ASCII in words; what the user wrote stays."""
    return text.translate(LETTERS)


def destination(tracking: TrackingConfig) -> list[str]:
    """The words of a command line of `igo sync` that name the run's project and entity."""
    entity = [f"entity={tracking.entity}"] if tracking.entity else []
    return [f"project={tracking.project}", *entity]


def updates_there(config: Config, run_id: str) -> int:
    """The updates of the last row that the server has of a run.

    0 stands for no row, no such run, or no answer. WandB then finds out, when it resumes the run,
    which rows are there.

    Raises:
        UserError: the server's run is another one than the configuration's.
    """
    import wandb

    tracking = config.tracking
    entity = f"{tracking.entity}/" if tracking.entity else ""
    try:
        run = wandb.Api(timeout=INIT_TIMEOUT).run(f"{entity}{tracking.project}/{run_id}")
        updates = int(run.lastHistoryStep)
        setting, seed = run.config.get("setting"), run.config.get("seed")
    except Exception:  # W&B raises its own, or any other after a strange answer.
        return 0
    if updates > 0 and (setting, seed) != (setting_of(config), config.seed):
        raise UserError(f"W&B's run {run_id}, of its wandb_id, has other settings or another seed")
    return updates
