r"""
Flows along the gradient, for p = 1 and 2
=========================================

A cloud that descends along the gradient of a divergence flows into its target. Each step is a solve, which can start
from the potentials of the step before.
"""

# %%
# A disc, and a cross
# -------------------

import matplotlib.pyplot as plt
import numpy as np

import epsot

rng = np.random.default_rng(0)
n = 500
radius, angle = 0.35 * np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
start = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) - [0.9, 0.0]
bars = rng.uniform(-1, 1, (n, 2)) * np.where(np.arange(n)[:, None] % 2, [0.12, 0.8], [0.8, 0.12])
target = bars @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + [0.9, 0.0]

# %%
# Euler's steps
# -------------
#
# ``displacement`` is minus the gradient over the weights: for p = 2 a step of one goes all the way, and of a tenth, a
# tenth of what is left. For p = 1 each point moves at a speed of at most one, whatever its distance. ``init`` takes the
# last result.


def flow(p, step, steps, warm=True):
    """The clouds on the way, (steps + 1, n, 2), and the iterations and values of each step."""
    x, result, path, nit, values = start, None, [start], [], []
    for _ in range(steps):
        result = epsot.sinkhorn_divergence(x, target, blur=0.05, p=p, init=result if warm else None)
        nit.append(result.nit)
        values.append(float(result.value))
        x = x + step * result.displacement
        path.append(x)
    return np.array(path), np.array(nit), np.array(values)


quadratic, linear = flow(2, 0.1, 50), flow(1, 0.05, 50)
cold = flow(2, 0.1, 50, warm=False)
print(f"p = 2: {quadratic[1].sum()} iterations for 50 steps, {cold[1].sum()} without `init`")
print(f"p = 1: {linear[1].sum()} iterations")

# %%
# How they go
# -----------
#
# For p = 2 each point is a tenth of the way farther at each step: the cross is there long before it arrives. For p = 1
# all points are about equally fast, because forces do not grow with the distance. Which point goes where matters little
# to distances along one line, so that far from the target the cloud only moves, and spreads; it sorts itself out as it
# arrives.

figure, axes = plt.subplots(2, 4, figsize=(11, 3.3), layout="constrained", sharex=True, sharey=True)
for row, p, (path, _, _) in zip(axes, (2, 1), (quadratic, linear), strict=True):
    for ax, k in zip(row, (0, 10, 25, 50), strict=True):
        ax.scatter(*target.T, s=2, color="0.75", linewidths=0)
        ax.scatter(*path[k].T, s=3, c=start[:, 1], cmap="viridis", linewidths=0)
        ax.set(title=f"p = {p}, step {k}", aspect="equal", xticks=[], yticks=[])
plt.show()

# %%
# The value of p = 2 falls by the same factor at each step, that of p = 1 slowly first and then quickly. A warm start
# pays where the steps are short: here from the middle of the flow on, and in the end it takes a third of the
# iterations.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for (_, nit, values), label, color in ((quadratic, "p = 2", "#0072B2"), (linear, "p = 1", "#D55E00")):
    axes[0].semilogy(values / values[0], color=color, label=label)
    axes[1].plot(nit, color=color, label=f"{label}, warm")
axes[1].plot(cold[1], color="#0072B2", ls=":", label="p = 2, cold")
axes[0].set(xlabel="step", ylabel="divergence, of the first")
axes[1].set(xlabel="step", ylabel="iterations")
for ax in axes:
    ax.legend()
plt.show()
