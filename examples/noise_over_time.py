"""Plan, train, measure C² after every epoch, and draw δ planned against δ measured.

python examples/noise_over_time.py [FILE] writes FILE, by default noise_over_time.png beside it.
"""

# %% Plan
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch
from digits import accuracy, digits, small_network
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import igo

torch.manual_seed(0)
train, test = digits()
plan = igo.plan("graduated", n=len(train), epochs=12, learning_rate=0.1, batch_size=16, p=0.5)
print(plan)

# %% Train, and measure before the first epoch and after each
model = small_network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
batches = igo.BatchSampler(plan, train, seed=0)
loader = DataLoader(train, batch_sampler=batches)
schedule = igo.Schedule(optimizer, batches)
loader = schedule(loader)
draws = DataLoader(train, 16, shuffle=True, drop_last=True)  # equal batches, for the measurement


def measure(epoch: int) -> igo.Noise:
    return igo.measure_noise(model, cross_entropy, draws, n=len(train), batches=64, seed=epoch)


noises = [measure(0)]
for epoch in batches.epochs():
    for images, labels in loader:
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    noises.append(measure(epoch))
    variance, (low, high) = noises[-1].variance, noises[-1].variance_interval
    print(
        f"after epoch {epoch:2}  C² {variance:.3g} [{low:.3g}, {high:.3g}]"
        f"  test {accuracy(model, test):.2%}"
    )

# %% Draw δ of each epoch: with the first C² (planned), and with the C² at its start (measured)
planned_deltas = [igo.noise_level(row.eta_m, row.b_m, noises[0].variance) for row in plan.rows]
measured_deltas = [
    igo.noise_level(row.eta_m, row.b_m, noise.variance)
    for row, noise in zip(plan.rows, noises, strict=False)  # each epoch is a row
]
figure, (above, below) = plt.subplots(2, sharex=True, figsize=(6, 5), layout="constrained")
above.plot(range(1, plan.epochs + 1), planned_deltas, label="δ planned: first C²")
above.plot(range(1, plan.epochs + 1), measured_deltas, "o-", label="δ measured: C² of the epoch")
above.set(ylabel="δ = η √(C²/b)", yscale="log")
above.legend()
below.errorbar(
    range(plan.epochs + 1),
    [noise.variance for noise in noises],
    [
        [noise.variance - noise.variance_interval[0] for noise in noises],
        [noise.variance_interval[1] - noise.variance for noise in noises],
    ],
    fmt="o-",
    capsize=3,
)
below.set(ylabel="C², 95 % interval", xlabel="epochs done", yscale="log")
target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
figure.savefig(target, dpi=150)
print(f"written: {target}")
