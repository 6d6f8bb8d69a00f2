"""A run folder is exactly what igo wrote, or is refused by name: each file, damage and reader."""

import errno
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
from forked import forge
from omegaconf import OmegaConf
from recorded import edit
from rich.console import Console

import igo
from igo.config.load import make_plan
from igo.config.schema import Config, TrackingConfig
from igo.ground.errors import UserError
from igo.report import reading, report, table
from igo.runs import session, sharpness
from igo.runs.find import find
from igo.runs.folder import RunFolder, read_status, state_of
from igo.runs.loggers import wandb
from igo.sweep import launch
from igo.sweep.jobs import Job

RUN = (*TINY, "tracking=none", "runs_dir=runs")
HUGE = "1" * 400
WRONG: dict[str, Any] = {"text": "x", "true": True, "list": [1], "object": {"x": [1]}, "half": 1.5}


def written(content: Any) -> Callable[[Path], object]:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda file: file.write_bytes(text)


def in_place_of(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


def entry_of(name: str, value: object) -> Callable[[Path], object]:
    return lambda file: edit(file, **{name: value})


def replaced(old: str, new: str) -> Callable[[Path], object]:
    def damage(file: Path) -> None:
        text = file.read_text()
        assert old in text, (file, old)
        file.write_text(text.replace(old, new, 1))

    return damage


ANY: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": written(b""),
    "torn": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "no text": written(b"\xff\xfe\0\xd8"),
    "nested": written(b"[" * 10**5),
    "another type": written([1]),
    "FIFO": in_place_of(os.mkfifo),
    "link": lambda file: file.symlink_to(file.rename(file.parents[2] / file.name)),
    "folder": in_place_of(os.mkdir),
    "unreadable": lambda file: None,  # see ``damaged``: root may read all
}
if os.geteuid() == 0:  # no other user makes devices
    ANY["device"] = in_place_of(lambda file: os.mknod(file, 0o20666, os.makedev(1, 5)))
OF: dict[str, dict[str, Callable[[Path], object]]] = {
    "config.yaml": {
        "learning rate": replaced("learning_rate: 0.1", "learning_rate: 0.3"),
        "seed": replaced("seed: 0", "seed: 1"),
        "p": replaced("\np: 0.5", "\np: 1.0"),
        "batch": replaced("batch_size: 32", "batch_size: 16"),
        "huge": replaced("batch_size: 32", f"batch_size: {HUGE}"),
        "fact": replaced("classes: 10", "classes: null"),
        "unknown": replaced("schedule:\n", "schedule:\n  warm: [1, 2]\n"),
    },
    "plan.csv": {"huge": replaced("32.0", HUGE), "text": replaced("32.0", "x")},
    "metrics.jsonl": {
        **{name: replaced('"train/loss": ', f'"train/loss": {json.dumps(x)}, "x": ')
           for name, x in WRONG.items() if name != "half"},
        "huge": replaced('"updates": 3', f'"updates": {HUGE}'),
        "NaN": replaced('"test/loss": ', '"test/loss": NaN, "x": '),
        "epoch": replaced('"epoch": 2', '"epoch": 2.5'),
    },
    "status.json": {
        f"{entry} {name}": entry_of(entry, x)
        for entry in ("state", "seconds", "hardware", "earlier", "own_code", "run")
        for name, x in {**WRONG, "huge": int(HUGE)}.items()
    },
    "sharpness.json": {
        name: written({"worst_case": x}) for name, x in {**WRONG, "huge": int(HUGE)}.items()
    },
    "checkpoint.pt": {},
}  # fmt: skip


CASES = [
    (file, kind, damage) for file, kinds in OF.items() for kind, damage in {**ANY, **kinds}.items()
]
SEALED = ("config.yaml", "plan.csv", "metrics.jsonl")
OUTSIDE = ("open", "os.mkdir", "os.listdir", "os.scandir", "socket.connect", "subprocess.Popen")


@cache
def config() -> Config:
    return configure(*RUN)


def again(folder: Path) -> object:
    return session.has_finished(config(), RunFolder(folder), make_plan(config()))


def sweep(folder: Path) -> None:
    of_one = launch.Sweep("sweep", [Job((), config())], Console(quiet=True))
    if "damaged" in of_one.states().values():
        raise UserError(launch.why(folder))


def sync(folder: Path) -> object:
    if state_of(folder) != "damaged" and "wandb_id" not in read_status(folder):
        return None  # it was never sent
    run = mock.patch("wandb.init", return_value=mock.Mock(starting_step=3, dir="."))
    with run, mock.patch.object(wandb, "_rows_there", return_value=0):
        return wandb._send(folder, TrackingConfig())


