"""`import igo` alone: light, documented by examples that run, and in need of torch alone."""

import doctest
import importlib
import re
from operator import attrgetter

import pytest
import torch
from conftest import ROOT, python

import igo

BEFORE = """
import sys

absent = {"hydra", "omegaconf", "wandb", "timm", "sklearn", "rich", "torchvision", "polars",
          "matplotlib", "submitit", "PIL", "jinja2", "lightning", "transformers",
          "accelerate"}

sys.modules |= dict.fromkeys(absent)  # as if these were not installed: importing one fails
import torch
from torch.utils.data import DataLoader

torch.manual_seed(0)
x = torch.randn(600, 3)
y = x.sum(1, keepdim=True) + 0.1 * torch.randn(600, 1)  # no line fits it, so C² is above 0
data = torch.utils.data.TensorDataset(x, y)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""
STEP = """loss = torch.nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad(); loss.backward(); optimizer.step()"""
AFTER = """
measured = igo.measure_noise(model, torch.nn.functional.mse_loss,
                             DataLoader(data, 1, shuffle=True), n=600, batches=600)
assert not any(map(sys.modules.get, absent))
residuals = model(x) - y
gradients = 2 * residuals * torch.cat([x, torch.ones(600, 1)], 1)  # of each sample, by hand
variance = gradients.var(0, correction=0).sum().item()
delta = schedule.learning_rate * (variance / 16) ** 0.5
print(batches.updates == plan.updates, residuals.square().mean().item() < 0.02,
      abs(igo.noise_level(schedule.learning_rate, 16, measured.variance) / delta - 1) < 1e-4)
"""


def output_of(code: str) -> str:
    return python(ROOT, "-W", "error", "-c", code).good().stdout


def test_the_loop_of_the_readme_needs_torch_numpy_and_scipy_alone() -> None:
    block = re.search(r"^```diff\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert block
    loop = "".join(re.findall(r"^[+ ] (.*\n)", block[1], re.M))
    code = BEFORE + loop.replace("...", STEP) + AFTER
    assert output_of(code) == "True True True\n"


def test_importing_and_planning_cost_no_torch() -> None:
    code = (
        "import sys, igo\n"
        "before = {'torch', 'numpy', 'scipy'} & {*sys.modules}\n"
        "plan = igo.plan('graduated', n=90, epochs=3, learning_rate=0.1, batch_size=8, p=1)\n"
        "print(len(str(plan).splitlines()), before, {'torch', 'numpy', 'scipy'} & {*sys.modules})"
    )
    assert output_of(code) == "5 set() set()\n"


def test_every_public_name_is_there_and_documented() -> None:
    assert {*igo.__all__} <= {*dir(igo)}
    for name in igo.__all__:
        assert (getattr(igo, name).__doc__ or "").strip()
    with pytest.raises(AttributeError, match="has no attribute 'plann'"):
        _ = igo.plann  # type: ignore[attr-defined]


def test_without_the_libraries_of_a_run_there_is_help_and_load_run_says_which() -> None:
    code = (
        "import sys, pydoc\n"
        "sys.modules['hydra'] = sys.modules['omegaconf'] = None\n"
        "import igo\n"
        "assert 'measure_noise' in pydoc.render_doc(igo)\n"
        "try: from igo import load_run\n"
        "except ImportError as error: print(error)"
    )
    assert re.match(
        r"igo.load_run: \w+ is missing: pip install .*\[train,report\]", output_of(code)
    )


@pytest.mark.parametrize(
    "name",
    [
        "BatchSampler",
        "Counter",
        "Noise",
        "NoiseMeter",
        "Schedule",
        "Seeded",
        "measure_noise",
        "noise_level",
        "plan",
        "Plan.after",
        "Plan.control",
    ],
)
def test_the_examples_of_a_docstring_run(name: str) -> None:
    documented = attrgetter(name)(igo)
    module = importlib.import_module(documented.__module__)
    tests = doctest.DocTestFinder(recurse=False).find(
        documented, name, module, globs={"igo": igo, "torch": torch}
    )
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert sum(runner.run(test).attempted for test in tests) > 0
    assert runner.summarize(verbose=False).failed == 0
