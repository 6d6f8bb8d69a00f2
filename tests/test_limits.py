"""The suite itself: a test that hangs or crashes is named, the run ends, and nothing is left of it.

Each is a small suite in a process of its own, with the hooks of this one and shorter times.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

TESTS = ROOT / "tests"
LIMITS = 'import limits\n\nlimits.GRACE = 3.0\npytest_plugins = ["limits"]\n'
# Each test starts a program in a session of its own: no signal to a group or terminal reaches it.
SUITE = """
import ctypes, os, pytest, signal, subprocess, sys, time

@pytest.fixture(autouse=True)
def started():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open("started", "a") as file:
        print(child.pid, file=file)

@pytest.mark.parametrize("number", range(4))
def test_good(number):
    pass

def test_bad():
    BODY

@pytest.mark.parametrize("number", range(300))
def test_yet_to_come(number):
    time.sleep(0.2)
"""
LOCKED = """lock, libc = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
    for _ in range(2):
        libc.pthread_mutex_lock(lock)  # in C, with the GIL held, deaf to signals"""
WAITS = """with subprocess.Popen(["sleep", "600"]):  # to leave it waits for the program, too
        time.sleep(600)"""
FORKED = """if os.fork() == 0:  # with the worker's pipes, so that they do not end with it
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGSEGV)"""
CRASH_AT_THE_END = """
import os

def pytest_sessionfinish():
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.abort()
"""
WORKERS = ("-p", "xdist", "-n", "2")


@dataclass(frozen=True)
class Case:
    """What test_bad does, and how the suite is run."""

    body: str
    options: tuple[str, ...] = ()
    conftest: str = ""


CASES = {
    "locked": Case(LOCKED, WORKERS),
    "waits": Case(WAITS, WORKERS),
    "forked": Case(FORKED, WORKERS),
    "aborted": Case("os.abort()", WORKERS),
    "alone, locked": Case(LOCKED),
    "alone, aborted": Case("os.abort()"),
    "interrupted": Case('subprocess.run(["sleep", "600"])', ("-k", "good or bad")),
    "crashed after": Case("pass", (*WORKERS, "-k", "good or bad"), CRASH_AT_THE_END),
}


@dataclass(frozen=True)
class Ended:
    """How a small suite ended."""

    returncode: int
    said: str
    passed: int


def run(place: Path, case: Case) -> Ended:
    """Run the suite. What its tests started is gone afterwards."""
    place.mkdir()
    (place / "conftest.py").write_text(LIMITS + case.conftest)
    (place / "test_it.py").write_text(SUITE.replace("BODY", case.body))
    plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [
            sys.executable, str(TESTS / "guard.py"), sys.executable, "-m", "pytest",
            "-p", "pytest_timeout", "-o", "timeout=5", *case.options,
        ],
        cwd=place, env=os.environ | plugins, capture_output=True, text=True, check=False,
    )  # fmt: skip
    pids = (place / "started").read_text().split()
    assert pids
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
        assert f"killed, as a test left it: {pid} sleep 600" in done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    return Ended(done.returncode, done.stdout + done.stderr, int(passed[1]) if passed else 0)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """All of them side by side: they wait for the most part."""
    place = tmp_path_factory.mktemp("suites")
    with ThreadPoolExecutor(len(CASES)) as pool:
        running = {name: pool.submit(run, place / name, case) for name, case in CASES.items()}
        return {name: one.result() for name, one in running.items()}


@pytest.mark.parametrize("name", ["locked", "waits", "forked", "aborted"])
def test_a_worker_that_hangs_or_crashes_is_named_and_ends_the_run(
    name: str, ended: dict[str, Ended]
) -> None:
    """Within a minute: long before the tests are done that are left, a fifth of a second each."""
    found = ended[name]
    assert found.returncode == pytest.ExitCode.TESTS_FAILED
    assert "crashed while running 'test_it.py::test_bad', and the run ended" in found.said
    assert "FAILED test_it.py::test_bad - worker 'gw" in found.said
    assert " in test_bad\n" in found.said  # and where it was, from faulthandler
    assert found.passed < 150


@pytest.mark.parametrize(
    ("name", "code"), [("alone, locked", 1), ("alone, aborted", 128 + signal.SIGABRT)]
)
def test_without_workers_it_is_the_same(name: str, code: int, ended: dict[str, Ended]) -> None:
    assert ended[name].returncode == code
    assert " in test_bad\n" in ended[name].said


def test_a_test_that_can_be_interrupted_fails_alone(ended: dict[str, Ended]) -> None:
    found = ended["interrupted"]
    assert found.returncode == pytest.ExitCode.TESTS_FAILED
    assert "FAILED test_it.py::test_bad - Failed: Timeout (>5.0s)" in found.said
    assert "1 failed, 4 passed" in found.said


def test_a_crash_after_the_last_test_fails_the_run(ended: dict[str, Ended]) -> None:
    """As memory may have it that was written out of bounds."""
    assert "Fatal Python error: Aborted" in ended["crashed after"].said
    assert ended["crashed after"].returncode != pytest.ExitCode.OK


def test_a_run_has_a_time_in_all() -> None:
    code = """import subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(child.pid, flush=True)
child.wait()"""
    with guarded(code, "--seconds", "10") as hanging:
        said, complained = hanging.communicate()
    assert hanging.returncode == 124
    assert complained.startswith("\nended after 10 seconds: ")
    assert not Path(f"/proc/{said.strip()}").exists()


@pytest.mark.parametrize(("code", "wanted"), [("print('said')", 0), ("raise SystemExit(5)", 5)])
def test_a_run_that_is_well_stays_as_it_is(code: str, wanted: int) -> None:
    with guarded(code) as done:
        said, _ = done.communicate()
    assert (done.returncode, said) == (wanted, "" if wanted else "said\n")


def test_a_run_that_is_told_to_end_hears_of_it() -> None:
    with guarded("import time; print('up', flush=True); time.sleep(600)") as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "up\n"
        waiting.terminate()
        assert waiting.wait() == 128 + signal.SIGTERM


def guarded(code: str, *options: str) -> subprocess.Popen[str]:
    line = [sys.executable, str(TESTS / "guard.py"), *options, sys.executable, "-c", code]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
