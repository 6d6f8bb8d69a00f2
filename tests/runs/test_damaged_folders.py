"""A run folder is exactly what igo wrote, or is refused by name: each file, damage and reader."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import TINY, configure, run_folder
from damages import ANY, Damage, written
from forked import Death, forge
from recorded import edit, words_of
from rich.console import Console
from trained import prepared

import igo
from igo.config.load import make_plan
from igo.config.schema import Config, TrackingConfig
from igo.ground.errors import UserError
from igo.ground.files import Record, sealed
from igo.report import report, table
from igo.report.results import read_results
from igo.report.runs import read_run
from igo.runs import recording
from igo.runs import sync as sync_program
from igo.runs.find import find
from igo.runs.folder import RunFolder, read_status, state_of
from igo.runs.run import has_finished
from igo.runs.terminal import Terminal
from igo.sweep import jobs, launch
from igo.sweep.jobs import Job
from igo.train.training import Training

RUN = (*TINY, "tracking=none", "runs_dir=runs")
HUGE = "1" * 400


def entry_of(name: str, entry: object) -> Damage:
    """Another entry in a JSON file, whose seal stays."""

    def damage(file: Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | {name: entry}))

    return damage


def replaced(old_text: str, new_text: str) -> Damage:
    def damage(file: Path) -> None:
        text = file.read_text()
        assert old_text in text, (file, old_text)
        file.write_text(text.replace(old_text, new_text, 1))

    return damage


IRREGULAR: dict[str, Damage] = {
    kind: ANY[kind] for kind in ("FIFO", "link", "folder", "device") if kind in ANY
}
OF: dict[str, dict[str, Damage]] = {
    "config.yaml": {
        **ANY,
        "seed": replaced("seed: 0", "seed: 1"),
        "huge": replaced("batch_size: 32", f"batch_size: {HUGE}"),
        "fact": replaced("classes: 10", "classes: null"),
        "unknown": replaced("schedule:\n", "schedule:\n  warm: [1, 2]\n"),
        "mode": replaced("mode: auto", "mode: auZo"),
    },
    "plan.csv": {**ANY, "huge": replaced("32.0", HUGE), "text": replaced("32.0", "x")},
    "metrics.jsonl": {
        **ANY,
        "text": replaced('"train/loss": ', '"train/loss": "x", "x": '),
        "huge": replaced('"updates": 3', f'"updates": {HUGE}'),
        "NaN": replaced('"test/loss": ', '"test/loss": NaN, "x": '),
        "epoch": replaced('"epoch": 2', '"epoch": 2.5'),
    },
    "status.json": {
        **ANY,
        **{
            name: entry_of(name, [1])
            for name in ("state", "seconds", "hardware", "earlier", "own_code", "run", "epochs")
        },
        "commit": entry_of("commit", "c0ffee" * 6),
        "W&B run": entry_of("wandb_id", "theirs"),
        "no epochs": entry_of("epochs", None),
    },
    "checkpoint.pt": ANY,
    ".lock": IRREGULAR,
    "output.log": IRREGULAR,
}
CASES = [(file, kind, damage) for file, kinds in OF.items() for kind, damage in kinds.items()]
OUTSIDE = ("open", "os.mkdir", "os.listdir", "os.scandir", "socket.connect", "subprocess.Popen")


@cache
def config() -> Config:
    return configure(*RUN)


@cache
def training() -> Training:
    return prepared(*RUN)


def load(folder: Path) -> object:
    run = igo.load_run(folder)
    return run.config, run.records


def row(folder: Path) -> Record:
    values = read_run(folder)
    if values["state"] == "unreadable":
        raise UserError(values["error"])
    return values


def again(folder: Path) -> object:
    return has_finished(config(), RunFolder(folder), make_plan(config()))


def sweep_of_the_run() -> launch.Sweep:
    return launch.Sweep("sweep", [Job((), config())], Console(quiet=True))


def sweep(folder: Path) -> object:
    states = sweep_of_the_run().states()
    if "damaged" in states.values():
        raise UserError(launch.why(folder))
    return states


def sync(folder: Path) -> object:
    if state_of(folder) != "damaged" and "wandb_id" not in read_status(folder):
        return None  # it was never sent
    run = mock.Mock(starting_step=0, dir=".")
    with (
        mock.patch("wandb.init", return_value=run) as init,
        mock.patch.object(sync_program, "updates_there", return_value=0),
    ):
        return sync_program._send(folder, TrackingConfig()), run.log.mock_calls, init.mock_calls


def goes_on(folder: Path) -> object:
    """What a start of the same command goes on with."""
    run = RunFolder(folder)
    with run.held():
        return recording._begin(training(), run, Terminal(quiet=True))


def log(folder: Path) -> None:
    """A run of a sweep writes its output into a file."""
    with mock.patch("os.dup2"):
        jobs._log_output(RunFolder(folder))


Reader = Callable[[Path], object]
FINISHED: tuple[Reader, ...] = (load, row, again, sweep, sync, log)
STOPPED = (*FINISHED, goes_on)  # the last one writes


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run, and one that was killed while it recorded its third epoch."""
    places = {kind: tmp_path_factory.mktemp(kind) for kind in ("finished", "stopped")}
    forge.run(*RUN, folder=places["finished"]).good()
    killed = Death("igo.runs.folder.RunFolder.update_status", 5)
    stopped = forge.run(*RUN, folder=places["stopped"], death=killed)
    assert stopped.returncode == -9
    folders = {kind: run_folder(place) for kind, place in places.items()}
    for folder in folders.values():
        edit(folder, wandb_id="id")
        (folder / "output.log").touch()
    return folders


