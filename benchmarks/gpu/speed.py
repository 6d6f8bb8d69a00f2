"""How fast is it: images a second with and without graphs and determinism, and where time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.part import Found, Part, config, prepared, synchronise
from igo.config.schema import Config
from igo.runs import assemble, checkpoint
from igo.train import optim, recovery
from igo.train.state import Progress, Training

CELLS = [("resnet18", b) for b in (32, 128, 512)] + [("resnet8", b) for b in (8, 16, 64)]


def items(part: Part, folder: Path) -> None:
    """Steps, then what an epoch has beside them, then the kernels."""
    cells = [("resnet8", 8)] if part.dry else CELLS
    kinds = [("auto", True)] if part.dry else [("false", True), ("true", True), ("false", False)]
    for model, b in cells:
        for graphs, deterministic in kinds:
            name = f"{model} b {b} graphs {graphs} deterministic {deterministic}"
            made = _config(part, folder, model, b, graphs, deterministic)
            part.item(
                name.lower(), lambda m=made, b=b: steps(part, m, b), least=0 if part.dry else 15
            )
    made = _config(part, folder, "resnet18", 128, "false", True)
    part.item("an epoch's parts, resnet18", lambda: parts(part, made, folder))
    part.item("kernels, resnet18", lambda: profile(made, 2 if part.dry else 20))


def _config(
    part: Part, folder: Path, model: str, b: int, graphs: str, deterministic: bool
) -> Config:
    made = config(part, folder, f"model={model}", f"batch_size={b}", "schedule=constant",
                  "noise.online=0", "noise.batches=2", "noise.batch_size=8")  # fmt: skip
    return replace(made, engine=replace(made.engine, graphs=graphs, deterministic=deterministic))


def _ready(made: Config, b: int) -> tuple[Training, Callable[[], Any]]:
    """A run, and the call of its next step on new images."""
    training = prepared(made)
    network, run = training.network.train(), training.engine
    optim.apply(training.optimizer, made.learning_rate, 0.0, made.optimizer)
    run.begin_epoch({b: 10**6}, training.optimizer)
    n = training.data.n // b * b

    def batches() -> Any:
        epoch = 0
        while True:
            epoch += 1
            yield from training.data.train_batches(list(torch.randperm(n).split(b)), epoch)

    stream = batches()
    return training, lambda: run.step(network, training.optimizer, next(stream), range(b))


def steps(part: Part, made: Config, b: int) -> Found:
    """Images a second of steps with their data, in five turns after a warm-up."""
    training, step = _ready(made, b)
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
    told = training.engine.graphs.told if training.engine.graphs else {}
    found: Found = {"images/s": rates[len(rates) // 2], "from": rates[0], "to": rates[-1]}
    return {**found, "first 5 steps s": warm, **({"graphs": str(told)} if told else {})}


def parts(part: Part, made: Config, folder: Path) -> Found:
    """Seconds of what an epoch does beside its steps, each after a first time."""
    training, step = _ready(made, 8)
    step()
    progress = Progress()
    where = folder / "checkpoint.pt"
    state = assemble.state_of("run", None, training, progress)
    calls: dict[str, Callable[[], object]] = {
        "evaluation": lambda: training.engine.evaluate(
            training.network, training.data.test_batches()
        ),
        "snapshot": lambda: recovery.Snapshot.of(training, progress),
        "state": lambda: assemble.state_of("run", None, training, progress),
        "write": lambda: checkpoint.save(where, state),
    }
    found: Found = {"device": part.device}
    for name, call in calls.items():
        call()
        synchronise()
        began = time.perf_counter()
        call()
        synchronise()
        found[f"{name} s"] = time.perf_counter() - began
    return found


def profile(made: Config, count: int) -> Found:
    """The fifteen operations that take most of the steps' time."""
    _, step = _ready(made, made.batch_size if count > 2 else 8)
    step()
    synchronise()
    with torch.profiler.profile() as seen:
        for _ in range(count):
            step()
        synchronise()
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = seen.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60)
    return {"profile": table.splitlines(), "steps": count}
