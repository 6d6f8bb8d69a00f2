"""Run a full-screen program, and type keys into it when it shows a given text."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

AT_ONCE = 65_536  # bytes
BETWEEN = 0.15  # seconds without output, before the next key is typed


def show(command: Sequence[str], typed: bytes, after: bytes) -> int:
    """Run a program in a new terminal inside this one; return its exit code.

    Args:
        command: the program and its arguments.
        typed: the keys to type.
        after: the text that the program must show before the keys are typed.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    seen, left = b"", [bytes([key]) for key in typed]
    with _raw(terminal):
        while True:
            typing = bool(left) and after in seen
            readable = select.select([0, terminal], [], [], BETWEEN if typing else None)[0]
            if typing and not readable:  # it has shown the effect of the last key
                os.write(terminal, left.pop(0))
            if terminal in readable:
                shown = _read(terminal)
                if not shown:
                    break
                os.write(1, shown)
                seen = (seen + shown)[-AT_ONCE:]
            if 0 in readable:
                os.write(terminal, os.read(0, AT_ONCE))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read(terminal: int) -> bytes:
    """The output of the program; empty when it has ended."""
    try:
        return os.read(terminal, AT_ONCE)
    except OSError:  # EIO, on Linux
        return b""


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Send every key to the program, and keep its terminal at the size of this one."""

    def resize(*_: object) -> None:
        size = fcntl.ioctl(sys.stdin, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)

    before, handler = termios.tcgetattr(0), signal.signal(signal.SIGWINCH, resize)
    resize()
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)
