"""The contenders train the same, as far as their kinds allow; ratios are computed as stated."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import in_double
import pytest
import rounding
import torch
from conftest import ROOT, python
from torch import Tensor, nn

from igo.config.schema import Config
from igo.data import readers
from igo.data.source import Place
from igo.ground.errors import UserError
from igo.train import datasets, models

sys.path.insert(0, str(ROOT))
from benchmarks import bare, cells, files, peers, programs, ratios, rounds

pytestmark = pytest.mark.skipif(
    not readers.DEBIAN_FASHION_MNIST.is_dir(), reason="Fashion-MNIST is not here"
)


class Heard:
    """Turns that are always given."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.images: list[int] = []

    def begin(self) -> None:
        pass

    def end(self, images: int, loss: float, seconds: float | None = None) -> None:
        self.images.append(images)
        self.losses.append(loss)
        assert seconds is None or seconds > 0


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With a tenth of the test images, whose accuracy is nobody's concern here."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "TEST", 100)
        files.write(folder)
        yield folder


def tiny(data_dir: Path, *more: str) -> Config:
    """60 images, b from 20 to 45 in three stages, fp32, each image as it is."""
    return cells.configure(
        *cells.SMALL, *cells.COMMON, "engine.precision=fp32", "engine.threads=1",
        "dataset.augment.flip=false", "dataset.samples=60", "epochs=3", "schedule=graduated",
        "split=0.25", "batch_size=20", "learning_rate=0.005", f"data_dir={data_dir}", *more,
    )  # fmt: skip


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def trained(name: str, config: Config) -> tuple[Heard, Tensor]:
    """What was heard of a contender, and its final parameters as one vector."""
    heard = Heard()
    network: nn.Module = importlib.import_module(f"benchmarks.{name}").train(config, heard)
    return heard, flat(network)


