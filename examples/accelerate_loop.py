"""The schedule under Accelerate: torchrun --nproc-per-node 2 examples/accelerate_loop.py."""

import torch
from accelerate import Accelerator
from digits import accuracy, digits, small_network
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import igo


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    train, test = digits()
    network = small_network()
    model, optimizer = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=0.1))
    plan = igo.plan("graduated", n=len(train), epochs=epochs, batch_size=16, p=0.5)
    # The sampler shares each batch among the processes, and resumes by itself: this loader needs
    # neither accelerator.prepare, which would share it once more, nor skip_first_batches.
    batches = igo.BatchSampler(plan, train, seed=0)
    loader = DataLoader(train, batch_sampler=batches)
    schedule = igo.Schedule(optimizer, batches)
    accelerator.register_for_checkpointing(schedule)
    loader = schedule(loader)
    for epoch in batches.epochs():
        for images, labels in loader:
            update = schedule.update
            device = accelerator.device
            loss = cross_entropy(model(images.to(device)), labels.to(device))
            accelerator.backward(loss * update.weight)  # shares of a batch may differ by a sample
            optimizer.step()
            optimizer.zero_grad()
        accelerator.print(
            f"epoch {epoch:2}  η {schedule.learning_rate:.4f}"
            f"  b {update.row.b_m:5.1f} in {update.ranks} processes"
            f"  test {accuracy(network, test):.2%}"
        )
    assert batches.updates == plan.updates
    accelerator.end_training()
    return accuracy(network, test)


if __name__ == "__main__":
    main()
