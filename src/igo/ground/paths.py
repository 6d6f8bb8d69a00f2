"""Where conf/ and launch/ are: at the top of a clone, and inside an installed package.

In a clone, links in the package lead to them; a wheel has the folders in place of the links.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONF = (PACKAGE / "conf").resolve()  # Hydra's groups
LAUNCH = (PACKAGE / "launch").resolve()  # Hydra's groups of sweeps
