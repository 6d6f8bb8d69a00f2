"""A cache is what igo wrote, or is made again, with a line: facts, fingerprints and pixels."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from damages import ANY, Damage, written
from data_files import write_images, write_npz
from recorded import edit

from igo.data import folders, identity, resized
from igo.data.readers import Place
from igo.data.resized import PIXELS, SEAL, SHAPES
from igo.ground.files import write_json


def of_numpy(array: np.ndarray) -> Damage:
    file = io.BytesIO()
    np.save(file, array)
    return written(file.getvalue())


def other_entries(file: Path) -> None:
    """Numbers and texts of the same kinds."""
    content = json.loads(file.read_text())
    for name, entry in content.items():
        content[name] = [0.25 for _ in entry] if isinstance(entry, list) else type(entry)(7)
    file.write_text(json.dumps(content))


SQUARE = np.full((6, 3), [12, 12, 3])
DAMAGES_OF_SHAPES: dict[str, Damage] = {
    "floats": of_numpy(SQUARE * 1.0),
    "none": of_numpy(SQUARE[:0]),
    "fewer": of_numpy(SQUARE[:5]),
    "negative": of_numpy(-SQUARE),
    "grey": of_numpy(SQUARE * [1, 3, 0] + [0, 0, 1]),
    "flat": of_numpy(SQUARE.ravel()),
    "oblong": of_numpy(SQUARE * [2, 1, 1] // [1, 2, 1]),
}


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


@pytest.mark.parametrize("name", [PIXELS, SHAPES, SEAL])
def test_resized_images(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path / "data", write_images(tmp_path / "mine", val=2), image_size=12)
    images = folders.with_form(folders.splits("folder", place)[1])
    assert len(images) == len(SQUARE)
    folder = tmp_path / "data" / "cache"
    resized.kept(folder, "folder", images)
    (cache,) = (path for path in folder.iterdir() if path.is_dir())
    damages = {**ANY, "longer": written(b"0" * 2000)}
    if name == SHAPES:
        damages = {**ANY, **DAMAGES_OF_SHAPES}
    assert_made_again(
        cache / name,
        damages,
        lambda: resized.kept(folder, "folder", images).together().tobytes(),
        lambda: capsys.readouterr().err,
    )
