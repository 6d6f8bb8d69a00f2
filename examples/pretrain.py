"""Pretraining with a batch that grows: torchrun --nproc-per-node 2 examples/pretrain.py.

A small transformer learns the bytes of Python's own library from a memory-mapped file. Its loss is
printed by tokens and by time. After a kill the same command goes on, on any number of processes.
"""

import argparse
import io
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from language_model import CONTEXT, Model, texts
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

import igo

BATCH_SIZE = {0: 16, 0.25: 32, 0.5: 64}  # sequences, from these shares of the training on
MEMORY = 16  # sequences that fit into the memory of all processes
RATE, DECAY, TESTED = 0.003, 0.1, 400


def replace_file(path: Path, content: bytes) -> None:
    """Write a file at once: a kill leaves the old one or the new one."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def get_batch(tokens: np.memmap[Any, Any], numbers: Tensor) -> Tensor:
    """Sequences of CONTEXT tokens, each with the next token, by their numbers in the file."""
    starts = (numbers * CONTEXT).tolist()
    return torch.from_numpy(np.stack([tokens[i : i + CONTEXT + 1] for i in starts])).long()


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def pretrain(folder: Path, plan: igo.Plan, decay_follows_b: bool, device: str) -> None:
    train, test = (np.memmap(folder / f"{name}.bin", "u1", "r") for name in ("train", "test"))
    torch.manual_seed(0)
    order = torch.randperm(len(train) // CONTEXT - 1)
    network = Model().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, (0.9, 0.95), weight_decay=DECAY)
    counter = igo.Counter(plan, micro_batch_size=MEMORY)
    schedule = igo.Schedule(optimizer, counter)
    parts: Any = {"model": network, "optimizer": optimizer, "schedule": schedule}
    seconds, log = 0.0, "tokens,seconds,updates,b,loss\n"
    if (folder / "checkpoint.pt").exists():
        saved = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
        seconds, log = saved["seconds"], saved["log"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    model = DistributedDataParallel(network)
    test_updates = {plan.after(plan.samples * number // 8) for number in range(1, 9)}
    started = time.monotonic() - seconds

    def part_of(update: igo.Update) -> Tensor:
        places = update.start + update.ranks * torch.arange(update.samples)  # in the stream
        return get_batch(train, order[places % len(order)]).to(device)

    for batch in schedule(counter.parts(part_of)):
        update = schedule.update
        with nullcontext() if update.is_last_part else model.no_sync():
            (loss_of(model, batch) * update.weight).backward()
        if not update.is_last_part:
            continue
        if decay_follows_b:
            optimizer.param_groups[0]["weight_decay"] = DECAY * update.batch_size / BATCH_SIZE[0]
        clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if update.number in test_updates and dist.get_rank() == 0:
            seconds, tokens = time.monotonic() - started, counter.samples * CONTEXT
            with torch.no_grad():
                loss = loss_of(network, get_batch(test, torch.arange(TESTED)).to(device)).item()
            log += f"{tokens},{seconds:.1f},{update.number},{update.batch_size},{loss:.6f}\n"
            print(f"{tokens:9,} tokens {seconds:6.1f} s {update.number:4} updates  loss {loss:.4f}")
            states = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**states, "seconds": seconds, "log": log}, buffer := io.BytesIO())
            replace_file(folder / "checkpoint.pt", buffer.getvalue())
            replace_file(folder / "loss.csv", log.encode())
            started = time.monotonic() - seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("pretrain"))
    parser.add_argument("--sequences", type=int, default=12_000)
    parser.add_argument("--constant", action="store_true", help="train with the first batch size")
    parser.add_argument("--decay-follows-b", action="store_true", help="weight decay times b/b_1")
    options = parser.parse_args()
    sizes = BATCH_SIZE[0] if options.constant else BATCH_SIZE
    stream: Any = {"samples": options.sequences, "warmup_samples": options.sequences // 20}
    plan = igo.plan(rate="cosine", floor=0.1, batch_size=sizes, batch_multiple=MEMORY, **stream)
    dist.init_process_group()
    if dist.get_rank() == 0 and not (options.folder / "train.bin").exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        train_text, test_text = texts()  # one byte is one token
        replace_file(options.folder / "test.bin", test_text)
        replace_file(options.folder / "train.bin", train_text)
    dist.barrier()
    device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
    pretrain(options.folder, plan, options.decay_follows_b, device)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