@pytest.mark.parametrize(("kind", "readers"), [("finished", FINISHED), ("stopped", STOPPED)])
def test_what_is_read_of_a_damaged_run_is_what_igo_wrote_or_a_line_that_names_the_file(
    kind: str, readers: tuple[Reader, ...], sources: dict[str, Path]
) -> None:
    source = sources[kind]
    folder = Path("runs").absolute() / source.name
    faults: list[object] = []

    def outcomes(file: str, name: str, damage: Damage) -> list[object]:
        """What each reader has of a damaged copy, or the line that it says."""
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(source, folder)
        damage(folder / file)
        results: list[object] = []
        for reader in readers:
            try:
                results.append(reader(folder))
            except (UserError, FileNotFoundError) as error:
                results.append(str(error))
            except Exception as error:
                faults.append((file, name, reader, repr(error)))
                results.append(None)
        return results

    expected_outcomes = outcomes(".", "whole", lambda _: None)
    assert expected_outcomes[1]["epochs_done"] == (2 if kind == "stopped" else 3)  # type: ignore[index]
    for file, name, damage in CASES:
        refusals = 0
        for reader, outcome, right in zip(
            readers, outcomes(file, name, damage), expected_outcomes, strict=True
        ):
            if isinstance(outcome, str) and outcome != right:
                refusals += 1
                if not re.search(f"{file}|no checkpoint|of another", outcome) or "\n" in outcome:
                    faults.append((file, name, reader, outcome))
            elif outcome != right and name != "missing":
                faults.append((file, name, reader, outcome, right))
        if not refusals and name != "missing" and (file, kind) != (".lock", "finished"):
            faults.append((file, name, "nobody refuses it"))
    assert not faults, "\n".join(map(str, faults))


def test_a_table_and_a_report_name_damaged_runs_and_tell_the_others(
    sources: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(
        sources["finished"], os.fsdecode(b"many/caf\xe9")
    )  # Old systems wrote such names.
    files_of_runs = {}
    for number, (file, _, damage) in enumerate(CASES):
        shutil.copytree(sources["finished"], place := Path("many").absolute() / f"{number:03}")
        damage(place / file)
        if "unreadable" in read_run(place).values():
            files_of_runs[place.name] = file
    assert set(files_of_runs.values()) == {*list(OF)[:4]}
    for program in (table, report):
        program.run(words_of(Path("many"), Path("out")))
        lines = capsys.readouterr().out.splitlines()
        for run, file in files_of_runs.items():
            assert [line for line in lines if line.startswith(f"unreadable: {run}: {file}")], run
        assert f"{len(CASES) + 1} runs" in lines[0]
    assert "caf\\udce9" in read_results(find(["many"])).runs["run"]


def test_files_of_another_run_are_refused_by_name(sources: dict[str, Path]) -> None:
    """A copy, such as a backup, may have any name but another run's."""
    source = sources["finished"]
    backup, other = (Path(f"runs/{name}").absolute() for name in ("backup", "digits-0123456789"))
    for folder in (backup, other):
        shutil.copytree(source, folder)
    for reader in (load, row, sync):
        assert reader(backup)
        with pytest.raises(UserError, match=f"status.json is of another run, {source.name}"):
            reader(other)
    assert (state_of(backup), state_of(other)) == ("finished", "damaged")


def test_a_damaged_record_of_a_sweep_ends_no_other(sources: dict[str, Path]) -> None:
    shutil.copytree(sources["finished"].parent, "runs")
    for folder in ("runs", "."):  # A name may lead there, where no runs are.
        Path(folder, "plan.csv").touch()
    file = Path("runs/sweeps/other/sweep.json")
    file.parent.mkdir(parents=True)
    names = ("/etc", "\0", "..", "a/..", ".", "")
    lines = ["{}", *(json.dumps(sealed({"runs": [{"run": name}]})) for name in names)]
    for damage in (*ANY.values(), *(written(line.encode()) for line in lines)):
        if file.is_dir():
            file.rmdir()
        file.unlink(missing_ok=True)
        file.write_text("{}")
        damage(file)
        sweep_of_the_run()
        with pytest.raises(UserError, match=r"sweep.json|holds no runs"):
            find([str(file.parent)])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_reading_a_strangers_folder_opens_nothing_outside_it(sources: dict[str, Path]) -> None:
    """With facts of the data that lack, in a process that may open nothing else."""
    folder = Path("runs").absolute() / sources["finished"].name
    shutil.copytree(sources["finished"], folder)
    edit(folder, seals=None)  # A stranger makes his own.
    replaced("classes: 10", "classes: null")(folder / "config.yaml")

    def readings() -> None:
        for reader in (load, sync):
            with pytest.raises(UserError, match=r"dataset\.classes"):
                reader(folder)
        read_run(folder)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OUTSIDE and not os.path.realpath(str(arguments[0])).startswith(str(folder)):
            os.write(2, f"{event} {arguments}\n".encode())
            os._exit(1)

    readings()  # It imports what it needs.
    child = os.fork()
    if child == 0:
        sys.addaudithook(refuse)
        try:
            readings()
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not Path("data").exists()
