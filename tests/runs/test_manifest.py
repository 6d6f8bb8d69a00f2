"""A run goes on with its own data and plan alone; other code, versions and machines are said."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Ended, run_folder, status
from data_files import write_fashion
from forked import Death, forge
from recorded import edit

from igo.data import identity
from igo.data.readers import Split
from igo.ground.files import PACKAGE
from igo.runs import checkpoint, manifest
from igo.train import machine

KILLED = Death("igo.runs.checkpoint.save", 1, "after")


def start(place: Path, data_dir: Path, death: Death | None = None) -> Ended:
    settings = ("dataset=fashion_mnist", "tracking=none", f"data_dir={data_dir}")
    return forge.run(*TINY, *settings, folder=place, death=death)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a finished run and the data ``a`` and ``b`` are; no test changes it."""
    place = tmp_path_factory.mktemp("finished")
    for seed, name in enumerate("ab"):
        write_fashion(place / name / "FashionMNIST" / "raw", seed=seed, n=120)
    start(place, place / "a").good()
    return place


def test_a_finished_run_does_not_answer_for_other_data(finished: Path, tmp_path: Path) -> None:
    data = status(finished)["data"]
    assert (data["name"], data["n"]) == ("fashion_mnist", 120)
    message = start(finished, finished / "b").error()
    folders = str(finished / "a"), str(finished / "b")
    for part in (*folders, "data_dir", "fresh", data["fingerprint"]):
        assert part in message
    shutil.copytree(finished / "runs", tmp_path / "runs")
    shutil.copytree(finished / "a", tmp_path / "moved", ignore=shutil.ignore_patterns("cache"))
    downloads = Death("torchvision.datasets.FashionMNIST.download")
    for name in ("moved", "missing"):  # the same data elsewhere, and none
        process = start(tmp_path, tmp_path / name, downloads).good()
        assert "finished before;" in process.stdout
        assert not process.stderr


def other_versions() -> None:
    """Make the record of the run here one of earlier code and versions."""
    versions = {**status()["versions"], "torch": "1.13"}
    edit(run_folder(), commit="c0ffee" * 6, code="0" * 10, versions=versions)


def test_other_code_is_said_and_another_plan_refused(finished: Path, tmp_path: Path) -> None:
    """Of a killed run before it goes on; of a finished one where it is reported."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    other_versions()
    process = start(tmp_path, finished / "a").good()
    assert "finished before under code 0000000000, now " in process.stdout
    assert "torch 1.13, now 2." in process.stdout
    edit(run_folder(), plan_identity={**status()["plan_identity"], "plan": "0" * 16})
    error = start(tmp_path, finished / "a").error()
    assert "another plan than this version of igo makes" in error
    assert "Continue with its commit, c0ffeec0ff" in error
    shutil.rmtree(tmp_path / "runs")

    assert start(tmp_path, finished / "a", death=KILLED).returncode == -signal.SIGKILL
    other_data = start(tmp_path, finished / "b").error()
    assert f"was trained on other data: {status(finished)['data']['name']}" in other_data
    file = run_folder() / "status.json"
    content, identity = file.read_bytes(), status()["plan_identity"]
    identity["rates"][0] *= 1.01
    edit(run_folder(), plan_identity=identity)
    assert "another plan than this version of igo makes" in start(tmp_path, finished / "a").error()
    file.write_bytes(content)
    path = run_folder() / "checkpoint.pt"
    content, state = path.read_bytes(), checkpoint.load(path, path.parent.name)
    state["schedule"]["rates"][0] *= 1.01
    checkpoint.save(path, state)
    error = start(tmp_path, finished / "a").error()
    assert re.search(r"checkpoint\.pt does not fit this program \(.*plan", error)
    path.write_bytes(content)
    edit(run_folder(), hardware={**status()["hardware"], "cpu": "Another CPU"})
    other_versions()
    (warning,) = start(tmp_path, finished / "a").good().stderr.splitlines()
    for part in ("code 0000000000, now ", "torch 1.13, now ", "cpu Another CPU, now "):
        assert part in warning
    assert status()["versions"] == status(finished)["versions"]
    (earlier_start,) = status()["earlier"]  # It trained the first epoch.
    assert (earlier_start["code"], earlier_start["versions"]["torch"]) == ("0" * 10, "1.13")
    assert status()["after_epoch"] == 1
    assert "finished before under code 0000000000" in start(tmp_path, finished / "a").stdout
    assert manifest.earlier(status(), 1) == [earlier_start], "the last start trained nothing"


def test_instructions_that_are_limited_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """They decide the bits, and the CPU's name does not tell."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert re.fullmatch(r"\w+, oneDNN AVX2", machine.instructions())
    assert "instructions" in manifest.MACHINE


def test_code_is_that_which_the_losses_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PACKAGE, tmp_path / "igo")
    monkeypatch.setattr(manifest, "PACKAGE", tmp_path / "igo")
    code = manifest.code.__wrapped__  # it is remembered
    first_code = code()
    for room, changes in (("report", False), ("runs", False), ("plans", True), ("train", True)):
        with (tmp_path / "igo" / room / "__init__.py").open("a") as file:
            file.write("# changed\n")
        assert (code() != first_code) == changes, room
        first_code = code()


def test_uncommitted_changes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patch in the run folder brings the commit to what was run, to the byte."""
    project, place = tmp_path / "project", tmp_path / "place"
    file, content = project / "model.py", b"width = 9  # \xe9\0\n"

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=project,
            check=True,
            capture_output=True,
        )

    project.mkdir()
    file.write_bytes(b"width = 8\n")
    for line in ("init", "add .", "commit -m one"):
        git(*line.split())
    file.write_bytes(content)
    settings: Any = {"igo.runs.manifest.PACKAGE": project}
    forge.run(*TINY, "tracking=none", "epochs=1", folder=place, settings=settings).good()
    git("checkout", ".")
    git("apply", str(run_folder(place) / f"changes-{status(place)['code']}.patch"))
    assert file.read_bytes() == content
    monkeypatch.setattr(manifest, "PACKAGE", project)
    file.write_bytes(os.urandom(2 * manifest.LONGEST_DIFF))
    assert manifest.changes.__wrapped__() == b"", "it is too long"


def test_a_fingerprint_is_of_all_pixels_labels_and_shapes() -> None:
    """Of both splits, whatever the type of the labels."""
    images, labels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1), np.array([0, 1, 0])
    split = Split(images, labels)

    def fingerprints(changed: Split) -> list[str]:
        pairs = (changed, split), (split, changed)
        return [identity.fingerprint(*pair) for pair in pairs]

    (same,) = {*fingerprints(split), *fingerprints(Split(images, labels.astype(np.uint8)))}
    for changed in (
        (np.where(images == 31, 0, images), labels),
        (images, np.array([0, 1, 1])),
        (images.reshape(3, 2, 8, 1), labels),
    ):
        assert same not in fingerprints(Split(*changed))
