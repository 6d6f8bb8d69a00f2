"""Files beside the code that repeat one of its facts: they say the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import yaml
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_license_and_citation_are_those_of_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "MIT"
    holder = citation["authors"][0]["name"]
    assert PROJECT["authors"] == [{"name": holder}]
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n")
    assert holder in text


def test_the_citation_is_of_the_newest_version_of_the_changelog() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert headings[0] == "Unreleased"
    assert headings[1] == citation["version"]


def test_a_release_is_used_before_it_is_published() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs = workflow["jobs"]
    assert jobs["publish"]["needs"] == "use"
    assert jobs["publish"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert any(".ci/package" in step.get("run", "") for step in jobs["use"]["steps"])
    assert (ROOT / ".ci" / "package").is_file()
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert jobs["use"]["strategy"]["matrix"]["python"][0] == lowest


def test_workflows_run_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["tests"]["steps"]]
    assert "bash .ci/run" in steps


def test_the_hooks_ruff_is_the_locked_one() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    entries = [hook["entry"].split()[:2] for hook in hooks[0]["hooks"]]
    assert entries == [[".venv/bin/ruff", "check"], [".venv/bin/ruff", "format"]]
    locked = re.search(r"^ruff==(\S+)", (ROOT / "requirements/dev.lock").read_text(), re.MULTILINE)
    printed = subprocess.run(
        [sys.executable, "-m", "ruff", "--version"], capture_output=True, text=True, check=True
    )
    assert printed.stdout == f"ruff {locked[1]}\n"


def test_the_files_that_a_contributor_is_sent_to_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:src|conf|tests)/[^`]+)`", text)
    assert len(paths) > 5
    assert [path for path in paths if not ((ROOT / path).exists() or "NAME" in path)] == []
