"""pyproject.toml, requirements/, environment.yml and Makefile say the same, for every machine."""

from __future__ import annotations

import functools
import json
import re
import select
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FREE = {"torch", "torchvision"}  # by range: their builds differ by machine
EXTRAS = {  # of each lock
    "train": ("train", "report", "lab", "search", "dashboard"),
    "dev": ("dev",),
    "bench": ("bench",),
    "examples": ("examples",),
    "docs": ("docs",),
}
PURPOSES = tuple(EXTRAS)
UNLOCKED = {*FREE, "pip", "setuptools"}  # the last two are in every new environment

# Where the locks must install: platform tags of wheels, and what markers are asked about.
PLATFORMS = {
    "linux x86-64": (
        [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17, 12, 5)],
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    ),
    "linux arm64": (
        [f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 24, 17)],
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    ),
    "macOS arm64": (
        ["macosx_14_0_arm64"],
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    ),
}
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "os_name": "posix"}
SOURCE_ALONE = ("antlr4-python3-runtime",)  # pure Python without a wheel


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / lock).read_text()


def pins(lock: str) -> dict[str, str]:
    lines = re.findall(r"^([a-zA-Z0-9._-]+)==([^ ;\\\n]+)", text_of(lock), re.MULTILINE)
    assert len(dict(lines)) == len(lines)
    return dict(lines)


@functools.cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required(purpose: str) -> list[Requirement]:
    extras = project()["optional-dependencies"]
    lines = [line for name in EXTRAS[purpose] for line in extras[name]]
    return [Requirement(line) for line in project()["dependencies"] + lines]


def test_every_extra_has_a_lock() -> None:
    assert sorted(extra for extras in EXTRAS.values() for extra in extras) == sorted(
        project()["optional-dependencies"]
    )


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_lock_holds_every_requirement_at_a_version_it_allows(purpose: str) -> None:
    held = pins("train.lock") | pins(f"{purpose}.lock")
    for requirement in required(purpose):
        if requirement.name in FREE:
            assert requirement.name not in held
        else:
            assert Version(held[requirement.name]) in requirement.specifier, requirement


def test_the_locks_are_parts_of_one_solution() -> None:
    together: dict[str, str] = {}
    for purpose in PURPOSES:
        for name, version in pins(f"{purpose}.lock").items():
            assert together.setdefault(name, version) == version, name
    assert together == pins("constraints.txt")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_locked_package_has_hashes(purpose: str) -> None:
    text = text_of(f"{purpose}.lock")
    entries = re.split(r"^(?=[a-zA-Z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_cuda_comes_with_torch_alone() -> None:
    assert not [name for name in pins("constraints.txt") if re.match("nvidia|cuda|triton", name)]


def test_conda_installs_the_locked_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-c requirements/constraints.txt", f"-e .[{','.join(EXTRAS['train'])},dev]"]


def test_no_registry_is_named() -> None:
    locks = [f"requirements/{purpose}.lock" for purpose in PURPOSES]
    for name in ("pyproject.toml", "requirements/constraints.txt", "environment.yml", "Makefile",
                 "requirements/lock.sh", ".github/workflows/ci.yml", *locks):  # fmt: skip
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--index-url|--find-links ", text), name


@pytest.mark.parametrize(
    ("target", "purposes"),
    [
        ("train", ["train"]),
        ("report", ["train"]),
        ("lint", ["train", "dev"]),
        ("test", ["train", "dev"]),
        ("bench", ["train", "bench"]),
        ("test-slow", ["train", "dev", "bench", "examples", "docs"]),
        ("test-long", ["train", "dev", "bench"]),
        ("examples", ["train", "dev", "examples"]),
        ("docs", ["train", "examples", "docs"]),
    ],
)
def test_a_target_sets_up_what_it_needs(target: str, purposes: list[str]) -> None:
    printed = subprocess.run(
        ["make", "--dry-run", target, "VENV=nowhere"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "-m venv nowhere" in printed
    installed = re.findall(r"--require-hashes --no-deps -r requirements/(\w+)\.lock", printed)
    assert installed == purposes


def chosen_by_pip(platform: str, folder: Path) -> dict[str, dict]:
    """The file that pip would install for each locked package, and its metadata.

    The requirements have no hashes here: with them pip would download every file, to check it.
    """
    tags, _ = PLATFORMS[platform]
    wanted = folder / "requirements.txt"
    wanted.write_text("\n".join(f"{n}=={v}" for n, v in pins("constraints.txt").items()))
    report = folder / "report.json"
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"),
        *("--no-deps", "--target", str(folder / "nowhere"), "--report", str(report)),
        *("--python-version", "3.11", *(f"--platform={tag}" for tag in tags)),
        *("--only-binary=:all:", f"--no-binary={','.join(SOURCE_ALONE)}", "-r", str(wanted)),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    files = json.loads(report.read_text())["install"]
    return {canonicalize_name(file["metadata"]["name"]): file for file in files}


@pytest.mark.long
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_locks_install_on(platform: str, tmp_path: Path) -> None:
    files = chosen_by_pip(platform, tmp_path)
    for purpose in PURPOSES:
        text = text_of(f"{purpose}.lock")
        for name in pins(f"{purpose}.lock"):
            sha256 = files[name]["download_info"]["archive_info"]["hashes"]["sha256"]
            assert f"--hash=sha256:{sha256}" in text, name  # else pip refuses this file there

    _, asked = PLATFORMS[platform]
    for purpose in PURPOSES:  # what is installed without its dependencies has them all the same
        held = pins("train.lock") | pins(f"{purpose}.lock")
        open_, seen = [(r.name, frozenset(r.extras)) for r in required(purpose)], set()
        while open_:
            name, extras = open_.pop()
            if name in UNLOCKED or (name, extras) in seen:
                continue
            seen.add((name, extras))
            assert name in held, f"{name} is missing in {purpose}.lock"
            for line in files[name]["metadata"].get("requires_dist", ()):
                needed = Requirement(line)
                if any(
                    needed.marker is None or needed.marker.evaluate({**asked, **PYTHON, "extra": e})
                    for e in ("", *extras)
                ):
                    full = canonicalize_name(needed.name)
                    if full not in UNLOCKED:
                        assert Version(held[full]) in needed.specifier, f"{name} needs {needed}"
                    open_.append((full, frozenset(needed.extras)))


def test_set_up_shows_each_large_download_at_once() -> None:
    """While pip goes on, not when it has ended."""
    with subprocess.Popen(
        [sys.executable, ROOT / "requirements" / "progress.py"], text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as shown:  # fmt: skip
        shown.stdin.write("Collecting torch\n  Downloading small-1.0.whl (9.5 MB)\n")
        shown.stdin.write("  Downloading torch-2.9.0.whl (184.5 MB)\n")
        assert select.select([shown.stdout], [], [], 60)[0]
        assert shown.stdout.readline() == "  Downloading torch-2.9.0.whl (184.5 MB)\n"
        shown.stdin.write("Installing collected packages: a, b, torch\n")
        assert select.select([shown.stdout], [], [], 60)[0]
        assert shown.stdout.readline() == "  Installing 3 packages\n"
        shown.stdin.close()
        assert shown.stdout.read() == ""
