"""Muon and AdamW by one schedule, on a language model of the bytes of Python's own library.

Cosine annealing of η alone, and shared by η and b, each over the same tokens:
python examples/language_model.py.
"""

import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import igo

CONTEXT, WIDTH, DEPTH, HEADS = 64, 128, 2, 4
SEQUENCES, TESTED, RATE = 6_000, 400, 0.003


class Text(Dataset[Tensor]):
    """Sequences of CONTEXT bytes, each with the next byte."""

    def __init__(self, text: bytes) -> None:
        tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        self.sequences = tokens.unfold(0, CONTEXT + 1, CONTEXT)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Tensor:
        return self.sequences[index]


class Model(nn.Module):
    """A transformer of 0.47 million parameters that predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 256)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.place.weight
        logits: Tensor = self.head(self.blocks(x, self.mask, is_causal=True))
        return logits


def texts() -> tuple[bytes, bytes]:
    """Training and test text: each eighth file of Python's library is for the test."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    contents = [file.read_bytes() for file in files]
    train = b"".join(content for number, content in enumerate(contents) if number % 8)
    return train, b"".join(contents[::8])


@torch.no_grad()
def evaluate(model: Model, test: Text) -> tuple[float, float]:
    """The loss in nats a byte, and the share of correct bytes."""
    logits = model(test.sequences[:, :-1]).flatten(0, 1)
    targets = test.sequences[:, 1:].flatten()
    hits = logits.argmax(1) == targets
    return float(cross_entropy(logits, targets)), float(hits.float().mean())


def train_with(plan: igo.Plan, data: Text, test: Text) -> float:
    torch.manual_seed(0)
    model = Model()
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    other_parameters = [
        p for p in model.parameters() if not any(p is matrix for matrix in matrices)
    ]
    muon = torch.optim.Muon(matrices, lr=RATE, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(other_parameters, lr=RATE)
    batches = igo.BatchSampler(plan, data, seed=0)
    loader = DataLoader(data, batch_sampler=batches)
    schedule = igo.Schedule([muon, adamw], batches)
    for tokens in schedule(loader):  # sets η of both
        update = schedule.update
        loss = cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        for optimizer in (muon, adamw):
            optimizer.zero_grad()
        loss.backward()
        for optimizer in (muon, adamw):
            optimizer.step()
        if update.number % 50 == 0 or update.ends_epoch:
            tokens_seen = batches.samples * CONTEXT
            print(
                f"{tokens_seen:8,} tokens in {update.number:3} updates"
                f"  η {schedule.learning_rate:.5f}  b {update.batch_size:3}"
                f"  loss {loss.item():.3f}"
            )
    assert batches.done
    loss_of_test, share = evaluate(model, test)
    print(
        f"{plan.updates} updates: test loss {loss_of_test:.3f}, next byte right: test {share:.2%}"
    )
    return share


def main() -> None:
    train_text, test_text = texts()
    data = Text(train_text[: SEQUENCES * CONTEXT + 1])
    test = Text(test_text[: TESTED * CONTEXT + 1])
    arguments = {"n": len(data), "epochs": 1, "batch_size": 16}
    eta_plan = igo.plan("cosine", **arguments, split=1, stages=60)
    print("Cosine annealing of η at b = 16")
    train_with(eta_plan, data, test)
    shared_plan = igo.plan("cosine", **arguments, split=0.5, stages=60, max_batch_size=64)
    print("The same noise, shared by η and b")
    train_with(shared_plan, data, test)
    assert eta_plan.samples == shared_plan.samples


if __name__ == "__main__":
    main()
