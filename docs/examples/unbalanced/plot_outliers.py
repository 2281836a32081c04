"""
Outliers stay behind
====================

Balanced transport carries all mass, that of outliers as well, and they pull at everything. With a ``reach`` a point may
keep its mass where no partner is near, and the plan says which points did.
"""

# %%
# Irises, and clutter
# -------------------
#
# The petals of scikit-learn's irises, measured twice, the second time with an instrument that reads too much. In one
# of the two tables are 25 more rows that belong to no flower. Which rows belong together is forgotten.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

import epsot

rng = np.random.default_rng(0)
petals = load_iris().data[:, 2:]
n = len(petals)
x = petals + rng.normal(0, 0.05, petals.shape)  # cm
y = petals + [0.4, 0.1] + rng.normal(0, 0.05, petals.shape)
outliers = rng.uniform([1, 2.8], [4, 4.5], (25, 2))
x = np.concatenate([x, outliers])
clutter = np.arange(len(x)) >= n

# %%
# With and without a reach
# ------------------------
#
# Balanced, the 25 have to arrive somewhere, and push flowers elsewhere. With a reach of 1 cm, somewhat more than the
# error of the instrument, they stay where they are. The arrows lead to the mean partner of each point that has any.


def show(ax, x, result, title):
    """The two clouds and where their plan leads; prints the mean of that."""
    share, moved = result.plan.sum(axis=1) * len(x), result.plan.barycentric_map()
    moving = share > 0.2
    epsot.plot.samples(y, ax=ax, color=epsot.plot.TARGET, area=3000)
    epsot.plot.samples(x, ax=ax, area=3000)
    epsot.plot.displacement(x[moving], moved[moving] - x[moving], ax=ax, arrows=100)
    ax.set(title=title, xlabel="length of the petal, cm", xlim=(0.6, 7.6), ylim=(-0.3, 4.7))
    offset = np.average(moved - x, axis=0, weights=share)
    print(f"{title}: reads {offset[0]:.2f} and {offset[1]:+.2f} cm more; in truth 0.40 and +0.10")


balanced = epsot.sinkhorn(x, y, blur=0.15)
reaching = epsot.sinkhorn(x, y, blur=0.15, reach=1.0)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained", sharey=True)
show(axes[0], x, balanced, "balanced")
show(axes[1], x, reaching, "reach = 1 cm")
for ax in axes:
    ax.scatter(*outliers.T, s=60, facecolor="none", edgecolor="black", label="outliers")
axes[0].set_ylabel("width, cm")
axes[0].legend(loc="lower right")
plt.show()

# %%
# Who was left behind
# -------------------
#
# The row sums of the plan, over the weights, are the share of each point that was transported. No threshold has to be
# guessed here: there is a gap.

share = reaching.plan.sum(axis=1) * len(x)
left = share < 0.5
print(f"{left.sum()} points are transported by less than one half, {(left & clutter).sum()} of them outliers")
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
bins = np.linspace(0, share.max() * 1.05, 30)
for members, color, label in ((~clutter, "#56B4E9", "flowers"), (clutter, "#D55E00", "outliers")):
    ax.hist(share[members], bins, color=color, label=label)
ax.set(xlabel="share of the point that is transported", ylabel="points")
ax.legend(loc="upper left")
plt.show()

# %%
# Without them
# ------------
#
# A reach has a price. Where the ways are shorter more mass is taken than where they are longer, so that the mean move
# came out too short, too. What is left behind is known, however, and without it balanced transport is right.

figure, ax = plt.subplots(figsize=(5, 4.2), layout="constrained")
show(ax, x[~left], epsot.sinkhorn(x[~left], y, blur=0.15), "balanced, of what was not left")
plt.show()
