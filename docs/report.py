"""Draw docs/report.png: the report of Methods 1 to 4 on CIFAR-100. It needs chromium."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from omegaconf import OmegaConf

from igo.ground.files import CONF, sealed
from igo.report import report

HERE = Path(__file__).parent
RECORDS = HERE.parent / "results" / "records" / "cifar100_many.tar.xz"
# The archive is older than 1.0, and has settings that are no more.
GONE = re.compile(rb"^  (cache|memory|threads): .*\n|^  timm: false\n(?=  beta1)", re.MULTILINE)
# Width and height in pixels.
DOCS = (1100, 1900)
OTHERS = {"desktop": (1440, 3000), "tablet": (768, 3000)}
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--virtual-time-budget=4000",
)  # fmt: skip


def as_of_1_0(name: str, content: bytes) -> bytes:
    """A file of an older run as it is written today: in an epoch of these runs η and b stay."""
    if name == "config.yaml":
        return GONE.sub(b"", content)
    if name == "status.json":
        return json.dumps(sealed(json.loads(content))).encode()
    if name != "metrics.jsonl":
        return content
    records = [json.loads(line) for line in content.splitlines()]
    for record in records:
        eta, b = record["eta_m"], record["b_m"]
        record |= {"eta_largest": eta, "b_largest": b, "eta_over_sqrt_b": eta / b**0.5}
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def make(place: Path) -> Path:
    """The page of the program's runs in the archive: not of those in reversed order."""
    runs = place / "runs"
    with tarfile.open(RECORDS) as tar:
        for entry in tar:
            run, _, name = entry.name.partition("/")
            file = tar.extractfile(entry)
            if file and not run.endswith("-reversed"):
                (runs / run).mkdir(parents=True, exist_ok=True)
                (runs / run / name).write_bytes(as_of_1_0(name, file.read()))
    output = place / "report"
    settings = OmegaConf.load(CONF / "report.yaml")
    report.run(OmegaConf.merge(settings, {"runs": str(runs), "output": str(output)}))
    return output / "index.html"


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    """The top of a page as PNG, with all colours that a browser shows."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))))
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}",
             f"--screenshot={picture}", page.as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


def main() -> None:
    """The picture of the docs; with a folder, those of other widths too."""
    parser = argparse.ArgumentParser(description=__doc__)
    help_of_out = "a folder that gets pictures of other widths too"
    parser.add_argument("out", nargs="?", type=Path, help=help_of_out)
    folder: Path | None = parser.parse_args().out
    with tempfile.TemporaryDirectory() as place:
        page = make(Path(place))
        photograph(page, HERE / "report.png", *DOCS)
        for name, looks in OTHERS.items() if folder else ():
            photograph(page, Path(str(folder)).resolve() / f"{name}.png", *looks)


if __name__ == "__main__":
    main()
