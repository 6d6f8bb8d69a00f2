"""Speed: igo beside the script and the limit, C²'s share, memory, waits and kernels."""

from pathlib import Path

import torch

from benchmarks import cells, cost, ratios
from benchmarks.gpu.part import Part, Result, configured, prepared, trained, waits
from benchmarks.rounds import Workers
from benchmarks.task import synchronise

CELLS = ("resnet18-32", "resnet18-128", "resnet18-512", "small-16", "wrn-128", "transformer-16")
# Settings of igo alone. Compiling takes up to a minute.
OTHERWISE = ("engine.precision=fp16", "engine.deterministic=false", "engine.compile=true")
# An epoch's updates must reach this share of the limit's speed. Chosen, not measured on a GPU.
BESIDE_LIMIT = 0.8
MOST_WAITS = 12  # of an epoch: the images' order and moves are copied, sums and C² are read
MOST_RESERVED = 1.25  # times what is allocated: a growing b must not leave unused blocks


def items(part: Part, folder: Path) -> None:
    """Each cell, other settings of one, C²'s share, a growing b, and the kernels."""
    seconds = 0.0 if part.dry else 15.0

    def beside(workers: Workers, name: str, *settings: str) -> None:
        label = " ".join((name, *settings))
        cell = cells.make(name, folder, part.dry, *settings)
        part.item(label, lambda: judged(workers, cell, part.dry), seconds)

    with Workers() as workers:
        for name in CELLS[3:4] if part.dry else CELLS:  # The small cell is quick on a CPU.
            beside(workers, name)
        for settings in () if part.dry else OTHERWISE:
            beside(workers, "resnet18-128", settings)
    for name in cost.NAMES[:1] if part.dry else cost.NAMES:
        part.item(f"C², {name}", lambda name=name: noise_share(part, folder, name), seconds)
    part.item("growing b", lambda: growing(part, folder), seconds)
    part.item("kernels, resnet18", lambda: profile(part, folder))


def judged(workers: Workers, cell: cells.Cell, dry: bool) -> Result:
    """Images a second of igo, and over the script's and the limit's; a dry run is too short."""
    rows = ratios.summary(*workers.measure(cell, cells.FEW))
    by_name = {row["contender"]: row for row in rows}
    script, ours, limit = (by_name[name] for name in cells.FEW)
    share = limit["ours_over_it"].median
    return {
        **({} if dry else {"ok": share >= BESIDE_LIMIT}),
        "images/s": ours["images_per_second"].median,
        "over the script": script["ours_over_it"].median,
        "of the limit": share,
        "accuracy": ours["test_accuracy"],
        "the script's": script["test_accuracy"],
    }


def noise_share(part: Part, folder: Path, name: str) -> Result:
    """C²'s share of an update of a cell."""
    return {"cell": name, "share": cost.share(name, folder, part.dry).median}


def growing(part: Part, folder: Path) -> Result:
    """A batch that grows to many sizes: the memory that they take, and where the host waits."""
    plan = ("schedule=graduated", "split=0", "schedule.stages=8", "epochs=8", "batch_size=32")
    training = prepared(configured(part, folder, "model=resnet18", *plan, "noise.batches=2"))
    with waits(part) as places:
        _, progress = trained(training)
    records = progress.records
    result: Result = {"images/s": records[-1]["images_per_second"], "waits": len(places)}
    if part.dry:
        return result
    allocated, reserved = (records[-1][f"max_memory_{kind}"] for kind in ("allocated", "reserved"))
    is_right = reserved <= MOST_RESERVED * allocated and len(places) <= MOST_WAITS * len(records)
    return {"ok": is_right, **result, "where": sorted({*places}), "reserved": reserved / allocated}


def profile(part: Part, folder: Path) -> Result:
    """The fifteen operations that take most time in two epochs."""
    plan = ("schedule=constant", "epochs=2", "batch_size=128", "noise.batches=2")
    samples = f"dataset.samples={160 if part.dry else 2560}"
    training = prepared(configured(part, folder, "model=resnet18", samples, *plan))
    with torch.profiler.profile() as profiler:
        trained(training)
        synchronise()
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60)
    return {"profile": table.splitlines()}
