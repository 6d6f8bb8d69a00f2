"""The schedule in a plain PyTorch loop, on scikit-learn's digits: python examples/plain.py."""

import torch
from digits import accuracy, digits, small_network
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import igo


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    train, test = digits()
    model: nn.Module = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    plan = igo.plan("graduated", n=len(train), epochs=epochs, batch_size=16, p=0.5)
    print(plan)
    batches = igo.BatchSampler(plan, train, seed=0)
    loader = DataLoader(train, batch_sampler=batches)
    schedule = igo.Schedule(optimizer, batches)
    loader = schedule(loader)
    for epoch in batches.epochs():
        for images, labels in loader:  # sets η_m before each update
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rate, size = schedule.learning_rate, schedule.update.row.b_m
        print(f"epoch {epoch:2}  η {rate:.4f}  b {size:5.1f}  test {accuracy(model, test):.2%}")
    assert batches.updates == plan.updates
    return accuracy(model, test)


if __name__ == "__main__":
    main()
