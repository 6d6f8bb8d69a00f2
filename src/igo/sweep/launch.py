"""A sweep from its command lines to its results: which runs start, and what came out.

Its record is RUNS_DIR/sweeps/NAME/sweep.json, the list of its runs.
"""

import math
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import igo
from igo.config.cli import config_dirs
from igo.config.load import make_plan
from igo.config.schema import TASK, total_epochs
from igo.ground.errors import Busy, UserError, counted, install, require
from igo.ground.files import alone, read_bytes, seal_of, write_json, writing
from igo.ground.ranks import Ranks
from igo.ground.statistics import least_seeds
from igo.runs.find import LIST
from igo.runs.folder import epochs_done, read_status, state_of
from igo.runs.manifest import command, differences, now
from igo.runs.name import result_settings, setting_of
from igo.runs.run import has_finished
from igo.sweep.jobs import Composer, Job, distinct

IN_SLURM = "in SLURM"  # A job of SLURM's queue, waiting or running, has the run.
DAMAGED = "damaged"  # The run's files are not as it wrote them.
SLURM_JOB = "slurm_job"  # This file of a run's folder has the id of the run's last SLURM job.
STATES = ("finished", "running", IN_SLURM, "interrupted", "failed", DAMAGED, "new")


class Sweep:
    """A set of runs. The same set has the same name, as a run's name is of its configuration.

    ``jobs`` are those of its runs that are to be trained now; ``launch`` chooses them.
    ``in_slurm`` has the names of the runs whose SLURM job is in the queue.
    """

    def __init__(self, choice: str, runs: Sequence[Job], console: Console) -> None:
        """``choice`` begins its name: the file of the sweep, or ``sweep`` if all was typed."""
        names = sorted(job.name for job in runs)
        digest = seal_of("\n".join(names).encode())
        self.name = f"{choice}-{digest[:8]}"
        self.runs, self.console = runs, console
        fresh = " without fresh=true" if runs[0].config.fresh else ""
        self.same_command = f"the same command{fresh}"  # Messages say that it continues the sweep.
        self.jobs: Sequence[Job] = []
        self.folder = Path(runs[0].config.runs_dir) / "sweeps" / self.name
        self.in_slurm = _in_slurm(runs)

    def write(self) -> None:
        """Write sweep.json."""
        runs = [
            {"run": job.name, "overrides": job.overrides, "label": job.label} for job in self.runs
        ]
        head = {"name": self.name, "command": command(), "started": now()}
        with writing("runs_dir", self.folder), alone(self.folder):
            write_json(self.folder / LIST, {**head, "runs": runs})

    def states(self) -> dict[str, str]:
        """The state of each run as of now, by its name: one of STATES."""
        states = {job.name: state_of(job.folder.path) for job in self.runs}
        # A run's folder does not know that it waits in the queue, and may say "interrupted".
        for name in self.in_slurm:
            if states[name] not in ("finished", DAMAGED):
                states[name] = IN_SLURM
        return states


def counts(states: Mapping[str, str]) -> str:
    """``12 finished, 2 running, …``, in the order of STATES, without states that no run has."""
    numbers = Counter(states.values())
    return ", ".join(
        f"{numbers[state]} {'to go' if state == 'new' else state}"
        for state in STATES
        if numbers[state]
    )


def why(folder: Path) -> str:
    """Why the run of this folder has not finished, by its status.json: an error or a signal."""
    try:
        status = read_status(folder)
    except UserError as error:
        return str(error)
    stopped = f"stopped by {status['signal']}" if "signal" in status else "its process is gone"
    return str(status.get("error") or stopped)


def _in_slurm(runs: Sequence[Job]) -> set[str]:
    """The names of the runs whose SLURM job is in the queue."""
    job_ids = {}
    for job in runs:
        file = job.folder.path / SLURM_JOB
        if file.is_file():
            job_ids[job.name] = read_bytes(file).decode()
    if not job_ids or shutil.which("squeue") is None:
        return set()
    ids_in_queue = _ids_in_queue()
    return {name for name, job_id in job_ids.items() if job_id in ids_in_queue}


def _ids_in_queue() -> set[str]:
    """The ids of this user's jobs in SLURM's queue, ``123`` or, in an array, ``123_4``."""
    ask = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise UserError(f"squeue does not say what is queued: {answer.stderr.strip()}")
    return set(answer.stdout.split())


