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

__all__: list[str]
__version__: str
