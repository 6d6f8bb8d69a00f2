"""The report as a person has it: the command, its files, the page, and the page in a browser."""

import csv
import html
import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import python
from PIL import Image
from polars import DataFrame
from recorded import METHODS, edit, record_runs, words_of

from igo.report.report import TEMPLATES, csv_of, run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--window-size=1400,900",
    "--virtual-time-budget=5000",
    "--dump-dom",
)
POINTING = "href|src|srcset|action|data|poster|background|xlink:href"
PHONE = Path(__file__).with_name("phone.html")
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Methods 1–4 on two seeds, with a failed run of hostile words and a damaged one."""
    root = tmp_path_factory.mktemp("mixed") / "runs"
    for overrides in METHODS.values():
        record_runs(root, *overrides, "schedule.stages=3", seeds=range(2))
    (failed_run,) = record_runs(root, "schedule=constant", "schedule.stages=3", seeds=[7])
    edit(failed_run, state="failed", error=HOSTILE)
    (root / "damaged").mkdir()
    (root / "damaged" / "status.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def site(mixed: Path) -> Path:
    """The folder of their report."""
    output = mixed.parent / "report"
    with pytest.MonkeyPatch.context() as patched:  # The page has the command.
        patched.setattr("sys.argv", ["igo report", f"runs={mixed}", f"output={output}"])
        run(words_of(mixed, output))
    return output


@pytest.mark.slow
def test_the_command_writes_the_same_bytes_again(mixed: Path, site: Path) -> None:
    first_bytes = bytes_of(site)
    process = python(mixed.parent, "-m", "igo", "report", f"runs={mixed}", f"output={site}").good()
    assert process.stderr == ""
    lines = process.stdout.splitlines()
    assert lines[0] == "10 runs (2 excluded); 2 figures"
    assert [line for line in lines if line.startswith("digits, 96 images, ")]
    assert lines[-1] == f"wrote {site / 'index.html'}"
    assert bytes_of(site) == first_bytes
    figures = {"training", "noise"}
    expected = {
        f"figures/{name}.{suffix}" for name in figures for suffix in ("png", "pdf", "svg", "csv")
    }
    tables = {"runs.csv", "settings.csv", "epochs.csv", "settings.tex"}
    assert set(first_bytes) == {*expected, *tables, "index.html"}
    for name in figures:
        with Image.open(site / "figures" / f"{name}.png") as image:
            assert image.width > 500
        assert first_bytes[f"figures/{name}.pdf"].startswith(b"%PDF")
        assert b"CreationDate" not in first_bytes[f"figures/{name}.pdf"]


def test_the_page_fetches_nothing_and_its_links_lead_somewhere(site: Path) -> None:
    text = (site / "index.html").read_text()
    for link in re.findall(rf' (?:{POINTING})="([^"]*)"', text):
        if link.startswith("#"):
            assert f' id="{link[1:]}"' in text, link
        elif link.endswith("/"):
            assert (site / link / "status.json").is_file(), link
        elif link != "data:,":
            assert (site / link).is_file(), link
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # They name no places.
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= names
    text = text.replace("url(#", "")  # It is in the page itself.
    for loading in ("url(", "@import", "<script", "javascript:"):
        assert loading not in text, loading
    assert len(text) < 400_000


def test_the_page_says_what_is_in_no_mean_and_nothing_breaks_out(mixed: Path, site: Path) -> None:
    text = (site / "index.html").read_text()
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False) in text.replace("&#34;", '"')
    assert not re.search("<(script|img|iframe)", text)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
    assert "damaged: unreadable (status.json is damaged" in plain
    assert "8 finished, 1 failed, 1 unreadable" in plain
    for words in ("cpu A CPU, cores 2, threads 1", "c0ffee" * 6, "torch 2.9.0"):
        assert words in re.sub(r"\s+", " ", plain), words
    assert "igo train schedule=constant schedule.stages=3 seed=0,1 -m" in plain
    with (site / "runs.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert len(rows) == 10
    assert sum(row["counted"] == "true" for row in rows.values()) == 8
    assert str(mixed.parent) not in (site / "runs.csv").read_text()
    assert not {"folder", "runs_dir", "data_dir"} & rows.popitem()[1].keys()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the path: apt-get install chromium")
def test_on_a_phone_without_a_network(site: Path, tmp_path: Path) -> None:
    """Nothing is hidden or to scroll sideways, and the console has no word."""
    frame = tmp_path / "frame.html"
    frame.write_text(PHONE.read_text().replace("PAGE", (site / "index.html").as_uri()))
    process = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path}/profile", frame.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CONSOLE" not in process.stderr
    probe = re.search(r'data-probe="([^"]*)"', process.stdout)
    assert probe is not None, "the probe ended early"
    findings = json.loads(html.unescape(probe[1]))
    assert findings == {"wide": [390, 390], "drawn": True, "whole": True, "shown": True}


def test_a_name_is_no_formula_of_a_spreadsheet_and_no_command_of_tex() -> None:
    table = DataFrame({"name": ["=1+1", "+x", "@y", "a=b"], "number": [-1, 2, 3, 4]})
    cells = [row["name"] for row in csv.DictReader(csv_of(table).decode().splitlines())]
    assert cells == ["'=1+1", "'+x", "'@y", "a=b"]
    settings = [defaultdict[str, int](int)]
    labels = {0: r"\input{x}^~"}
    text = TEMPLATES.get_template("page.tex").render(settings=settings, labels=labels)
    assert r"\textbackslash input\{x\}\textasciicircum \textasciitilde" in text
