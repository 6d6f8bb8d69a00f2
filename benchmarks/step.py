"""An update in plain PyTorch, as fast as this machine makes it, without igo.

In bf16 where the processor has it, and in channels_last memory, with one kernel for all parameters.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.task import Task, device

Update = Callable[[Tensor, Tensor], Tensor]


def has_bf16() -> bool:
    """Whether this processor computes in bf16; else PyTorch would emulate it."""
    if device().type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    features = torch.cpu.get_capabilities()
    in_hardware = features.get("avx512_bf16") or features.get("amx_bf16")
    return bool(in_hardware and torch.ops.mkldnn._is_mkldnn_bf16_supported())


HAS_BF16 = has_bf16()


def trained(task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model of a task, and SGD without momentum for images, AdamW for text."""
    torch.manual_seed(0)
    keep_freed_memory()
    network: nn.Module = getattr(networks, task.network)().to(device()).train()
    # PyTorch's types of `to` differ by version.
    cast(Any, network).to(memory_format=torch.channels_last)
    kind = torch.optim.AdamW if task.is_text else torch.optim.SGD
    return network, kind(network.parameters(), lr=task.turns[0][1], fused=True)


def loss_of(network: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss, and the share of right answers; nothing waits for the GPU."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=HAS_BF16):
        logits = network(inputs).flatten(0, -2)
    labels = targets.flatten()
    right = (logits.detach().argmax(dim=1) == labels).float().mean()
    return F.cross_entropy(logits.float(), labels), right


def update_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> Update:
    """A function that makes an update, and returns sums: of losses, and of right answers."""

    def update(inputs: Tensor, targets: Tensor) -> Tensor:
        loss, right = loss_of(network, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return torch.stack([loss.detach(), right]) * len(targets)

    return update


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next update, as the allocators of tuning guides do."""
    if os.name == "posix" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option, value in ((-4, 0), (-1, -1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
            libc.mallopt(option, value)
