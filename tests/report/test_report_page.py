"""The report as a person has it: the command, its files, the page, and the page in a browser."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import ROOT, python
from forked import forge
from omegaconf import OmegaConf
from PIL import Image
from recorded import METHODS, edit, record_runs

from igo.ground.errors import ConfigError, UserError
from igo.report import chart, draw, page, program

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--hide-scrollbars",
)  # fmt: skip
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
# A window has 500 pixels or more; a frame, whose width a page sees as its screen's, has any.
FRAME = """<!doctype html><body style="margin:0">
<iframe style="border:0" height="900" width="WIDTH" srcdoc="PAGE"></iframe><script>
const frame = document.querySelector("iframe"), body = document.body;
setInterval(() => {
  const { probe } = frame.contentDocument.documentElement.dataset;
  if (probe) body.dataset.probe = probe;
}, 100);
</script></body>"""
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const all = (what) => [...document.querySelectorAll(what)], root = document.documentElement;
  const seen = { plots: all(".plot svg").length, lines: all(".plot polyline").length };
  seen.tips = all(".plot svg").map((svg) => {
    const box = svg.getBoundingClientRect();
    const at = { clientX: box.left + box.width * 0.6, clientY: box.top + box.height / 2 };
    svg.dispatchEvent(new PointerEvent("pointermove", at));
    const tip = svg.parentElement.querySelector(".tip");
    const text = tip.hidden ? "" : tip.textContent;
    svg.dispatchEvent(new PointerEvent("pointerleave", at));
    return text;
  });
  const legends = all(".legend button");
  legends.forEach((button) => button.click());
  seen.hidden = all(".plot polyline").length;
  legends.filter((node) => node.ariaPressed === "false").forEach((button) => button.click());
  seen.again = all(".plot polyline").length;
  const labels = () => all(".plot svg").map((svg) => svg.getAttribute("aria-label"));
  seen.before = labels();
  all(".switch button:last-child").forEach((button) => button.click());
  seen.after = labels();
  all("details").forEach((node) => { node.open = true; });
  seen.wide = [root.clientWidth, root.scrollWidth, innerWidth];
  const table = document.querySelector("#settings table"), head = table.tHead.rows[0].cells;
  const column = [...head].findIndex((cell) => cell.textContent === "training loss");
  head[column].querySelector("button").click();
  seen.sorted = [...table.tBodies[0].rows].map((row) => +row.cells[column].dataset.v);
  seen.fetched = performance.getEntriesByType("resource").map((node) => node.name);
  root.dataset.probe = JSON.stringify(seen);
}, 200));
</script>"""