def launch(
    hydra: DictConfig,
    retry_failed: object,
    lines: Sequence[Sequence[str]],
    runner: Callable[[Sweep], None],
) -> None:
    """Have ``runner`` execute or submit the runs of these command lines; print the results.

    Runs are skipped that are finished, damaged, in SLURM or, without ``retry_failed``, failed.

    Args:
        hydra: what Hydra knows of the command, such as the chosen options and the launcher.
        retry_failed: hydra.launcher.retry_failed as it was typed, so perhaps no bool.
        lines: the words of each run, such as ``["p=0.1", "seed=0"]``.
        runner: it trains or submits ``jobs`` of a sweep.

    Raises:
        SystemExit: a run did not finish; the exit code is 1.
    """
    require(
        isinstance(retry_failed, bool),
        "hydra.launcher.retry_failed",
        retry_failed,
        "it must be true or false",
    )
    if Ranks.of_environment().size > 1:
        raise UserError(
            "start a sweep in one process: it starts those of its runs. For runs of several"
            " processes use hydra/launcher=slurm with tasks_per_node, or hydra/launcher=basic"
        )
    sweep = _composed(hydra, lines)
    # All runs have the same dry_run and fresh, or ``distinct`` would have refused them.
    config = sweep.runs[0].config
    if config.dry_run:
        states = sweep.states()
        for job in sweep.runs:
            sweep.console.print(f"{states[job.name]:<12}{job.label:<40} {job.folder.path}")
        return
    if config.fresh:
        _start_over(sweep)
    skipped_states = {"finished", DAMAGED, IN_SLURM}
    if not retry_failed:
        skipped_states.add("failed")
    # The local launcher waits for runs that a killed sweep left running.
    if hydra.runtime.choices["hydra/launcher"] != "local":
        skipped_states.add("running")
    sweep.jobs = _chosen(sweep, skipped_states)
    sweep.write()
    if sweep.jobs:
        _share_source()
        runner(sweep)
    states = show(sweep)
    # It is no failure that runs go on, here or in SLURM.
    if not {*states.values()} <= {"finished", "running", IN_SLURM}:
        raise SystemExit(1)


def _composed(hydra: DictConfig, lines: Sequence[Sequence[str]]) -> Sweep:
    """The sweep of these command lines, each checked; a note is printed if it has too few seeds."""
    composer = Composer(hydra.job.config_name, config_dirs(hydra))
    file_name = hydra.runtime.choices.get("sweep")
    if file_name:
        check_file(composer, file_name)
    runs = distinct(map(composer.job, lines))
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if note := too_few_seeds(runs):
        console.print(note)
    return Sweep(str(file_name or "sweep"), runs, console)


def _share_source() -> None:
    """Let the processes of the runs import igo from the clone whose src/train.py was started.

    Another clone may be installed, and they would train its code. So this sets PYTHONPATH, which
    they inherit.
    """
    folder = str(Path(igo.__file__).parents[1])
    if sys.path[0] == folder:
        folders = filter(None, (folder, os.environ.get("PYTHONPATH")))
        os.environ["PYTHONPATH"] = os.pathsep.join(folders)


def check_file(composer: Composer, name: str) -> None:
    """Raise a ConfigError if a sweep's file sets anything outside ``hydra``.

    The runs are composed without ``sweep=NAME``, so no run would have such a setting. A composed
    configuration has no node ``hydra``, so what differs in it is such a setting.
    """
    plain: Any = OmegaConf.to_container(composer.compose([]))
    with_file: Any = OmegaConf.to_container(composer.compose([f"sweep={name}"]))
    strays = [key for key in with_file if key not in plain or with_file[key] != plain[key]]
    require(
        not strays,
        "sweep",
        name,
        f"its file sets {', '.join(strays)} where no run reads it; the first line must be"
        " `# @package _global_`, and settings of the runs stand in hydra.sweeper.params",
    )


def _start_over(sweep: Sweep) -> None:
    """Remove what the runs have recorded, except for runs in SLURM; set fresh=false in every run.

    Raises:
        Busy: a run is running, and nothing was removed.
    """
    states = sweep.states()
    for job in sweep.runs:
        if states[job.name] == "running":
            busy = f"{job.folder.path} is being worked on by another process"
            raise Busy(f"{busy}; fresh=true has removed nothing")
    for job in sweep.runs:
        job.config.fresh = False  # A restart shall continue it.
        if states[job.name] != IN_SLURM:
            with job.folder.held(fresh=True):  # This alone removes the records.
                pass


