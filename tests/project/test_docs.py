"""README's commands run, links lead somewhere, and `make docs` builds the site."""

import re
from pathlib import Path

import pytest
from clone import clone, run
from conftest import ROOT, TINY
from recorded import METHODS, record_runs

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = " ".join((*TINY[1:], "epochs=5", "seed=0", "tracking=none"))
# These take long, or need a GPU or an account, and are tested elsewhere: by CI, lab, slurm, report.
ELSEWHERE = r"^make (test|theory|noise|docs|sweep|gpu|dashboard|sync)|…"


def commands() -> list[str]:
    """Each command of README once, without its comment; a line of a block or in backticks."""
    text = re.sub(r"^```python\n.*?^```$", "", README, flags=re.M | re.DOTALL)
    lines = re.findall(r"^ {4}(?! )(.*)$", text, re.M) + re.findall(r"`([^`]+)`", text)
    command_lines = dict.fromkeys(re.sub(r"\s+#.*$", "", line).replace("\n", " ") for line in lines)
    programs = [line for line in command_lines if re.match("(make|python) ", line)]
    return [line for line in programs if not re.search(ELSEWHERE, line)]


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    """A training gets settings that make it short."""
    place = clone(tmp_path)
    for label in [*METHODS][:2]:
        record_runs(place / "runs", *METHODS[label], "schedule.stages=3", seeds=range(2))
    if "src/train.py" in command:
        command += f" {SHORT}"
    elif command == "make train":
        command += f' ARGS="{SHORT}"'
    process = run(place, command)
    printed = process.stdout[-3000:] + process.stderr[-3000:]
    assert process.returncode == 0, printed
    assert process.stdout
    assert "Traceback" not in printed


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.slow
def test_the_site_is_built_and_its_python_runs(tmp_path: Path) -> None:
    """Sphinx fails on a warning, on a link that leads nowhere, and on a page whose code fails."""
    place = clone(tmp_path)
    process = run(place, "make docs")
    assert process.returncode == 0, process.stderr[-3000:]
    printed = process.stdout + process.stderr
    # A kernel may print one as its sockets close.
    kernels = printed.count("exception in ZMQStream callback\n")
    assert printed.count("Traceback") == kernels, printed[-3000:]
    for name in ("first-hour", "own-loop", "resume", "processes", "noise", "ramps"):
        assert "cell_output" in (place / "build" / "site" / "docs" / f"{name}.html").read_text()
