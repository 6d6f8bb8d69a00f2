"""Correctness on this GPU: the tests marked gpu, equal bits, memory, waits in a step."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from benchmarks import programs
from benchmarks.gpu.part import Part, Result, configured, prepared
from benchmarks.gpu.part import waits as part_waits
from benchmarks.programs import ROOT
from benchmarks.worker import synchronise
from igo.config.schema import Config, EngineConfig
from igo.loop.sampler import BatchSampler
from igo.loop.schedule import Schedule
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
    part.item("fp32 epoch beside the CPU's", lambda: beside_cpu(part, folder))
    part.item("memory over 30 batch sizes", lambda: memory(part, run("model=resnet18")))
    if part.dry:
        part.item("tests marked gpu, found", lambda: pytest(part.left, "--collect-only", "-q"))
    else:
        part.item("tests marked gpu", lambda: pytest(part.left - 5, "--maxfail=20"), least=30)


def choices(part: Part) -> Result:
    """Versions, and the choices of the engine."""
    chosen = machine.choose(EngineConfig(device=part.device))
    return {"torch": torch.__version__, **machine.hardware(chosen)}


def train(config: Config) -> tuple[Training, Progress]:
    """Train to the end of the plan."""
    training, progress = prepared(config), Progress()
    loop.train(training, progress, mock.Mock(), lambda _: None, lambda: None)
    return training, progress


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
        result = difference(train(first)[0], train(second)[0])
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
    with part_waits(part) as places:
        loop.train_epoch(training, sampler, schedule, mock.Mock(), lambda: None)
    # An epoch may copy the images' order and moves, and read the sums and C².
    numbers = {"waits": len(places), "steps": sampler.updates}
    return {"ok": len(places) <= 12, **numbers, "where": sorted({*places})}


def beside_cpu(part: Part, folder: Path) -> Result:
    """Compare the record of an epoch in fp32 with that on the CPU."""
    config = configured(part, folder, "model=resnet18", "engine.precision=fp32", *SHORT, "epochs=1",
                        "schedule.stages=1")  # fmt: skip
    on_cpu = replace(config, engine=replace(config.engine, device="cpu"))
    ours, theirs = (train(each)[1].records[0] for each in (config, on_cpu))
    names = ("train/loss", "test/loss", "gradient_variance", "reference_variance")
    gaps = {name: abs(ours[name] / theirs[name] - 1) for name in names}
    return {"ok": max(gaps.values()) < 1e-3, **gaps}


def memory(part: Part, config: Config) -> Result:
    """The memory that thirty growing batch sizes add to that of the largest alone."""
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

    before = _host_mib()
    if not part.dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for b in sizes:
        steps(b)
    result: Result = {"sizes": len(sizes), "more host MiB": _host_mib() - before}
    if part.dry:
        return result
    grown, peak = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    grows = torch.cuda.memory._snapshot()["allocator_settings"]["expandable_segments"]
    torch.cuda.empty_cache()
    steps(sizes[-1])
    alone = torch.cuda.memory_reserved()
    return {"ok": grown <= 1.25 * alone, **result, "reserved MiB": grown / 2**20,
            "the largest alone": alone / 2**20, "peak allocated": peak / 2**20,
            "expandable segments": grows}  # fmt: skip


def _host_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pytest(seconds: float, *arguments: str) -> Result:
    """Run the tests marked gpu, without pyproject.toml, whose settings need more packages."""
    texts = {str(file): file.read_text() for file in (ROOT / "tests").rglob("test_*.py")}
    tests = [file for file, text in texts.items() if "DEVICES" in text or "mark.gpu" in text]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
               "-W", "ignore::pytest.PytestUnknownMarkWarning",
               "-c", os.devnull, f"--rootdir={ROOT}", *arguments, *tests]  # fmt: skip
    try:
        done = programs.run(command, seconds)
    except subprocess.TimeoutExpired as late:
        return {"ok": False, "tail": f"out of time: {str(late.output)[-2000:]}"}
    return {"ok": done.returncode == 0, "tail": (done.stdout + done.stderr)[-4000:]}