def _chosen(sweep: Sweep, skipped_states: Set[str]) -> list[Job]:
    """The runs to train, which are in no skipped state; print how many have each state.

    Each run of the sweep without a group in W&B gets the sweep's name as its group.

    Raises:
        UserError: a finished run had another plan or other data than the command has.
    """
    states, console = sweep.states(), sweep.console
    for job in sweep.runs:
        job.config.tracking.group = job.config.tracking.group or sweep.name
    code_note = _other_code([job for job in sweep.runs if states[job.name] == "finished"])
    console.print(f"sweep {sweep.name}: {counted(len(sweep.runs), 'run')}, {counts(states)}")
    if code_note:
        console.print(code_note)
    if "failed" in skipped_states and "failed" in states.values():
        console.print("failed runs are skipped; hydra.launcher.retry_failed=true runs them again")
    return [job for job in sweep.runs if states[job.name] not in skipped_states]


def _other_code(finished_jobs: Sequence[Job]) -> str:
    """A line if other code or versions have trained some of these runs; else empty.

    Raises:
        UserError: a run had another plan or other data than its configuration has now.
    """
    # The number of runs with each difference from the code here; "" stands for no difference.
    run_counts: Counter[str] = Counter()
    for job in finished_jobs:
        has_finished(job.config, job.folder, make_plan(job.config))  # It raises the error.
        run_counts[differences(job.folder.status(), job.config)] += 1
    del run_counts[""]
    if not run_counts:
        return ""
    ending = "; and more" if len(run_counts) > 1 else ""
    return (
        f"{counted(run_counts.total(), 'finished run')} skipped: of other code or versions"
        f" ({run_counts.most_common(1)[0][0]}{ending}); fresh=true trains all runs again"
    )


def too_few_seeds(jobs: Sequence[Job]) -> str:
    """A line if the settings of a task have too few seeds for a test to decide between them.

    A task is a data set, a model and a length of training, and its settings are compared in pairs.
    """
    # For each task, and in it for each setting, the seeds.
    tasks: defaultdict[str, defaultdict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for job in jobs:
        items = sorted(result_settings(job.config).items())
        task = str([(name, value) for name, value in items if name.startswith(TASK)])
        tasks[task][setting_of(job.config)].add(job.config.seed)
    for seeds_by_setting in tasks.values():
        pairs = math.comb(len(seeds_by_setting), 2)
        fewest = min(len(seeds) for seeds in seeds_by_setting.values())
        if pairs and fewest < (least := least_seeds(pairs)):
            return (
                f"note: {counted(fewest, 'seed')} cannot decide which of {len(seeds_by_setting)}"
                f" settings is better; {least} can: seed='range({least})'"
            )
    return ""


def show(sweep: Sweep) -> dict[str, str]:
    """Print the runs that run or failed, and why; then the table and the differences.

    The report is written into the sweep's folder.

    Returns:
        The state of each run.
    """
    states, console = sweep.states(), sweep.console
    for job in sweep.runs:
        state, folder = states[job.name], job.folder.path
        if state in ("failed", "interrupted", DAMAGED):
            cure = ". fresh=true starts over" if state == DAMAGED else ""
            console.print(f"{state}: {job.label}: {why(folder)} ({folder}){cure}")
        # In SLURM it may still wait.
        elif state in ("running", IN_SLURM) and job.folder.status().get("state") == "running":
            epochs = f"{epochs_done(folder)}/{total_epochs(job.config)}"
            console.print(f"running: {job.label}: epoch {epochs}")
    if "finished" in states.values():
        if find_spec("polars") is None:
            console.print(f"no table: polars is not installed ({install('report')})")
        else:
            _show_results(sweep)
    console.print(f"sweep {sweep.name}: {counts(states)}")
    return states


def _show_results(sweep: Sweep) -> None:
    from igo.report import report, results, table  # They import polars.
    from igo.report.formats import difference, p_value

    data = results.read_results(sorted(job.folder.path for job in sweep.runs))
    table.print_summary(data)
    sections = report.write(data, sweep.folder / "report")
    for section in sections:
        for pair in section.brief:
            names = f"{section.labels[pair.first]} − {section.labels[pair.second]}"
            over = f"{difference(pair)} points over {counted(pair.n, 'seed')}"
            p = "" if pair.p_holm is None else f" (p {p_value(pair.p_holm)})"
            sweep.console.print(f"{names}: {over}: {pair.verdict}{p}")
