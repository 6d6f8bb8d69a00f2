"""W&B's own files of a run, in RUNS_DIR/wandb: where they are, what is in them, if it is sent."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MARK = ".wandb.synced"  # beside a .wandb file all of which a server has, as `wandb sync` says it


def folders_of(root: Path, run_id: str) -> list[Path]:
    """The local W&B folders of all starts of one run, in the order of their time.

    Their names end in the id, or, of a second start within a second, in a number behind it.
    """
    found = {file.parent for file in (root / "wandb").glob(f"*run-*/run-{run_id}.wandb")}
    return sorted(found, key=lambda folder: folder.name.removeprefix("offline-"))


def mark_sent(root: Path, run_id: str) -> None:
    """Mark all local W&B folders of a run as `wandb sync` does: the server has what is in them."""
    for folder in folders_of(root, run_id):
        for file in folder.glob("*.wandb"):
            file.with_suffix(MARK).touch()


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows in a local W&B run folder."""
    return [entry["item"] for kind, entry in entries(folder) if kind == "history"]


def entries(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """All in a local W&B run folder, type and content, by `wandb leet inspect`; no torn end."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    read = []
    for line in found.stdout.splitlines():
        with contextlib.suppress(ValueError, LookupError):
            entry = json.loads(line)
            read.append((entry["type"], entry[entry["type"]]))
    return read
