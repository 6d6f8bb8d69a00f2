"""One process of several: python -m torch.distributed.run … -m contract.rank NAME FOLDER RATE."""

from __future__ import annotations

import os
import sys

import torch

from contract import ours
from contract.job import Job


def main(name: str, folder: str, rate: str) -> None:
    if name in ours.WAYS:
        way = ours.WAYS[name]
    else:
        from contract import others

        way = others.WAYS[name]
    if name == "plain":
        torch.distributed.init_process_group("gloo")
    job = Job(folder, rate=bool(int(rate)))
    way(job).write(job.path / f"rank-{os.environ['RANK']}.json")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
