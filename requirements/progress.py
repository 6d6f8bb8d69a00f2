"""Of pip's lines, those that tell how far it is, each at once: pip install … | python progress.py.

awk would do, but for mawk, Debian's, which reads to the end of a block before it shows a line.
"""

import re
import sys

INSTALLING = "Installing collected packages:"

for line in sys.stdin:
    if re.search(r"Downloading .*\(\d\d+\.\d MB\)", line):
        print(f"  {line.strip()}", flush=True)
    elif line.startswith(INSTALLING):
        print(f"  Installing {line.count(',') + 1} packages", flush=True)
