"""Every command of docs/reproduce.md: its training, and b and η of each update, as the papers say.

The references import nothing of igo: they are the papers' formulas, by epoch and by update.
"""

import importlib
import math
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import pytest
import yaml
from conftest import ROOT, configure, hydra_initialized, lines_of

from igo.config.load import make_plan
from igo.config.own import with_options
from igo.runs.name import result_settings

N = 50_000
PAGE = (ROOT / "docs" / "reproduce.md").read_text()
Values = dict[str, str]  # of the words of a run, by setting
ByEpoch = Callable[[int], float]
Rate = Callable[[int, int, float], float]  # η/η_1 of an epoch, of k updates before, of their share


class Run(NamedTuple):
    """A run as its paper has it: b by epoch, η/η_1, and how near igo comes to them."""

    size: ByEpoch
    rate: Rate
    rate_error: float = 1e-9  # relative
    other_updates: int = 0  # in an epoch


class Paper(NamedTuple):
    """The training that all runs of a paper share, and how many settings the page has of it."""

    run: Callable[[Values], Run]
    settings: int
    epochs: int = 200
    rotation: int = 15
    momentum: float = 0.0


def always(number: float) -> ByEpoch:
    return lambda _: number


def doubling(b: int, every: int) -> ByEpoch:
    return lambda epoch: b * 2 ** (epoch // every)


def cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def by_epoch(rate: ByEpoch) -> Rate:
    return lambda epoch, k, share: rate(epoch)


METHODS = {  # κ and λ, every 40 epochs
    "method1": (1, 1),
    "method2": (1 / math.sqrt(2), 1),
    "method3": (1, 2),
    "method4": (math.sqrt(3) / 2, 1.5),
}


def method(values: Values) -> Run:
    """In igo κ and λ hold for whole batches: η/√b is exact, and η is not."""
    kappa, lam = METHODS[values["schedule"]]
    rate = by_epoch(lambda epoch: kappa ** (epoch // 40))
    return Run(lambda epoch: 32 * lam ** (epoch // 40), rate, rate_error=0.002, other_updates=1)


def cifar100(values: Values) -> Run:
    """Sato and Iiduka, arXiv 2311.08745: beside the methods the learning rate alone, by epochs."""
    name = values["schedule"]
    rates: dict[str, ByEpoch] = {
        "polynomial": lambda epoch: (1 - epoch / 200) ** float(values["p"]),
        "cosine": lambda epoch: cosine(epoch / 200),
        "exponential": lambda epoch: 0.95**epoch,
    }
    return method(values) if name in METHODS else Run(always(128), by_epoch(rates[name]))


def aaai25(values: Values) -> Run:
    """Sato and Iiduka: in lr-batch-poly δ of heavy ball falls as φ, and b grows as φ^(-1.335)."""
    if "schedule.rate" not in values:
        return method(values)

    def phi(epoch: int) -> float:
        return (1 - epoch / 200) ** 0.9

    def size(epoch: int) -> float:
        return 32 * phi(epoch) ** -1.335

    def squared_noise(b: float) -> float:
        """(δ/η)² but for a factor: for nshb the paper takes C²/b alone."""
        beta, variance, norm = 0.9, 25.318, 1.77
        beta_hat = beta * (beta**2 - beta + 1) / (1 - beta) ** 2
        is_shb = values.get("optimizer", "shb") == "shb"
        return variance / b + (beta_hat * (variance / b + norm**2) if is_shb else 0)

    def rate(epoch: int) -> float:
        return phi(epoch) * math.sqrt(squared_noise(32) / squared_noise(size(epoch)))

    return Run(lambda epoch: int(size(epoch)), by_epoch(rate))


def tmlr25(values: Values) -> Run:
    """Umeda and Iiduka: (i) b constant, (ii) to (iv) b grows every 30 epochs, and so may η."""

    def number(name: str) -> float:
        return float(values[f"schedule.{name}"])

    def rising(factor: float, last: float, first: float) -> ByEpoch:
        """From first to last, in steps that grow by the factor."""
        a = (last - first) / (factor**9 - 1)
        return lambda epoch: a * factor ** (epoch // 30) + first - a

    def warm(epoch: int) -> float:
        """(iv)"""
        if epoch < 30:
            return number("largest") ** (epoch // 3 / 9)
        falls = values["schedule.falls"] == "True"
        return number("largest") * (cosine((epoch - 30) / 270) if falls else 1)

    rates: dict[str, Rate] = {
        "constant": by_epoch(always(1)),
        "cosine": by_epoch(lambda epoch: cosine(epoch / 300)),
        "polynomial": lambda epoch, k, share: (1 - share) ** float(values["p"]),
        "diminishing": lambda epoch, k, share: 1 / math.sqrt(k + 1),
        "warm": by_epoch(warm),
        # (iii): by ninth roots, typed with six digits, and to 2 in steps that grow
        "grown": by_epoch(lambda epoch: round(number("factor") ** 9) ** (epoch // 30 / 9)),
        "bent": lambda epoch, k, share: rising(number("factor"), 2, 1)(epoch),
    }
    name = values.get("schedule._target_", values["schedule.rate"]).split(".")[-1]
    size = always(128) if values["batch_size"] == "128" else doubling(8, 30)
    if name == "bent":
        factor_of_b = {1.5: 3, 1.9: 4}[number("factor")]
        size = lambda epoch: math.ceil(rising(factor_of_b, 4096, 8)(epoch) - 1e-9)  # noqa: E731
    return Run(size, rates[name], rate_error=1e-5 if name == "grown" else 1e-9)


def gsam(values: Values) -> Run:
    """A cosine by updates, to a hundredth. They leave out the last, smaller batch of an epoch."""
    size = always(128) if values["batch_size"] == "128" else doubling(16, 40)
    is_constant = values["schedule.rate"] == "constant"
    return Run(size, lambda epoch, k, share: 1 if is_constant else 0.01 + 0.99 * cosine(share))


def sfo(values: Values) -> Run:
    """Umeda and Iiduka, arXiv 2508.05297."""
    factor = float(values.get("schedule.factor", 1))
    size = always(16) if values["batch_size"] == "16" else doubling(16, 25)
    return Run(size, by_epoch(lambda epoch: factor ** (epoch // 25)))


def tracking(values: Values) -> Run:
    """Umeda and Iiduka 2026: six stages, each twice as long as the one before, in whole epochs."""
    factor = float(values.get("schedule.factor", 1))
    starts = [round(end) for end in accumulate(200 / 63 * 2**k for k in range(5))]

    def stage(epoch: int) -> int:
        return sum(epoch >= start for start in starts)

    is_constant = values["batch_size"] == "128"
    size = always(128) if is_constant else (lambda epoch: 128 * 2 ** stage(epoch))
    return Run(size, by_epoch(lambda epoch: factor ** stage(epoch)))


PAPERS = {
    "cifar100": Paper(cifar100, 13),
    "aaai25": Paper(aaai25, 10, momentum=0.9),
    "tmlr25": Paper(tmlr25, 21, epochs=300),
    "gsam": Paper(gsam, 5, rotation=0),
    "sfo": Paper(sfo, 6, rotation=0),
    "tracking": Paper(tracking, 6, rotation=0),
}


def commands() -> Iterator[str]:
    """The commands of the page. A word of a comment, such as batch_size=128, makes another one."""
    block = "\n".join(re.findall(r"^ {4}(.*)$", PAGE, re.M)).replace("\\\n", "")
    for line in block.splitlines():
        command, _, comment = line.partition("#")
        if "SWEEP" in command or "train.py" in command:
            for variant in ("", *re.findall(r"\w+=\w+", comment)):
                yield f"{command} {variant}"


@cache
def runs(command: str) -> list[list[str]]:
    """The words of each run of a command, of one seed."""
    table = importlib.import_module("examples.published").table
    made = r"\$\(python examples/published\.py (\S+)\)"
    words = shlex.split(re.sub(made, lambda match: str(table(match[1])), command))
    words, params = [*words[2:], "seed=0"], {}  # `make sweep` and `python src/train.py` go.
    if words[0].startswith("SWEEP="):
        file = ROOT / "launch" / "sweep" / f"{words.pop(0).removeprefix('SWEEP=')}.yaml"
        params = yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]
    with hydra_initialized():
        return lines_of(params, with_options(words))


@pytest.mark.parametrize("name", PAPERS)
def test_the_commands_of_the_page_are_the_runs_of_a_paper(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    paper, settings = PAPERS[name], set()
    for words in (words for command in commands() for words in runs(command)):
        values = dict(word.split("=", 1) for word in words)
        if values.get("experiment") != name:
            continue
        config = configure(*words)
        plan = make_plan(config)
        settings.add(str(result_settings(config)))
        augment, optimizer = asdict(config.dataset.augment), config.optimizer
        assert augment == {"crop": 4, "flip": True, "rotation": paper.rotation}
        assert optimizer.name == values.get("optimizer", "shb" if paper.momentum else "sgd")
        assert (optimizer.momentum, optimizer.weight_decay) == (paper.momentum, 0)
        assert (plan.n, plan.epochs, config.learning_rate) == (N, paper.epochs, 0.1)
        run, made_updates = paper.run(values), 0
        for epoch in range(paper.epochs):
            count = plan.batches_of_epoch(epoch + 1)
            assert abs(count - math.ceil(N / run.size(epoch))) <= run.other_updates
            for k in {made_updates + place for place in (0, count // 2, count - 1)}:
                update, rate = plan.at(k + 1), run.rate(epoch, k, k / plan.updates)
                assert update.learning_rate == pytest.approx(0.1 * rate, rel=run.rate_error), words
                assert update.batch_size <= run.size(epoch)
            made_updates += count
        assert made_updates == plan.updates
        if values.get("schedule") in METHODS:
            label = f"Method {values['schedule'][-1]}"
            assert re.search(rf"^\| {label} .* {plan.updates:,} \|$", PAGE, re.M)
    assert len(settings) == paper.settings
