"""Implicit graduated optimization: the noise of SGD smooths the loss; igo schedules this noise.

In your own training loop (docs/own-loop.md):

    plan = igo.plan("graduated", n=len(data), epochs=30, batch_size=16, p=0.5)
    batches = igo.BatchSampler(plan, data, seed=0)
    loader = DataLoader(data, batch_sampler=batches, num_workers=2)
    schedule = igo.Schedule(optimizer, batches)
    loader = schedule(loader)
    for epoch in batches.epochs():
        for inputs, targets in loader:  # sets η_m before each update
            ...
"""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The names are in the stub that type checkers read (SPEC 1 of Scientific Python). Each is imported
# at its first use, so that `import igo` is fast and a plan needs no torch.
STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
NAMES = [
    (alias.name, str(line.module))
    for line in STUB.body
    if isinstance(line, ast.ImportFrom)
    for alias in line.names
]
PUBLIC = dict(sorted(NAMES))  # the module of each name
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("igo")
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(PUBLIC[name]), name)
    except ModuleNotFoundError as missing:
        if PUBLIC[name] != "igo.runs.checkpoint":
            raise
        from igo.ground.errors import install

        cure = f"{missing.name} is missing: {install('train,report')}"
        raise ImportError(f"igo.{name}: {cure}") from None


def __dir__() -> list[str]:
    runs = find_spec("hydra")  # Without it help(igo) has the other names.
    names = [name for name in PUBLIC if runs or PUBLIC[name] != "igo.runs.checkpoint"]
    return [*names, "__version__"]
