"""NVIDIA's GPUs and libraries: what is set once a process, and what a record says of them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from igo.errors import ConfigError
from igo.ranks import Ranks

# cuDNN's plans for shapes it has met, of some 200 KiB of host memory each. PyTorch keeps 10,000,
# and a schedule's two hundred batch sizes would fill them; a stage of a ResNet18 needs about 300.
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
    found = [word == "True" for word in ranks.everyones("GPU", str(torch.cuda.is_available()))]
    if any(found) and not all(found):
        has, not_ = found.index(True), found.index(False)
        allowed = f"process {has} of the run finds a GPU and process {not_} none; use engine=cpu"
        raise ConfigError("engine.device", device, allowed)
    if device == "cuda" and not any(found):
        allowed = "PyTorch finds no GPU here; use engine=auto or engine=cpu"
        raise ConfigError("engine.device", device, allowed)
    return found[0]


def is_missing(on_gpu: bool) -> bool:
    """Whether this is a job of SLURM that was given no GPU."""
    return not on_gpu and "SLURM_JOB_ID" in os.environ


def configure(precision: str) -> None:
    """Set what PyTorch's defaults leave to chance; before the first step, harmless without a GPU.

    fp32 is 32 bits: PyTorch would let convolutions, and those alone, round their inputs to TF32's
    ten. cuDNN chooses algorithms by rule, not by trial: trying takes up to seconds for each new
    batch size (estimated), and finds others from run to run.
    """
    os.environ.setdefault("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", PLANS)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = False


def take_own(ranks: Ranks) -> None:
    """Give each process of a run a GPU of its own."""
    found = torch.cuda.device_count()
    torch.cuda.set_device(ranks.local_rank % found)  # srun may show each process its own GPU alone
    identity = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    check_apart(ranks.everyones("gpu", f"{socket.gethostname()} {identity}"), found)


def check_apart(gpus: Sequence[str], found: int) -> None:
    """See that no GPU is named twice."""
    gpu, shared = Counter(gpus).most_common(1)[0]
    if shared > 1:
        allowed = (
            f"{shared} processes on {gpu.split()[0]} would share one GPU, of {found} there; start"
            " at most as many as there are GPUs, or use engine=cpu"
        )
        raise ConfigError("engine.device", "cuda", allowed)


def facts() -> dict[str, str | int]:
    """The GPU and the versions of what drives it."""
    found: dict[str, str | int] = {"gpu": torch.cuda.get_device_name()}
    with contextlib.suppress(OSError):
        if named := re.search(r"\b\d+(\.\d+)+\b", DRIVER.read_text()):
            found["driver"] = named.group()
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
    if (version := torch.backends.cudnn.version()) is not None:
        found["cudnn"] = version
    return found
