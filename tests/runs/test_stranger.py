"""A run folder from somebody else: nothing in it runs code, reads the environment, or hangs."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import TINY, configure, run_folder
from forked import finished, forge
from omegaconf import OmegaConf
from PIL import EpsImagePlugin, Image
from recorded import edit, words_of
from wandb_server import WandbServer

import igo
from igo.config.load import read_config
from igo.data.folders import image_in
from igo.ground.errors import UserError
from igo.report import report, table
from igo.runs import manifest, sync
from igo.runs.folder import read_status
from igo.train import models

CONFIGS = {  # what is replaced in config.yaml, by what, and the reason
    "model": ("  name: resnet8", "  name: os.mkdir", "names code"),
    "optimizer": ("  name: sgd", "  name: os.mkdir", "names code"),
    "schedule": ("  profile: graduated", "  profile: os.mkdir", "names code"),
    "growth": ("  profile: graduated", "  profile: graduated\n  growth: '{'", "no setting"),
    "target": ("model:\n", "model:\n  _target_: evil.f\n", "no setting 'model._target_'"),
    "variable": ("data_dir: data", "data_dir: ${oc.env:SECRET}", "it has ${"),
    "escaped": ("data_dir: data", 'data_dir: "\\u0024{oc.env:SECRET}"', "it has ${"),
    "YAML": ("\np: 0.5", "\np: !!python/object/apply:os.mkdir [ran]", "could not determine"),
    "alias": ("data_dir: data", "data_dir: &a data\nruns_dir: *a", "it has an alias"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run, beside code that proves that it was run."""
    shutil.copytree(finished(*TINY, "tracking=none") / "runs", tmp_path / "runs")
    edit(run_folder(), seals=None)  # a stranger makes his own
    Path("evil.py").write_text("import os\nos.mkdir('ran')\n")
    monkeypatch.setenv("SECRET", "s3cret")
    return run_folder()


def test_what_a_record_names_is_neither_called_nor_resolved(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {kind: Path("all", kind, folder.name) for kind in CONFIGS}
    for kind, (old_text, new_text, reason) in CONFIGS.items():
        shutil.copytree(folder, places[kind])
        file = places[kind] / "config.yaml"
        before, after = file.read_text().split(old_text, 1)
        if reason == "names code":
            after = after.replace("arguments: null", "arguments: {path: ran}", 1)
        file.write_text(before + new_text + after)
        edit(places[kind], own_code={"evil.f()": "0"}, state="failed", error="\x1b[2Jgone")
    for program in (table, report):
        program.run(words_of(Path("all/*"), Path("out")))
    for kind, place in places.items():
        edit(place, state="finished")
        with pytest.raises(UserError, match=re.escape(CONFIGS[kind][-1])):
            igo.load_run(place)
        assert not manifest.differences(read_status(place), configure(*TINY))
    texts = [path.read_bytes().decode(errors="replace") for path in Path("out").glob("*.*")]
    texts.append(capsys.readouterr().out)
    assert not any("s3cret" in text or "\x1b[2J" in text for text in texts)
    edit(places["model"], wandb_id="theirs")
    with WandbServer() as server:
        words = "project=null", "runs=all/model"
        process = forge.run(*words, command="sync", **server.online).good()
    assert "3 epochs sent" in process.stdout
    assert not Path("ran").exists()
    assert "evil" not in sys.modules
    config = read_config(places["model"] / "config.yaml", trust=True)
    with pytest.raises(UserError, match="no Module"):
        models.build(config.model, config.dataset)
    assert Path("ran").exists(), "it was a working trap"


def test_nothing_is_sent_that_only_a_folder_asks_for(folder: Path) -> None:
    """Neither to its entity, nor into a W&B run that is another's."""
    file = folder / "config.yaml"
    words_of_folder = "project=theirs", "entity=them"

    def change(old_text: str, new_text: str) -> None:
        file.write_text(file.read_text().replace(old_text, new_text))

    change("  project: null\n  entity: null\n", "  project: theirs\n  entity: them\n")
    edit(folder, wandb_id="mine")
    with WandbServer() as server:

        def refused(*words: str) -> str:
            process = forge.run(*words, command="sync", **server.online)
            assert process.returncode == 1
            return process.stdout

        assert "type project=theirs entity=them to send it there" in refused()
        assert not server.runs
        process = forge.run(*words_of_folder, command="sync", **server.online).good()
        assert "3 epochs sent" in process.stdout
        change("\nseed: 0\n", "\nseed: 1\n")
        assert "W&B's run mine, of its wandb_id, has other settings" in refused(*words_of_folder)


@pytest.mark.usefixtures("folder")
def test_no_link_leads_what_is_written_elsewhere() -> None:
    elsewhere = Path("elsewhere").absolute()
    (elsewhere / "figures").mkdir(parents=True)
    for link, program in ((Path("runs/wandb"), sync), (Path("out/figures"), report)):
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(elsewhere / "figures")
        words = {**words_of(Path("runs"), Path("out")), "project": "igo", "entity": None}
        with pytest.raises(UserError, match=f"{link}.*is a link"):
            program.run(OmegaConf.create(words))
    assert not list(elsewhere.glob("*/*"))


def test_an_image_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow knows a file by its content, and has Ghostscript draw PostScript."""
    calls: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: calls.append(arguments))
    file = tmp_path / "0.png"
    Image.new("RGB", (8, 8)).save(file, "EPS")
    with pytest.raises(UserError, match="cannot be read"):
        image_in(file)
    assert not calls
    for kind in ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP"):
        Image.new("RGB", (8, 8)).save(file, kind)
        assert image_in(file).size == (8, 8)
