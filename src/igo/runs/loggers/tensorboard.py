"""The logger `tracking=tensorboard`: each epoch's numbers, for `tensorboard --logdir runs`."""

import importlib.util
import shutil
from collections.abc import Sequence

from igo.config.schema import Config
from igo.ground.errors import require
from igo.ground.files import Record
from igo.runs.folder import RunFolder
from igo.runs.loggers import Logger, Say


class TensorBoard(Logger):
    """A folder of event files. Each start writes them anew, so that no epoch is there twice."""

    def __init__(self, _: Config, folder: RunFolder, records: Sequence[Record], _warn: Say) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        place = folder.path / "tensorboard"
        if place.is_symlink():  # What it leads to is no part of the run.
            place.unlink()
        shutil.rmtree(place, ignore_errors=True)
        self._writer = SummaryWriter(str(place))
        for record in records:
            self.log(record, record["epoch"])

    def log(self, metrics: Record, step: int) -> None:
        """See Logger. A value that was not measured is null and has no point."""
        for name, value in metrics.items():
            if isinstance(value, int | float) and name != "epoch":
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, exit_code: int = 0) -> None:  # noqa: ARG002
        """See Logger."""
        self._writer.close()


def check(config: Config) -> None:
    """Raise a ConfigError if TensorBoard is not installed."""
    require(
        importlib.util.find_spec("tensorboard") is not None,
        "tracking.tool",
        config.tracking.tool,
        "TensorBoard is not installed; pip install tensorboard, or use tracking=wandb",
    )


start = TensorBoard
