"""Speed: images a second of igo's loop beside bare updates, and the kernels of an epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.gpu.part import Part, Result, configured, prepared
from benchmarks.worker import synchronise
from igo.config.schema import Config
from igo.runs.terminal import Terminal
from igo.train import loop
from igo.train.record import Epoch, Training, Twin

CELLS = [("resnet18", b) for b in (32, 128, 512)] + [("resnet8", b) for b in (8, 16, 64)]
COMPILED = [("resnet18", 128), ("resnet8", 16)]  # Compiling takes up to a minute.
EPOCHS = 4  # An item has so many; the first is the warm-up.
# An epoch's updates must reach this share of the speed of bare PyTorch, which has one batch on the
# device and computes no C². Chosen, not measured on a GPU.
BESIDE_BARE = 0.8


def items(part: Part, folder: Path) -> None:
    """The loop beside bare updates, then the kernels."""
    if part.dry:
        torch.compiler.set_stance("force_eager")
    for model, b in [("resnet8", 8)] if part.dry else CELLS:
        beside_bare(part, folder, model, b)
    settings = ("resnet18", 128, f"dataset.samples={160 if part.dry else 2560}")
    part.item("kernels, resnet18", lambda: profile(_cell_config(part, folder, *settings)))


def beside_bare(part: Part, folder: Path, model: str, b: int) -> None:
    """Images a second of the loop in each precision, without determinism, and compiled."""
    free = "engine.deterministic=false"

    def measure(
        name: str, function: Callable[..., Result], *settings: str, **options: Any
    ) -> Result:
        config = _cell_config(part, folder, model, b, *settings)
        seconds = 0.0 if part.dry else 15.0
        return part.item(
            f"{model} b {b}, {name}", lambda: function(part, config, **options), seconds
        )

    for precision in ("auto",) if part.dry else ("auto", "fp16"):
        setting = f"engine.precision={precision}"
        bare = measure(f"bare, {precision}", bare_epochs, setting, free)
        measure(precision, loop_epochs, setting, bare=bare)
        if precision == "auto":
            measure("not deterministic", loop_epochs, free, bare=bare)
    if part.dry or (model, b) in COMPILED:
        measure("bare, CUDA graphs", bare_epochs, free, mode="reduce-overhead")
        measure("engine.compile", loop_epochs, free, "engine.compile=true", bare=bare)


def judged(result: Result, bare: Result, part: Part) -> Result:
    """The result with its share of the bare loop's speed; a dry run is too short for a verdict."""
    if "images/s" not in bare:
        return result
    share = result["images/s"] / bare["images/s"]
    return {**({} if part.dry else {"ok": share >= BESIDE_BARE}), **result, "of bare": share}


def _cell_config(part: Part, folder: Path, model: str, b: int, *settings: str) -> Config:
    plan = ("schedule=constant", f"epochs={EPOCHS}", "noise.batches=2")
    return configured(part, folder, f"model={model}", f"batch_size={b}", *plan, *settings)


def epochs(training: Training, before_update: Callable[[], None] = lambda: None) -> Iterator[Epoch]:
    """Make epochs of the loop, each when it is asked for, with a bar as in a terminal."""
    training.network.train()
    twins: list[Twin] = []
    with (
        Path(os.devnull).open("w") as nowhere,
        Terminal(console=Console(file=nowhere, force_terminal=True)).progress(training.plan) as bar,
    ):
        for epoch in training.batches.epochs():
            bar.begin_epoch(epoch, None)
            results = loop.train_epoch(training, bar, before_update, twins)
            twins = results.twins
            yield results


def loop_epochs(part: Part, config: Config, *, bare: Result) -> Result:
    """Images a second of the loop's epochs."""
    training = prepared(config)
    with closing(epochs(training)) as loop_turns:
        return judged(timed(part, loop_turns.__next__, training.data.n), bare, part)


def bare_epochs(part: Part, config: Config, *, mode: str | None = None) -> Result:
    """Images a second of as many bare updates as an epoch has."""
    training = prepared(config)
    update, count = bare_update(training, mode), training.data.n // config.batch_size

    def turn() -> None:
        for _ in range(count):
            update()

    return timed(part, turn, count * config.batch_size)


def bare_update(
    training: Training, mode: str | None = None, size: int | None = None
) -> Callable[[], object]:
    """The loop's own gradient, and a step of plain SGD, on one batch on the device.

    With a ``mode`` of torch.compile, the model is compiled.
    """
    engine, network, config = training.engine, training.network.train(), training.config
    (batch,) = training.data.plain_batches([torch.arange(size or config.batch_size)])
    optimizer = torch.optim.SGD(network.parameters(), lr=config.learning_rate, fused=True)
    if mode:
        network = torch.compile(network, mode=mode)  # type: ignore[assignment]
    parameters = [*network.parameters()]

    def update() -> None:
        engine.backward(network, [batch], len(batch[1]), parameters)
        engine.update(optimizer)

    return update


def timed(part: Part, turn: Callable[[], object], images: int) -> Result:
    """Median and extremes of images a second, in turns of so many images after a warm-up."""
    rates = []
    for number in range(2 if part.dry else EPOCHS):
        start = time.perf_counter()
        turn()
        synchronise()
        seconds = time.perf_counter() - start
        if number:
            rates.append(images / seconds)
        else:
            warm_up = seconds
    rates.sort()
    extremes = {"from": rates[0], "to": rates[-1], "first turn s": warm_up}
    return {"images/s": rates[len(rates) // 2], **extremes}


def profile(config: Config) -> Result:
    """The fifteen operations that take most time in an epoch's updates."""
    with closing(epochs(prepared(config))) as loop_turns:
        next(loop_turns)
        synchronise()
        with torch.profiler.profile() as profiler:
            next(loop_turns)
            synchronise()
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60)
    return {"profile": table.splitlines()}
