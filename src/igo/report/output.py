"""The folder that a table or a report is written into."""

from collections.abc import Mapping
from pathlib import Path

from polars import DataFrame, String, col

from igo.ground.errors import UserError, require
from igo.ground.files import alone, replace_all, writing


def output_folder(output: object) -> Path:
    """The folder that the setting ``output`` names. It need not exist."""
    is_name = isinstance(output, str) and output != "" and not Path(output).is_file()
    require(is_name, "output", output, "it must be the name of a folder")
    return Path(str(output))


def csv_of(table: DataFrame) -> bytes:
    """A table as CSV. A spreadsheet takes no text of it for a formula, as a record may hold any."""
    texts = col(String).str.replace("^([=+@])", "'$1")
    return table.with_columns(texts).write_csv().encode()


def write_output(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files of a report or a table, or none; make their folders."""
    with writing("output", folder), alone(folder):
        for inner in {(folder / name).parent for name in contents} - {folder}:
            inner.mkdir(exist_ok=True)
            if inner.is_symlink():
                raise UserError(f"{inner} is a link: remove it")
        replace_all({folder / name: data for name, data in contents.items()})
