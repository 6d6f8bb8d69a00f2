"""A page of a study: its text between two marks, its tables and its figure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from igo.ground.files import write_atomically
from igo.ground.statistics import Array, mean_of
from igo.report.formats import signed
from lab.markdown import markdown
from lab.study.design import ROOT, Arms, Record, Runs, Study

RESULTS = ROOT / "results"

START, END = "<!-- made by make study -->\n", "<!-- end of rows -->\n"


@dataclass(frozen=True)
class Page:
    """What results/NAME.md shows of a study: a text, a figure, and CSVs of its arms.

    With ``tuned``, the endpoint by which arms were tuned, there is also a CSV of the tuning.
    """

    name: str
    study: Study
    summary: Callable[[Arms], str]
    draw: Callable[[Arms, Path], None]
    tables: Mapping[str, Callable[[Arms], str]]
    tuned: str = ""

    def csvs(self, runs: Runs, arms: Arms) -> dict[str, str]:
        """The CSVs, by the names of their files."""
        texts = {file: function(arms) for file, function in self.tables.items()}
        if self.tuned:
            texts[f"{self.name}_tuning.csv"] = tuning(self.study, runs, self.tuned)
        return texts

    def write(self) -> None:
        """Write the page of the archive, if it has the seeds."""
        runs = self.study.archived()
        if arms := self.study.arms(runs):
            put(self.summary(arms), RESULTS / f"{self.name}.md")
            self.draw(arms, RESULTS / f"{self.name}.png")
            for file, text in self.csvs(runs, arms).items():
                write_atomically(RESULTS / file, text)


def formatted(lines: Iterable[Record], columns: Mapping[str, str]) -> str:
    """A table of Markdown: under each head the lines' numbers, as a format string says."""
    cells = [[cell.format(**line) for cell in columns.values()] for line in lines]
    return markdown([*columns], cells)


def csv(lines: Iterable[Record], digits: int = 2) -> str:
    """The lines as CSV, numbers with so many digits after the point."""
    return pl.DataFrame(lines).write_csv(float_precision=digits)


def tuning(study: Study, runs: Runs, endpoint: str) -> str:
    """The mean of an endpoint by each tried setting, with its standard error, as CSV.

    The tuning's runs are those whose seeds are not judged.
    """
    # Records of old archives have no job; some jobs are of an earlier tuning, which the study no
    # longer names.
    jobs = {study.key(job): job for job in study.jobs(runs)}
    lines = [{**(jobs.get(name) or run["job"]), "end": run[endpoint]} for name, run in runs.items()]
    tried = pl.DataFrame([line for line in lines if line["seed"] not in study.seeds])
    settings = [name for name in tried.columns if name not in ("seed", "end")]
    end = pl.col("end")
    error = end.std() / pl.len().sqrt()
    means = tried.group_by(settings).agg(seeds=pl.len(), mean=end.mean(), standard_error=error)
    return means.sort(settings).write_csv(float_precision=5)


def intervals(samples: Mapping[str, Array]) -> Record:
    """The mean of each sample, NAME, with Student's 95 % interval, NAME_low and NAME_high."""
    columns: Record = {}
    for name, sample in samples.items():
        mean = mean_of(sample)
        columns |= {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}
    return columns


def with_interval(line: Record, name: str, digits: int = 2, factor: float = 1) -> str:
    """A mean of ``intervals`` with its ends, times a factor, as text; "" if the line has none."""
    if name not in line:
        return ""
    numbers = (factor * line[f"{name}{end}"] for end in ("", "_low", "_high"))
    value, low, high = (signed(number, f".{digits}f") for number in numbers)
    return f"{value} [{low}, {high}]"


def mean_with_interval(sample: Array, digits: int = 2) -> str:
    """The mean of a sample, with Student's 95 % interval."""
    return with_interval(intervals({"mean": sample}), "mean", digits)


def put(text: str, path: Path) -> None:
    """Write the text between the marks of a page."""
    head, _, rest = path.read_text().partition(START)
    write_atomically(path, head + START + text + END + rest.partition(END)[2])
