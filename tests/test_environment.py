"""pyproject.toml, requirements.lock and environment.yml say the same."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

FREE = {"torch", "torchvision"}  # by range: their builds differ by machine


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^([a-zA-Z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))


def required() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    return [Requirement(one) for one in [*project["dependencies"], *extras]]


def test_the_lock_holds_every_requirement_at_a_version_it_allows() -> None:
    pins = locked()
    for one in required():
        if one.name in FREE:
            assert one.name not in pins
        else:
            assert Version(pins[one.name]) in one.specifier, one


def test_every_locked_package_has_hashes() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"^(?=[a-zA-Z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_conda_installs_what_the_lock_holds() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip[0] == "-e .[dev,bench,search,dashboard]"
    assert dict(one.split("==") for one in pip[1:]) == locked()


def test_no_registry_is_named() -> None:
    for name in ("pyproject.toml", "requirements.lock", "environment.yml", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--index-url|--find-links ", text), name


def test_make_help_lists_every_target_with_a_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    printed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    listed = dict(re.findall(r"^([a-z-]+) +(\S.*)$", printed, re.MULTILINE))
    assert set(phony[1].split()) == set(listed)


@pytest.mark.parametrize("name", ["train", "test"])
def test_the_two_commands_set_up_by_themselves(name: str) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", name, "VENV=nowhere"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "-m venv nowhere" in printed
    assert "--require-hashes" in printed
