"""Configurations drawn at random: right ones, and ones with a single mistake.

What is right is written here from the documented ranges (README, `--help`), not taken from the
rules that it is to test.
"""

from __future__ import annotations

from typing import get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from igo.config.schema import Config, known_settings

Settings = dict[str, object]

HUGE = 10**30
GROUPS = {
    "schedule": [
        "constant", "graduated", "polynomial", "linear", "step", "exponential", "cosine",
        "cosine_power", "diminishing",
    ],
    "optimizer": ["sgd", "shb", "nshb"],
    "model": ["resnet8", "resnet18"],
}  # fmt: skip
PROFILE: dict[str, dict[str, st.SearchStrategy[object]]] = {
    "graduated": {"p": st.floats(1e-3, 1)},
    "polynomial": {"p": st.floats(1e-3, 20)},
    "exponential": {"schedule.decay": st.floats(0.5, 0.999)},
    "cosine_power": {"schedule.power": st.floats(1.001, 1e9)},
}


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """As they are typed: few digits, the ends among them."""
    return st.floats(low, high).map(lambda x: float(f"{x:.3g}")).filter(lambda x: low <= x <= high)


@st.composite
def right(draw: st.DrawFn) -> Settings:
    """Settings that the documentation allows, small enough to train a step in a moment."""
    n = draw(st.integers(12, 96))
    epochs = draw(st.integers(1, 12))
    b_1 = draw(st.integers(1, n))
    profile = draw(st.sampled_from(GROUPS["schedule"]))
    settings: Settings = {
        "schedule": profile,
        "dataset.samples": n,
        "model.width": draw(st.integers(1, 6)),
        "epochs": epochs,
        "batch_size": b_1,
        "learning_rate": draw(floats(1e-6, 0.5)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "noise.batches": draw(st.integers(2, 6)),
        "noise.batch_size": draw(st.integers(1, 100)),
        "noise.online": draw(floats(0, 1)),
        "dataset.augment.crop": draw(st.integers(0, 7)),
        "dataset.augment.flip": draw(st.booleans()),
        "dataset.augment.rotation": draw(floats(0, 180)),
        "dataset.mean": [draw(floats(0, 1))],
        "dataset.std": [draw(floats(0.01, 10))],
        "schedule.final_updates": draw(st.integers(0, 3)),
        "schedule.stages": draw(st.integers(1, epochs)),
        "schedule.batch_multiple": draw(st.sampled_from([d for d in (1, 2, 3, 8) if not b_1 % d])),
        "optimizer.weight_decay": draw(floats(0, 0.1)),
        "engine.micro_batch_size": draw(st.sampled_from([None, 1, 7, 64])),
        "engine.precision": draw(st.sampled_from(["auto", "fp32", "bf16"])),
        **{name: draw(values) for name, values in PROFILE.get(profile, {}).items()},
    }
    return settings | draw(_of_the_schedule(profile)) | draw(_of_the_optimizer(profile, b_1, n))


@st.composite
def _of_the_schedule(draw: st.DrawFn, profile: str) -> Settings:
    if profile == "step":
        rates = {"schedule.kappa": draw(floats(0.3, 1)), "schedule.lam": draw(floats(1.01, 3))}
        return rates if draw(st.booleans()) else {"schedule.gamma": draw(floats(0.3, 0.99))}
    if profile == "diminishing" and draw(st.booleans()):
        return {"schedule.form": "inverse_time", "schedule.a": draw(floats(1e-3, 1e3))}
    return {}


@st.composite
def _of_the_optimizer(draw: st.DrawFn, profile: str, b_1: int, n: int) -> Settings:
    kappa_and_lam = profile in ("step", "constant")  # which say themselves what the split is
    name = draw(st.sampled_from(GROUPS["optimizer"]))
    if name != "sgd":
        settings: Settings = {"optimizer": name, "optimizer.momentum": draw(floats(0.01, 0.99))}
        if not kappa_and_lam and draw(st.booleans()):
            return settings | {"optimizer.decay_momentum": True}
    else:
        settings = {"schedule.feedback": draw(st.sampled_from(["none", "measured"]))}
    if not kappa_and_lam:
        settings |= {"split": draw(floats(0, 1))}
    return settings | {"max_batch_size": draw(st.sampled_from([None, b_1, n, 5 * n]))}


WRONG: dict[str, list[object]] = {  # values outside what is documented
    "p": [0, -0.5, 21e400, "nan"],
    "split": [-0.01, 1.01, "nan", "inf"],
    "seed": [-1, 2**32, HUGE],
    "epochs": [0, -3, 10**6 + 1, HUGE],
    "learning_rate": [0, -0.1, "inf", "nan", 10**400],
    "batch_size": [0, -16, 97, HUGE],
    "max_batch_size": [0, -1],
    "dataset.samples": [0, 1, 1438, HUGE],
    "dataset.classes": [1, 9, 11, HUGE],
    "dataset.channels": [0, 3],
    "dataset.image_size": [0, 28, HUGE],
    "dataset.mean": [[], [0.1, 0.2], ["nan"], [-3], [200]],
    "dataset.std": [[], [0.1, 0.2], [0], [-1], ["inf"], [1e-300]],
    "dataset.augment.crop": [-1, 8, HUGE],
    "dataset.augment.rotation": [-1, 181, "nan"],
    "model.width": [0, -4, 10**6, HUGE],
    "model.name": ["resnet9", "../resnet8", "resnet18", ""],
    "optimizer.name": ["adam", "SGD", ""],
    "optimizer.momentum": [-0.1, 1, 2, "nan"],
    "optimizer.weight_decay": [-1, "inf"],
    "schedule.profile": ["cosin", ""],
    "schedule.stages": [0, -1, 13, HUGE],
    "schedule.batch_multiple": [0, -1, 97, HUGE],
    "schedule.final_updates": [-1, HUGE],
    "schedule.feedback": ["on", ""],
    "schedule.feedback_limit": [1, 0, "nan"],
    "noise.batches": [0, 1, 97, HUGE],
    "noise.batch_size": [0, -1, HUGE],
    "noise.online": [-0.1, 1.1, "nan"],
    "engine.device": ["gpu", "tpu", "cuda:x"],
    "engine.precision": ["fp8", "double"],
    "engine.micro_batch_size": [0, -1, HUGE],
    "engine.memory": [0, -8, "inf"],
    "engine.threads": [0, -1, 10**6, HUGE],
    "engine.batchnorm": ["none", "global"],
    "tracking.tool": ["mlflow", ""],
    "tracking.mode": ["on", ""],
}


def _types() -> dict[str, object]:
    """The type of every setting that is no group."""
    types: dict[str, object] = {}
    for name in known_settings():
        kind: object = Config
        for part in name.split("."):
            kind = get_type_hints(kind)[part]
        types[name] = kind
    return {name: kind for name, kind in types.items() if not hasattr(kind, "__dataclass_fields__")}


TYPES = _types()
TOP_OR_COMMON = [  # those that every choice of groups has
    name
    for name in TYPES
    if name not in ("model.timm", "model.stem", "optimizer.decay_momentum", "dataset.workers")
    and name.partition(".")[2] not in ("p", "gamma", "kappa", "lam", "decay", "power", "form", "a")
]


def _of_wrong_type(kind: object) -> list[object]:
    """Values that are none of this type, and are not read as one."""
    kinds = {kind, *get_args(kind)}
    if get_origin(kind) is list:
        return ["x", 3, {"a": 1}]
    if str in kinds:
        return [[1], {"a": 1}]
    return ["x", "1.5x", [1], {"a": 1}, "'1 2'", "é"] + ([2.5] if int in kinds else [])


@st.composite
def one_mistake(draw: st.DrawFn) -> tuple[Settings, str]:
    """Settings of which one is wrong, and which."""
    settings = draw(right())
    settings.pop("engine.micro_batch_size")  # takes the sense out of engine.memory
    wrong = draw(st.sampled_from(["value", "type", "name", "reference"]))
    if wrong == "name":
        name = draw(st.from_regex(r"\A[a-z]{3,9}(_[a-z]{2,4})?\Z").filter(lambda n: n not in TYPES))
        return settings | {f"+{name}": 1}, name
    names = sorted(WRONG) if wrong == "value" else TOP_OR_COMMON
    name = draw(st.sampled_from(names))
    settings.pop({"p": "schedule.p", "split": "schedule.kappa"}.get(name, ""), None)
    if wrong == "value":
        return settings | {name: draw(st.sampled_from(WRONG[name]))}, name
    if wrong == "reference":
        return settings | {name: draw(st.sampled_from(["${nope}", "${oc.env:NOPE}", "???"]))}, name
    return settings | {name: draw(st.sampled_from(_of_wrong_type(TYPES[name])))}, name


def typed(settings: Settings) -> list[str]:
    """As arguments; groups first, a setting that the groups may not have with a ++."""
    lines = []
    for name, value in settings.items():
        group = name in GROUPS
        plus = "" if group or name.startswith("+") or name in TOP_OR_COMMON else "++"
        lines.append(f"{plus}{name}={_text(value)}")
    return lines


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_text(v)}" for k, v in value.items()) + "}"
    return str(value)
