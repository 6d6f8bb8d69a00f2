"""A byte-level language model that sees each sequence once, in a loop of its own on igo's plan.

Its text is Python's own library, so that nothing is downloaded.
"""

import hashlib
import math
import sysconfig
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention
from torch.utils.data import DataLoader

import igo
from igo.ground.errors import UserError
from igo.ground.seeds import generator
from lab.noise.point import squared_norm
from lab.study.design import Record

CONTEXT, WIDTH, DEPTH, HEADS = 32, 32, 2, 2  # 42,000 parameters
SAMPLES, TESTED, HELD = 16_384, 8_192, 30_000  # sequences; HELD are those that measure the noise
SPANS = 8  # equal parts of the samples, of which a record tells
LOOK = 4  # updates, from one pair of gradients to the next
CHANCE = math.log(256)  # what a loss that is not finite counts
OTHER = {"test", "tests", "idlelib", "encodings", "lib2to3", "site-packages", "__pycache__"}
PYTHON, FILES = "3.11.7", 478  # The text is the library of this Python, of so many files.
DIGEST = "8fae20f68435ef12b9f2a36f2555a5351ff3594d0c2a171ccf6b0105b601f1e1"  # SHA-256


@cache
def text() -> dict[str, Tensor]:
    """The sequences of 33 bytes, (sequences, 33) uint8, for "train" and for "test".

    Each eighth file is for the test. The library's tests, its editor, code pages and a build's own
    settings are left out.

    Raises:
        UserError: the library is another one.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = [file.relative_to(root).as_posix() for file in root.rglob("*.py")]
    contents = [
        (root / name).read_bytes()
        for name in sorted(names)
        if not OTHER & set(name.split("/"))
        and "config-" not in name
        and "sysconfigdata" not in name
    ]
    digest = hashlib.sha256(b"".join(contents)).hexdigest()
    if digest != DIGEST:
        raise UserError(
            f"{root}: the text of the study is the library of Python {PYTHON},"
            f" {FILES} files with the digest {DIGEST}; this is {digest}"
        )
    test = _cut(contents[::8])
    order = torch.randperm(len(test), generator=generator(0, "test"))
    train = _cut([content for number, content in enumerate(contents) if number % 8])
    return {"train": train, "test": test[order[:TESTED]]}


def _cut(contents: list[bytes]) -> Tensor:
    """The bytes one after another, cut into sequences; a shorter rest is left out."""
    letters = torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8)
    whole = len(letters) // (CONTEXT + 1)
    return letters[: whole * (CONTEXT + 1)].view(whole, CONTEXT + 1)


class Block(nn.Module):
    """Attention and an MLP, each after a norm and beside a residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixed, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(sequences, length, WIDTH) to the same shape."""
        size, length, width = x.shape
        heads = self.mixed(self.norm1(x)).view(size, length, 3, HEADS, width // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(size, length, width))
        mlp: Tensor = self.down(gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x + mlp


class Model(nn.Module):
    """The logits of the next byte at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(DEPTH)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)
        for p in self.parameters():
            if p.ndim == 2:  # 0.02 for bytes as inputs and outputs, else half of 1/√(inputs)
                nn.init.normal_(p, std=0.02 if p.shape[0] == 256 else p.shape[1] ** -0.5 / 2)

    def forward(self, letters: Tensor) -> Tensor:
        """(sequences, length) to (sequences, length, 256)."""
        logits: Tensor = self.head(self.norm(self.blocks(self.token(letters) + self.place.weight)))
        return logits


def loss_of(model: nn.Module, sequences: Tensor) -> Tensor:
    """The mean loss in nats a byte."""
    letters = sequences.long()
    return cross_entropy(model(letters[:, :-1]).flatten(0, 1), letters[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    """The mean loss of all test sequences; that of chance if it is not finite."""
    parts = text()["test"].split(512)
    total = sum(float(loss_of(model, part)) * len(part) for part in parts)
    return total / TESTED if math.isfinite(total) else CHANCE


def trained(plan: igo.Plan, seed: int, rate: float, beta2: float, points: int = 0) -> Record:
    """Train on each sequence once, and measure the end; return what the pages need.

    ``rate`` is η_1. The runs of a seed have the same initialisation and order of the sequences. The
    record's ``spans`` have sums over SPANS equal parts of the samples: of the updates, of η, and of
    C²/b over so many pairs. ``noise_scales`` has the share of the samples and the noise scale at so
    many ``points``.
    """
    torch.manual_seed(seed)
    model, train = Model(), text()["train"]
    order = torch.randperm(len(train), generator=generator(seed, "order"))
    parameters = [*model.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, betas=(0.9, beta2), weight_decay=0.0, fused=True
    )
    schedule = igo.Schedule(optimizer, counter := igo.Counter(plan))
    spans, samples_seen = [defaultdict[str, float](float) for _ in range(SPANS)], 0
    noises: list[tuple[float, float | None]] = []
    first_of_pair: list[Tensor] = []
    while not counter.done:
        # Point k is the first update at or after k/points of the samples.
        if len(noises) < points and samples_seen * points >= len(noises) * SAMPLES:
            noises.append((samples_seen / SAMPLES, noise_scale(model, train[order[-HELD:]], seed)))
        span = spans[samples_seen * SPANS // SAMPLES]
        update = schedule.step()
        loss = loss_of(model, train[order[samples_seen : samples_seen + update.samples]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        samples_seen += update.samples
        span["updates"] += 1
        span["rates"] += schedule.learning_rate
        gradients: Any = [p.grad for p in parameters]
        if update.number % LOOK == 0:
            first_of_pair = [gradient.clone() for gradient in gradients]
        elif update.number % LOOK == 1 and first_of_pair:
            # Half the squared difference of two gradients is the variance of one, C²/b: the mean
            # gradient hardly moves between them.
            span["variances"] += squared_norm(torch._foreach_sub(gradients, first_of_pair)) / 2
            span["pairs"] += 1
            span["norm"] = math.sqrt(squared_norm(parameters))
    rounded = [{name: float(f"{total:.4g}") for name, total in span.items()} for span in spans]
    return {
        "test": held_out_loss(model),
        "updates": plan.updates,
        "samples": samples_seen,
        "largest": max(plan.batch_sizes),
        "spans": rounded,
        "noise_scales": noises,
    }


def noise_scale(model: nn.Module, sequences: Tensor, seed: int) -> float | None:
    """B = C²/‖∇f‖² at the point, by sequences that are not trained on; None where ‖∇f‖ is lost."""
    loader: DataLoader[Tensor] = DataLoader(sequences, batch_size=16, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    noise = igo.measure_noise(
        model,
        None,
        loader,
        n=len(sequences),
        batches=64,
        loss_of=loss_of,
        batch_size=16,
        own_noise=False,
        seed=seed,
    )
    return noise.noise_scale
