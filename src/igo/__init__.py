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

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igo.ground.errors import UserError as UserError
    from igo.method.arguments import Algorithm3 as Algorithm3
    from igo.method.arguments import PlanError as PlanError
    from igo.method.arguments import PlanWarning as PlanWarning
    from igo.method.plan import Plan as Plan
    from igo.method.plan import plan as plan
    from igo.method.sampler import BatchSampler as BatchSampler
    from igo.method.sampler import Counter as Counter
    from igo.method.schedule import Schedule as Schedule
    from igo.method.seeded import Seeded as Seeded
    from igo.method.stages import Row as Row
    from igo.method.stages import Update as Update
    from igo.noise.measure import measure_noise as measure_noise
    from igo.noise.meter import NoiseMeter as NoiseMeter
    from igo.noise.noise import Noise as Noise
    from igo.noise.noise import noise_level as noise_level
    from igo.runs.checkpoint import TrainedRun as TrainedRun
    from igo.runs.checkpoint import load_run as load_run

    __version__: str

# Each name is imported at its first use, so that `import igo` is fast and a plan needs no torch.
PUBLIC = {
    "Algorithm3": "igo.method.arguments",
    "BatchSampler": "igo.method.sampler",
    "Counter": "igo.method.sampler",
    "Noise": "igo.noise.noise",
    "NoiseMeter": "igo.noise.meter",
    "Plan": "igo.method.plan",
    "PlanError": "igo.method.arguments",
    "PlanWarning": "igo.method.arguments",
    "Row": "igo.method.stages",
    "Schedule": "igo.method.schedule",
    "Seeded": "igo.method.seeded",
    "TrainedRun": "igo.runs.checkpoint",
    "Update": "igo.method.stages",
    "UserError": "igo.ground.errors",
    "load_run": "igo.runs.checkpoint",
    "measure_noise": "igo.noise.measure",
    "noise_level": "igo.noise.noise",
    "plan": "igo.method.plan",
}
__all__ = list(PUBLIC)


if not TYPE_CHECKING:  # which then knows the names above alone

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
    runs = find_spec("hydra")  # without it help(igo) has the other names
    names = [name for name in PUBLIC if runs or PUBLIC[name] != "igo.runs.checkpoint"]
    return [*names, "__version__"]