def report(runs: Path, output: Path, **more: object) -> str:
    """Write the report of these runs; return its page."""
    program.run(OmegaConf.create({"runs": str(runs), "output": str(output), **more}))
    return (output / "index.html").read_text()


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Links(HTMLParser):
    """What a page points at, its anchors, and its scripts' texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        named = dict(attrs)
        pointing = ("href", "src", "srcset", "action", "data", "poster", "background", "xlink:href")
        self.links += [value for name in pointing if (value := named.get(name))]
        if name := named.get("id"):
            self.ids.add(name)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Methods 1–4 on two seeds, with a failed run of hostile words and a damaged one."""
    root = tmp_path_factory.mktemp("mixed") / "runs"
    for overrides in METHODS.values():
        record_runs(root, *overrides, "schedule.stages=3", seeds=range(2))
    (failed,) = record_runs(root, "schedule=constant", "schedule.stages=3", seeds=[7])
    edit(failed / "status.json", state="failed", error=HOSTILE)
    (root / "damaged").mkdir()
    (root / "damaged" / "status.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def site(mixed: Path) -> Path:
    """The folder of their report."""
    report(mixed, mixed.parent / "report")
    return mixed.parent / "report"


@pytest.mark.slow
def test_the_command_writes_the_same_bytes_again(mixed: Path, site: Path) -> None:
    before = bytes_of(site)
    done = python(mixed.parent, "-m", "igo", "report", f"runs={mixed}", f"output={site}").good()
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "10 runs (2 excluded); 3 figures, 5 skipped"
    assert lines[1].startswith("Methods 1–4: ")
    assert lines[-1] == f"wrote {site / 'index.html'}"
    assert bytes_of(site) == before
    figures = {"methods_training", "methods_noise", "decay_rates"}
    expected = {f"figures/{name}.{suffix}" for name in figures for suffix in ("png", "pdf", "csv")}
    assert set(before) == {*expected, "index.html", "runs.csv", "settings.csv", "epochs.csv"}
    for name in figures:
        with Image.open(site / "figures" / f"{name}.png") as image:
            assert image.width > 500
        assert before[f"figures/{name}.pdf"].startswith(b"%PDF")
        assert b"CreationDate" not in before[f"figures/{name}.pdf"]


def test_the_page_fetches_nothing_and_its_links_lead_somewhere(site: Path) -> None:
    text = (site / "index.html").read_text()
    page = Links(text)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif link.endswith("/"):
            assert (site / link / "status.json").is_file(), link  # of a run
        elif link != "data:,":
            assert (site / link).is_file(), link
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not a place
    text = text.replace("url(#", "")  # of the page itself
    for loading in ("url(", "@import", "fetch(", "XMLHttpRequest", "import(", "sendBeacon"):
        assert loading not in text, loading
    assert len(text) < 300_000


def test_the_page_says_what_is_in_no_mean_and_nothing_breaks_out(mixed: Path, site: Path) -> None:
    text = (site / "index.html").read_text()
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False) in text.replace("&#34;", '"')
    assert len(Links(text).scripts) == 3 + 1  # data of three figures, and the program
    kept = re.sub(r"<(noscript|script)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    assert "<img" not in kept
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text))
    assert "damaged: unreadable (config.yaml is missing)" in plain
    assert "8 finished, 1 failed, 1 unreadable" in plain
    for words in ("A CPU, 2 cores, 1 thread", "c0ffee" * 6, "torch 2.9.0", "Seeds 0, 1"):
        assert words in re.sub(r"\s+", " ", plain), words
    assert "python src/train.py -m schedule=constant schedule.stages=3 seed=0,1" in plain
    with (site / "runs.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert len(rows) == 10
    assert sum(row["counted"] == "true" for row in rows.values()) == 8
    assert str(mixed.parent) not in (site / "runs.csv").read_text()


def test_the_page_names_the_images_and_breaks_no_name(site: Path) -> None:
    text = (site / "index.html").read_text()
    cards = re.findall(r'<p class="kicker">(.*?)</p>', text)
    plain = [re.sub(r"<[^>]+>", "", card).replace("\u00a0", " ") for card in cards]
    assert plain == ["Methods 1–4 · digits (n = 96)"]  # of the band there is one schedule alone
    names = re.findall(r'<td class="name">.*?<span>(.*?)</span><wbr><span>(.*?)</span>', text)
    folders = {row["run"] for row in csv.DictReader((site / "runs.csv").read_text().splitlines())}
    assert {head + digits for head, digits in names} == folders
    assert all(len(digits) == 10 for head, digits in names if head)


def test_the_page_draws_what_the_csv_holds(site: Path) -> None:
    data = [json.loads(text) for text in Links((site / "index.html").read_text()).scripts[:-1]]
    csv_text = (site / "figures" / "methods_training.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(csv_text)))
    accuracy, loss = data[0]["panels"]
    assert data[0]["views"] == ["epochs", "updates"]
    for panel, metric, factor in ((accuracy, "test/accuracy", 100), (loss, "train/loss", 1)):
        for series in panel["series"]:
            of_label = [row for row in rows if row["label"] == series["label"]]
            assert series["x"]["updates"] == [float(row["updates"]) for row in of_label]
            for key, column in (("y", "mean"), ("low", "low"), ("high", "high")):
                expected = [factor * float(row[f"{metric}_{column}"]) for row in of_label]
                assert series[key] == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is written where: a second less a figure."""
    monkeypatch.setattr(draw, "render", lambda _: {"png": b"", "pdf": b""})


@pytest.mark.usefixtures("undrawn")
def test_one_seed_has_neither_interval_nor_test(tmp_path: Path) -> None:
    for p in (0.5, 1):
        record_runs(tmp_path / "runs", f"p={p}", "split=1", seeds=[0])
    text = report(tmp_path / "runs", tmp_path / "report")
    data = json.loads(Links(text).scripts[0])
    assert all(low is None for p in data["panels"] for s in p["series"] for low in s["low"])
    assert ">one seed in common<" in text
    assert "nan" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).lower().split()


def test_no_finished_run_is_a_page_that_says_so(tmp_path: Path) -> None:
    (folder,) = record_runs(tmp_path / "runs", "p=1", seeds=[0])
    edit(folder / "status.json", state="interrupted")
    text = report(tmp_path / "runs", tmp_path / "report")
    assert "No run has finished yet" in text
    assert f"{folder.name}: interrupted" in text
    assert list((tmp_path / "report" / "figures").iterdir()) == []


@pytest.mark.usefixtures("undrawn")
def test_a_report_takes_the_figures_of_the_one_before_away_and_nothing_else(tmp_path: Path) -> None:
    first, second, output = tmp_path / "first", tmp_path / "second", tmp_path / "report"
    for split in (0, 1):
        record_runs(first, "p=1", f"split={split}", seeds=[0])
    record_runs(second, "schedule=constant", seeds=[0])
    report(first, output)
    (output / "figures" / "mine.png").write_text("")
    assert (output / "figures" / "decay_rates.png").is_file()
    report(second, output)
    names = {path.name for path in (output / "figures").iterdir()}
    assert names == {"mine.png"} | {
        f"others_{what}.{suffix}"
        for what in ("training", "noise")
        for suffix in ("png", "pdf", "csv")
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runs": "no"}, "runs=no is not allowed: there is no such folder"),
        ({"runs": []}, "runs=[] is not allowed: it must be a folder, or a list of folders"),
        ({"output": ""}, "output= is not allowed: it must be the name of a folder"),
        ({"output": "a.txt"}, "output=a.txt is not allowed: it must be the name of a folder"),
        ({"margin": 0}, "margin=0 is not allowed: it must be points of test accuracy, above 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("")
    Path("runs").mkdir()
    with pytest.raises(ConfigError) as error:
        program.run(OmegaConf.create({"runs": "runs", "output": "report", **settings}))
    assert str(error.value) == message


def test_a_folder_without_runs_ends_in_one_line(tmp_path: Path) -> None:
    typed = (f"runs={tmp_path}", f"output={tmp_path / 'report'}")
    assert forge.run(tmp_path, *typed, command="report").error() == (
        f"error: runs={tmp_path} is not allowed: it holds no runs (folders with a config.yaml)"
    )
    assert not (tmp_path / "report").exists()


def test_an_output_that_cannot_be_written_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_runs(tmp_path / "runs", "schedule=constant", seeds=[0])
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(program, "read", lambda _: pytest.fail("it is said before runs are read"))
    with pytest.raises(UserError, match=r"output: .*/file/report cannot be written \(Not a dir"):
        report(tmp_path / "runs", tmp_path / "file" / "report")


def browse(page: Path, folder: Path, *flags: str) -> tuple[str, list[str]]:
    """Open a page without a network; return its document and what its console said."""
    folder.mkdir()
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "--window-size=1400,900",
         "--virtual-time-budget=5000", *flags, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probed_in(page: Path, folder: Path, *flags: str) -> dict[str, Any]:
    """What the probe of a page found, without a word on the console."""
    document, console = browse(page, folder, *flags)
    assert console == []
    probe = re.search(r'data-probe="([^"]*)"', document)
    assert probe is not None, "the page's own script ended early"
    return dict(json.loads(html.unescape(probe[1])))


needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the path (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of runs that make every kind of section."""
    root = tmp_path_factory.mktemp("everything")
    runs = root / "runs"
    for overrides in METHODS.values():
        record_runs(runs, *overrides, "schedule.stages=3")
    for p in (0.1, 0.5, 1, 4):
        record_runs(runs, "schedule=polynomial", f"p={p}", "split=1", "epochs=30")
    record_runs(runs, "schedule=cosine", "split=1", "epochs=30")
    for p, split in itertools.product((0.25, 0.75), (0, 0.5, 1)):
        record_runs(runs, f"p={p}", f"split={split}", "epochs=8")
    for eta, b in itertools.product((0.05, 0.1, 0.2), (8, 32)):
        constant = ("schedule=constant", f"learning_rate={eta}", f"batch_size={b}")
        record_runs(runs, *constant, "epochs=4")
    record_runs(runs, "schedule=cosine", "optimizer=shb", seeds=[0])
    for i, folder in enumerate(sorted(runs.iterdir())):
        (folder / "sharpness.json").write_text(json.dumps({"trace": 1.0 + i}))
    report(runs, root / "report")
    return root / "report"


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_without_a_network(everything: Path, width: int, tmp_path: Path) -> None:
    text = (everything / "index.html").read_text()
    probed = html.escape(text.replace("</body>", f"{PROBE}</body>"))
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("PAGE", probed))
    seen = probed_in(frame, tmp_path / "profile")
    data = [json.loads(script) for script in Links(text).scripts[:-1]]
    panels = [panel for figure in data for panel in figure["panels"]]
    assert seen["plots"] == len(panels)
    assert seen["lines"] == sum(s["line"] for panel in panels for s in panel["series"])
    lined = sum(any(s["line"] for s in panel["series"]) for panel in panels)
    assert seen["hidden"] == lined  # the last line of a chart stays
    assert seen["again"] == seen["lines"]
    assert all(seen["tips"])
    assert any("against epoch" in label for label in seen["before"])
    assert any("against updates" in label for label in seen["after"])
    assert not any("against epoch" in label for label in seen["after"])
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True)
    assert len(set(seen["sorted"])) > 10
    assert seen["wide"] == [width, width, width]  # nothing to scroll sideways
    assert seen["fetched"] == []


