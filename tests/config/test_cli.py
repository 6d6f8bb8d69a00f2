"""The command line as a user meets it: help, dry runs, and errors in one line."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TINY, command, configure, interpreter, python, ran, records
from forked import forge

from igo.__main__ import COMMANDS
from igo.config import cli
from igo.config.load import make_plan
from igo.config.schema import SETTINGS


def test_help_is_a_page_and_names_every_option() -> None:
    text = forge.run("--help").stdout
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert re.search(rf"\b{path.stem}\b", text), path
    pages = forge.run("--help=all").stdout
    for setting in SETTINGS:
        name = setting.rpartition(".")[2].replace("arguments", "_target_")
        pattern = rf"^ *({re.escape(setting)}=\S+|{name}:.*#) +\w"
        assert re.search(pattern, pages, re.MULTILINE), f"{setting} is not explained"


def test_a_plan_is_printed_before_heavy_imports() -> None:
    """Also in another encoding."""
    variables = {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONIOENCODING": "ascii"}
    outcome = interpreter("dry_run=true", **variables).good()
    assert "\\u03c6_m" in outcome.stdout
    outcome.assert_light("igo.config.load")


def test_cfg_job_is_the_whole_configuration() -> None:
    """Flags may stand between settings."""
    assert "--package" in forge.run("--hydra-help").stdout
    printed = yaml.safe_load(forge.run("p=0.25", "--cfg", "job", "schedule=step").stdout)
    assert printed["p"] == 0.25
    assert printed["schedule"]["profile"] == "step"
    assert {name.split(".")[0] for name in SETTINGS} == set(printed)


def test_a_run_has_what_hydra_gives_its_job(tmp_path: Path) -> None:
    """Though it begins after the job: interpolations of hydra's node, and variables."""
    folder = "runs_dir=${hydra:runtime.cwd}/${oc.env:IGO_GIVEN}"
    output = forge.run(folder, "+hydra.job.env_set.IGO_GIVEN=here", "dry_run=true").good().stdout
    assert output.startswith(f"run {tmp_path}/here/")


def test_dry_run_prints_the_plan_and_makes_nothing() -> None:
    words = ("experiment=cifar100", "schedule=method3")
    plan = make_plan(configure(*words))
    assert plan.updates == 121_200
    assert f"\n{plan}\n" in forge.run("debug=null", *words, "dry_run=true").good().stdout
    assert not Path("runs").exists()


@pytest.mark.slow
def test_the_default_run_reads_digits() -> None:
    forge.run().good()
    assert records()[-1]["test/accuracy"] >= 0.97


# One word of each kind of mistake, and what the message must name. test_habits.py has more words.
BAD = {
    "p=1.5": r"p=1.5 .*graduated needs p in \(0, 1\].*polynomial",
    "p=0.1,0.5": r"p has several values, and each is a run: add -m",
    f"learning_rate={'9' * 309}": r"a number has 308 digits at most",
    "epochs=abc": r"epochs: Value 'abc' .*Integer",
    "p=0.5 p": r"NAME=VALUE",
    "p=0.5 -m split": r"'split' missing EQUAL",
    "+p=0.3": r"Could not append to config.*Either remove \+ prefix: 'p=0.3'",
    "+model=resnet18": r"model is chosen already: leave the \+ out",
    "--p=0.9": r"no flag --p=0.9; settings are written NAME=VALUE",
    "schedule.rate=cosin schedule.floor=0.1": r"schedule.rate=cosin .*Did you mean 'cosine'",
    "-m schedule.rate=linear,cosin": r"schedule.rate=cosin .*Did you mean 'cosine'",
    "--help=modl": r"--help=modl.*Did you mean 'model'",
    "-m dataset=digits,null": r".*NoneType",
    "-m sweep=methods,p_split": r"sweep=methods,p_split .*a command for each",
    "--config-dir=": r"no flag --config-dir=; settings",
    "model={x:1}": r"model is a group of settings: type model=OPTION or model\.SETTING=VALUE",
    "hydra/launcher=slurm": r"hydra/launcher=slurm .*add -m",
    "data_dir=~/x": r"data_dir=~/x .*type \$HOME",
    "hydra.run.dir=x": r"hydra.run.dir=x .*in runs_dir",
    "dataset._target_=a.b": r"no dataset._target_: .*dataset=folder or dataset=arrays",
    "-p 0.1": r"no flag -p; settings are written NAME=VALUE",
    r"tracking.name='a\${b}'": r"tracking.name=a\${b} .*config.yaml",
    "tracking.project=${oc.env:IGO_NONE}": r"tracking.project: .*'IGO_NONE' not found",
}
BAD_LATER = {  # These are known only once the data or the model is there.
    "model=timm model.name=resnet18z": r"model.name=resnet18z .*Did you mean 'resnet18",
    "model=timm model.name=vit_tiny_patch16_224": r"model.name=vit_tiny.*8 x 8 images of digits",
    "model=resnet18 batch_size=1 split=1 dataset.samples=401": r"model.name=resnet18 .*1 x 1 x 8",
    "engine=gpu": r"engine.device=cuda .*use engine=auto or engine=cpu, not engine=gpu",
    "dataset.samples=2000": r"dataset.samples=2000 .*1437",
}


