"""What keeps the suite from hanging: a test's time is enforced, and a crash ends the run.

pytest-timeout interrupts a test that takes too long, and the run goes on. That fails where Python
itself does not come back, as in C code that holds the GIL, or where what was interrupted waits
again: then a thread of C writes where every thread is and ends the process, which pytest-xdist
reports with the test's name as a crash. Whatever a process leaves behind is killed by guard.py.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys

import pytest
import pytest_timeout

GRACE = 30.0  # seconds from the interruption of a test to the end of its process
LIMIT = pytest.StashKey[float]()
CRASHED = pytest.StashKey[bool]()
PR_SET_PDEATHSIG = 1

_terminal = -1  # standard error, whatever a test has put in its place


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep standard error at hand; a worker that crashed is not replaced."""
    global _terminal  # noqa: PLW0603
    _terminal = os.dup(2)
    if hasattr(config.option, "maxworkerrestart"):
        config.option.maxworkerrestart = "0"
    if hasattr(config, "workerinput") and sys.platform == "linux":
        # A fork has the worker's pipes: pytest-xdist hears of a crash when both are gone.
        libc = ctypes.CDLL(None)
        os.register_at_fork(
            after_in_child=lambda: libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        )


# --- Time -----------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> None:
    """With the timer of pytest-timeout goes one that needs no Python."""
    item.stash[LIMIT] = settings.timeout
    _watch(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Again: both timers are stopped where a test has failed."""
    _watch(item)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    """The test has ended, or a debugger is at work."""
    faulthandler.cancel_dump_traceback_later()


def _watch(item: pytest.Item) -> None:
    limit = item.stash.get(LIMIT, 0.0)
    if limit and not pytest_timeout.is_debugging():
        faulthandler.dump_traceback_later(limit + GRACE, exit=True, file=_terminal)


# --- Crashes of pytest-xdist's workers ------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """Remember a crash: between two tests it would fail none."""
    if error:
        node.config.stash[CRASHED] = True  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """End the run at a crash: its other workers may wait for what does not come, or crash, too."""
    if report.when == "???":  # what pytest-xdist says of a test whose worker is gone
        pytest.exit(f"{report.longrepr}, and the run ended", returncode=1)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """No run is well in which a worker crashed."""
    if exitstatus == 0 and session.config.stash.get(CRASHED, False):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
