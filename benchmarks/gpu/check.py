"""Correctness on this GPU: equal bits, an epoch beside the CPU's, and the tests marked gpu."""

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import programs
from benchmarks.gpu.part import Part, Result, configured, prepared, trained
from benchmarks.programs import ROOT
from igo.config.schema import Config, EngineConfig
from igo.train import machine
from igo.train.training import Progress, Training

SHORT = ("dataset.samples=120", "batch_size=24", "epochs=3", "schedule.stages=3", "noise.batches=2")
LONG = ("dataset.samples=4000", "batch_size=32", "epochs=3", "schedule.stages=3")

METHOD_SAMPLES = 1024  # A CPU of four cores trains so many four times in a minute.
CLOSE = 0.05  # of the loss of an epoch in 16 bits; chosen


def items(part: Part, folder: Path) -> None:
    """All checks; cheap and informative ones come first."""
    size = SHORT if part.dry else LONG

    def run(*overrides: str) -> Config:
        return configured(part, folder, *size, *overrides)

    part.item("machine", lambda: choices(part))
    for model in ("resnet8", "resnet18"):
        part.item(f"same bits twice, {model}", lambda model=model: same(run(f"model={model}")))
    stem = ("model=resnet18", *(() if part.dry else ("model.stem=imagenet",)))
    part.item("same bits twice, max-pooling", lambda: same(run(*stem)))
    part.item("fp32 epoch beside the CPU's", lambda: beside_cpu(part, folder))
    seconds = 0.0 if part.dry else 120.0
    part.item("an epoch of Methods 1 to 4", lambda: methods(part, folder), seconds)
    if part.dry:
        part.item("tests marked gpu, found", lambda: pytest(part.left, "--collect-only", "-q"))
    else:
        part.item("tests marked gpu", lambda: pytest(part.left - 5, "--maxfail=20"), seconds=30)


def choices(part: Part) -> Result:
    """Versions, and the choices of the engine."""
    engine = machine.choose(EngineConfig(device=part.device))
    return {"torch": torch.__version__, **machine.hardware(engine)}


def train(config: Config) -> tuple[Training, Progress]:
    """Train to the end of the plan."""
    return trained(prepared(config))


def same(config: Config) -> Result:
    """Compare the bits of parameters and BatchNorm's statistics of two runs.

    The result also has PyTorch's warnings of operations that are not deterministic, cut short.
    """
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        first, second = (train(config)[0].network.state_dict() for _ in range(2))
    gaps = [float((first[k].double() - second[k].double()).abs().max()) for k in first]
    texts = {str(message.message).split(".")[0][:80] for message in messages}
    warned = sorted(text for text in texts if "determinis" in text)
    unlike = sum(not torch.equal(first[k], second[k]) for k in first)
    result: Result = {"ok": not unlike, "tensors unlike": unlike, "largest": max(gaps)}
    return {**result, "warned": warned} if warned else result


def beside_cpu(part: Part, folder: Path) -> Result:
    """Compare the record of an epoch in fp32 with that on the CPU."""
    fp32, short = ("model=resnet18", "engine.precision=fp32"), ("epochs=1", "schedule.stages=1")
    config = configured(part, folder, *fp32, *SHORT, *short)
    on_cpu = replace(config, engine=replace(config.engine, device="cpu"))
    gpu_record, cpu_record = (train(settings)[1].records[0] for settings in (config, on_cpu))
    names = ("train/loss", "test/loss", "gradient_variance", "reference_variance")
    gaps = {name: abs(gpu_record[name] / cpu_record[name] - 1) for name in names}
    return {"ok": max(gaps.values()) < 1e-3, **gaps}


def methods(part: Part, folder: Path) -> Result:
    """The training loss of an epoch of each method over what is expected: the CPU's, in fp32."""
    size = ("model=resnet18", "epochs=1", "batch_size=8", "noise.batches=2", "learning_rate=0.02")
    samples = f"dataset.samples={120 if part.dry else METHOD_SAMPLES}"
    ratios: Result = {}
    for name in ("method1", "method2", "method3", "method4"):
        config = configured(part, folder, *size, samples, f"schedule={name}")
        in_fp32 = replace(config, engine=replace(config.engine, device="cpu", precision="fp32"))
        loss, expected = (
            train(setting)[1].records[0]["train/loss"] for setting in (config, in_fp32)
        )
        ratios[name] = loss / expected
    return {"ok": all(abs(ratio - 1) < CLOSE for ratio in ratios.values()), **ratios}


def pytest(seconds: float, *arguments: str) -> Result:
    """Run the tests marked gpu, without pyproject.toml, whose settings need more packages."""
    texts = {str(file): file.read_text() for file in (ROOT / "tests").rglob("test_*.py")}
    tests = [file for file, text in texts.items() if "device: str" in text or "mark.gpu" in text]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["-W", "ignore::pytest.PytestUnknownMarkWarning", "-c", os.devnull]
    command += [f"--rootdir={ROOT}", *arguments, *tests]
    try:
        process = programs.run(command, seconds)
    except subprocess.TimeoutExpired as error:
        return {"ok": False, "tail": f"out of time: {str(error.output)[-2000:]}"}
    return {"ok": process.returncode == 0, "tail": (process.stdout + process.stderr)[-4000:]}
