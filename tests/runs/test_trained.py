"""A trained model in one call, as a plain file, and as an artifact in W&B."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import TINY, assert_equal, configure, records, run_folder, status
from forked import Death, finished, forge
from wandb_server import entries

import igo
from igo.ground.errors import UserError
from igo.runs.checkpoint import export
from igo.runs.folder import RunFolder
from igo.train.datasets import open_data

RUN = (*TINY, "tracking=none", "save_model=true", "engine.precision=fp32")


def test_a_run_is_loaded_with_the_accuracy_that_its_record_says(tmp_path: Path) -> None:
    """Wherever the folder is; and the plain file has the same model."""
    place = finished(*RUN)
    with pytest.raises(FileNotFoundError, match=r"is no run folder: .* no config\.yaml"):
        igo.load_run(tmp_path)
    shutil.copytree(run_folder(place), tmp_path / "elsewhere")
    random_state = torch.get_rng_state()
    run = igo.load_run(str(tmp_path / "elsewhere"))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not run.model.training
    assert run.config == configure(*RUN, f"runs_dir={place}/runs")
    assert [record["epoch"] for record in run.records] == [1, 2, 3]
    right = total = 0
    for images, labels in open_data(run.config, torch.device("cpu")).test_batches():
        right += int((run.model(images).argmax(1) == labels).sum())
        total += len(labels)
    accuracy = records(place)[-1]["test/accuracy"]
    assert right / total == pytest.approx(accuracy, rel=1e-6)
    file = export(RunFolder(tmp_path / "elsewhere"), run.config)
    assert file.read_bytes() == (run_folder(place) / "model.pt").read_bytes()
    state = torch.load(file, weights_only=True)
    assert_equal(dict(state), dict(run.model.state_dict()))


def test_model_and_records_are_of_one_epoch() -> None:
    """Of a run that was killed between the two files, and of one with an older checkpoint."""
    killed = Death("igo.runs.checkpoint.save", 2, "before")
    assert forge.run(*RUN, death=killed).returncode == -signal.SIGKILL
    folder = run_folder()
    assert len(records(folder)) == 2
    assert [record["epoch"] for record in igo.load_run(folder).records] == [1]
    checkpoint_bytes = (folder / "checkpoint.pt").read_bytes()
    forge.run(*RUN).good()
    seconds = sum(record["seconds"] for record in records(folder, timings=True))
    assert status(folder)["seconds"] >= seconds, "those of the killed start are in it"
    (folder / "checkpoint.pt").write_bytes(checkpoint_bytes)
    reason = "checkpoint.pt is older than the finished run, of epoch 1"
    with pytest.raises(UserError, match=reason):
        igo.load_run(folder)
    model_bytes = (folder / "model.pt").read_bytes()
    assert reason in forge.run(*RUN).error()
    assert (folder / "model.pt").read_bytes() == model_bytes


@pytest.mark.slow
def test_a_finished_run_brings_its_model_to_wandb(tmp_path: Path) -> None:
    forge.run(*TINY, "tracking.mode=offline", "tracking.artifact=true").good()
    (folder,) = Path("runs/wandb").glob("offline-run-*")
    (artifact,) = (entry for kind, entry in entries(folder) if kind == "artifact")
    assert artifact["type"] == "model"
    (content,) = artifact["manifest"]["contents"]
    file = Path(content["local_path"])
    assert file.read_bytes() == (run_folder() / "model.pt").read_bytes()
    assert file.is_relative_to(tmp_path / "runs" / "wandb")
