"""Measures the noise of any network from gradients of mini-batches, none of which is kept."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import SequentialSampler

from igo.ground.numbers import AT_LEAST_ONE, check
from igo.ground.seeds import python_generators, seed_python
from igo.noise.noise import Noise, from_spreads, refuse

WIDTH = 1024  # A gradient is projected to so many numbers, see Spread.
BATCHES = 32  # So many batches are used, unless the caller gives another number.
Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) to the mean loss of the batch


def measure_noise(
    network: nn.Module,
    loss: Loss | None,
    loader: Iterable[Any],
    *,
    n: int,
    batches: int | None = None,
    sampling: str = "disjoint",
    own_noise: bool = True,
    loss_of: Callable[[nn.Module, Any], Tensor | Iterable[Tensor]] | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Noise:
    """Measure C² and ‖∇f‖ of any model on any loader, and leave the model unchanged.

    Gradients are computed as in training, by ``.backward()``, one after the other: they take the
    memory of some seven gradients, whatever ``batches`` is. Parameters, buffers, ``.grad`` and the
    states of ``torch``'s, ``random``'s and ``numpy.random``'s generators are as before.

    >>> x = torch.randn(64, 3, generator=torch.manual_seed(0))
    >>> data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    >>> loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, drop_last=True)
    >>> noise = igo.measure_noise(
    ...     torch.nn.Linear(3, 1), torch.nn.functional.mse_loss, loader, n=64, batches=8
    ... )
    >>> low, high = noise.variance_interval
    >>> 0 < low < noise.variance < high
    True

    A likely mistake is one line of warning: Dropout in eval mode, a loader in order.

    g_k is the gradient of batch k of K, and ḡ the mean of all. C² = b · Σ‖g_k - ḡ‖²/(K - 1) · F is
    unbiased but for what ``own_noise`` says. F is for how the batches are drawn (``sampling``):
    (n - 1)/n for disjoint ones, (n - 1)/(n - b) for independent ones, and 1 with replacement.
    ‖∇f‖² is ‖ḡ‖² minus the variance of ḡ (docs/noise.md).

    Args:
        network: in the mode that it is trained in; not sharded over ranks (FSDP, tensor parallel).
            Of DistributedDataParallel it is the model inside, ``model.module``.
        loss: mean loss of a batch, e.g. ``torch.nn.functional.cross_entropy``; not the sum.
        loader: shuffled batches of one size, as of a DataLoader with ``drop_last``. With ``loss``
            each is (inputs, targets), whose first dimension is the batch.
        n: training samples that the loader draws from.
        batches: K, how many of the loader's batches to use; by default 32, or all if it has fewer.
        sampling: how the loader draws: ``disjoint`` (an epoch without replacement),
            ``independent`` (each batch without replacement) or ``with_replacement``.
        own_noise: whether a sample's gradient varies: augmentation, dropout, BatchNorm. It changes
            nothing for batches drawn ``with_replacement``. Without own noise ‖∇f‖² of ``disjoint``
            batches and C² of ``independent`` ones are unbiased. With own noise ‖∇f‖² and C² of
            ``disjoint`` batches are too small by C²/n at most, and C² of ``independent`` ones is up
            to F times too large. An F above 1.05 is refused: take smaller batches.
        loss_of: instead of ``loss``, the mean loss of (model, batch), for batches of any form. A
            large batch may go through the model in parts: a generator then yields the share of each
            micro-batch in the mean loss, and each has its backward pass before the next.
        batch_size: b, samples of a batch; needed with ``loss_of``.
        seed: of the random numbers of the measurement (the loader's shuffle, augmentation,
            dropout); by default they start from the present states, so two calls in a row draw the
            same.

    Returns:
        A ``Noise``: ``variance`` is C² in (loss per parameter)², ``variance_interval`` its 95 %
        interval, ``gradient_norm`` ‖∇f‖ in loss per parameter, without an interval.

    Raises:
        ValueError: n, ``batches`` or ``batch_size`` is no whole number above 0, too few batches,
            batches of different sizes or of another size than
            ``batch_size``, an unknown sampling, a loss that is not one finite number, a parameter
            that gets no gradient.
    """
    refuse(
        (loss is None) == (loss_of is None),
        "give loss (of outputs and targets) or loss_of (of model and batch)",
    )
    check(AT_LEAST_ONE, whole=True, n=n, batches=batches, batch_size=batch_size)
    _check_measurable(network, loss, loader)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sizes = set[int]()
    unreached = [*parameters]  # The names of those to which no batch has given a gradient so far.
    with untouched(network, seed):
        spread = Spread(parameters.values())
        for number, batch in enumerate(itertools.islice(loader, batches or BATCHES), start=1):
            network.zero_grad()  # ``.grad`` is None until a loss reaches the parameter.
            # The mean loss of the batch, in one tensor or in parts whose sum it is.
            losses = loss_of(network, batch) if loss_of else _loss_of_pair(loss, network, batch)
            sizes.add(_size(() if loss_of else batch, batch_size))
            refuse(len(sizes) > 1, f"batches of {sorted(sizes)} samples: they must be of one size")
            for loss_part in [losses] if isinstance(losses, Tensor) else losses:
                _backward(loss_part, number)
            # A gradient is added at once, so that memory does not grow with their number.
            spread.add([parameter.grad for parameter in parameters.values()])
            unreached = [name for name in unreached if parameters[name].grad is None]
    least = batches or 2  # A variance needs two, whether the caller asks for a number or not.
    refuse(spread.count < least, f"batches={least}: the loader has only {spread.count}")
    refuse(
        unreached,
        f"no gradient reaches {', '.join(unreached[:3])}{' …' if unreached[3:] else ''}: set"
        " requires_grad=False if the loss does not use a parameter; under checkpointing use"
        " use_reentrant=False, which needs no input with a gradient",
    )
    result = spread.noise(batch_size=sizes.pop(), n=n, sampling=sampling, own_noise=own_noise)
    c2 = result.variance
    refuse(not math.isfinite(c2), f"C² is {c2}: the loss is finite, a gradient is not")
    return result


def _loss_of_pair(loss: Any, network: nn.Module, batch: Any) -> Tensor:
    """The mean loss of a batch (inputs, targets)."""
    is_pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    refuse(not is_pair, "loss needs batches of (inputs, targets); for others give loss_of")
    inputs, targets = batch
    mean_loss: Tensor = loss(network(inputs), targets)
    return mean_loss


def _backward(loss: Tensor, number: int) -> None:
    """Add the gradient of batch ``number``'s mean loss, or of a part of that loss, to ``.grad``.

    A mean is one finite number, without dimensions: a loss of another kind is refused.
    """
    if loss.ndim or not math.isfinite(loss.item()):
        kind = f"of shape {[*loss.shape]}" if loss.ndim else loss.item()
        raise ValueError(f"the loss of batch {number} is {kind}: it must be a finite mean")
    loss.backward()


def _size(entries: Iterable[Any], batch_size: int | None) -> int:
    """b of a batch: the length that all its entries have, or else the caller's ``batch_size``.

    The entries are (inputs, targets). They have no length in common if the inputs are a graph, say,
    or the targets one row of tokens. A batch for ``loss_of`` may have any form: it has no entries.
    """
    lengths = {len(x) if isinstance(x, Tensor) and x.ndim else None for x in entries}
    common_length = lengths.pop() if len(lengths) == 1 else None
    size = common_length or batch_size
    if size is None:
        raise ValueError("batch_size=None: give the samples of a batch")
    is_as_said = batch_size in (None, size)
    refuse(not is_as_said, f"batch_size={batch_size}: the loader gives {size} samples")
    return size


def _check_measurable(network: nn.Module, loss: Any, loader: Any) -> None:
    """Refuse what would give a wrong C² without an error, and warn of what may."""
    refuse(
        getattr(loss, "reduction", "mean") == "sum",
        "loss has reduction='sum': C² needs the mean of a batch",
    )
    refuse(is_sharded(network), "parameters are sharded over ranks: measure the whole model")
    refuse(
        isinstance(network, nn.parallel.DistributedDataParallel),
        "a DistributedDataParallel averages over ranks: measure model.module",
    )
    has_parameters = any(p.requires_grad for p in network.parameters())
    refuse(not has_parameters, "no parameter requires a gradient")
    # To save memory, some optimizers step in such a hook, as soon as a parameter has its gradient.
    has_hook = any(getattr(p, "_post_accumulate_grad_hooks", None) for p in network.parameters())
    refuse(has_hook, "a parameter has a post_accumulate_grad hook: backward would train it")
    refuse(
        not isinstance(loader, Iterable),
        f"loader is a {type(loader).__name__}, which gives no batches: give DataLoader(data,"
        " batch_size=32, shuffle=True), or of a function iter(function, None)",
    )
    sampler = getattr(loader, "batch_sampler", None)
    for source in (loader, sampler):
        # igo's own loaders and samplers that count updates have this attribute: the reason why a
        # measurement, which makes no update, must not take their batches.
        reason = getattr(source, "unmeasurable", "")
        refuse(reason, f"loader {reason}")
    if isinstance(getattr(sampler, "sampler", None), SequentialSampler):
        _warn("the loader gives the samples in order: C² needs shuffled ones, shuffle=True")
    if not network.training and any(isinstance(m, _DropoutNd) for m in network.modules()):
        _warn("the model has Dropout and is in eval mode: measure it as it trains, model.train()")


def _warn(text: str) -> None:
    # The warning names the caller's line: above _warn, _check_measurable and measure_noise.
    warnings.warn(f"measure_noise: {text}", stacklevel=4)


@contextmanager
def untouched(network: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Put buffers (BatchNorm's statistics), gradients and random states back after the body.

    In the body random numbers come from ``seed``; without one, from the present states. Gradients
    are computed there even if the caller is under ``no_grad`` or ``inference_mode``. The body must
    set ``.grad`` to None before it computes a gradient, as ``zero_grad()`` does: gradients are
    saved without a copy, and would be added to.
    """
    parameters = [*network.parameters()]
    gpus = {p.device.index for p in parameters if p.is_cuda}
    # A forward pass in train mode moves the running statistics of BatchNorm.
    buffers = [buffer.clone() for buffer in network.buffers()]
    gradients = [parameter.grad for parameter in parameters]
    random_states = torch.random.fork_rng(devices=[*gpus])
    with torch.inference_mode(mode=False), torch.enable_grad(), random_states, python_generators():
        if seed is not None:
            torch.manual_seed(seed)
            seed_python(seed)
        try:
            yield
        finally:
            for buffer, saved_buffer in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(saved_buffer)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient


