"""
Two clouds in five minutes
==========================

How far apart are two clouds of points, which point belongs to which, and what does it look like? Three calls.
"""

# %%
# Two clouds
# ----------
#
# Arrays of points, one row each. They need no order, no partners, and not the same number of points.

import matplotlib.pyplot as plt
import numpy as np

import epsot

rng = np.random.default_rng(0)
x = 0.35 * rng.normal(size=(300, 2))
angle = rng.uniform(0, 1.4 * np.pi, 400)
y = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.07 * rng.normal(size=(400, 2)) + [1.9, 0.2]

# %%
# The value
# ---------
#
# One number is yours to choose. ``blur`` is a length in the units of the points: what is finer does not count. A
# twentieth of the diameter is a good start.

print(f"diameter {epsot.extent(x, y):.2f}")
result = epsot.sinkhorn_divergence(x, y, blur=0.1)
print(result)

# %%
# The value is about half of a mean squared distance: zero for equal clouds, and never negative. Its root, doubled
# before, is a length: how far mass moves from the one to the other.

print(f"S = {float(result.value):.3f}, or a length of {np.sqrt(2 * float(result.value)):.3f}")

# %%
# The picture
# -----------
#
# ``displacement`` says where each point of ``x`` goes, and ``x + displacement`` is a cloud like ``y``. The picture on
# the left has the level lines of both potentials, too: mass goes across the blue ones. The few points that stop short
# are those at the edge, whose mass is spread over a large part of the arc.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True, sharey=True)
epsot.plot.transport(result, ax=axes[0], arrows=60, title="from red to blue")
moved = x + result.displacement
epsot.plot.samples(y, ax=axes[1], color=epsot.plot.TARGET)
epsot.plot.samples(moved, ax=axes[1], color=epsot.plot.SOURCE)
axes[1].set(title="x + displacement, over y", xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim())
plt.show()

# %%
# The plan
# --------
#
# :func:`epsot.sinkhorn` without debiasing has a plan: how much of each point goes to each other one. It is not stored,
# but acts like a matrix. Its sums are the weights of the two clouds, 1/300 and 1/400 each, up to the tolerance.

plan = epsot.sinkhorn(x, y, blur=0.1).plan
print(plan)
rows, columns = 300 * plan.sum(axis=1), 400 * plan.sum(axis=0)
print(f"off by {abs(rows - 1).max():.1%} in the rows, by {abs(columns - 1).max():.1%} in the columns, at most")

# %%
# Three of the rows: to which points of ``y`` three points of ``x`` send their mass, by the area of the discs. Each
# fans out by about the blur; a smaller one makes the fans narrower.

some = [np.argmin(np.linalg.norm(x - place, axis=1)) for place in ([-0.6, 0.0], [0.0, 0.6], [0.5, -0.3])]
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.scatter(*x.T, s=6, color="0.85")
ax.scatter(*y.T, s=6, color="0.85")
for i, color in zip(some, ("#0072B2", "#D55E00", "#009E73"), strict=True):
    ax.scatter(*y.T, s=150 * plan[i] / plan[i].max(), color=color, linewidths=0, alpha=0.8)
    ax.scatter(*x[i], s=60, color=color, edgecolor="black", zorder=3)
ax.set(aspect="equal", title="three points, and where they go")
plt.show()

# %%
# Next: :ref:`sphx_glr_auto_examples_first_steps_plot_choosing.py` shows what the options do, and
# :ref:`sphx_glr_auto_examples_first_steps_plot_pictures.py` how pictures become measures.
