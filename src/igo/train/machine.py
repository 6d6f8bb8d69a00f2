"""Where a run computes: its device, precision and CPU threads, and the machine's facts.

PyTorch's threads wait for each other by spinning: beside another busy program all of them together
can be several times slower than one. ``OMP_NUM_THREADS`` sets their number.
"""

import ctypes
import os
import platform
import re
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from igo.config.schema import EngineConfig
from igo.ground.errors import require
from igo.ground.files import Record
from igo.ground.ranks import ALONE, Ranks, allowed_cores
from igo.train.engine import Engine
from igo.train.training import Progress, Training

ALL_THREADS = torch.get_num_threads()  # No run has changed it yet.
SHARED_FROM = 16  # Pixels a side: with smaller images threads mostly wait.
MOST_AT_ONCE = 1024  # Samples, on each GPU or on all CPUs: none gains from more.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # These numbers are those of <malloc.h>.
# cuDNN keeps this many execution plans, one for each shape, of some 200 KiB of host memory each.
# Two hundred batch sizes would fill PyTorch's 10,000; a stage of a ResNet18 needs 300.
PLANS = "1000"
NOT_IN_JOB = (
    "this SLURM job has no GPU: the run trains on the CPU. Ask for one (sbatch"
    " --gpus-per-node=1, or hydra.launcher.gpus_per_node=1), or type engine=cpu"
)


def choose(config: EngineConfig, image_size: int = SHARED_FROM, ranks: Ranks = ALONE) -> Engine:
    """Choose device, precision and threads. Each process takes a GPU of its machine.

    Images of fewer than SHARED_FROM pixels a side (``image_size``) get one thread. PyTorch's
    options are set for the whole process. What the user should know is the engine's note.
    """
    on_gpu = _on_gpu(config.device, ranks)
    device = torch.device("cuda" if on_gpu else "cpu")
    if on_gpu:
        _let_segments_grow()
        if ranks.size > 1:
            _take_own_gpu(ranks)
    else:
        keep_freed_memory()
    torch.set_num_threads(1 if image_size < SHARED_FROM else allowed_threads())
    best = _best_precision(device)
    precision = best if config.precision == "auto" else config.precision
    _set_options(precision, config.deterministic)
    note = ""
    if config.device == "auto" and not on_gpu and "SLURM_JOB_ID" in os.environ:
        note = NOT_IN_JOB
    if precision == "bf16" and best != "bf16":
        kind = "GPU" if on_gpu else "CPU"
        note = f"engine.precision=bf16 is emulated on this {kind}, which is slow: {best} is faster"
    autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    most_at_once = MOST_AT_ONCE * (ranks.size if on_gpu else 1)  # over all ranks
    micro_batch_size = config.micro_batch_size or most_at_once
    return Engine(device, autocast, scaler, micro_batch_size, note, ranks, compiles=config.compile)


def _on_gpu(device: str, ranks: Ranks) -> bool:
    """Whether a run computes on GPUs; ``device`` is engine.device: auto, cpu or cuda."""
    if device == "cpu":
        return False
    # Processes may be on machines of which not all have a GPU.
    has_gpu = all(ranks.gather(torch.cuda.is_available()))
    advice = "PyTorch finds no GPU here; use engine=auto or engine=cpu, not engine=gpu"
    require(has_gpu or device == "auto", "engine.device", device, advice)
    return has_gpu


