"""Files that somebody else made: nothing in them runs, and no path in them leads out of its folder.

tests/runs/test_checkpoint.py has checkpoints, tests/config/test_cli.py settings, and
tests/runs/test_tracking.py has that W&B leaves no key behind.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import ROOT, TINY, Program, configure, run_folder
from forked import Death, forge
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from test_checkpoint import Trap
from test_readers import write_cifar
from wandb_server import KEY

from igo.analysis.table import table
from igo.analysis.table.show import show
from igo.config import guard
from igo.config.load import read_config
from igo.config.plan import make_plan
from igo.data import cache, readers
from igo.data.source import Place
from igo.ground.errors import UserError
from igo.ground.files import sha256_of
from igo.runs import login
from igo.runs.folder import RunFolder, last_record, read_status
from igo.runs.manifest import Entry, Manifest, find_manifest, read_manifest


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A run folder as far as settings go, where ``read_config`` and the table find no fault."""
    config = configure(*TINY, f"runs_dir={tmp_path / 'runs'}")
    folder = RunFolder(config)
    with folder.held():
        folder.write_plan(make_plan(config))
        folder.begin_status(state="interrupted", commit=None, host="here", hardware={})
        folder.records.begin([])
    assert asdict(read_config(folder.path / "config.yaml")) == asdict(config)
    assert read_row(folder.path)["state"] == "interrupted"
    return folder.path


def read_row(folder: Path) -> dict[str, Any]:
    return table.read_runs([folder]).to_dicts()[0]


IN_CONFIG = {  # a line of config.yaml: why it is refused
    "p: !!python/object/apply:os.mkdir [ran]": "could not determine a constructor",
    "p: !!python/name:os.system": "could not determine a constructor",
    "p: !!python/object/new:os.system [ls]": "could not determine a constructor",
    "data_dir: ${oc.env:WANDB_API_KEY}": r"it holds \$\{…\}",
    "data_dir: ${oc.create:{a:1}}": r"it holds \$\{…\}",
    "group: {a: &a [1, 2], b: [*a, *a]}": "it holds a reference",
    "p: " + "[" * 3000 + "]" * 3000: "nest",
    "p: '\0'": "special characters|control characters",
}


@pytest.mark.parametrize("line", IN_CONFIG, ids=range(len(IN_CONFIG)))
def test_a_configuration_is_values_and_nothing_else(
    line: str, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.chdir(recorded.parent)
    path = recorded / "config.yaml"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=IN_CONFIG[line]) as caught:
        read_config(path)
    row = read_row(recorded)
    assert row["state"] == "unreadable"
    for message in (str(caught.value), row["error"]):
        assert KEY not in message
        assert "\n" not in message
    assert not (recorded.parent / "ran").exists()


def test_a_target_in_a_record_is_an_unknown_setting(recorded: Path) -> None:
    path = recorded / "config.yaml"
    written = yaml.safe_load(path.read_text())
    written["model"]["_target_"] = "os.system"
    path.write_text(yaml.safe_dump(written))
    with pytest.raises(UserError, match=r"there is no setting 'model\._target_'"):
        read_config(path)