AXE = ROOT / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
ASK_AXE = """<script>AXE</script><script>
addEventListener("load", () => setTimeout(async () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const tags = ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"];
  const result = await axe.run(document, { runOnly: { type: "tag", values: tags } });
  const background = (of) => {
    const colour = getComputedStyle(of).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? background(of.parentElement) : colour;
  };
  const drawn = [...document.querySelectorAll(".plot text")].map(
    (text) => [getComputedStyle(text).fill, background(text.closest(".plot"))]);
  document.documentElement.dataset.probe = JSON.stringify({
    faults: result.violations.map((part) => [part.id, part.nodes.map((node) => node.html)]),
    held: result.passes.find((part) => part.id === "color-contrast").nodes.length, drawn,
  });
}, 200));
</script>"""


def hexadecimal(colour: str) -> str:
    """#rrggbb of a computed style's rgb(r, g, b)."""
    return "#{:02x}{:02x}{:02x}".format(*map(int, re.findall(r"\d+", colour)[:3]))


@pytest.mark.slow
@needs_chromium
@pytest.mark.skipif(not AXE.exists(), reason="npm install --prefix build/axe axe-core")
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_no_fault(everything: Path, scheme: str, tmp_path: Path) -> None:
    """WCAG AA of the page, all of it open; of charts, whose ground axe leaves open, by hand."""
    before, after = (everything / "index.html").read_text().rsplit("</body>", 1)
    asked = tmp_path / "asked.html"
    asked.write_text(before + ASK_AXE.replace("AXE", AXE.read_text(), 1) + "</body>" + after)
    chosen = f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}"
    seen = probed_in(asked, tmp_path / "profile", chosen)
    assert seen["faults"] == []
    assert seen["held"] > 100
    assert seen["drawn"]
    pairs = {tuple(map(hexadecimal, pair)) for pair in seen["drawn"]}
    assert min(contrast(*pair) for pair in pairs) >= 4.5
    assert {contrast(ground, "#000000") < 3 for _, ground in pairs} == {scheme == "dark"}


