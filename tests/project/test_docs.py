"""README and docs: every command in them composes, every link leads somewhere, the length holds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT, python
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

import igo
from igo.__main__ import COMMANDS
from igo.config.load import load
from igo.config.plan import make_plan
from igo.sweep.grid import combinations

TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").glob("*.md"))]
STAND_INS = (
    "…",
    "logarithmic",
    "NAME",
    "FOLDER",
    "FILE",
    "N)",
    "/path/",
    "my_images",
    "mine.npz",
)


def commands(pattern: str, pages: list[Path]) -> list[str]:
    """Each command of the pages once, without its comment; a line of a block or in backticks."""
    lines: list[str] = []
    for page in pages:
        text = re.sub(r"^```python\n.*?^```$", "", page.read_text(), flags=re.M | re.DOTALL)
        lines += re.findall(r"^ {4}(?! )(.*)$", text, re.M) + re.findall(r"`([^`\n]+)`", text)
    typed = (re.sub(r"\s+#.*$", "", line).strip().removeprefix(".venv/bin/") for line in lines)
    return list(dict.fromkeys(command for command in typed if re.match(pattern, command)))


PRESENT = [page for page in PAGES if page.name not in ("CHANGELOG.md", "log.md")]  # no history
PROGRAMS = commands(r"(python src/train\.py|igo [a-z])", PRESENT)
MAKE = commands(r"make sweep.* SWEEP=", PRESENT)


@pytest.mark.parametrize("command", PROGRAMS)
def test_a_command_of_the_pages_composes(command: str) -> None:
    """Every setting is there; what training is told makes a plan."""
    _, program, *words = shlex.split(command)
    words = [word for word in words if word not in ("-m", "--help")]
    if any(mark in command for mark in STAND_INS):
        words = [word for word in words if not any(mark in word for mark in STAND_INS)]
    name = COMMANDS["train" if program == "src/train.py" else program]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        groups = [word for word in words if "/" in word.split("=")[0]]
        words = [word for word in words if word not in groups]
        for combination in combinations(parser, {}, words)[:4]:
            composed = compose(name, combination)
            if name == "config" and "dataset=folder" not in words and "dataset=arrays" not in words:
                typed = [word.split("=")[0] for word in combination]
                config = load(composed, [setting for setting in typed if setting != "run"])
                make_plan(config)


@pytest.mark.parametrize("command", MAKE)
def test_the_sweep_of_a_page_is_there(command: str) -> None:
    """test_doc_commands.py runs the commands; this is for those that it cannot."""
    for word in shlex.split(command):
        if word.startswith("SWEEP=") and not any(mark in word for mark in STAND_INS):
            assert (ROOT / "launch" / "sweep" / f"{word[6:]}.yaml").is_file(), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    for name in igo.__all__:
        assert re.search(rf"auto\w+:: igo\.{name}$", page, re.MULTILINE), name
    for file in (ROOT / "src" / "igo" / "adapters").glob("[a-z]*.py"):
        assert f"igo.adapters.{file.stem}\n" in page, file.stem


def test_the_readme_is_a_page() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    tables = ("|", "!", "    ")
    assert [x for x in lines if len(x) > 125 or (len(x) > 110 and not x.startswith(tables))] == []


PICTURES = [file for file in sorted((ROOT / "docs").glob("*.py")) if "__main__" in file.read_text()]
MEASURES = [["-m", f"benchmarks.{name}"] for name in ("run", "gpu", "reproducible")]


@pytest.mark.slow
@pytest.mark.parametrize("program", [*([str(file)] for file in PICTURES), *MEASURES], ids=str)
def test_a_program_says_what_it_does_when_asked(program: list[str], tmp_path: Path) -> None:
    done = python(tmp_path, *program, "--help", PYTHONPATH=f"{ROOT}:{ROOT / 'src'}").good()
    assert Path(program[-1]).name.removeprefix("benchmarks.") in done.stdout
    assert not list(tmp_path.iterdir())
