"""The logger `tracking=tensorboard`: each epoch's numbers, for `tensorboard --logdir runs`."""

from igo.ground.files import Record
from igo.runs.folder import RunFolder
from igo.runs.loggers import Logger

CURE = "; pip install tensorboard if it is missing, or use tracking=wandb"


class TensorBoard(Logger):
    """Event files in the run folder. Each start writes a new one, with the records so far.

    With ``purge_step=0`` TensorBoard hides all points from step 0 on that older files have.
    """

    def __init__(self, _: object, folder: RunFolder, records: list[Record], *__: object) -> None:
        from torch.utils.tensorboard import SummaryWriter  # It takes a second to import.

        self._writer = SummaryWriter(folder.path / "tensorboard", purge_step=0)
        for record in records:
            self.log(record, record["epoch"])

    def log(self, metrics: Record, step: int) -> None:
        """See Logger. A value that was not measured is null and has no point."""
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()


start = TensorBoard