@pytest.mark.slow
@needs_chromium
def test_a_broken_script_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<!doctype html><script>absent.name()</script>")
    _, console = browse(page, tmp_path / "profile")
    assert len(console) == 1
    assert "absent is not defined" in console[0]


@pytest.mark.usefixtures("undrawn")
def test_one_epoch_is_a_number(tmp_path: Path) -> None:
    """Four schedules of one epoch are one plan, hence one setting, and no chart of one point."""
    for overrides in (("p=0.1", "split=0"), ("p=1", "split=1"), ("schedule=cosine",)):
        record_runs(tmp_path / "runs", *overrides, "epochs=1", seeds=[0], accuracies=[0.4924])
    text = report(tmp_path / "runs", tmp_path / "report")
    assert list((tmp_path / "report" / "figures").iterdir()) == []
    assert "<svg" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert re.search(r'<td class="tight" data-v="0\.4924">49\.24</td>', text)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", text)).replace("\u00a0", " ")
    assert "the same plan, settings and seed as another run" in plain
    assert "highest" not in plain.partition("How the numbers are made")[0]


@pytest.mark.usefixtures("undrawn")
def test_settings_lead_to_their_runs(tmp_path: Path) -> None:
    folders = record_runs(tmp_path / "a b" / "runs", "p=0.5", seeds=range(2))
    page = Links(report(tmp_path / "a b" / "runs", tmp_path / "c" / "report"))
    assert {"#runs-0"} <= set(page.links)
    linked = {unquote(link) for link in page.links if link.endswith("/")}
    assert linked == {f"../../a b/runs/{folder.name}/" for folder in folders}
    page = Links(report(tmp_path / "a b" / "runs", tmp_path / "d", links=False))
    assert not [link for link in page.links if link.endswith("/")]


