"""How far pip is, in lines that each come at once: pip install … | python progress.py.

pip is silent while it installs. Then every eight seconds a line has the number of packages that are
there. awk would do for the rest, but mawk, Debian's, reads to the end of a block first.
"""

import re
import sys
import threading
import time
from pathlib import Path
from sysconfig import get_path

INSTALLING = "Installing collected packages:"
SECONDS = 8


def installed() -> int:
    """The packages in this environment."""
    return len(list(Path(get_path("purelib")).glob("*.dist-info")))


def tell() -> None:
    """Say every few seconds how many packages are there."""
    began = time.monotonic()
    while True:
        time.sleep(SECONDS)
        seconds = time.monotonic() - began
        print(f"  {seconds:.0f} s: {installed()} packages are installed", flush=True)


threading.Thread(target=tell, daemon=True).start()
for line in sys.stdin:
    if re.search(r"Downloading .*\(\d\d+\.\d MB\)", line):
        print(f"  {line.strip()}", flush=True)
    elif line.startswith(INSTALLING):
        print(f"  Installing {line.count(',') + 1} packages", flush=True)