def test_what_is_no_configuration_is_refused(recorded: Path) -> None:
    path, none = recorded / "config.yaml", "does not hold a run's configuration"
    for content, reason in (
        *((text, none) for text in (b"[1]", b"", b"null", b"a")),
        (b"p: \xff", r"config.yaml cannot be read \('utf-8' codec"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=reason):
            read_config(path)
    path.unlink()
    with pytest.raises(UserError, match=r"config.yaml cannot be read \(.*No such file"):
        read_config(path)


@pytest.mark.parametrize("name", ["status.json", "metrics.jsonl"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1]", "7", "\0", "", "null"])
def test_records_that_are_none_are_a_row_that_says_so(name: str, text: str, recorded: Path) -> None:
    (recorded / name).write_text(text + "\n")
    assert name in read_row(recorded)["error"]
    assert read_status(recorded) in ({}, json.loads((recorded / "status.json").read_text() if
        name == "metrics.jsonl" else "{}"))  # fmt: skip
    assert last_record(recorded) == {}


def a_manifest() -> dict[str, Any]:
    entries = [Entry("digits-a", ["p=0.5"], "p=0.5", 3)]
    return asdict(
        Manifest("x-1", "python src/train.py -m", "2026-01-01", entries, {"digits-a": "7_1"})
    )


def write_book(runs_dir: Path, manifest: dict[str, Any]) -> Path:
    path = runs_dir / "sweeps" / "x-1" / "sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path


def changed(**to: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(to)


def changed_run(**to: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["runs"][0].update(to)


BOOKS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "up": (changed_run(run="../secret"), "'../secret' is no run's name"),
    "parent": (changed_run(run=".."), "'..' is no run's name"),
    "this": (changed_run(run="."), "'.' is no run's name"),
    "empty": (changed_run(run=""), "'' is no run's name"),
    "absolute": (changed_run(run="/etc"), "'/etc' is no run's name"),
    "number": (changed_run(run=3), "3 is no text"),
    "label": (changed_run(label=None), "None is no text"),
    "overrides": (changed_run(overrides=[1]), "1 is no text"),
    "epochs": (changed_run(epochs="many"), "epochs='many'"),
    "queue": (changed(queue={"../x": "7"}), "'../x' is no run's name"),
    "option": (changed(queue={"digits-a": "--help"}), "'--help' is no job"),
    "jobs": (changed(queue={"digits-a": 7}), "7 is no text"),
    "command": (changed(command={}), r"\{\} is no text"),
    "more": (changed(more=1), "unexpected keyword argument 'more'"),
    "fewer": (lambda manifest: manifest.pop("runs"), "runs"),
}


@pytest.mark.parametrize("case", BOOKS)
def test_a_sweeps_record_leads_nowhere_else(case: str, tmp_path: Path) -> None:
    change, reason = BOOKS[case]
    manifest = a_manifest()
    path = write_book(tmp_path, manifest)
    assert asdict(read_manifest(path)) == manifest
    change(manifest)
    write_book(tmp_path, manifest)
    with pytest.raises(UserError, match=rf"sweep.json is not the record of a sweep .*{reason}"):
        read_manifest(path)


def test_a_sweep_is_named_by_its_folder(tmp_path: Path) -> None:
    """Its table is written to sweeps/NAME, so NAME must not be what a file says."""
    write_book(tmp_path, {**a_manifest(), "name": "../../elsewhere"})
    assert find_manifest(tmp_path, None).name == "x-1"


@pytest.mark.parametrize(
    ("name", "link"),
    [
        *((name, Path.symlink_to) for name in (
            ".lock", ".metrics.jsonl.partial", "output.log", "status.json",
        )),
        *((name, Path.hardlink_to) for name in (
            ".lock", ".metrics.jsonl.partial", ".status.json.partial", "metrics.jsonl",
            "status.json", "output.log",
        )),
    ],
)  # fmt: skip
def test_nothing_is_written_through_a_link(
    name: str, link: Callable[[Path, Path], None], recorded: Path, tmp_path: Path
) -> None:
    """A hard link is refused where the run would extend or empty the file, another one always."""
    outside = tmp_path / "precious"
    outside.write_text("content")
    (recorded / name).unlink(missing_ok=True)
    link(recorded / name, outside)
    sweep = ("-m", "hydra.launcher.parallel=1") if name == "output.log" else ()
    ended = forge.run(tmp_path, *sweep, *TINY, "tracking=none")
    assert outside.read_text() == "content"
    symbolic = link == Path.symlink_to
    refused = symbolic or name in ("metrics.jsonl", "output.log")
    assert (ended.returncode != 0) == refused
    if not (symbolic and sweep):
        assert "Traceback" not in ended.stderr
    if symbolic and not sweep:
        assert f"{recorded / name} is a link" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", [".lock", "status.json", "checkpoint.pt", "metrics.jsonl",
                                  "config.yaml", "plan.csv"])  # fmt: skip
def test_a_fifo_in_the_folder_makes_nobody_wait(name: str, recorded: Path, tmp_path: Path) -> None:
    (recorded / name).unlink(missing_ok=True)
    os.mkfifo(recorded / name)
    ended = forge.run(tmp_path, *TINY, "tracking=none")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        f"error: {recorded / name} is neither a regular file nor a folder; remove it"
    )
    row = read_row(recorded)
    unreadable = name in ("status.json", "metrics.jsonl", "config.yaml")
    assert (row["state"] == "unreadable") == unreadable
    assert read_status(recorded) == {} or name != "status.json"


