"""Batches in parts on two processes: torchrun --nproc-per-node 2 examples/accumulation.py."""

from contextlib import nullcontext

import torch
import torch.distributed as dist
from digits import accuracy, digits, small_network
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import igo

MEMORY = 16  # samples that fit into the memory of the two processes


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    train, test = digits()
    network = small_network()
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = igo.plan("graduated", n=len(train), epochs=epochs, batch_size=16, p=0.5)
    batches = igo.BatchSampler(plan, train, seed=0, micro_batch_size=MEMORY)
    loader = DataLoader(train, batch_sampler=batches)
    schedule = igo.Schedule(optimizer, batches)
    loader = schedule(loader)
    meter = igo.NoiseMeter(model, half_life=len(train))
    for epoch in batches.epochs():
        for images, labels in loader:  # parts of batches
            update = schedule.update
            assert len(images) == update.samples <= MEMORY / 2
            with nullcontext() if update.is_last_part else model.no_sync():
                (cross_entropy(model(images), labels) * update.weight).backward()
            meter.part(len(images))
            if update.is_last_part:
                meter.update()
                optimizer.step()
                optimizer.zero_grad()
        if dist.get_rank() == 0:
            print(
                f"epoch {epoch:2}  η {schedule.learning_rate:.4f}  b {update.batch_size:3}"
                f" in {update.parts} parts on each rank  C² {meter.noise.variance:.3g}"
                f"  test {accuracy(network, test):.2%}"
            )
    assert batches.updates == plan.updates
    del model  # The group may wait for ever if the model is the last to hold it.
    dist.destroy_process_group()
    return accuracy(network, test)


if __name__ == "__main__":
    main()
