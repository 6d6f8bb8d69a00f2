"""Sphinx builds the site from the pages as GitHub shows them: make docs."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

import jupytext
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[1]  # the source folder: links between pages are those of the clone

project = "igo"
author = "the igo authors"
copyright = author
release = metadata.version("igo")
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "results/*.md",
    "results/*/README.md",
]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
highlight_language = "text"

html_theme = "furo"
html_title = f"igo {release}"
html_show_copyright = False
html_theme_options = {"light_css_variables": {"code-font-size": "0.74em"}}  # 100 columns

myst_heading_anchors = 4
# $…$ and $$…$$ are LaTeX, which becomes MathML: neither building nor reading needs a network.
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
# Pages whose blocks of Python run, as one program a page, when the site is built.
RUNS = ("first-hour.md", "own-loop.md", "resume.md", "processes.md", "noise.md", "ramps.md")
nb_custom_formats = {name: ["jupytext.reads", {"fmt": "md"}] for name in RUNS}
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True  # what a loop prints is one block

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
default_role = "code"

CONTENTS = {
    "Begin": "docs/first-hour docs/idea",
    "Your own loop": "docs/own-loop docs/resume docs/processes docs/trainers docs/ramps docs/api",
    "The program": "docs/settings docs/choose-settings docs/own-data-and-model docs/record"
    " docs/sweeps",
    "Measure": "docs/noise docs/report",
    "Results": "docs/reproduce results/README results/*/README results/[!R]*",
    "What holds": "docs/reliability docs/performance docs/gpu docs/log",
    "Change it": "CONTRIBUTING docs/architecture CHANGELOG",
}

# Code and LaTeX, which stay as they are, or the spaces of a formula, where no line may break.
FORMULA = re.compile(
    r"(```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]+\$|^ {4}[^\n]*)"
    r"|(?<=\S) ([=≈<>≤≥∝∈·×+−/]) (?=\S)| (?=√)",
    re.S | re.M,
)


def with_targets(_: Sphinx, docname: str, source: list[str]) -> None:
    """Fit a page to the site.

    Links to folders become plain text, since the site has no folders. Pages that run link to their
    notebook. README has the contents.
    """
    text = re.sub(r"\[([^\]]+)\]\([^):]+/\)", r"\1", source[0])
    text = FORMULA.sub(lambda m: m[1] or (f"\u00a0{m[2]}\u00a0" if m[2] else "\u00a0"), text)
    if (page := f"{Path(docname).name}.md") in RUNS:
        text += f'\n<a href="{page.removesuffix(".md")}.ipynb">This page as a notebook</a>\n'
    if docname == root_doc:
        for caption, pages in CONTENTS.items():
            listed = "\n".join(pages.split())
            text += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{listed}\n```\n"
    source[0] = text


def add_files(app: Sphinx, error: Exception | None) -> None:
    """README.html also as index.html, where a site begins, and the pages that run as notebooks."""
    if not error and app.builder.format == "html":
        shutil.copy(app.outdir / "README.html", app.outdir / "index.html")
        for page in RUNS:
            notebook = jupytext.read(ROOT / "docs" / page)
            jupytext.write(notebook, str(app.outdir / "docs" / page.replace(".md", ".ipynb")))


def inline_formula(page: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in a line."""
    page.body.append(convert(node.astext()))
    raise nodes.SkipNode


def formula(page: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on its own."""
    page.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
    app.connect("source-read", with_targets)
    app.connect("build-finished", add_files)
