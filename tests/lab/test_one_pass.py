"""The study of results/one_pass.md: its plans, its runs, and what its page says of the records."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from igo.ground.errors import UserError
from igo.report.comparison import adjusted, paired_test
from lab.study import language, one_pass, one_pass_page
from lab.study.design import Record
from lab.study.language import SAMPLES
from lab.study.one_pass import FAMILIES, MIDDLE, Curve, level, plan_of
from lab.study.one_pass_page import above, saved, verdict

CURVE: Curve = (0.25, 0.4, 0.25)


def test_a_ramp_has_the_curve_of_its_constants_and_as_many_updates_as_the_one_beside_it() -> None:
    """η and b of each update by own arithmetic, from the samples before it."""
    for family in FAMILIES:
        sizes = FAMILIES[family]
        b, _ = one_pass.sizes_of((family, MIDDLE), {})
        ramp = plan_of(CURVE, b, sizes)
        beside = plan_of(CURVE, *one_pass.sizes_of((f"beside {family}", MIDDLE), {}))
        assert ramp.updates == beside.updates
        assert max(beside.batch_sizes) - min(beside.batch_sizes) <= 1
        place = 0
        for number in range(1, ramp.updates + 1):
            update = ramp.at(number)
            share = place / SAMPLES
            stage = math.floor(share * 64 + 1e-9)
            middle = (stage + 0.5) / 64
            rise = min(1, 0.25 + 0.75 * middle / 0.25)
            eta = update.learning_rate * level(CURVE, 0.5 / 64)
            assert eta == pytest.approx(min(rise, (1 - middle) / 0.4), abs=0.05)
            # A stage ends with a whole batch, or its batches are a bit smaller.
            if all(abs(share - start) > 1 / 64 for start in sizes):
                growth = max([size for start, size in sizes.items() if start <= share], default=1)
                assert update.batch_size == pytest.approx(b * growth, rel=0.25, abs=1)
            place += update.batch_size
        assert place == SAMPLES


def test_a_naive_ramp_lets_the_rate_rise_with_the_root_of_b() -> None:
    plan = plan_of(one_pass.SHORT, 8, FAMILIES["root"], naive=True)
    flat = plan_of(one_pass.SHORT, 8, FAMILIES["root"])
    ratios = {round(a.eta_m / b.eta_m, 6) for a, b in zip(plan.rows, flat.rows, strict=True)}
    assert ratios == {1.0, round(math.sqrt(2), 6), 2.0}


def test_b_follows_the_root_of_the_measured_scale_and_never_falls() -> None:
    scales = [(share / 16, None if share == 5 else 4.0 ** min(share, 8)) for share in range(14)]
    scales += [(14 / 16, 1.0), (15 / 16, 1.0)]
    logs = [[(share, scale and scale * factor) for share, scale in scales] for factor in (0.5, 2)]
    sizes = one_pass.root_of({"noise_scales": log} for log in logs)
    assert [sizes[share / 16] for share in (1, 4, 8, 12)] == pytest.approx(
        [2, 16, 256, 256], rel=0.05
    )
    assert [*sizes.values()] == sorted(sizes.values())


def test_a_run_sees_each_sequence_once_and_is_the_same_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its text is random bytes; the program refuses another text than the study's."""
    random = torch.Generator().manual_seed(0)
    text = torch.randint(97, 123, (600 + 64, 33), generator=random, dtype=torch.uint8)
    monkeypatch.setattr(language, "text", lambda: {"train": text[:600], "test": text[600:]})
    for name, number in (("SAMPLES", 512), ("TESTED", 64), ("HELD", 64)):
        monkeypatch.setattr(language, name, number)
    batches: list[torch.Tensor] = []
    loss_of = language.loss_of

    def watched(model: torch.nn.Module, sequences: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            batches.append(sequences)
        return loss_of(model, sequences)

    monkeypatch.setattr(language, "loss_of", watched)
    monkeypatch.setattr(one_pass, "SAMPLES", 512)
    monkeypatch.setattr(one_pass, "STAGES", 16)
    plan = plan_of(CURVE, 8, {0.5: 2.0})
    run, second_run = (language.trained(plan, 3, 0.01, 0.98) for _ in range(2))
    assert run == second_run
    sequences = torch.cat(batches[: plan.updates])
    assert len(sequences) == len(sequences.unique(dim=0)) == 512
    assert sum(span["updates"] for span in run["spans"]) == plan.updates
    rates = sum(plan.at(number).learning_rate for number in range(1, plan.updates + 1))
    assert sum(span["rates"] for span in run["spans"]) == pytest.approx(0.01 * rates, rel=1e-3)
    assert 0 < run["test"] < math.log(256)


def test_another_text_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("pass\n" * 99)
    monkeypatch.setattr("lab.study.language.sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(UserError, match=r"library of Python 3\.11\.7"):
        language.text.__wrapped__()


def arm_of(updates: int, losses: np.ndarray) -> list[Record]:
    return [{"updates": updates, "test": loss} for loss in losses]


def test_d_and_the_updates_saved_are_read_off_the_line_of_the_constants() -> None:
    """Loss falls by 0.1 for each doubling of the updates, so both are known."""
    seeds = np.array([0.0, 0.02, -0.01])
    ramp = "root", MIDDLE
    frontier = {
        ("constant", b): arm_of(SAMPLES // b, 2 + 0.1 * np.log2(b) + seeds) for b in (8, 16, 32, 64)
    }
    line = 2 + 0.1 * math.log2(SAMPLES / 700) + seeds
    # No constant reaches the last loss: it counts as that of the most updates, 2,048.
    for distance, share in ((-0.03, 1 - 2**-0.3), (0.05, 1 - 2**0.5), (-1, 1 - 700 / 2048)):
        arms = {**frontier, ramp: arm_of(700, line + distance)}
        assert saved(arms, ramp) == pytest.approx([share] * 3, abs=0.02)
        assert above(arms, ramp) == pytest.approx([distance] * 3, abs=2e-3)


def test_a_ramp_is_called_as_the_protocol_says() -> None:
    for mean, sd, share, called in (
        (-0.03, 0.005, 0.2, "pays"),
        (-0.03, 0.005, 0.05, "below"),
        (-0.005, 0.003, 0.2, "pays, level"),
        (0.0, 0.005, 0.0, "level"),
        (0.03, 0.005, -0.2, "loses"),
        (0.0, 0.08, 0.0, "undecided"),
    ):
        random = np.random.default_rng(1)
        sample = random.normal(size=24)
        sample = mean + sd * (sample - sample.mean()) / sample.std()
        [test] = adjusted([paired_test(sample, one_pass_page.MARGIN)])
        assert verdict(test, share + random.normal(0, 0.01, 24)) == called
