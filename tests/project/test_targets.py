"""Every target of the Makefile runs, in a short form, in a copy of the project."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest
from clone import clone, succeed
from conftest import ROOT, TINY
from recorded import record_runs
from wandb_server import KEY, WandbServer

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
SHORT = " ".join(TINY)
ELSEWHERE = {  # not run here, and who runs them
    "setup": "CI, before make test: nothing else makes .venv",
    "test": "CI",
    "types": "CI, in make test",
    "test-lesser": "CI",
    "test-slow": "CI",
    "test-long": "a person: half an hour",
    "test-faults": "CI",
    "test-slurm": "CI, as root",
    "examples": "CI",
    "gpu": "test_gpu_program.py",
    "coverage": "a person: an hour, of all tests",
    "mutants": "a person: an hour",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return clone(tmp_path)


@pytest.fixture
def recorded(place: Path) -> Path:
    """A clone with six finished runs of two settings."""
    record_runs(place / "runs", "p=0.5")
    record_runs(place / "runs", "p=1")
    return place


def targets() -> set[str]:
    (names,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(names.split())


def test_every_target_is_run() -> None:
    here = set(re.findall(r"make ([a-z-]+)[ \"]", Path(__file__).read_text())) - {"test"}
    assert here & ELSEWHERE.keys() == set()
    assert here | ELSEWHERE.keys() == targets()
    ci = (ROOT / ".ci" / "run").read_text()
    for target, who in ELSEWHERE.items():
        run = re.search(rf"^ *make {target}( |$)", ci, re.MULTILINE)
        assert who != "CI" or run, target


def test_help_lists_every_target(place: Path) -> None:
    listed = {line.split()[0] for line in succeed(place, "make help").splitlines()}
    assert listed == targets()
    assert succeed(place, "make") == succeed(place, "make help")


@pytest.mark.slow
def test_train(place: Path) -> None:
    out = succeed(place, f'make train ARGS="{SHORT} tracking=none"')
    assert "test accuracy" in out
    assert len(list(place.glob("runs/digits-resnet8-graduated-*/checkpoint.pt"))) == 1


@pytest.mark.slow
def test_sweep_and_its_status(place: Path) -> None:
    words = f"{SHORT} p=1 split=1 seed=0,1 tracking=none"
    assert "2 finished" in succeed(place, f'make sweep ARGS="{words}"')
    for command in ("make sweep-status", "make sweep-status SWEEP=p_split"):
        out = succeed(place, command)
        assert re.search(r"^sweep p_split-\w+: 2 finished$", out, re.MULTILINE), command


def test_table(recorded: Path) -> None:
    assert "6 runs (6 finished), 2 settings" in succeed(recorded, "make table")
    assert pl.read_csv(recorded / "runs" / "table.csv").height == 6


@pytest.mark.slow
def test_report(recorded: Path) -> None:
    """Also of a folder whose name has blanks."""
    (recorded / "runs").rename(recorded / "my runs")
    succeed(recorded, "make report RUNS='my runs' OUT='else where'")
    assert "<html" in (recorded / "else where" / "index.html").read_text()


@pytest.mark.slow
def test_power(recorded: Path) -> None:
    out = succeed(recorded, 'make power ARGS="difference=1 margin=0.5"')
    assert "p = 0.5" in out
    assert "p = 1" in out


@pytest.mark.slow
def test_dashboard(recorded: Path) -> None:
    """Without a display it says which page to open; again, it keeps the page of the same runs."""
    page = recorded / "report" / "index.html"
    assert f"open {page} in a browser" in succeed(recorded, "make dashboard")
    written = page.stat().st_mtime_ns
    assert f"open {page} in a browser" in succeed(recorded, "make dashboard")
    assert page.stat().st_mtime_ns == written


@pytest.mark.slow
def test_sharpness(place: Path, program: Callable[..., object]) -> None:
    program(*TINY, "tracking=none")
    assert "1 measured" in succeed(place, "make sharpness ARGS=samples=50")
    assert len(list(place.glob("runs/*/sharpness.json"))) == 1


@pytest.mark.slow
def test_sync(place: Path, program: Callable[..., object]) -> None:
    program(*TINY)
    with WandbServer() as server:
        succeed(place, "make sync", WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
        (run,) = server.runs.values()
        assert run.received == [1, 2, 3]


@pytest.mark.slow
def test_theory(place: Path) -> None:
    before = (place / "results" / "theory" / "decay_rates.csv").read_bytes()
    succeed(place, 'make theory ARGS="study=decay_rates output=again"')
    assert (place / "again" / "decay_rates.csv").read_bytes() == before


@pytest.mark.long
def test_noise(place: Path) -> None:
    """All six studies, each with less of everything; one of them is of Fashion-MNIST."""
    short = "dataset.samples=512 epochs=2 model.width=4 draws=100 seeds=2 calls=20 repeats=3"
    if not FASHION_MNIST.is_dir():
        pytest.skip(f"{FASHION_MNIST} is not here")
    succeed(place, f'make noise ARGS="{short} output=again"')
    written = {path.name for path in (place / "again").iterdir()}
    assert written >= {"README.md"}
    page = (place / "again" / "README.md").read_text()
    for study in ("lemma", "omega", "feedback", "online_cost"):
        assert f"study={study}" in page


@pytest.mark.slow
def test_study(place: Path) -> None:
    """The rows and both tables are those of the records: nothing changes."""
    files = [place / name for name in ("results/rows.yaml", "README.md", "results/README.md")]
    before = [path.read_bytes() for path in files]
    succeed(place, "make study")
    assert [path.read_bytes() for path in files] == before


@pytest.mark.slow
def test_reproduce(place: Path) -> None:
    out = succeed(place, "make reproduce ROW=a_method2 SEEDS=2")
    assert "a_method2: undecided with seeds 100 to 101" in out


@pytest.mark.long
def test_reproducible(place: Path) -> None:
    out = succeed(place, "make reproducible ARGS=1")
    same = re.findall(
        r"^\| nothing: .*\| same bits \| same bits \| same bits \|", out, re.MULTILINE
    )
    assert len(same) == 2


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("make bench QUICK=1", marks=pytest.mark.long),
        pytest.param("make bench QUICK=1 ARGS=startup", marks=pytest.mark.slow),
        pytest.param("make bench-lesser QUICK=1 ARGS=small-32", marks=pytest.mark.slow),
    ],
)
def test_bench(place: Path, command: str) -> None:
    out = succeed(place, command)
    assert "written: " in out
    assert list((place / "benchmarks" / "results").rglob("quick/*.json"))


def test_lint(place: Path) -> None:
    assert "All checks passed!" in succeed(place, "make lint")


@pytest.mark.slow
def test_unit_and_its_kin(place: Path) -> None:
    assert " passed" in succeed(place, 'make unit ARGS="-n 0 tests/data/test_readers.py"')
    assert " skipped" in succeed(place, 'make test-gpu ARGS="tests/train/test_optim.py"', **NO_GPU)


@pytest.mark.slow
def test_docs(place: Path) -> None:
    """Every page is there, every link of the site within it leads somewhere, a notebook runs."""
    succeed(place, "make docs")
    site = place / "build" / "site"
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "results/README.md"]:
        assert site / page.relative_to(ROOT).with_suffix(".html") in pages
    wrong = [
        f"{path.relative_to(site)}: {link}"
        for path, text in pages.items()
        for link in re.findall(r'(?:href|src)="([^"]+)"', text)
        if not re.match(r"[a-z]+:|//", link) and not leads_somewhere(path, link, pages)
    ]
    assert wrong == []
    for name in ("own-loop", "measure-the-noise", "add-a-schedule"):
        assert "cell_output" in pages[site / "docs" / f"{name}.html"]
    succeed(place, "jupyter execute build/site/docs/own-loop.ipynb", JUPYTER_PLATFORM_DIRS="1")


def leads_somewhere(page: Path, link: str, pages: dict[Path, str]) -> bool:
    """A link within a site: its file is there, and has the anchor."""
    name, _, anchor = unquote(html.unescape(link)).partition("#")
    target = (page.parent / name.partition("?")[0]).resolve() if name else page
    if target not in pages:
        return target.is_file() and not anchor
    return not anchor or f'id="{html.escape(anchor)}"' in pages[target]


def test_lock(place: Path) -> None:
    """Tried without a network: it says what it would solve, in options that pip-compile has."""
    solved = place / "requirements"
    locks = [solved / "constraints.txt", *sorted(solved.glob("*.lock"))]
    before = [path.read_bytes() for path in locks]
    out = succeed(place, "make lock ARGS=--dry-run", PIP_INDEX_URL="http://127.0.0.1:9/")
    assert sorted(solved.glob("*.lock")) == locks[1:]
    assert [path.read_bytes() for path in locks] == before
    for lock in locks:
        assert f"requirements/{lock.name}" in out
    known = succeed(place, ".venv/bin/pip-compile --help")
    for option in re.findall(r" (--[a-z-]+)", out):
        assert option in known


def test_clean(place: Path) -> None:
    """Caches and .venv go, here a link to the environment that runs this; runs and data stay."""
    for name in ("runs", "data", ".ruff_cache", "src/igo.egg-info"):
        (place / name).mkdir()
    succeed(place, "make clean")
    assert (place / "runs").is_dir()
    assert (place / "data").is_dir()
    for name in (".venv", ".ruff_cache", "src/igo.egg-info"):
        assert not (place / name).exists()
    assert Path(sys.executable).exists()
