"""Speed: images a second with and without determinism, and the parts of an epoch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.part import Part, Result, configured, prepared
from benchmarks.worker import synchronise
from igo.config.schema import Config
from igo.runs import assemble, checkpoint
from igo.train.record import Progress, Training

CELLS = [("resnet18", b) for b in (32, 128, 512)] + [("resnet8", b) for b in (8, 16, 64)]
COMPILED = [("resnet18", 128), ("resnet8", 16)]  # compiling takes up to a minute
# An epoch's steps must reach this share of the speed of a bare loop. The bare loop has one batch on
# the device; the steps also make each batch from the data set. Chosen, not measured on a GPU.
BESIDE_BARE = 0.8


def items(part: Part, folder: Path) -> None:
    """Steps beside those of a bare loop, then the other parts of an epoch, then the kernels."""
    for model, b in [("resnet8", 8)] if part.dry else CELLS:
        beside_bare(part, folder, model, b)
        compiled = part.dry or (model, b) in COMPILED
        if compiled:
            config = _cell_config(part, folder, model, b)
            part.item(
                f"{model} b {b}, bare, compiled",
                lambda c=config: bare_steps(part, c, compiled=True),
            )
    config = _cell_config(part, folder, "resnet18", 128)
    part.item("an epoch's parts, resnet18", lambda: parts(part, config, folder))
    part.item("kernels, resnet18", lambda: profile(config, 2 if part.dry else 20))


def beside_bare(part: Part, folder: Path, model: str, b: int) -> None:
    """Images a second in each precision, beside such a bare loop."""
    name, least = f"{model} b {b}", 0.0 if part.dry else 15.0
    for precision in ("auto",) if part.dry else ("auto", "fp16"):
        config = _cell_config(part, folder, model, b, precision=precision)
        bare = part.item(f"{name}, bare, {precision}", lambda c=config: bare_steps(part, c), least)
        part.item(
            f"{name}, {precision}", lambda c=config, r=bare: judged(steps(part, c), r, part), least
        )
    if not part.dry:
        config = _cell_config(part, folder, model, b, deterministic=False)
        part.item(f"{name}, not deterministic", lambda: steps(part, config), least)


def judged(result: Result, bare: Result, part: Part) -> Result:
    """The result with its share of the bare loop's speed; a dry run is too short for a verdict."""
    if "images/s" not in bare:
        return result
    share = result["images/s"] / bare["images/s"]
    return {**({} if part.dry else {"ok": share >= BESIDE_BARE}), **result, "of bare": share}


def _cell_config(
    part: Part, folder: Path, model: str, b: int, *, precision: str = "auto",
    deterministic: bool = True,
) -> Config:  # fmt: skip
    config = configured(part, folder, f"model={model}", f"batch_size={b}", "schedule=constant",
                  f"engine.precision={precision}", "noise.batches=2")  # fmt: skip
    return replace(config, engine=replace(config.engine, deterministic=deterministic))


def _ready(config: Config, b: int) -> tuple[Training, Callable[[], Any]]:
    """A run, and the call of its next step on new images."""
    training = prepared(config)
    network, engine = training.network.train(), training.engine
    n = training.data.n // b * b

    def updates() -> Iterator[torch.Tensor]:
        for epoch in itertools.count(1):
            for batch in training.data.train_batches(list(torch.randperm(n).split(b)), epoch):
                totals = engine.backward(network, *batch, b)
                engine.update(training.optimizer)
                yield totals

    return training, updates().__next__


def steps(part: Part, config: Config) -> Result:
    """Images a second of steps with their data."""
    _, step = _ready(config, config.batch_size)
    return timed(part, step, config.batch_size)


def bare_steps(part: Part, config: Config, *, compiled: bool = False) -> Result:
    """Images a second of forward, backward and optimizer step alone, on one batch."""
    training = prepared(config)
    engine, network = training.engine, training.network.train()
    (batch,) = training.data.plain_batches([torch.arange(config.batch_size)])
    optimizer = torch.optim.SGD(network.parameters(), lr=config.learning_rate)
    if compiled:
        network = torch.compile(network, backend="eager" if part.dry else "inductor")
    scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.scaler.is_enabled())

    def update() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(engine.device.type, engine.autocast, enabled=bool(engine.autocast)):
            logits = network(batch[0])
        loss = torch.nn.functional.cross_entropy(logits.float(), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return timed(part, update, config.batch_size)


def timed(part: Part, step: Callable[[], object], b: int) -> Result:
    """Median and extremes of images a second, in five turns after a warm-up."""
    began = time.perf_counter()
    for _ in range(5):
        step()
    synchronise()
    warm = time.perf_counter() - began
    count, turns = (2, 2) if part.dry else (max(20, 16_384 // b), 5)
    rates = []
    for _ in range(turns):
        began = time.perf_counter()
        for _ in range(count):
            step()
        synchronise()
        rates.append(count * b / (time.perf_counter() - began))
    rates.sort()
    return {"images/s": rates[len(rates) // 2], "from": rates[0], "to": rates[-1],
            "first 5 steps s": warm}  # fmt: skip


def parts(part: Part, config: Config, folder: Path) -> Result:
    """Seconds of the other parts of an epoch, each measured the second time."""
    training, step = _ready(config, 8)
    step()
    progress = Progress()
    where = folder / "checkpoint.pt"
    state = assemble.snapshot("run", training, progress)
    calls: dict[str, Callable[[], object]] = {
        "evaluation": lambda: training.engine.evaluate(
            training.network, training.data.test_batches()
        ),
        "write": lambda: checkpoint.save(where, state),
    }
    result: Result = {"device": part.device}
    for name, call in calls.items():
        call()
        synchronise()
        began = time.perf_counter()
        call()
        synchronise()
        result[f"{name} s"] = time.perf_counter() - began
    return result


def profile(config: Config, count: int) -> Result:
    """The fifteen operations that take most time in the steps."""
    _, step = _ready(config, config.batch_size if count > 2 else 8)
    step()
    synchronise()
    with torch.profiler.profile() as profiler:
        for _ in range(count):
            step()
        synchronise()
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60)
    return {"profile": table.splitlines(), "steps": count}
