"""The picture of README.md: python docs/methods.py draws docs/methods.png from an archive.

Left is the noise of Methods 1 to 4 on CIFAR-100 by epoch, right their test accuracy by updates.
"""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import yaml

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
RECORDS = HERE.parent / "results" / "records" / "cifar100_many.tar.xz"
NAMES = {0.0: "Method 3", 1.0: "Method 2", 0.415: "Method 4"}  # by split
Settings = dict[str, list[list[dict[str, Any]]]]  # the records of each run, by its setting
STYLE = {"font.size": 11.5, "axes.spines.top": False, "axes.spines.right": False}
METHODS = {
    "Method 1 (constant)": ("1: η and b constant", "#777777"),
    "Method 2": ("2: η falls", "#0072B2"),
    "Method 3": ("3: b grows", "#D55E00"),
    "Method 4": ("4: both", "#009E73"),
}


def settings() -> Settings:
    """The runs of the four methods, by the name of the setting."""
    configs, records = dict[str, Any](), dict[str, list[dict[str, Any]]]()
    with tarfile.open(RECORDS) as tar:
        for entry in tar:
            run, _, name = entry.name.partition("/")
            if run.endswith("-reversed"):
                continue
            if name == "config.yaml" and (file := tar.extractfile(entry)):
                configs[run] = yaml.safe_load(file)
            if name == "metrics.jsonl" and (file := tar.extractfile(entry)):
                records[run] = [json.loads(line) for line in file]
    runs: Settings = defaultdict(list)
    for run, config in configs.items():
        constant = config["schedule"]["profile"] == "constant"
        name = "Method 1 (constant)" if constant else NAMES[round(config["split"], 3)]
        runs[name].append(records[run])
    return dict(sorted(runs.items()))


def main() -> None:
    """Draw means over the seeds."""
    runs = settings()
    with plt.rc_context(STYLE):
        figure, (noise, accuracy) = plt.subplots(1, 2, figsize=(6.4, 2.5), layout="constrained")
        for method, (label, colour) in METHODS.items():
            epochs = {
                name: np.array([[row.get(name) for row in run] for run in runs[method]], float)
                for name in ("epoch", "updates", "delta_m", "delta_measured", "test/accuracy")
            }
            mean = {name: of_seeds.mean(axis=0) for name, of_seeds in epochs.items()}
            noise.plot(mean["epoch"], mean["delta_m"], color=colour, lw=1.2, ls=":")
            noise.plot(mean["epoch"], mean["delta_measured"], color=colour, lw=2)
            evaluated = np.isfinite(mean["test/accuracy"])
            accuracy.plot(
                mean["updates"][evaluated],
                100 * mean["test/accuracy"][evaluated],
                color=colour,
                lw=2,
                label=label,
            )
        noise.set_yscale("log")
        noise.set_yticks([0.25, 0.5, 1], ["0.25", "0.5", "1"])
        noise.minorticks_off()
        noise.set_title("Noise δ (dotted: planned)", loc="left", fontsize=12)
        noise.set_xlabel("epoch")
        accuracy.set_title("Test accuracy, %", loc="left", fontsize=12)
        accuracy.set_xlabel("updates")
        accuracy.xaxis.set_major_formatter("{x:,.0f}")
        accuracy.xaxis.set_major_locator(mpl.ticker.MultipleLocator(5000))
        accuracy.legend(
            frameon=False,
            fontsize=11,
            loc="lower right",
            handlelength=1,
            labelspacing=0.2,
            borderaxespad=0,
        )
        figure.savefig(HERE / "methods.png", dpi=200, metadata={"Software": None})


if __name__ == "__main__":
    main()
