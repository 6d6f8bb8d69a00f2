"""`igo`: one name for all programs."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT, Ended, python

from igo.__main__ import COMMANDS

SOURCES = str(ROOT / "src")


def igo(folder: Path, *typed: str, path: str = SOURCES) -> Ended:
    return python(folder, "-m", "igo", *typed, PYTHONPATH=path)


def test_help_lists_every_command_with_what_it_does(tmp_path: Path) -> None:
    ended = igo(tmp_path).good()
    assert ended.stderr == ""
    lines = [line.split(maxsplit=1) for line in ended.stdout.splitlines()[2:-2]]
    assert [name for name, _ in lines] == list(COMMANDS)
    for (_, says), config_name in zip(lines, COMMANDS.values(), strict=True):
        assert (ROOT / "conf" / f"{config_name}.yaml").read_text().startswith(f"# {says}\n")


def test_a_wrong_command_is_one_line(tmp_path: Path) -> None:
    ended = igo(tmp_path, "tabel")
    assert ended.stdout == ""
    assert "no command 'tabel'. Did you mean 'table'?" in ended.error()
