"""A cache is what igo wrote, or is made again, with a line: facts and fingerprints."""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from damages import ANY, Damage, written
from data_files import write_npz
from recorded import edit

from igo.data import identity
from igo.data.readers import Place
from igo.ground.files import write_json


def other_entries(file: Path) -> None:
    """Numbers and texts of the same kinds."""
    content = json.loads(file.read_text())
    for name, entry in content.items():
        content[name] = [0.25 for _ in entry] if isinstance(entry, list) else type(entry)(7)
    file.write_text(json.dumps(content))


def assert_made_again(file: Path, damages: dict[str, Damage], reader: Any, errors: Any) -> None:
    """A reader has the same content, whatever has become of the file, and then it is kept."""
    content = reader()
    assert errors() == ""
    for kind, damage in damages.items():
        damage(file)
        assert reader() == content, kind
        lines = errors().splitlines()
        if kind != "missing" or file.suffix != ".json":
            assert len(lines) == 1, kind
            (line,) = lines
            assert line.startswith(f"warning: {file.parents[1]}"), kind
            assert line.endswith("is not what igo wrote, so it is made again"), kind
        if kind == "folder" and file.is_dir():
            # A folder in the place of facts stays, as a run can do without a cache of them.
            shutil.rmtree(file)
            reader()
        assert (reader(), errors()) == (content, ""), kind


@pytest.mark.parametrize("name", ["facts", "fingerprint"])
def test_facts_and_fingerprints(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are found once for a file that stays, and always where nothing can be kept."""
    file_of_data = write_npz(tmp_path / "mine.npz")
    place = Place(tmp_path / "data", file=file_of_data)
    reader: Any = {"facts": identity.find_facts, "fingerprint": identity.identify}[name]

    def content() -> object:
        facts = reader("arrays", place)
        return [facts[fact] for fact in identity.FACTS] if name == "facts" else facts

    expected = content()
    (file,) = place.cache.iterdir()
    damages = {
        **ANY,
        "5": written(b"5"),
        "unsealed": lambda file: file.write_text(json.dumps({"n": 5, "fingerprint": "x"})),
        "other entries": other_entries,
        "of other data": lambda file: edit(file, of=file.name.replace("a", "b")),
        "sealed": lambda file: write_json(file, {}),
    }
    with mock.patch.object(np, "load", wraps=np.load) as load:
        assert_made_again(file, damages, content, lambda: capsys.readouterr().err)
        assert load.call_count == len(damages) + 1  # one more with a folder in the file's place
        os.utime(file_of_data, ns=(1, 1))
        content()
        assert load.call_count == len(damages) + 2
    shutil.rmtree(place.cache)
    place.cache.touch()
    assert content() == expected
