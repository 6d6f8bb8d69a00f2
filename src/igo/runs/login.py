"""The login to W&B: is there a key, and does no settings file send it to another server?"""

from __future__ import annotations

import configparser
import contextlib
import io
import os
from pathlib import Path

from igo.ground.errors import UserError

LOCAL_SETTINGS = ("entity", "project", "mode", "disabled")  # allowed in a folder's W&B file


def leave_the_home(root: Path) -> None:
    """W&B, which is not started yet, writes into root/wandb: a node's home may be read-only."""
    os.environ.setdefault("WANDB_DATA_DIR", str(root / "wandb"))  # what waits to be sent
    os.environ.setdefault("WANDB_CACHE_DIR", str(root / "wandb" / "cache"))  # its server's log


def knows_key() -> bool:
    """Whether there is a key to log in with; no server is asked."""
    import wandb

    refuse_foreign_settings(Path(os.environ.get("WANDB_DIR", ".")))
    with contextlib.redirect_stderr(io.StringIO()):
        return bool(wandb.login(prompt=False, verify=False))


def refuse_foreign_settings(folder: Path) -> None:
    """Refuse W&B settings in a folder, which others may have written, except LOCAL_SETTINGS."""
    for file in (folder / "wandb" / "settings", folder / ".wandb" / "settings"):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(file.read_bytes().decode())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, configparser.Error):
            raise UserError(f"{file} cannot be read; W&B would follow it, so remove it") from None
        names = {name for section in parser.values() for name in section} - set(LOCAL_SETTINGS)
        if names:
            raise UserError(
                f"{file} sets {min(names)}; such a file may send your W&B key to another server."
                " Remove it, and name your server by WANDB_BASE_URL or `wandb login --host`"
            )
