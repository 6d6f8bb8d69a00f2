"""Correctness on this GPU: the tests marked gpu, equal bits, memory, waits in a step."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import programs
from benchmarks.gpu.part import Part, Quiet, Result, configured, prepared
from benchmarks.programs import ROOT
from benchmarks.worker import synchronise
from igo.config.schema import Config, EngineConfig
from igo.method.sampler import BatchSampler
from igo.method.schedule import Schedule
from igo.train import loop, machine
from igo.train.record import Progress, Training

SHORT = ("dataset.samples=120", "batch_size=24", "epochs=3", "schedule.stages=3", "noise.batches=2")
LONG = ("dataset.samples=4000", "batch_size=32", "epochs=3", "schedule.stages=3")


def items(part: Part, folder: Path) -> None:
    """All checks; cheap and informative ones come first."""
    size = SHORT if part.dry else LONG

    def run(*overrides: str) -> Config:
        return configured(part, folder, *size, *overrides)

    part.item("machine", lambda: choices(part))
    for model in ("resnet8", "resnet18"):
        part.item(
            f"same bits twice, {model}", lambda m=model: same(run(f"model={m}"), run(f"model={m}"))
        )
    stem = ("model=resnet18", *(() if part.dry else ("model.stem=imagenet",)))
    part.item("same bits twice, max-pooling", lambda: same(run(*stem), run(*stem)))
    for precision in ("auto", "fp16"):
        steps = run("model=resnet18", f"engine.precision={precision}")
        part.item(f"waits in an epoch's steps, {precision}", lambda c=steps: waits(part, c))
    part.item("fp32 step beside the CPU's", lambda: beside_cpu(part, folder))
    part.item("memory over 30 batch sizes", lambda: memory(part, run("model=resnet18")))
    if part.dry:
        part.item("tests marked gpu, found", lambda: pytest(part.left, "--collect-only", "-q"))
    else:
        part.item("tests marked gpu", lambda: pytest(part.left - 5, "--maxfail=20"), least=30)


def choices(part: Part) -> Result:
    """Versions, and the choices of the engine."""
    chosen = machine.build(EngineConfig(device=part.device))
    return {"torch": torch.__version__, **machine.hardware(chosen)}


def train(config: Config) -> Training:
    """Train to the end of the plan."""
    training = prepared(config)
    loop.train(training, Progress(), Quiet(), lambda _: None, lambda: None)
    return training


def state(training: Training) -> dict[str, Tensor]:
    """Parameters and BatchNorm's statistics, on the CPU."""
    return {name: value.cpu() for name, value in training.network.state_dict().items()}


def difference(first: Training, second: Training) -> Result:
    """Whether two runs have the same bits; if not, the largest difference of parameters."""
    ours, theirs = state(first), state(second)
    unequal = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    result: Result = {"ok": not unequal}
    if unequal:
        largest = max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in unequal)
        result |= {"unlike": f"{len(unequal)} of {len(ours)} tensors", "largest": largest}
    return result


def same(first: Config, second: Config) -> Result:
    """Compare the bits of two runs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = difference(train(first), train(second))
    warned = sorted(
        {str(w.message).split(".")[0][:80] for w in caught if "determinis" in str(w.message)}
    )
    return {**result, "warned": warned} if warned else result


def waits(part: Part, config: Config) -> Result:
    """The places in an epoch's steps where the CPU waits for the GPU, as PyTorch reports them."""
    training = prepared(config)
    training.network.train()
    sampler = BatchSampler(training.plan, range(training.data.n), seed=config.seed)
    schedule = Schedule(training.optimizer, sampler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not part.dry:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            loop.train_epoch(training, sampler, schedule, Quiet(), lambda: None)
        finally:
            if not part.dry:
                torch.cuda.set_sync_debug_mode("default")
    places = [
        f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)
    ]
    # allowed once an epoch: copies of the images' order and moves, and reading the sums and C²
    return {"ok": len(places) <= 12, "waits": len(places), "steps": sampler.updates,
            "where": sorted(set(places))}  # fmt: skip


def beside_cpu(part: Part, folder: Path) -> Result:
    """Compare the gradient of a batch in fp32 with that on the CPU."""
    gradients = []
    for device in (part.device, "cpu"):
        config = configured(part, folder, "model=resnet18", "engine.precision=fp32", *SHORT)
        training = prepared(replace(config, engine=replace(config.engine, device=device)))
        (batch,) = training.data.plain_batches([torch.arange(32)])
        training.engine.backward(training.network.train(), *batch)
        parts = [
            p.grad.cpu().flatten() for p in training.network.parameters() if p.grad is not None
        ]
        gradients.append(torch.cat(parts).double())
    ours, theirs = gradients
    gap = float((ours - theirs).norm() / theirs.norm())
    return {"ok": gap < 1e-3, "relative difference": gap}


def memory(part: Part, config: Config) -> Result:
    """The memory that thirty batch sizes add, on GPU and host, to that of the largest alone."""
    training = prepared(config)
    runner, network = training.engine, training.network.train()
    for group in training.optimizer.param_groups:
        group["lr"] = 0.01
    sizes = [8, 16] if part.dry else list(range(16, 496, 16))

    def steps(b: int) -> None:
        (batch,) = training.data.plain_batches([torch.arange(b)])
        for _ in range(3):
            runner.backward(network, *batch, b)
            runner.update(training.optimizer)
        synchronise()

    steps(sizes[-1])
    before = _held(part)
    for b in sizes:
        steps(b)
    after = _held(part)
    result: Result = {"sizes": len(sizes), **{name: after[name] - before[name] for name in after}}
    name = "reserved MiB"
    return result if part.dry else {"ok": result[name] <= 0.25 * before[name], **result}


def _held(part: Part) -> dict[str, float]:
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if part.dry:
        return {"host MiB": host}
    free, total = torch.cuda.mem_get_info()
    return {"host MiB": host, "reserved MiB": torch.cuda.memory_reserved() / 2**20,
            "taken MiB": (total - free) / 2**20}  # fmt: skip


def pytest(seconds: float, *arguments: str) -> Result:
    """Run the tests marked gpu, without pyproject.toml, whose settings need more packages."""
    files = (ROOT / "tests").rglob("test_*.py")
    tests = [str(file) for file in files if "DEVICES" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
               "-c", os.devnull, f"--rootdir={ROOT}", *arguments, *tests]  # fmt: skip
    try:
        done = programs.run(command, seconds)
    except subprocess.TimeoutExpired as late:
        return {"ok": False, "tail": f"out of time: {str(late.output)[-2000:]}"}
    return {"ok": done.returncode == 0, "tail": (done.stdout + done.stderr)[-4000:]}
