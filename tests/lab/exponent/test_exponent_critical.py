"""Question (v): the stop rule by brute force, judged studies where b_crit is known."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit
from torch.nn.functional import cross_entropy

from igo.config.schema import ModelConfig
from igo.ground.errors import UserError
from igo.ground.seeds import derive_seed
from igo.train import models
from lab.exponent import critical, critical_page, critical_runs, program
from lab.exponent.critical_runs import ETA, B, Runs, Training, chosen, name_of, until
from lab.study.records import ROOT, of_archives


def test_a_run_stops_where_every_window_by_itself_says():
    random = np.random.default_rng(0)
    for window, limit in itertools.product((1, 3, 8), (2, 30, 80)):
        losses = (1.0 - np.arange(60) / 60 + 0.2 * random.standard_normal(60)).tolist()
        if window == 8:
            losses[40] = math.nan
        below = [k for k in range(window, 61) if np.mean(losses[k - window : k]) < 0.45]
        last = min(60, limit)
        outcome = until(iter(losses), window, 0.45, limit)
        if below and below[0] <= last:
            mean = np.mean(losses[below[0] - window : below[0]])
            assert (outcome.state, outcome.updates) == ("arrived", below[0])
            assert outcome.loss == pytest.approx(mean)
        elif window == 8 and limit > 40:
            assert outcome == critical_runs.Outcome("diverged", 41, None)
        else:
            kept = losses[max(0, last - window) : last]
            assert (outcome.state, outcome.updates) == ("limit", last)
            assert outcome.loss == pytest.approx(np.mean(kept))


class Known:
    """A training whose smoothed loss is below the target after exactly K updates."""

    scales = ()

    def __init__(self, b, arrives):
        self.window, self.arrives = 8192 // b, arrives

    def losses(self, updates):
        if self.arrives is None:
            yield math.nan
        low = self.window * 2  # the first low loss brings the mean of the window down
        yield from (1.0 if k < self.arrives else 0.4 - low for k in range(1, updates + 1))


@pytest.mark.parametrize("seeds", [(1000,), (1000, 1001)])
@pytest.mark.parametrize("first", [ETA[0], ETA[3], ETA[6]])
def test_stopping_runs_of_tuning_changes_no_choice(tmp_path, monkeypatch, first, seeds):
    random = np.random.default_rng(1)
    b = 1024
    monkeypatch.setitem(critical_runs.TUNING_SEEDS, b, seeds)
    monkeypatch.setattr(critical_runs, "WHOLE_TO", b)
    for study in range(8):
        sums, known = {}, {}
        for eta in ETA:
            k = [int(random.integers(8, 40)) for _ in seeds]
            k = [None] * len(k) if random.random() < 0.2 else k
            known |= {(eta, seed): value for seed, value in zip(seeds, k, strict=True)}
            if None not in k and max(k) <= 30:
                sums[eta] = sum(k)
        runs = Runs(
            lambda b, eta, seed, measured, known=known: Known(b, known[eta, seed]),
            tmp_path / str(study), end=lambda b: 30, report=lambda line: None,
        )  # fmt: skip
        rate = runs.tune(b, first)
        if sums:
            assert (sums[rate], rate) == min((total, eta) for eta, total in sums.items())
        files = list((tmp_path / str(study)).glob("*.json"))
        written = [path.stat().st_mtime_ns for path in files]
        assert runs.tune(b, ETA[1]) == rate or not sums  # the rest of the runs, if any
        assert [path.stat().st_mtime_ns for path in files] == written


def test_the_larger_batches_try_the_choice_before_and_its_neighbours():
    assert critical_runs.grid(256, 0.8) == list(ETA)
    assert critical_runs.grid(512, 0.8) == [0.4, 0.8, 1.6]
    assert critical_runs.grid(1024, ETA[-1]) == [1.6, 3.2]


def test_if_no_run_of_tuning_arrives_the_least_last_loss_decides():
    base = {"b": 8, "seed": 1000, "updates": 20}
    lost = {**base, "state": "diverged", "loss": None, "eta": 0.05}
    rows = [{**base, "state": "limit", "loss": 0.9 - eta, "eta": eta} for eta in (0.1, 0.2, 0.4)]
    assert chosen([lost, *rows]) == 0.4
    half = {**base, "state": "arrived", "loss": 0.4, "eta": 0.8}  # with one of the two seeds
    short = {**half, "state": "limit", "seed": 1001}
    assert chosen([lost, *rows, half, short]) == 0.8


def images(n=600):
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (n,), generator=random)
    x = torch.randn(n, 1, 14, 14, generator=random) + labels[:, None, None, None] / 5
    return x, labels


def test_a_training_is_sgd_on_one_permutation_after_the_other():
    x, labels = images()
    b, eta, seed = 64, 0.1, 3
    torch.manual_seed(derive_seed(seed, critical_runs.SWEEP, "parameters"))
    model = models.build(ModelConfig(name="resnet8", width=8), critical_runs.DATASET)
    random = np.random.default_rng(derive_seed(seed, critical_runs.SWEEP, "stream"))
    rows = np.concatenate([random.permutation(600) for _ in range(3)])
    expected = []
    for k in range(20):
        batch = torch.from_numpy(rows[k * b : (k + 1) * b])
        loss = cross_entropy(model(x[batch]), labels[batch])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.sub_(eta * gradient)
        expected.append(loss.item())
    losses = list(Training(x, labels, b, eta, seed).losses(20))
    assert losses == pytest.approx(expected, rel=1e-3)


def test_measuring_the_noise_does_not_change_a_training(monkeypatch):
    x, labels = images()
    monkeypatch.setattr(critical_runs, "SMOOTHED_OVER", 1024)
    alone = list(Training(x, labels, 32, 0.1, 0).losses(128))
    measured = Training(x, labels, 32, 0.1, 0, measured=True)
    assert list(measured.losses(128)) == alone
    assert len(measured.scales) == 4  # after 1,024, 2,048, 3,072 and 4,096 samples
    assert all(scale is None or scale > 0 for scale in measured.scales)


def world(true, spread=0.05, seeds=6, seed=0, least=10_000.0):
    """ln K on the curve of a known b_crit, with normal errors; none is censored."""
    random = np.random.default_rng(seed)
    curve = np.log(least * (1 + true / np.array(B, dtype=np.float64)))
    updates = np.exp(curve[:, None] + spread * random.standard_normal((len(B), seeds)))
    return updates, np.zeros((len(B), seeds), dtype=bool)


def scales(simple, seeds=6, seed=1):
    return simple * np.exp(0.1 * np.random.default_rng(seed).standard_normal(seeds))


@pytest.mark.parametrize(
    ("simple", "spread", "verdict"),
    [(300, 0.05, "confirmed"), (30, 0.05, "refuted"), (3000, 0.05, "refuted"),
     (300, 0.8, "undecided"), (142, 0.05, "undecided")],
)  # fmt: skip
def test_verdicts_where_the_critical_batch_is_known(simple, spread, verdict):
    judged = critical.judge(*world(300.0, spread), scales(simple))
    assert judged.verdict == verdict
    if spread < 0.1:
        assert judged.critical.value == pytest.approx(300, rel=0.15)
        assert judged.least == pytest.approx(10_000, rel=0.1)


def test_more_than_two_censored_cells_are_undecided():
    updates, censored = world(300.0)
    censored[:2, 1] = True
    assert critical.judge(updates, censored, scales(300)).verdict == "confirmed"
    censored[2, 0] = True
    assert critical.judge(updates, censored, scales(300)).verdict == "undecided"


def test_the_fit_is_that_of_scipy():
    updates, censored = world(80.0, spread=0.2, seeds=4)
    judged = critical.judge(updates, censored, scales(80, 4))
    means = np.log(updates).mean(axis=1)
    (ln_least, ln_critical), _ = curve_fit(
        lambda b, ln_least, ln_critical: ln_least + np.log1p(np.exp(ln_critical) / b),
        np.array(B), means, p0=(4.0, 4.0),
    )  # fmt: skip
    assert judged.critical.value == pytest.approx(np.exp(ln_critical), rel=0.006)  # its grid
    assert judged.least == pytest.approx(np.exp(ln_least), rel=0.006)


def test_lack_of_fit_sees_another_curve_and_not_this_one():
    updates, censored = world(300.0)
    assert critical.judge(updates, censored, scales(300)).p_fit > 0.05
    bent = updates * np.exp(0.3 * (np.arange(len(B)) % 2))[:, None]
    assert critical.judge(bent, censored, scales(300)).p_fit < 1e-4


def record(kind, b, eta, seed, updates, state="arrived", scales=()):
    return {
        "kind": kind, "b": b, "eta": eta, "seed": seed, "target": critical_runs.TARGET,
        "limit": critical_runs.end(b), "state": state, "updates": updates, "loss": 0.44,
        "scales": list(scales), "seconds": 1.0, "cpu": "a CPU", "threads": 1,
        "versions": {"torch": "2"}, "commit": "abcdef0123",
    }  # fmt: skip


def records(updates, scale=300.0):
    runs = {}
    for b, eta, seed in itertools.product(B, ETA, (1000, 1001)):
        best = eta == 0.8
        runs[name_of("tuning", b, eta, seed)] = record(
            "tuning", b, eta, seed, 50 if best else 60, "arrived" if best else "limit"
        )
    for (b, of_b), seed in itertools.product(zip(B, updates, strict=True), range(6)):
        of_noise = [scale, None, scale] if b == 32 else []
        runs[name_of("judged", b, 0.8, seed)] = record(
            "judged", b, 0.8, seed, round(of_b[seed]), scales=of_noise
        )
    return runs


def test_the_page_has_what_was_judged():
    runs = records(world(300.0)[0])
    page = critical_page.text(runs, range(6))
    assert "B_simple predicts b_crit: confirmed" in page
    assert "6 of 6 seeds" in page
    del runs[name_of("judged", 64, 0.8, 2)]
    assert "not run" in critical_page.text(runs, range(6))  # two whole seeds
    del runs[name_of("judged", 8, 0.8, 1)]
    with pytest.raises(UserError, match="1 seeds have all b"):
        critical_page.text(runs, range(6))
    del runs[name_of("tuning", 16, 0.1, 1000)], runs[name_of("tuning", 16, 0.1, 1001)]
    with pytest.raises(UserError, match="b = 16: 6 of 7"):
        critical_page.text(runs, range(6))


def test_a_run_that_diverged_counts_as_censored_at_its_end():
    kept = records(world(300.0)[0])
    lost = {"state": "diverged", "updates": 3, "loss": None}
    kept[name_of("judged", 1024, 0.8, 0)] |= lost
    runs, _ = critical_page.of_records(kept, range(6))
    judged, updates = critical_page.judged_of(runs)
    assert judged.censored == 1
    assert updates[-1, 0] == critical_runs.end(1024)


def test_records_survive_the_archive(tmp_path):
    runs = records(world(300.0)[0])
    for name, content in runs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    critical_runs.archive(tmp_path, tmp_path / "a.tar.xz")
    archived = {name: run.status for name, run in of_archives(tmp_path).items()}
    assert critical_page.text(archived, range(6)) == critical_page.text(runs, range(6))


def test_the_page_follows_from_the_records():
    page = ROOT / "results" / "exponent" / "critical.md"
    if not page.is_file():
        pytest.skip("not run")
    archived = of_archives(critical_runs.ARCHIVE.parent, critical_runs.ARCHIVE.name)
    kept = {name: run.status for name, run in archived.items()}
    assert critical_page.text(kept, range(critical.SEEDS)) == page.read_text()


def test_the_planned_seeds():
    assert list(program.Settings(question="critical").range_of_seeds) == list(range(6))
