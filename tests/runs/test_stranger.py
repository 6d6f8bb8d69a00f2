"""A run folder from somebody else: nothing in it runs code, reads the environment, or hangs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, run_folder
from forked import forge
from omegaconf import OmegaConf
from PIL import EpsImagePlugin, Image
from recorded import edit

import igo
from igo.config.load import read_config
from igo.data.folders import opened
from igo.ground.errors import UserError
from igo.report import page, summary, table
from igo.runs import manifest, sharpness
from igo.runs.folder import read_status

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in ("ab", "bc", "cd"))
CALL = "os.mkdir(path='ran')"
CONFIGS = {  # what is replaced in config.yaml, by what, and the reason
    "model": ("  name: resnet8", f"  name: {CALL}", "names code"),
    "optimizer": ("  name: sgd", f"  name: {CALL}", "names code"),
    "schedule": ("  profile: graduated", f"  profile: {CALL}", "names code"),
    "target": ("model:\n", "model:\n  _target_: evil.f\n", "it has '_target_'"),
    "variable": ("data_dir: data", "data_dir: ${oc.env:SECRET}", "it has ${"),
    "escaped": ("data_dir: data", 'data_dir: "\\u0024{oc.env:SECRET}"', "it has ${"),
    "aliases": ("data_dir: data", f"data_dir: data\n{BOMB}", "it has an alias"),
}
FILES = ("config.yaml", "status.json", "metrics.jsonl", "checkpoint.pt", "sharpness.json", ".lock")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    forge.run(place, *TINY, "tracking=none").good()
    return run_folder(place)


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy, beside code that proves that it was run; what hangs is ended."""
    shutil.copytree(finished, tmp_path / "runs" / finished.name)
    (tmp_path / "evil.py").write_text("import os\nos.mkdir('ran')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "s3cret")
    signal.alarm(60)
    yield tmp_path / "runs" / finished.name
    signal.alarm(0)
    assert "evil" not in sys.modules


def refused(call: Callable[[], object], *reasons: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert any(reason in str(caught.value) for reason in reasons), caught.value


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_a_record_names_is_neither_called_nor_resolved(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, reason = CONFIGS[kind]
    text = (folder / "config.yaml").read_text()
    assert old in text
    (folder / "config.yaml").write_text(text.replace(old, new))
    edit(folder / "status.json", own_code={"evil.f()": "0", CALL: "0"})
    for program in (summary, page):
        program.run(OmegaConf.create({"runs": "runs", "output": "out"}))
    refused(lambda: igo.load_run(folder), reason)
    refused(lambda: sharpness.measure(folder, sharpness.Settings()), reason)
    assert "torch" in manifest.differences({**read_status(folder), "versions": {"torch": "0"}})
    files = [path.read_text(errors="replace") for path in Path("out").rglob("*") if path.is_file()]
    assert not any("s3cret" in text for text in (*files, capsys.readouterr().out))
    if reason == "names code":  # `igo sync` reads it, and calls nothing
        read_config(folder / "config.yaml", trust=True)
    assert not Path("ran").exists()
    if kind == "model":
        refused(lambda: igo.load_run(folder, trust=True), "no Module")
        assert Path("ran").exists(), "it was a working trap"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_files_that_never_end_are_not_read(make: Callable[[Path], None], folder: Path) -> None:
    for name in FILES:
        whole = (folder / name).read_bytes() if (folder / name).exists() else b""
        (folder / name).unlink(missing_ok=True)
        edit(folder / "status.json", state="running") if name == ".lock" else None
        make(folder / name)
        summary.run(OmegaConf.create({"runs": str(folder), "output": "out"}))
        if name in FILES[:4]:
            refused(lambda: igo.load_run(folder), "it is no file")
        (folder / name).unlink()
        (folder / name).write_bytes(whole)


def test_control_characters_are_shown_as_escapes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / "status.json", state="failed", error="\x1b[2Jgone")
    folder.rename(folder.with_name("\x1b[31mred"))
    summary.run(OmegaConf.create({"runs": "runs", "output": "out"}))
    assert "failed: \\x1b[31mred: \\x1b[2Jgone" in capsys.readouterr().out


def test_an_image_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow knows a file by its content, and has Ghostscript draw PostScript."""

    def ghostscript(*_: object) -> None:
        raise RuntimeError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    file = tmp_path / "0.png"
    Image.new("RGB", (8, 8)).save(file, "EPS")
    with pytest.raises(RuntimeError, match="started"), Image.open(file) as image:
        image.convert("RGB")
    refused(lambda: opened(file, "RGB"), "cannot be read")
    for kind in ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP"):
        Image.new("RGB", (8, 8)).save(file, kind)
        assert opened(file, "L").size == (8, 8)


def test_wrong_contents_of_a_status_are_one_line(folder: Path) -> None:
    """Each entry of each kind, in the status and in its earlier starts."""
    file, wrong = folder / "status.json", []
    whole = json.loads(file.read_text())
    values: list[Any] = [None, True, 1.5, "x", [], [1], {}, {"x": [1]}]
    made = [{**whole, name: value} for name in whole for value in values]
    made += [{**whole, "earlier": [content]} for content in made]
    contents = [json.dumps(content) for content in (*values, *made, {**whole, "earlier": [1]})]
    for content in (*contents, "", "{", "[" * 10**5, "\xff"):
        file.write_text(content)
        try:
            manifest.earlier(read_status(folder), 1)
            manifest.differences(read_status(folder), {})
        except UserError as error:
            wrong.append(str(error))
        table.read_runs([folder])
    assert len(wrong) > 150
    assert all(re.fullmatch(rf"{file} is damaged \(.*\); it is left as it is.*", w) for w in wrong)
