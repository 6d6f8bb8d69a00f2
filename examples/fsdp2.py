"""Parameters sharded over two processes by FSDP2: torchrun --nproc-per-node 2 examples/fsdp2.py."""

import torch
import torch.distributed as dist
from digits import accuracy, digits, small_network
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import igo


def main(epochs: int = 6) -> float:
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("data",))
    train, test = digits()
    model = small_network()
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = igo.plan("graduated", n=len(train), epochs=epochs, batch_size=16, p=0.5)
    place = {"rank": mesh.get_local_rank(), "ranks": mesh.size()}
    batches = igo.BatchSampler(plan, train, seed=0, **place, micro_batch_size=32)
    loader = DataLoader(train, batch_sampler=batches)
    schedule = igo.Schedule(optimizer, batches)
    loader = schedule(loader)
    for epoch in batches.epochs():
        for images, labels in loader:
            update = schedule.update
            model.set_requires_gradient_sync(update.is_last_part)
            (cross_entropy(model(images), labels) * update.weight).backward()
            if update.is_last_part:
                optimizer.step()
                optimizer.zero_grad()
        share = accuracy(model, test)  # on all ranks: each has a part of the parameters
        if dist.get_rank() == 0:
            print(
                f"epoch {epoch:2}  η {schedule.learning_rate:.4f}"
                f"  b {update.batch_size:3} on {update.ranks} ranks"
                f"  test {share:.2%}"
            )
    assert batches.updates == plan.updates
    return share


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
    dist.destroy_process_group()
