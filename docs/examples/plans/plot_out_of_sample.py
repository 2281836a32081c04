r"""
A map for points that were not there
====================================

A solve knows the points that it was given. Its potentials are functions of all space, and so is the map
:math:`T(z) = z - \nabla F(z)` between the measures: it is fitted on a few thousand points, and applied to any others.
"""

# %%
# A map that is known
# -------------------
#
# The target is made by the gradient of a convex function, so that it is the optimal map (Brenier's theorem) and the
# error can be measured. Points of the source and of the target are drawn anew: none is the image of another.

import matplotlib.pyplot as plt
import numpy as np

import epsot

rng = np.random.default_rng(0)
DIRECTIONS = np.array([[2.0, 1.0], [-1.0, 2.5], [2.0, -2.0]])


def optimal(z):
    """The gradient of |z|^2 / 2 + 0.045 sum_k sin(<w_k, z> + k), which is convex.  (n, 2) -> (n, 2)"""
    phases = z @ DIRECTIONS.T + np.arange(len(DIRECTIONS))
    return z + [3.2, 0.0] + 0.045 * np.cos(phases) @ DIRECTIONS


def square(n):
    """Points of the unit square around zero, doubled.  (n, 2)"""
    return rng.uniform(-1, 1, (n, 2))


# %%
# Fitted on 2000, applied to 100 000
# ----------------------------------
#
# ``transport`` takes points from anywhere, at the price of one softmin for each measure. At the points that were fitted
# it is ``x + displacement``.

x, y = square(2000), optimal(square(2000))
result = epsot.sinkhorn_divergence(x, y, blur=0.1)
print(f"at the points of the fit they differ by {np.abs(result.transport(x) - x - result.displacement).max():.0e}")

others = square(100_000)
gap = np.linalg.norm(result.transport(others) - optimal(others), axis=1)
print(f"100 000 other points: off by {gap.mean():.3f} on average, 99 % by less than {np.quantile(gap, 0.99):.3f}")

# %%
# A lattice of lines, where the fit has no points at all, and where they are taken: by the map that was found, and by
# the truth. The map is smooth, because a blur of 0.1 cannot follow the gaps between samples.

ticks, fine = np.linspace(-0.95, 0.95, 11), np.linspace(-0.95, 0.95, 60)
lines = [np.stack([np.full(60, t), fine], axis=1) for t in ticks]
lines += [line[:, ::-1] for line in lines]
figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
epsot.plot.samples(x, ax=ax, area=4000)
epsot.plot.samples(y, ax=ax, area=4000, color=epsot.plot.TARGET)
for line in lines:
    ax.plot(*line.T, color="0.2", lw=0.7)
    ax.plot(*optimal(line).T, color="#D55E00", lw=2, alpha=0.5, label="the truth")
    ax.plot(*result.transport(line).T, color="0.2", lw=0.7, label="found")
handles, labels = ax.get_legend_handles_labels()
ax.legend(handles[:2], labels[:2], loc="lower center")
ax.set(title="lines through the source, and where they go", ylim=(-1.5, 1.5))
plt.show()

# %%
# How many points does it take?
# -----------------------------
#
# The error is first that of the samples, and falls as they grow in number. Where they are few, a large blur is the
# better one, because it takes a mean over more of them; where they are many, its own bias is what is left.

test = square(1000)


def error(n, blur):
    """The mean squared distance between the map of a fit to n points and the truth."""
    fitted = epsot.sinkhorn_divergence(square(n), optimal(square(n)), blur=blur, tol=1e-2)
    return np.mean(np.sum((fitted.transport(test) - optimal(test)) ** 2, axis=1))


counts, blurs = (125, 250, 500, 1000, 2000, 4000), (0.4, 0.2, 0.1, 0.05)
figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
for blur, color in zip(blurs, plt.cm.viridis(np.linspace(0, 0.85, len(blurs))), strict=True):
    errors = [np.mean([error(n, blur) for _ in range(max(1, 2000 // n))]) ** 0.5 for n in counts]
    ax.loglog(counts, errors, "o-", ms=4, color=color, label=f"blur {blur}")
ax.set(xlabel="points in each cloud", ylabel="error of the map, root mean square")
ax.set_xticks(counts, counts, minor=False)
ax.set_yticks([0.03, 0.05, 0.1, 0.2], ["0.03", "0.05", "0.1", "0.2"])
ax.minorticks_off()
ax.legend()
plt.show()
