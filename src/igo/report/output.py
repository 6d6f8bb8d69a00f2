"""The files of a report, and the folder that they are written into."""

from collections.abc import Mapping
from pathlib import Path

from polars import DataFrame, String, col

from igo.ground.errors import UserError
from igo.ground.files import alone, replace_all, writing


def csv_of(table: DataFrame) -> bytes:
    """A table as CSV. A record may hold any text: a spreadsheet must take none for a formula."""
    texts = col(String).str.replace("^([=+@])", "'$1")
    return table.with_columns(texts).write_csv().encode()


def write_output(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files of a report, or none; make their folders."""
    with writing("output", folder), alone(folder):
        for inner in {(folder / name).parent for name in contents} - {folder}:
            inner.mkdir(exist_ok=True)
            if inner.is_symlink():
                raise UserError(f"{inner} is a link: remove it")
        replace_all({folder / name: data for name, data in contents.items()})