@pytest.mark.usefixtures("undrawn")
def test_a_map_has_a_key_and_one_direction(tmp_path: Path) -> None:
    for p, split in itertools.product((0.25, 1), (0, 1)):
        overrides = (f"p={p}", f"split={split}", "batch_size=4")
        record_runs(tmp_path / "runs", *overrides, accuracies=[0.7 + p / 10, 0.7, 0.75])
    text = report(tmp_path / "runs", tmp_path / "report")
    assert re.findall(r"<em>(\w+) is better</em>", text) == ["larger", "smaller"]
    keys = re.findall(r"linear-gradient\(90deg,([^)]+)\)", text)
    assert len(keys) == 2
    for key in keys:  # the larger the lighter, in both
        lightness = [draw.luminance(colour) for colour in key.split(",")]
        assert lightness == sorted(set(lightness))


def test_colours_span_no_less_than_the_intervals() -> None:
    wide = chart.Map("", ["a"], ["b", "c"], "", "", [[1.0, 1.1]], [["", ""]], spread=2.0)
    assert wide.range == (1.0, 1.1)  # what the colour bar shows: values that there are
    first, second = draw.cell_colours(wide)[0]
    assert first == draw.colour_at(0.475)
    assert second == draw.colour_at(0.525)
    tied = chart.Map("", ["a"], ["b"], "", "", [[1.0]], [[""]])
    assert draw.cell_colours(tied) == [[draw.colour_at(0.5)]]


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two colours #rrggbb."""
    light = []
    for colour in (first, second):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(light) / min(light)


def test_text_is_read_in_light_and_dark() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    css = Path(page.HERE / "page.css").read_text()
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-fA-F]{6})", part)) for part in css.split(":root")]
    assert len(schemes) == 3  # before the first, light, dark
    for scheme in schemes[1:]:
        inks, grounds = ("ink", "soft", "accent", "good"), ("paper", "raised", "wash")
        for text, ground in itertools.product(inks, grounds):
            assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
    for share in range(101):
        colour = draw.colour_at(share / 100)
        assert contrast(draw.ink_on(colour), colour) >= 4.5, share


@pytest.mark.usefixtures("undrawn")
def test_bands_are_for_a_few_lines(tmp_path: Path) -> None:
    for count, bands in ((4, True), (5, False)):
        for i in range(count):
            record_runs(tmp_path / str(count), f"p={(i + 1) / 10}", "split=1", seeds=range(2))
        text = report(tmp_path / str(count), tmp_path / f"report{count}")
        data = json.loads(Links(text).scripts[0])
        assert [panel["bands"] for panel in data["panels"]] == [bands, bands]


def test_power_is_printed_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for p in (0.25, 1):
        record_runs(tmp_path / "runs", f"p={p}", "split=1", seeds=range(4))
    settings = {"runs": str(tmp_path / "runs"), "output": str(tmp_path / "report"), "power": True}
    program.run(OmegaConf.create({**settings, "difference": 2.0}))
    printed = capsys.readouterr().out
    assert "find 2" in printed
    assert "p = 0.25 − p = 1" in printed
    assert not (tmp_path / "report").exists()
