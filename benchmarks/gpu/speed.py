"""How fast is it: images a second with and without graphs and determinism, and where time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import bare
from benchmarks.gpu.part import Found, Part, config, prepared, synchronise
from igo.config.schema import Config
from igo.runs import assemble, checkpoint
from igo.train import recovery
from igo.train.state import Progress, Training

CELLS = [("resnet18", b) for b in (32, 128, 512)] + [("resnet8", b) for b in (8, 16, 64)]
COMPILED = [("resnet18", 128), ("resnet8", 16)]  # compiling takes up to a minute
# What an epoch's steps may take longer than a bare loop on one batch that lies on the device: they
# also make each batch from the data set. Chosen, not measured on a GPU.
BESIDE_BARE = 0.8


def items(part: Part, folder: Path) -> None:
    """Steps beside a bare loop's, then what an epoch has beside them, then the kernels."""
    for model, b in [("resnet8", 8)] if part.dry else CELLS:
        beside_bare(part, folder, model, b)
        compiled = part.dry or (model, b) in COMPILED
        if compiled:
            made = _config(part, folder, model, b)
            part.item(
                f"{model} b {b}, bare, compiled", lambda m=made: bare_steps(part, m, "compile")
            )
    made = _config(part, folder, "resnet18", 128)
    part.item("an epoch's parts, resnet18", lambda: parts(part, made, folder))
    part.item("kernels, resnet18", lambda: profile(made, 2 if part.dry else 20))


def beside_bare(part: Part, folder: Path, model: str, b: int) -> None:
    """Images a second without and with graphs and in fp16, each beside a bare loop of its kind."""
    name, least = f"{model} b {b}", 0.0 if part.dry else 15.0
    for precision in ("auto",) if part.dry else ("auto", "fp16"):
        for graphs in ("auto",) if part.dry else ("false", "true"):
            if (precision, graphs) == ("fp16", "true"):
                continue  # the loss scaling is not captured
            made = _config(part, folder, model, b, graphs=graphs, precision=precision)
            kind = f"graphs {graphs}, {precision}"
            form = "graph" if graphs == "true" else "eager"
            bare = part.item(
                f"{name}, bare, {kind}", lambda m=made, f=form: bare_steps(part, m, f), least
            )
            part.item(
                f"{name}, {kind}", lambda m=made, r=bare: judged(steps(part, m), r, part), least
            )
    if not part.dry:
        made = _config(part, folder, model, b, deterministic=False)
        part.item(f"{name}, not deterministic", lambda: steps(part, made), least)


def judged(found: Found, bare: Found, part: Part) -> Found:
    """With its share of the bare loop's speed; a dry run is too short to judge."""
    if "images/s" not in bare:
        return found
    share = found["images/s"] / bare["images/s"]
    return {**({} if part.dry else {"ok": share >= BESIDE_BARE}), **found, "of bare": share}


def _config(
    part: Part, folder: Path, model: str, b: int, *, graphs: str = "false",
    precision: str = "auto", deterministic: bool = True,
) -> Config:  # fmt: skip
    made = config(part, folder, f"model={model}", f"batch_size={b}", "schedule=constant",
                  f"engine.precision={precision}", "noise.online=0", "noise.batches=2",
                  "noise.batch_size=8")  # fmt: skip
    return replace(made, engine=replace(made.engine, graphs=graphs, deterministic=deterministic))


def _ready(made: Config, b: int) -> tuple[Training, Callable[[], Any]]:
    """A run, and the call of its next step on new images."""
    training = prepared(made)
    network, run = training.network.train(), training.engine
    run.begin_epoch({b: 10**6}, network, training.optimizer)
    n = training.data.n // b * b

    def batches() -> Any:
        epoch = 0
        while True:
            epoch += 1
            yield from training.data.train_batches(list(torch.randperm(n).split(b)), epoch)

    stream = batches()
    return training, lambda: run.step(network, training.optimizer, next(stream), range(b))


def steps(part: Part, made: Config) -> Found:
    """Images a second of steps with their data."""
    training, step = _ready(made, made.batch_size)
    found = timed(part, step, made.batch_size)
    graphs = training.engine.graphs
    return {**found, **({"graphs": str(graphs.outcome)} if graphs else {})}


def bare_steps(part: Part, made: Config, form: str) -> Found:
    """Images a second of forward, backward and optimizer step alone, on one batch.

    Args:
        part: of the program.
        made: which model, batch size and precision.
        form: eager, graph or compile.
    """
    training = prepared(made)
    run, network = training.engine, training.network.train()
    (batch,) = training.data.plain_batches([torch.arange(made.batch_size)])
    optimizer = torch.optim.SGD(network.parameters(), lr=made.learning_rate)
    if form == "compile":
        network = torch.compile(network, backend="eager" if part.dry else "inductor")
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.scaler.is_enabled())

    def update() -> torch.Tensor:
        optimizer.zero_grad()
        with run.precision():
            logits = network(batch[0])
        loss = torch.nn.functional.cross_entropy(logits.float(), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    step = bare.captured(update) if form == "graph" else update
    return timed(part, step, made.batch_size)


def timed(part: Part, step: Callable[[], object], b: int) -> Found:
    """Images a second, in five turns after a warm-up: their median and extremes."""
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