ESCAPE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e"


def test_a_record_neither_steers_a_terminal_nor_computes_in_a_spreadsheet(
    recorded: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = json.loads((recorded / "status.json").read_text())
    status |= {"state": "failed", "error": f"x{ESCAPE}", "host": "=1+1", "commit": "@SUM(A1)"}
    (recorded / "status.json").write_text(json.dumps(status))
    config = yaml.safe_load((recorded / "config.yaml").read_text())
    config["tracking"] |= {"project": f"p{ESCAPE}", "group": "-1+cmd|' /C calc'!A0"}
    (recorded / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=False))
    runs = table.read_runs([recorded])
    show(runs)
    table.write(runs, tmp_path)
    shown = capfd.readouterr().out
    assert "failed" in shown
    for text in (shown, (tmp_path / "table.csv").read_text(), str(read_status(recorded))):
        assert not any(c in text for c in ESCAPE if not c.isascii() or c < " ")
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["host"] == "'=1+1"
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())
    assert pl.read_parquet(tmp_path / "table.parquet")["host"].item() == "=1+1"


def test_names_of_folders_do_not_steer_a_terminal_either(tmp_path: Path, program: Program) -> None:
    (tmp_path / "\x1b[31m").write_text("")
    for typed in ((f"runs_dir={tmp_path}/\x1b[2J/x", "p=7"), (f"run={tmp_path}/\x1b[31m",)):
        assert "\x1b" not in program(*typed, bare=True).error()


def test_a_model_name_makes_no_path(tmp_path: Path) -> None:
    config = configure("model=timm", "model.name=../../x", f"runs_dir={tmp_path}")
    assert RunFolder(config).path.parent == tmp_path


@pytest.mark.parametrize("value", ["../../x", "a/b", "", 3.5e9, ["x"], "a\n"])
def test_an_id_from_a_record_makes_no_path(value: object, recorded: Path) -> None:
    status = recorded / "status.json"
    written = json.loads(status.read_text())
    status.write_text(json.dumps({**written, "wandb_id": "0a1b2c3d4e-f00baa"}))
    assert read_status(recorded)["wandb_id"] == "0a1b2c3d4e-f00baa"
    status.write_text(json.dumps({**written, "wandb_id": value}))
    assert "wandb_id" not in read_status(recorded)
    assert read_status(recorded)["state"] == "interrupted"


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """A folder that is there only if a trap was sprung."""
    return tmp_path / "ran"


