"""NVIDIA's GPUs and libraries: settings of the process, and facts for the record."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from igo.ground.errors import ConfigError
from igo.ground.ranks import Ranks

# cuDNN keeps this many execution plans, one for each shape, of some 200 KiB of host memory each.
# Two hundred batch sizes would fill PyTorch's 10,000; a stage of a ResNet18 needs 300.
PLANS = "1000"
DRIVER = Path("/proc/driver/nvidia/version")
NOT_IN_JOB = (
    "this SLURM job has no GPU: the run trains on the CPU. Ask for one (sbatch"
    " --gpus-per-node=1, or hydra.launcher.gpus_per_node=1), or type engine=cpu"
)


def wanted(device: str, ranks: Ranks) -> bool:
    """Whether a run computes on GPUs; ``device`` is engine.device: auto, cpu or cuda."""
    if device == "cpu":
        return False
    # Processes may be on machines of which not all have a GPU.
    has_gpu = all(ranks.gather(torch.cuda.is_available()))
    if device == "cuda" and not has_gpu:
        allowed = "PyTorch finds no GPU here; use engine=auto or engine=cpu"
        raise ConfigError("engine.device", device, allowed)
    return has_gpu


def configure(precision: str) -> None:
    """Set cuDNN's options, before the first step; without a GPU they have no effect.

    fp32 keeps 32 bits: by default PyTorch lets convolutions round their inputs to TF32. cuDNN
    chooses algorithms by rule, not by trial: a trial takes up to seconds for each new batch size
    (estimated), and its choice differs from run to run.
    """
    os.environ.setdefault("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", PLANS)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = False


def take_own(ranks: Ranks) -> None:
    """Use a GPU that no other process of the run uses."""
    count = torch.cuda.device_count()
    torch.cuda.set_device(ranks.local_rank % count)  # srun may show each process only its GPU
    identity = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    check_apart(ranks.gather(f"{socket.gethostname()} {identity}"), count)


def check_apart(gpus: Sequence[str], count: int) -> None:
    """Check that no GPU is in the list twice."""
    gpu, shared = Counter(gpus).most_common(1)[0]
    if shared > 1:
        allowed = (
            f"{shared} processes on {gpu.split()[0]} would share one GPU; start at most as many as"
            f" there are GPUs ({count}), or use engine=cpu"
        )
        raise ConfigError("engine.device", "cuda", allowed)


def facts() -> dict[str, str | int]:
    """The GPU, and the versions of its driver and libraries."""
    machine: dict[str, str | int] = {"gpu": torch.cuda.get_device_name()}
    with contextlib.suppress(OSError):
        if match := re.search(r"\b\d+(\.\d+)+\b", DRIVER.read_text()):
            machine["driver"] = match.group()
    if torch.version.cuda is not None:
        machine["cuda"] = torch.version.cuda
    if (version := torch.backends.cudnn.version()) is not None:
        machine["cudnn"] = version
    return machine