def measure(folder: Path) -> object:
    return sharpness.measure(folder, sharpness.Settings(samples=2, steps=1))


READERS = [igo.load_run, measure, sync, again, sweep]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    forge.run(place, *RUN, bare=True).good()
    edit(run_folder(place) / "status.json", wandb_id="id")
    (run_folder(place) / "sharpness.json").write_text('{"settings": {}, "worst_case": 1.5}')
    return run_folder(place)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Files that even root may not read."""
    files, read = set[Path](), Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.absolute() in files:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    return files


@pytest.mark.parametrize("sealed", [True, False])
def test_every_damage_is_named_by_every_reader(
    sealed: bool, finished: Path, unreadable: set[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a seal, as runs of before, what is still of its kinds is read."""
    source, folder = Path("source"), Path("runs").absolute() / finished.name
    shutil.copytree(finished, source)
    if not sealed:
        edit(source / "status.json", seals=None, sealed=None)
    named: dict[str, str] = {}
    wrong: list[tuple[object, ...]] = []
    for number, (file, kind, damage) in enumerate(CASES):
        place = Path("many").absolute() / f"{number:03}"
        for copied in (folder, place):
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(source, copied)
            damage(copied / file)
            if kind == "unreadable":
                unreadable.add(copied / file)
        refused = []
        for read in READERS:
            try:
                read(folder)
            except (UserError, FileNotFoundError) as error:
                refused.append(read)
                if not re.search(
                    f"{file}|only finished runs|of another version or run|no checkpoint", str(error)
                ) or "\n" in str(error):
                    wrong.append((file, kind, read, str(error)))
            except Exception as error:
                wrong.append((file, kind, read, repr(error)))
        unreadable.discard(folder / file)
        all_refuse = file in SEALED and sealed and (kind != "missing" or file == "metrics.jsonl")
        all_refuse |= file == "status.json" and kind in ANY and kind != "missing"
        done = file == "checkpoint.pt" or (file, kind) == ("plan.csv", "missing")  # all the same
        some = refused != READERS and (all_refuse or (file, refused) == ("checkpoint.pt", []))
        if some or (done and again in refused):
            wrong.append((file, kind, refused, "are the ones that refuse it"))
        if all_refuse or (file == "config.yaml" and kind in {*ANY, "unknown"} - {"torn"}):
            named[place.name] = file
    assert not wrong, "\n".join(map(str, wrong))
    shutil.copytree(source, os.fsdecode(b"many/caf\xe9"))  # as after a move from an old system
    for program in (table, report):
        program.run(OmegaConf.create({"runs": "many", "output": "out"}))
        lines = capsys.readouterr().out.splitlines()
        for name, file in named.items():
            assert [line for line in lines if line.startswith(f"unreadable: {name}: {file}")], name
        assert f"{len(CASES) + 1} runs" in lines[0]
    runs, _ = reading.by_setting(reading.read_runs(find(["many"])))
    assert "caf\\xe9" in runs["run"]


def test_a_damaged_record_of_a_sweep_ends_no_other(finished: Path) -> None:
    shutil.copytree(finished.parent, "runs")
    file = Path("runs/sweeps/other/sweep.json")
    file.parent.mkdir(parents=True)
    contents = [{"queue": x, "runs": []} for x in WRONG.values()]
    contents += [{"runs": [x]} for x in (*WRONG.values(), {"run": "/etc"}, {"run": 1})]
    for damage in (*ANY.values(), *map(written, contents)):
        if file.is_dir():
            file.rmdir()
        file.unlink(missing_ok=True)
        file.write_text("{}")
        damage(file)
        launch.Sweep("sweep", [Job((), config())], Console(quiet=True))
        with pytest.raises(UserError, match=r"sweep.json|holds no runs"):
            find([str(file.parent)])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_reading_a_strangers_folder_opens_nothing_outside_it(finished: Path) -> None:
    """With facts of the data that lack, in a process that may open nothing else."""
    folder = Path("runs").absolute() / finished.name
    shutil.copytree(finished, folder)
    edit(folder / "status.json", seals=None)
    replaced("classes: 10", "classes: null")(folder / "config.yaml")

    def readings() -> None:
        for read in READERS[:3]:
            with pytest.raises(UserError, match=r"dataset\.classes=null"):
                read(folder)
        reading.read_run(folder)

    def refuse(event: str, given: tuple[Any, ...]) -> None:
        if event in OUTSIDE and not os.path.realpath(str(given[0])).startswith(str(folder)):
            os.write(2, f"{event} {given}\n".encode())
            os._exit(1)

    readings()  # which imports what it needs
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