@pytest.mark.filterwarnings("default")  # of Lightning's own making
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("lightning_trainer", marks=pytest.mark.slow),  # which `make test` has not got
        "timm_pieces",
        "ours",
    ],
)
def test_contenders_make_the_same_updates(
    name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without augmentation, through a batch size that grows, eight updates in all.

    In float64: in float32 memory layouts sum in another order, which ReLU and BatchNorm amplify.
    Images and losses are in float32 yet; a step missed is 12 % of the way.
    """
    monkeypatch.setattr(models, "build", in_double.doubled(models.build))
    config = tiny(data_dir)
    start = flat(peers.network(config))
    heard, parameters = trained("plain", config)
    other, other_parameters = trained(name, config)
    assert other.images == heard.images == [60, 60, 60]
    assert other.losses == pytest.approx(heard.losses, rel=rounding.bound(10, 60))
    apart = (other_parameters - parameters).norm() / (parameters - start).norm()
    assert apart < 8 * 2**-24, f"{name}: {apart}"  # float32 losses, in each of eight updates


def test_the_bare_limit_begins_with_the_same_loss_and_makes_as_many_updates(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full batch, one epoch: its tensor is the whole data set, so its loss is everybody's."""
    config = tiny(data_dir, "batch_size=60", "epochs=1")
    images = datasets.open_data(config, torch.device("cpu"))
    ((batch, _),) = images.plain_batches([torch.arange(60)])
    close = rounding.bound(rounding.terms(peers.network(config), batch, backward=False), 10, 60)
    assert trained("bare", config)[0].losses == pytest.approx(
        trained("plain", config)[0].losses, rel=close
    )
    sizes: list[int] = []
    update = bare.update

    def counted(*args: object) -> Tensor:
        sizes.append(len(args[-1]))  # type: ignore[arg-type]
        return update(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bare, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(
        bare, "fastest", lambda *_: bare.Form(torch.device("cpu"), None, torch.channels_last)
    )
    monkeypatch.setattr(bare, "update", counted)
    heard, _ = trained("bare", tiny(data_dir, "dataset.samples=50", "epochs=1"))
    assert sizes == [17, 17, 16]
    assert heard.images == [50]


def test_steady_counts_the_second_epoch_of_each_stage(data_dir: Path) -> None:
    heard, _ = trained("steady", tiny(data_dir, "schedule.stages=3"))
    whole, _ = trained("ours", tiny(data_dir, "schedule.stages=3", "epochs=6"))
    assert heard.losses == whole.losses[1::2]


def test_the_files_are_what_torchvision_and_this_project_read(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR100

    for name in ("train_list", "test_list", "meta"):
        monkeypatch.setattr(CIFAR100, name, getattr(CIFAR100, name))  # put back afterwards
    files.accept(data_dir)
    small, _ = readers.read("fashion_mnist", Place(data_dir))
    large, test = readers.read("cifar100", Place(data_dir))
    assert large.images.shape == (10_000, 32, 32, 3)
    assert (large.labels == small.labels[:10_000]).all()
    assert len(test.labels) == files.TEST
    # The middle of an image, where resizing 28 to 32 leaves brightness about as it was.
    means = [split.images[:200].mean(axis=(1, 2, 3)) for split in (small, large)]
    assert abs(means[0] - means[1]).max() < 5


@pytest.mark.slow
def test_workers_take_turns_and_the_first_round_does_not_count(data_dir: Path) -> None:
    config = tiny(data_dir)
    with rounds.Workers() as workers:
        rows = workers.measure(cells.Cell("here", config, 1, whole_run=True), ["ours", "bare"])
    assert [row["contender"] for row in rows] == ["ours"] * 3 + ["bare"] * 3
    assert {row["round"] for row in rows} == {1}
    assert all(row["images"] == 60 and row["seconds"] > 0 for row in rows)


def row(cell: str, round_: int, contender: str, images: int, seconds: float) -> ratios.Row:
    return {"cell": cell, "round": round_, "contender": contender, "images": images,
            "seconds": seconds, "loss": 0.0}  # fmt: skip


def test_ratios_are_taken_within_a_round_from_all_its_turns() -> None:
    """By hand. Ours: 100, 50, 40, 10 images/s; bare 200, 50, 50, 40: ratios 0.5, 1, 0.8, 0.25."""
    rows = []
    for r, (ours, theirs) in enumerate([(100, 200), (50, 50), (40, 50), (10, 40)], start=1):
        # Two turns of 30 and 10 images that take the same time, together 40 images at that rate.
        rows += [row("small-32", r, "ours", images, 20 / ours) for images in (30, 10)]
        rows.append(row("small-32", r, "bare", 40, 40 / theirs))
    summary = {entry["contender"]: entry for entry in ratios.summary(rows)}
    ratio = summary["bare"]["ours_over_it"]
    assert ratio.median == pytest.approx((0.5 + 0.8) / 2)
    assert ratio.low == pytest.approx(0.25 + 0.75 * 0.25)  # three quarters of the way to 0.5
    assert ratio.high == pytest.approx(0.8 + 0.25 * 0.2)
    assert summary["ours"]["images_per_second"].median == pytest.approx(45)
    assert summary["ours"]["ours_over_it"].median == 1
    (verdict,) = ratios.verdicts(list(summary.values()), "cpu")
    assert (verdict["against"], verdict["at_least"], verdict["met"]) == ("bare", 0.95, False)
    (verdict,) = ratios.verdicts(list(summary.values()), "cuda")  # where b = 32 has its own promise
    assert (verdict["against"], verdict["at_least"], verdict["met"]) == ("bare", 0.9, False)


@pytest.mark.slow
def test_an_unknown_cell_ends_in_one_line() -> None:
    line = python(ROOT, "-m", "benchmarks.run", "quick", "small-33").error()
    assert line.startswith("error: there is no small-33")
    assert "small-32" in line


def test_the_peak_memory_of_a_program_is_its_own() -> None:
    held = bytearray(b"1" * 300_000_000)  # Linux hands our peak on to what we exec
    small = programs.watched([sys.executable, "-S", "-c", "pass"])
    large = programs.watched([sys.executable, "-S", "-c", "b'1' * 200_000_000"])
    assert len(held) == 300_000_000
    assert small.peak_bytes < 50e6
    assert 200e6 < large.peak_bytes < 250e6
    assert 0 < small.cpu_seconds < 10
    assert 0 < small.seconds < 10


def test_a_program_that_fails_says_so() -> None:
    with pytest.raises(UserError, match="broken"):
        programs.watched([sys.executable, "-S", "-c", "raise SystemExit('broken')"])