def _let_segments_grow() -> None:
    """Let PyTorch's reserved memory grow in place, unless the user's environment has settings.

    By default each batch size leaves blocks that larger ones cannot use: in a simulation 30 sizes
    reserved 6.9 times what the largest needs, with this 1.01. It is no environment variable, as
    PyTorch may have read those when it was imported, and 2.9 does not heed PYTORCH_ALLOC_CONF here.
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        # PyTorch has the first setter from 2.10, and before it the second.
        setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
        (setter or torch.cuda.memory._set_allocator_settings)("expandable_segments:True")


def _take_own_gpu(ranks: Ranks) -> None:
    """Use a GPU that no other process of the run uses."""
    count = torch.cuda.device_count()
    torch.cuda.set_device(ranks.local_rank % count)  # srun may show each process only its GPU
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    gpus = Counter(ranks.gather((socket.gethostname(), uuid)))
    (host, _), processes = gpus.most_common(1)[0]
    require(
        processes == 1,
        "engine.device",
        "cuda",
        f"{processes} processes on {host} would share one GPU; start at most as many as there are"
        f" GPUs ({count}), or use engine=cpu",
    )


def _best_precision(device: torch.device) -> str:
    """The fastest precision for which the device has instructions: bf16, fp16 or fp32."""
    if device.type == "cuda":  # GPUs have bf16 from Ampere (8.0) on, and fp16 before.
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    # Earlier versions of PyTorch do not tell a CPU's instructions: these train in fp32.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    has_bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    # ONEDNN_MAX_CPU_ISA may forbid oneDNN to use these instructions.
    uses_bf16 = has_bf16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if uses_bf16 else "fp32"


def _set_options(precision: str, deterministic: bool) -> None:
    """Set PyTorch's and cuDNN's options, before the first step.

    fp32 keeps 32 bits: by default PyTorch lets convolutions round their inputs to TF32, which stays
    so in the other precisions. Matrix products of 32 bits never round, as by default. cuDNN chooses
    algorithms by rule, not by trial: a trial takes up to seconds for each new batch size
    (estimated), and its choice differs from run to run.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # PyTorch would fill each new tensor with NaN, to expose reads before the first write. That
    # changes no result, and a small model's update took 4 % longer.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    os.environ.setdefault("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", PLANS)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> None:
    """Keep memory that a step frees, for the next one (glibc, unless MALLOC_… variables are set).

    By default glibc returns freed blocks of 32 MiB and more to the kernel, and free memory at the
    heap's end too. Each step then needs new, zeroed pages, see docs/performance.md.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # macOS has none.
    if mallopt is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt(M_MMAP_MAX, 0)  # The heap then has large blocks, too.
        mallopt(M_TRIM_THRESHOLD, -1)  # It never shrinks.


def without_bf16(engine: Engine) -> Engine:
    """The engine, but in fp32 with a note if it is a CPU in bf16.

    It is for models whose gradients are wrong on a CPU in bf16.
    """
    if engine.device.type != "cpu" or engine.autocast is not torch.bfloat16:
        return engine
    note = (
        "training in fp32: this model has strided convolutions on single pixels, whose bf16"
        " gradients PyTorch gets wrong on a CPU"
    )
    return replace(engine, autocast=None, note=note)


def allowed_threads() -> int:
    """PyTorch's own number of threads, at most the cores that the process may use.

    ``OMP_NUM_THREADS`` lowers it. PyTorch reads that variable once, when it is imported; launchers
    set it later.
    """
    threads = min(ALL_THREADS, allowed_cores())
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # A list is by level of nesting.
    if limit.strip().isdecimal():
        threads = min(threads, int(limit))
    return max(1, threads)


def keep_threads(run: Training, progress: Progress, say: Callable[[str], None]) -> None:
    """Give a run that continues as many threads as it had, as another number changes rounding.

    ``progress.threads`` becomes the number that the run has now. ``say`` tells the user if fewer
    threads are allowed than the run had. With several processes or a GPU, the number stays as
    ``choose`` has set it.
    """
    if run.engine.device.type != "cpu" or run.engine.ranks.size > 1:
        return
    earlier_threads, most_threads = progress.threads, allowed_threads()
    if earlier_threads is not None:
        torch.set_num_threads(min(earlier_threads, most_threads))
        if earlier_threads > most_threads:
            say(f"threads: {most_threads} of {earlier_threads} before: results differ by rounding")
    progress.threads = torch.get_num_threads()


def hardware(engine: Engine) -> Record:
    """The facts about the machine for the record."""
    gpu: Record = {}
    if engine.device.type == "cuda":
        gpu = {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return {
        "device": engine.device.type,
        "precision": str(engine.autocast or "fp32").removeprefix("torch."),
        **gpu,
        "cpu": cpu_name(),
        "instructions": instructions(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "micro_batch_size": engine.micro_batch_size,
        "ranks": engine.ranks.size,
    }


def instructions() -> str:
    """The CPU's instructions that PyTorch uses, such as AVX512, and the limit set for oneDNN."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN {limit}" if limit else "")


def cpu_name() -> str:
    """The CPU's name, as the kernel has it."""
    cpus = Path("/proc/cpuinfo")
    text = cpus.read_text() if cpus.exists() else ""
    match = re.search(r"^model name\s*:\s*(.*)", text, re.M)
    return match[1] if match else platform.processor() or platform.machine()
