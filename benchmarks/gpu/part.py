"""A part of `make gpu`: items within a time limit, each written and printed when it is done."""

import json
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import files
from igo.config.load import make_plan
from igo.config.schema import Config
from igo.ground.files import write_atomically
from igo.train import loop
from igo.train.assembly import assembled
from igo.train.training import Progress, Training
from lab.configuration import composed

Result = dict[str, Any]


@dataclass
class Part:
    """The items of a part and their file; ``dry`` is a short form for any CPU."""

    name: str
    out: Path
    seconds: float
    dry: bool
    data: str | None = None  # the user's images, an .npz
    began: float = field(default_factory=time.perf_counter, init=False)
    items: list[Result] = field(default_factory=list)

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def small_model(self) -> tuple[str, ...]:
        """The settings of the model of a dry run; none of another."""
        return ("model=resnet8", "model.width=4") if self.dry else ()

    @property
    def left(self) -> float:
        """Seconds until the part's limit."""
        return self.seconds - (time.perf_counter() - self.began)

    def item(self, name: str, measure: Callable[[], Result], seconds: float = 0.0) -> Result:
        """Measure an item if so many seconds are left, and write its result; return the result.

        An exception is a failed item, and so is ``ok`` False in the result of ``measure``.
        """
        start = time.perf_counter()
        result: Result = {"item": name}
        if self.left < seconds:
            result |= {"state": "not run", "why": f"{self.left:.0f} s left, {seconds:.0f} s needed"}
        else:
            try:
                result |= {"state": "done", **measure()}
            except Exception as error:
                line_of_error = next(iter(str(error).splitlines()), "")
                result |= {"state": "failed", "why": f"{type(error).__name__}: {line_of_error}"}
                result["traceback"] = traceback.format_exc()
            if result.get("ok") is False:
                result["state"] = "failed"
        result["seconds"] = round(time.perf_counter() - start, 2)
        self.items.append(result)
        text = json.dumps({"part": self.name, "dry": self.dry, "items": self.items}, indent=2)
        write_atomically(self.out / f"{self.name}.json", text + "\n")
        print(line(result), flush=True)
        return result


def line(result: Result) -> str:
    """A row of the table."""
    hidden = {"item", "state", "seconds", "traceback", "ok", "profile"}
    rest = (f"{k} {_short(v)}" for k, v in result.items() if k not in hidden)
    return f"{result['state']:8} {result['seconds']:7.1f} s  {result['item']:34}  {'  '.join(rest)}"


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


@contextmanager
def workplace(dry: bool) -> Iterator[Path]:
    """A folder with images, 32 x 32 in colour."""
    with tempfile.TemporaryDirectory() as name:
        files.write(Path(name), "colour", 160 if dry else 20_000)
        yield Path(name)


@contextmanager
def waits(part: Part) -> Iterator[list[str]]:
    """Give a list that has, at the end, each place where the CPU waited for the GPU."""
    places: list[str] = []
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        if not part.dry:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if not part.dry:
                torch.cuda.set_sync_debug_mode("default")
    reported = [message for message in messages if "synchroniz" in str(message.message)]
    places += [f"{Path(message.filename).name}:{message.lineno}" for message in reported]


def configured(part: Part, folder: Path, *overrides: str) -> Config:
    """A configuration on the part's device, with the images of the workplace."""
    return composed(
        "dataset=arrays",
        f"dataset.file={next(folder.glob('colour-*.npz'))}",
        "dataset.augment.crop=4",
        "dataset.augment.flip=true",
        "dataset.augment.rotation=15",
        "tracking=none",
        f"runs_dir={folder / 'runs'}",
        f"data_dir={folder}",
        "learning_rate=0.05",
        *overrides,
        *part.small_model,
        f"engine.device={part.device}",
    )


def prepared(config: Config) -> Training:
    """A run, ready to train."""
    return assembled(config, make_plan(config))


def trained(training: Training) -> tuple[Training, Progress]:
    """Train a run to the end of its plan; return it with its progress, which has the records."""
    progress = Progress()
    loop.train(training, progress, mock.Mock(), lambda _: None, lambda: None)
    return training, progress
