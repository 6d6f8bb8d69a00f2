"""The update as a CUDA graph beside the eager one: the same numbers, and which is faster.

The k equal batches of a stage have at most two sizes, so a stage needs two graphs.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.part import Part, Result, configured, prepared
from benchmarks.task import synchronise
from igo.config.schema import Config
from igo.train.training import Training

CELLS = (("resnet8", 16), ("resnet18", 32), ("resnet18", 128))
EPOCHS = 4  # η differs in each; the first, with the captures, is not timed
WARM_UP = 3  # updates before a capture, which are undone
CLOSE = 0.01  # A larger relative gap of losses or weights is a failure. Chosen.
Update = Callable[[Tensor, Tensor], Tensor]


def items(part: Part, folder: Path) -> None:
    """Each model and b."""
    for model, b in (("resnet8", 8),) if part.dry else CELLS:
        seconds = 0.0 if part.dry else 20.0
        part.item(f"{model} b {b}", partial(compared, part, folder, model, b), seconds)


def compared(part: Part, folder: Path, model: str, b: int) -> Result:
    """Milliseconds an update of both; where a graph cannot be captured, why not."""
    samples = f"dataset.samples={150 if part.dry else 19_990}"  # so that there are two sizes
    plan = ("schedule=graduated", "split=1", f"epochs={EPOCHS}", f"schedule.stages={EPOCHS}")
    config = configured(part, folder, f"model={model}", f"batch_size={b}", samples, *plan)
    eager_ms, eager_losses, eager_weights = trained(config, eager)
    try:
        graph_ms, losses, weights = trained(config, Graphs)
    except RuntimeError as error:
        return {"faster": "eager", "why": str(error).splitlines()[0], "eager ms": eager_ms}
    gaps = {
        "gap of losses": float(((losses - eager_losses) / eager_losses).abs().max()),
        "of weights": float((weights - eager_weights).norm() / eager_weights.norm()),
    }
    faster = "eager" if part.dry or graph_ms >= eager_ms else "graph"
    speed = {"eager ms": eager_ms, "graph ms": graph_ms, "faster": faster}
    return {"ok": max(gaps.values()) < CLOSE, **speed, **gaps}


def trained(config: Config, kind: Callable[[Training], Update]) -> tuple[float, Tensor, Tensor]:
    """Milliseconds an update after the first epoch, the loss of each update, and all weights."""
    training = prepared(config)
    training.network.train()
    for group in training.optimizer.param_groups:  # A graph keeps a number that it was made with.
        group["lr"] = torch.tensor(group["lr"], device=training.engine.device)
    update = kind(training)
    batches = training.batches
    losses: list[Tensor] = []
    seconds: list[float] = []
    for epoch in batches.epochs():
        stream = training.data.train_batches([torch.tensor(batch) for batch in batches], epoch)
        start = time.perf_counter()
        for images, labels in stream:
            training.schedule.step()
            losses.append(update(images, labels))
        synchronise()
        seconds.append((time.perf_counter() - start) / training.plan.batches_of_epoch(epoch))
    weights = torch.cat([p.detach().flatten() for p in training.network.parameters()])
    return 1000 * statistics.median(seconds[1:]), torch.stack(losses), weights


def eager(training: Training) -> Update:
    """The loop's own update of a run, as a function that returns the batch's sum of losses."""
    engine, network, optimizer = training.engine, training.network, training.optimizer
    parameters = [*network.parameters()]

    def update(images: Tensor, labels: Tensor) -> Tensor:
        loss, *_ = engine.backward(network, [(images, labels)], len(labels), parameters)
        engine.update(optimizer)
        return loss

    return update


class Graphs:
    """The same update, captured for each batch size when it first comes.

    Without a GPU the update is made eagerly, on the tensors that a graph would read.
    """

    def __init__(self, training: Training) -> None:
        self._training, self._update = training, eager(training)
        self._captured: dict[int, tuple[Callable[[], object], Tensor, Tensor, Tensor]] = {}
        self._on_gpu = training.engine.device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._on_gpu else None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        if len(labels) not in self._captured:
            self._captured[len(labels)] = self._capture(images.clone(), labels.clone())
        replay, fixed_images, fixed_labels, loss = self._captured[len(labels)]
        fixed_images.copy_(images)
        fixed_labels.copy_(labels)
        replay()
        return loss.clone()

    def _capture(
        self, images: Tensor, labels: Tensor
    ) -> tuple[Callable[[], object], Tensor, Tensor, Tensor]:
        """What replays an update, the tensors that it reads, and the one that gets its loss.

        A capture needs updates before it. They and the capture itself are undone.
        """
        state = self._state()
        earlier = [tensor.clone() for tensor in state]
        stream = torch.cuda.Stream() if self._on_gpu else None
        synchronise()
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                loss = self._update(images, labels)
        synchronise()

        def replay() -> None:
            """Without a GPU the update is made, as a graph would make it."""
            loss.copy_(self._update(images, labels))

        if self._on_gpu:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                loss = self._update(images, labels)
            replay = graph.replay
        for tensor, value in zip(state, earlier, strict=True):
            tensor.copy_(value)
        return replay, images, labels, loss

    def _state(self) -> list[Tensor]:
        """All that an update changes: parameters, BatchNorm's statistics, the optimizer's own."""
        network, optimizer = self._training.network, self._training.optimizer
        own = [value for values in optimizer.state.values() for value in values.values()]
        tensors = [*network.parameters(), *network.buffers(), *own]
        return [tensor.detach() for tensor in tensors if isinstance(tensor, Tensor)]
