from igo.ground.errors import UserError as UserError
from igo.loop.counter import Counter as Counter
from igo.loop.sampler import BatchSampler as BatchSampler
from igo.loop.schedule import Schedule as Schedule
from igo.loop.seeded import Seeded as Seeded
from igo.noise.measure import measure_noise as measure_noise
from igo.noise.meter import NoiseMeter as NoiseMeter
from igo.noise.noise import Noise as Noise
from igo.noise.noise import noise_level as noise_level
from igo.noise.smoothed import SmoothedLoss as SmoothedLoss
from igo.noise.smoothed import smoothed_loss as smoothed_loss
from igo.plans.arguments import Algorithm3 as Algorithm3
from igo.plans.arguments import PlanError as PlanError
from igo.plans.arguments import PlanWarning as PlanWarning
from igo.plans.make import plan as plan
from igo.plans.plan import Plan as Plan
from igo.plans.rows import Row as Row
from igo.plans.rows import Update as Update
from igo.runs.checkpoint import TrainedRun as TrainedRun
from igo.runs.checkpoint import load_run as load_run

__all__: list[str]
__version__: str
