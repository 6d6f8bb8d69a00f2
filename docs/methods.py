"""The picture of README.md: python docs/methods.py draws docs/methods.png from an archive.

Left is the noise of Methods 1 to 4 on CIFAR-100 by epoch, right their test accuracy by updates.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from dashboard import settings

mpl.use("Agg")
from matplotlib import pyplot as plt

STYLE = {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False}
METHODS = {
    "Method 1 (constant)": ("1: η and b constant", "#777777"),
    "Method 2": ("2: η falls", "#0072B2"),
    "Method 3": ("3: b grows", "#D55E00"),
    "Method 4": ("4: both", "#009E73"),
}


def main() -> None:
    """Draw means over the seeds."""
    runs = settings()
    with plt.rc_context(STYLE):
        figure, (noise, accuracy) = plt.subplots(1, 2, figsize=(7.2, 3.1), layout="constrained")
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
        noise.set_title("Noise δ (dotted: planned)", loc="left", fontsize=12.5)
        noise.set_xlabel("epoch")
        accuracy.set_title("Test accuracy, %", loc="left", fontsize=12.5)
        accuracy.set_xlabel("updates")
        accuracy.xaxis.set_major_formatter("{x:,.0f}")
        accuracy.xaxis.set_major_locator(mpl.ticker.MultipleLocator(5000))
        accuracy.legend(frameon=False, fontsize=11.5, loc="lower right", handlelength=1.2)
        file = Path(__file__).parent / "methods.png"
        figure.savefig(file, dpi=200, metadata={"Software": None})


if __name__ == "__main__":
    main()