@pytest.mark.parametrize("words", BAD | BAD_LATER)
def test_a_mistake_is_one_line_with_its_name(words: str, tmp_path: Path) -> None:
    outcome = forge.run(*words.split(), folder=tmp_path / "here", outputs=tmp_path)
    line = outcome.error()
    assert re.match(f"error: .*{(BAD | BAD_LATER)[words]}", line), line
    assert outcome.stdout == ""
    folders = [path.name for path in (tmp_path / "here").iterdir()]
    assert folders == [] if words in BAD else "runs" not in folders


def test_a_file_that_vanishes_is_one_line_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a name of two lines."""
    file = tmp_path / "my\nimage.png"
    monkeypatch.setattr("sys.argv", ["igo", "--help"])
    monkeypatch.setattr(cli, "_prepare_process", lambda: None)
    monkeypatch.setattr(cli, "help_text", lambda *_: file.read_text())
    with pytest.raises(SystemExit, match="2"):
        cli.hydra_program(print, tmp_path)
    line = f"error: {tmp_path}/my\\nimage.png: No such file or directory\n"
    assert capsys.readouterr().err == line


def test_a_runs_dir_that_cannot_be_made_is_refused() -> None:
    Path("file").touch()
    for folder, message in (
        ("file", "runs_dir: file.*cannot be written"),
        ("x" * 300, "name too long"),
    ):
        outcome = forge.run(*TINY, "tracking=none", f"runs_dir={folder}")
        assert re.search(message, outcome.error())


def test_an_output_that_is_full_is_one_line(tmp_path: Path) -> None:
    line = " ".join(map(str, command(tmp_path, "dry_run=true")))
    outcome = ran(tmp_path, "bash", "-c", f"{line} >/dev/full")
    assert (outcome.returncode, outcome.stderr) == (2, "error: output: No space left on device\n")
    assert ran(tmp_path, "bash", "-c", f"{line} >&-").returncode == 0  # Nobody reads it.


GLOBAL = "# @package _global_\n"
OWN = {  # The text of a file of settings, and what the message says.
    GLOBAL + "epochs:\t3\n p: 1\n": r"own\.yaml, line [2-4]: .*; it must be YAML",
    GLOBAL + "p: 'half\n": r"own\.yaml, line [2-4]: .*; it must be YAML",
    GLOBAL + "p: 1\np: 2\n": r"own\.yaml, line [2-4]: .*; it must be YAML",
    GLOBAL + "# caf\xe9\np: 1\n": "a file of settings: .*; it must be UTF-8",
    f"{GLOBAL}defaults: [/model: resnet18]\n": "model is chosen .* override /model: OPTION",
    "p: 1\n": "experiment=.* must begin with the line # @package _global_",
    GLOBAL + "p: 1\nepochs: 3\n": "sweep=.*sets p, epochs where no run reads it.*params",
    GLOBAL + "hydra: {sweeper: {params: {p: [1, 2]}}}\n": r"sweep.*p=\[1, 2\] .*typed.*",
    "hydra: {sweeper: {params: {p: 1}}}\n": "sweep=.*sets sweep .*_global_.*params",
}


@pytest.mark.parametrize("text", OWN)
def test_a_mistake_in_ones_own_file_is_one_line(text: str) -> None:
    message = OWN[text]
    group = re.search("sweep|experiment|$", message)[0] or "experiment"  # type: ignore[index]
    file = Path("mine", group, "own.yaml")
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("latin-1"))
    options = ("--config-dir", "mine", f"{group}=own", "dry_run=true")
    words = ["-m", *options] if group == "sweep" else ["p=1", *options]
    assert re.match(f"error: .*{message}$", forge.run(*words).error())


def test_igo_lists_its_commands_and_refuses_another(tmp_path: Path) -> None:
    folder = {"PYTHONPATH": str(ROOT / "src")}
    lines = python(tmp_path, "-m", "igo", **folder).good().stdout.splitlines()[2:-2]
    for line, (word, name) in zip(lines, COMMANDS.items(), strict=True):
        summary = (ROOT / "conf" / f"{name}.yaml").read_text().splitlines()[0]
        assert line.split(maxsplit=1) == [word, summary.removeprefix("# ")]
    for word, cure in (("tabel", "Did you mean 'table'?"), ("sweep", "Type igo train -m sweep=")):
        error = python(tmp_path, "-m", "igo", word, **folder).error()
        assert f"no command '{word}'. {cure}" in error


ANOTHER_PROGRAM = """\
import hydra
@hydra.main(version_base="1.3", config_path="settings", config_name="ours")
def main(settings): print(settings)
main()
"""


def test_another_hydra_program_has_its_own_groups_alone(tmp_path: Path) -> None:
    """Hydra asks the plugins of all installed packages, also igo's."""
    (tmp_path / "app.py").write_text(ANOTHER_PROGRAM)
    for name, text in (("ours", "defaults: [{model: mlp}]"), ("model/mlp", "width: 8")):
        file = tmp_path / "settings" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert python(tmp_path, "app.py").good().stdout == "{'model': {'width': 8}}\n"
    page = python(tmp_path, "app.py", "--help").good().stdout
    groups = page.partition("Compose your configuration from those groups")[2].partition("==")[0]
    assert re.findall(r"^(\S+): ", groups, re.MULTILINE) == ["model"]
    refusal = python(tmp_path, "app.py", "model=resnet18")
    assert refusal.returncode == 1
    assert "Could not find 'model/resnet18'" in refusal.stderr
