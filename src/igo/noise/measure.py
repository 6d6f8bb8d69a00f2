"""Measures the noise of any network from gradients of mini-batches."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import SequentialSampler

from igo.ground.seeds import derive_seed
from igo.noise.noise import Noise
from igo.noise.spread import Spread

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) to the mean loss of the batch


def measure_noise(
    network: nn.Module,
    loss: Loss | None,
    loader: Iterable[Any],
    *,
    n: int,
    batches: int = 32,
    sampling: str = "disjoint",
    loss_of: Callable[[nn.Module, Any], Tensor] | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Noise:
    """Measure C² and ‖∇f‖ of any model on any loader, and leave the model unchanged.

    Gradients are computed as in training, by ``.backward()``, one after the other: they take the
    memory of two gradients, whatever ``batches`` is. Parameters, buffers, ``.grad`` and torch's
    random state are as before.

    >>> x = torch.randn(64, 3, generator=torch.manual_seed(0))
    >>> data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    >>> loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    >>> noise = igo.measure_noise(
    ...     torch.nn.Linear(3, 1), torch.nn.functional.mse_loss, loader, n=64, batches=8
    ... )
    >>> noise.variance > 0 and noise.interval[0] < noise.variance < noise.interval[1]
    True

    A likely mistake is one line of warning: Dropout in eval mode, a loader in order, a loss that is
    a sum. C² = b · Σ‖g_k - ḡ‖²/(K - 1) · F, F for ``sampling``, and ‖∇f‖² = ‖ḡ‖² minus the
    variance of ḡ: both unbiased (docs/noise.md).

    Args:
        network: in the mode that it is trained in; not sharded over ranks (FSDP, tensor parallel).
        loss: mean loss of a batch, e.g. ``torch.nn.functional.cross_entropy``; not the sum.
        loader: shuffled batches of one size, as of a DataLoader with ``drop_last``. With ``loss``
            each is (inputs, targets), whose first dimension is the batch.
        n: training samples that the loader draws from.
        batches: K, how many of the loader's batches to use.
        sampling: how the loader draws: ``disjoint`` (an epoch without replacement),
            ``independent`` (each batch without replacement) or ``with_replacement``.
        loss_of: instead of ``loss``, the mean loss of (model, batch), for batches of any form.
        batch_size: b, samples of a batch; needed with ``loss_of``, and under
            DistributedDataParallel, where it counts the samples of all ranks and each rank draws
            its own.
        seed: of the random numbers of the measurement (the loader's shuffle, dropout); by default
            they start from torch's random state, so two calls in a row draw the same. Ranks of
            DistributedDataParallel draw others.

    Returns:
        A ``Noise``: ``variance`` is C² in (loss per parameter)², ``interval`` its 95 % interval,
        ``gradient_norm`` ‖∇f‖ in loss per parameter.

    Raises:
        ValueError: too few batches, batches of different sizes or of another size than
            ``batch_size``, an unknown sampling, a loss that is not one finite number, a parameter
            that gets no gradient.
    """
    if batches < 2:
        raise ValueError(f"batches={batches}: a variance needs 2 or more")
    if (loss is None) == (loss_of is None):
        raise ValueError("give loss (of outputs and targets) or loss_of (of model and batch)")
    ddp = isinstance(network, nn.parallel.DistributedDataParallel)
    group: Any = network.process_group if ddp else None
    ranks = group.size() if group else 1
    _check_measurable(network, loss, loader, batch_size, ranks)
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    with untouched(network, seed):
        spread, sizes = Spread(named.values()), set[int]()
        if group:  # each rank draws batches and dropout of its own
            start = int(torch.randint(2**62, ()))
            torch.manual_seed(derive_seed(start, "rank", group.rank()))
        for number, batch in enumerate(itertools.islice(loader, batches), start=1):
            for parameter in named.values():
                parameter.grad = None
            if loss_of is not None:
                value = loss_of(network, batch)
            else:
                value = _loss_of_pair(network, loss, batch, first=number == 1)
            sizes.add(_size(batch, batch_size, ranks, loss_of is None))
            if len(sizes) > 1:
                raise ValueError(f"batches of {sorted(sizes)} samples: they must be of one size")
            if value.ndim or not math.isfinite(value.item()):
                raise ValueError(f"the loss of batch {number} is {value}: it must be a finite mean")
            value.backward()
            spread.add([parameter.grad for parameter in named.values()])
    if spread.count < batches:
        raise ValueError(f"batches={batches}: the loader has only {spread.count}")
    if missed := [name for name, none in zip(named, spread.missed, strict=True) if none]:
        raise ValueError(
            f"no gradient reaches {', '.join(missed[:3])}{' …' if missed[3:] else ''}: set"
            " requires_grad=False if the loss does not use a parameter; under checkpointing use"
            " use_reentrant=False, which needs no input with a gradient"
        )
    measured = spread.noise(batch_size=sizes.pop(), n=n, sampling=sampling)
    if not math.isfinite(measured.variance):
        raise ValueError(f"C² is {measured.variance}: the loss is finite, a gradient is not")
    return measured


def _check_measurable(
    network: nn.Module, loss: Any, loader: Any, batch_size: int | None, ranks: int
) -> None:
    """Refuse what would give a wrong C² without an error, and warn of what may."""
    if getattr(loss, "reduction", "mean") not in ("mean", "batchmean"):
        raise ValueError(f"loss has reduction={loss.reduction!r}: C² needs the mean of a batch")
    parameters = list(network.parameters())
    if any(hasattr(p, "device_mesh") for p in parameters):
        raise ValueError("parameters are sharded over ranks: measure the whole model")
    if not any(p.requires_grad for p in parameters):
        raise ValueError("no parameter requires a gradient")
    if batch_size is None and (loss is None or ranks > 1):
        why = "over all ranks, whose gradients are averaged" if ranks > 1 else "with loss_of"
        raise ValueError(f"batch_size=None: give the size of a batch, {why}")
    if any(getattr(p, "_post_accumulate_grad_hooks", None) for p in parameters):
        raise ValueError("a parameter has a post_accumulate_grad hook: backward would train it")
    sampler = getattr(loader, "batch_sampler", None)
    if getattr(sampler, "updates", 0) and not getattr(sampler, "done", True):  # igo.BatchSampler
        raise ValueError(
            "loader gives the batches of a training in progress, which this would disturb: measure"
            " with another loader, e.g. DataLoader(data, b, shuffle=True, drop_last=True)"
        )
    if isinstance(getattr(sampler, "sampler", None), SequentialSampler):
        _warn("the loader gives the samples in order: C² needs shuffled ones, shuffle=True")
    if not network.training and any(isinstance(m, _DropoutNd) for m in network.modules()):
        _warn("the model has Dropout and is in eval mode: measure it as it trains, model.train()")


def _warn(text: str) -> None:
    warnings.warn(f"measure_noise: {text}", stacklevel=4)


def _loss_of_pair(network: nn.Module, loss: Any, batch: Any, *, first: bool) -> Tensor:
    """The loss of (inputs, targets); at the first batch a sum of losses is warned of.

    The losses of its two halves add up to a sum, and to twice a mean.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ValueError("loss needs batches of (inputs, targets); for others give loss_of")
    inputs, targets = batch
    outputs = network(inputs)
    value: Tensor = loss(outputs, targets)
    if first and isinstance(outputs, Tensor) and outputs.ndim and len(outputs) > 1:
        half = len(outputs) // 2
        with torch.no_grad(), suppress(Exception):  # a loss may need the whole batch
            halves = loss(outputs[:half], targets[:half]) + loss(outputs[half:], targets[half:])
            if (halves - value).abs() < 1e-3 * value.abs():
                _warn("the loss adds up over a batch's samples: C² needs their mean")
    return value


def _size(batch: Any, batch_size: int | None, ranks: int, pair: bool) -> int:
    """b, as given or as the batch has it; on several ranks a batch is one rank's share of b."""
    seen = None
    if pair and all(isinstance(part, Tensor) and part.ndim for part in batch):
        inputs, targets = batch
        seen = len(targets) if len(inputs) == len(targets) else None
    size = batch_size or seen
    if size is None:
        raise ValueError(
            "batch_size=None: give the size of a batch, which this loader does not say"
        )
    if seen not in (None, size // ranks, -(-size // ranks)):
        each = f" on each of {ranks} ranks" if ranks > 1 else ""
        raise ValueError(f"batch_size={size}: the loader gives {seen} samples{each}")
    return size


@contextmanager
def untouched(network: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Leave buffers (BatchNorm's statistics), gradients and torch's random state as they were.

    Inside, torch draws from ``seed``; without one, from its present state. Gradients are computed
    also under ``no_grad`` and ``inference_mode``.
    """
    gpus = {p.device for p in network.parameters() if p.device.type == "cuda"}
    buffers = [buffer.clone() for buffer in network.buffers()]
    gradients = [parameter.grad for parameter in network.parameters()]
    forked = torch.random.fork_rng(devices=[gpu.index for gpu in gpus])
    with torch.inference_mode(mode=False), torch.enable_grad(), forked:
        if seed is not None:
            torch.manual_seed(seed)
        try:
            yield
        finally:
            for buffer, before in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(before)
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
