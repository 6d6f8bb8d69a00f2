"""Where this project's own files are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"  # Hydra's groups
LAUNCH = ROOT / "launch"  # groups too: what a person launches
