"""Where this project's own files are: in a clone at its top, in an installed package in it.

Links in the package lead to the former, and their targets are what a wheel has in their place.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
CONF = (PACKAGE / "conf").resolve()  # Hydra's groups
LAUNCH = (PACKAGE / "launch").resolve()  # groups too: what a person launches
