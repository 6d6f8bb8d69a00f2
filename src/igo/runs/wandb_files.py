"""W&B's own files of a run, in RUNS_DIR/wandb: their folders, content and marks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MARK = ".wandb.synced"  # of a file beside a .wandb file that was sent; `wandb sync` uses it too


def folders_of(root: Path, run_id: str) -> list[Path]:
    """The local W&B folders of all starts of a run, the oldest first.

    Their names end in the id, or, at a second start within a second, in the id and a number.
    """
    folders = {file.parent for file in (root / "wandb").glob(f"*run-*/run-{run_id}.wandb")}
    return sorted(folders, key=lambda folder: folder.name.removeprefix("offline-"))


def mark_sent(root: Path, run_id: str) -> None:
    """Mark all local W&B folders of a run as sent, as `wandb sync` does."""
    for folder in folders_of(root, run_id):
        for file in folder.glob("*.wandb"):
            file.with_suffix(MARK).touch()


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows in a local W&B run folder."""
    return [entry["item"] for kind, entry in entries(folder) if kind == "history"]


def entries(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Type and content of each entry in a local W&B run folder, without a torn end."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    inspected = subprocess.run(command, capture_output=True, text=True, check=False)
    read = []
    for line in inspected.stdout.splitlines():
        with contextlib.suppress(ValueError, LookupError):
            entry = json.loads(line)
            read.append((entry["type"], entry[entry["type"]]))
    return read