def test_code_in_cifars_pickles_is_never_run(
    tmp_path: Path, proof: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision compares checksums before it unpickles, also where it downloads first."""
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    folder = write_cifar(tmp_path / "data", 10, monkeypatch)
    readers.read("cifar10", Place(tmp_path / "data"))
    trap = pickle.dumps({"data": Trap(proof), "labels": []})
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(trap)
        with pytest.raises(UserError, match="missing or damaged"):
            readers.read("cifar10", Place(tmp_path / "data"))
        path.write_bytes(whole)
    assert not proof.exists()
    pickle.loads(trap)
    assert proof.exists(), "it was a working trap"


def test_an_archive_with_other_content_is_not_unpacked(
    tmp_path: Path, proof: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    data = tmp_path / "a" / "data"
    data.mkdir(parents=True)
    with tarfile.open(data / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name in ("../escaped", "cifar-10-batches-py/data_batch_1"):
            content = pickle.dumps(Trap(proof))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(UserError, match="could not be downloaded"):
        readers.read("cifar10", Place(data))
    assert not proof.exists()
    assert [path.name for path in data.parent.rglob("*")] == ["data", "cifar-10-python.tar.gz"]


def no_network(*_: object, **__: object) -> None:
    raise OSError(101, "Network is unreachable")


def test_a_pickle_in_the_cache_is_never_run(tmp_path: Path, proof: Path) -> None:
    readers.read("digits", Place(tmp_path))
    (kept,) = (tmp_path / "cache").iterdir()
    file = kept / "train_images.npy"
    whole = np.load(file)
    np.save(file, np.array([Trap(proof)], dtype=object), allow_pickle=True)
    sums = json.loads((kept / cache.CHECKSUMS).read_text())
    (kept / cache.CHECKSUMS).write_text(json.dumps({**sums, file.name: sha256_of(file)}))
    train, _ = readers.read("digits", Place(tmp_path))
    np.testing.assert_array_equal(train.images, whole)
    assert not proof.exists()


@pytest.mark.parametrize("change", ["up", "absolute", "fewer", "other", "list", "number"])
def test_a_cache_that_leads_elsewhere_is_made_again(change: str, tmp_path: Path) -> None:
    readers.read("digits", Place(tmp_path))
    (kept,) = (tmp_path / "cache").iterdir()
    file, outside = kept / "train_images.npy", tmp_path / "train_images.npy"
    whole = np.load(file)
    np.save(outside, whole[::-1])
    sums = json.loads((kept / cache.CHECKSUMS).read_text())
    others = {name: value for name, value in sums.items() if name != file.name}
    digest = sha256_of(outside)
    content: Any = {
        "up": {**others, os.path.relpath(outside, kept): digest},
        "absolute": {**others, str(outside): digest},
        "fewer": others,
        "other": {},
        "list": list(sums),
        "number": dict.fromkeys(sums, 3),
    }[change]
    (kept / cache.CHECKSUMS).write_text(json.dumps(content))
    train, _ = readers.read("digits", Place(tmp_path))
    np.testing.assert_array_equal(train.images, whole)


FORBIDDEN = [
    {"a": {"_target_": "os.system"}},
    {"a": [{"b": {"_target_": "hydra.utils.call"}}]},
    {"a": {"_target_": "optuna.storages.RDBStorage"}},
    {"a": {"_target_": "optuna.samplers.TPESampler"}},
    {"a": {"_target_": None}},
    {"a": {"_target_": "${b}"}, "b": "hydra_plugins.igo_launchers.LocalLauncher"},
    {"hydra": {"job_logging": {"filters": {"x": {"()": "os.system"}}}}},
    {"hydra": {"job_logging": {"handlers": {"x": {"class": "logging.handlers.SMTPHandler"}}}}},
    {"hydra": {"job_logging": {"handlers": {"x": {"class": "logging.FileHandler"}}}}},
    {"hydra": {"job_logging": {"root": {"level": "DEBUG"}}}},
    {"hydra": {"hydra_logging": {"formatters": {"f": {"format": "x"}}}}},
    {"hydra": {"callbacks": {"x": "${oc.env:X}"}}},
    {"hydra": {"run": {"dir": "elsewhere"}}},
    {"hydra": {"output_subdir": "."}},
    {"hydra": {"sweep": {"dir": "elsewhere"}}},
    {"hydra": {"job": {"chdir": True}}},
    {"hydra": {"job": {"env_set": {"LD_PRELOAD": "x.so"}}}},
    {"hydra": {"job": {"env_copy": ["X"]}}},
    {"hydra": {"searchpath": ["pkg://x"]}},
    {"hydra": {"new": 1}},
]


@pytest.mark.parametrize("settings", FORBIDDEN, ids=range(len(FORBIDDEN)))
def test_what_calls_or_tells_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        guard.check(OmegaConf.create(settings))


def test_every_launcher_and_sweeper_of_the_project_is_allowed() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for group in ("launcher", "sweeper"):
            for option in loader.get_group_options(f"hydra/{group}"):
                guard.check(
                    compose("config", [f"hydra/{group}={option}"], return_hydra_config=True)
                )


SECRETS = [
    "${oc.env:WANDB_API_KEY}",
    "${oc.env :WANDB_API_KEY}",
    "${oc.env : WANDB_API_KEY }",
    "${oc.env:'WANDB_API_KEY'}",
    "${oc.${tracking.group}:WANDB_API_KEY}",
    "${oc.env:WANDB_${x}API_KEY}",
    "${oc.env:${oc.env:IGO_NAME}}",
    "${oc.decode:${oc.env:WANDB_API_KEY}}",
    "${oc.env:NOPE,${oc.env:WANDB_API_KEY}}",
    "${oc.env:AWS_ACCESS}",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("setting", ["tracking.tags=['{}']", "tracking.project='{}'",
                                     "runs_dir='{}'", "data_dir='{}'"])  # fmt: skip
def test_no_secret_of_the_environment_becomes_a_setting(
    secret: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the reference is spelled: names are compared after it was parsed."""
    monkeypatch.setenv("IGO_NAME", "WANDB_API_KEY")
    for name in ("WANDB_API_KEY", "AWS_ACCESS"):
        monkeypatch.setenv(name, KEY)
    guard.guard_composition()
    quoted = secret.replace("'", "\\'")
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        configure("tracking.group=env", "+x=''", setting.format(quoted))
    assert KEY not in str(caught.value)


def test_the_variables_that_are_listed_may_be_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IGO_DATA", "/somewhere")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    guard.guard_composition()
    config = configure("data_dir=${oc.env:IGO_DATA}", "seed=${oc.env:SLURM_ARRAY_TASK_ID}")
    assert (config.data_dir, config.seed, config.tracking.mode) == ("/somewhere", 7, "offline")


APPENDS = [
    "+hydra.job_logging.handlers={x:{class:logging.FileHandler,filename:precious,formatter:f}}",
    "+hydra.job_logging.formatters={f:{format:'x#%(name)s'}}",
    "hydra.job_logging.root={level:DEBUG,handlers:[x]}",
]


@pytest.mark.parametrize("by", ["typed", "file"])
@pytest.mark.parametrize("typed", [APPENDS, ["hydra.run.dir=.", "hydra.output_subdir=."]])
def test_hydras_own_settings_write_no_file(typed: list[str], by: str, tmp_path: Path) -> None:
    """Neither typed nor from a folder of somebody else's experiments."""
    for name in ("precious", "config.yaml"):
        (tmp_path / name).write_text("content")
    arguments = typed
    if by == "file":
        values = OmegaConf.create()
        for setting in typed:
            name, _, value = setting.lstrip("+").partition("=")
            OmegaConf.update(values, name, yaml.safe_load(value.replace(":", ": ")))
        (tmp_path / "foreign" / "experiment").mkdir(parents=True)
        text = f"# @package _global_\n{OmegaConf.to_yaml(values)}"
        (tmp_path / "foreign" / "experiment" / "theirs.yaml").write_text(text)
        arguments = ["experiment=theirs", "--config-dir", "foreign"]
    line = forge.run(tmp_path, *TINY, "tracking=none", *arguments).error()
    assert re.match(r"error: hydra\..* is not allowed: of Hydra's own settings ", line)
    for name in ("precious", "config.yaml"):
        assert (tmp_path / name).read_text() == "content"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("[default]\nbase_url = http://elsewhere\n", "base_url"),
        ("[default]\nproject = theirs\nhttps_proxy = http://elsewhere\n", "https_proxy"),
        ("base_url", "cannot be read"),
        ("[default]\nentity = ours\nproject = igo\n", ""),
    ],
)
@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_a_folders_wandb_settings_send_the_key_nowhere(
    folder: str, text: str, refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both `igo sync runs_dir=.` and an online run ask whether a key is known, before any login."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "settings").write_text(text)
    if not refused:
        login.refuse_foreign_settings(Path())
        return
    with pytest.raises(UserError, match=f"{folder}/settings .*{refused}"):
        login.knows_key()


def test_a_run_that_fails_leaves_no_key_behind(tmp_path: Path) -> None:
    death = Death("igo.runs.checkpoint.save", call=2, error="no space")
    ended = forge.run(
        tmp_path, *TINY, death=death, WANDB_API_KEY=KEY, HF_TOKEN=KEY, WANDB_MODE="offline"
    )
    assert ended.returncode == 1
    assert (run_folder(tmp_path) / "error.txt").is_file()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
