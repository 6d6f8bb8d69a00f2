"""What the server of a local sweep imports before the first run: see ``igo.sweep.local``.

A run is a fork of the server. So all runs of a sweep have, and record, the code of its start, even
if a source is edited meanwhile.
"""

import importlib
import os
import pkgutil

import igo
from igo.runs import manifest

NOT_OF_A_RUN = ("adapters", "report")

os.setpgrp()  # What stops the sweep, such as Ctrl-C, must not end the server before its runs.
# The next three functions keep what they return. So all forks have it as it is now.
manifest.code()
manifest.commit()
manifest.changes()
for module in pkgutil.walk_packages(igo.__path__, "igo."):
    if module.name.split(".")[1] not in NOT_OF_A_RUN:
        importlib.import_module(module.name)
