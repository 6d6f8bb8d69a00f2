"""One pass over a stream, without epochs or a sampler: python examples/stream.py."""

from collections.abc import Iterator

import torch
from digits import accuracy, digits, small_network
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

import igo


class Moved(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless stream of training images, each moved by up to a pixel."""

    def __init__(self, train: TensorDataset) -> None:
        self.train = train

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        generator = torch.Generator().manual_seed(worker.id if worker else 0)
        while True:
            index = int(torch.randint(len(self.train), (), generator=generator))
            image, label = self.train[index]
            down, right = torch.randint(-1, 2, (2,), generator=generator).tolist()
            yield image.roll((down, right), (1, 2)), label


def main(samples: int = 15_000) -> float:
    torch.manual_seed(0)
    train, test = digits()
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = igo.plan(
        "cosine",
        samples=samples,
        stages=15,
        warmup_samples=500,
        batch_size=16,
        max_batch_size=128,
    )
    print(plan)
    counter = igo.Counter(plan)
    schedule = igo.Schedule(optimizer, counter)
    loader = DataLoader(Moved(train), batch_size=None, num_workers=2)  # single samples
    for images, labels in schedule(counter.batches(loader)):
        update = schedule.update
        assert len(images) == update.batch_size
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update.number % 100 == 0 or counter.done:
            print(
                f"{counter.samples:6,} samples  η {schedule.learning_rate:.4f}"
                f"  b {update.batch_size:3}  test {accuracy(model, test):.2%}"
            )
    assert counter.samples == plan.samples == samples
    return accuracy(model, test)


if __name__ == "__main__":
    main()