def is_sharded(network: nn.Module) -> bool:
    """Whether ranks share the parameters, as with FSDP or tensor parallelism.

    A parameter is then a DTensor, which says by its ``device_mesh`` where its pieces are.
    """
    return any(hasattr(parameter, "device_mesh") for parameter in network.parameters())


class Spread:
    """Σ‖g_k - ḡ‖² and ḡ of gradients that are added one by one.

    The k-th gradient adds ‖g_k - ḡ_{k-1}‖² (k-1)/k to the sum, where ḡ_{k-1} is the mean of the
    gradients before it. So no digits cancel (Welford 1962). The interval needs ‖g_k - ḡ‖² of each
    gradient, which is known only when ḡ is. It comes from random projections of the gradients to
    ``WIDTH`` numbers (Johnson and Lindenstrauss 1984), which are exact up to ``WIDTH`` parameters;
    for more, each square has an error of about 4 %.

    The sums are in float64; ḡ is in float32, or float64 for float64 parameters. Nothing is read
    from the device before ``noise``.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self.count = 0  # K, the gradients so far
        # In 16 bits the mean would lose the small differences that C² is made of. So its type is
        # the longest of the parameters' types, and of 32 bits at least.
        dtype = reduce(torch.promote_types, (p.dtype for p in self._parameters), torch.float32)
        d, device = sum(p.numel() for p in self._parameters), self._parameters[0].device
        self._mean = torch.zeros(d, dtype=dtype, device=device)
        # A projection gives each entry of a gradient a random sign. The signs are always the same,
        # so that a measurement can be repeated to the bit.
        generator = torch.Generator().manual_seed(0)
        bits = torch.randint(0, 2, (d,), generator=generator, dtype=torch.int8)
        self._signs = bits.mul_(2).sub_(1).to(device)  # 1 or -1
        self._additions: list[Tensor] = []  # What each gradient adds to the sum, a float64 scalar.
        self._projections: list[Tensor] = []  # of each gradient, (WIDTH,) float64

    def add(self, gradient: Sequence[Tensor | None]) -> None:
        """Add the gradient of one more mini-batch, by parameter; None stands for zeros."""
        self.count += 1
        rows = [
            (torch.zeros_like(parameter) if grad is None else grad.detach()).reshape(-1)
            for parameter, grad in zip(self._parameters, gradient, strict=True)
        ]
        g = torch.cat(rows).to(self._mean.dtype)  # one row of all d entries, a copy
        change = g - self._mean
        self._additions.append(squared_norm([change]) * ((self.count - 1) / self.count))
        self._mean += change.div_(self.count)
        # Entry i, with its sign, is added to the sum i mod WIDTH. Zeros fill the last row of WIDTH
        # entries. The copy g is overwritten, to save memory.
        signed_entries = torch.nn.functional.pad(g.mul_(self._signs), (0, -len(g) % WIDTH))
        self._projections.append(signed_entries.view(-1, WIDTH).sum(dim=0, dtype=torch.float64))

    def noise(self, **draw: Any) -> Noise:
        """Unbiased C² and ‖∇f‖², with the interval of C².

        Args:
            draw: ``batch_size``, ``n``, ``sampling`` and ``own_noise``, see ``from_spreads``.

        Raises:
            ValueError: fewer than two gradients, or disjoint batches of more than n samples.
        """
        sums = torch.stack([*self._additions, squared_norm([self._mean])])
        numbers = torch.cat([sums, *self._projections]).cpu()  # The device is read once.
        *additions, mean_square = numbers[: len(sums)].tolist()
        projections = numbers[len(sums) :].view(-1, WIDTH)
        squares = (projections - projections.mean(dim=0)).square().sum(dim=1)
        # The squares of the projections, which have an error, only divide the exact sum among the
        # gradients. Where all gradients are equal, their sum is 0, by which none can divide.
        squares *= sum(additions) / max(float(squares.sum()), 1e-300)
        return from_spreads(squares.tolist(), mean_square, **draw)


def squared_norm(parts: Iterable[Tensor]) -> Tensor:
    """‖x‖² of a vector in parts, a float64 scalar on the first part's device.

    A model's parameters, and so the parts, may be on several devices.
    """
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
    return torch.stack([norm.to(norms[0].device) for norm in norms]).square().sum()
