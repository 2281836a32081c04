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
# The petals of scikit-learn's irises, of which one measurement is in another unit system: scaled and shifted. To one
# of the two tables we add a seventh of rows that belong to no flower.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

import epsot

rng = np.random.default_rng(0)
petals = load_iris().data[:, 2:] + rng.uniform(-0.05, 0.05, (150, 2))  # cm, rounded to a millimetre
half = rng.permutation(150)
x, y = petals[half[:75]], petals[half[75:]] * [1.0, 1.1] + [0.9, 0.3]
outliers = rng.uniform([1, 2.6], [4, 4.5], (12, 2))
x = np.concatenate([x, outliers])
clutter = np.arange(len(x)) >= 75

# %%
# With and without a reach
# ------------------------
#
# Balanced, the twelve have to arrive somewhere, and push flowers elsewhere. With a reach of 1 cm, somewhat more than the
# shift between the tables, they hardly move.

balanced = epsot.sinkhorn_divergence(x, y, blur=0.15)
reaching = epsot.sinkhorn_divergence(x, y, blur=0.15, reach=1.0)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained", sharex=True, sharey=True)
for ax, result, title in zip(axes, (balanced, reaching), ("balanced", "reach = 1 cm"), strict=True):
    epsot.plot.samples(y, ax=ax, color=epsot.plot.TARGET)
    epsot.plot.samples(x, ax=ax, displacement=result.displacement)
    ax.scatter(*outliers.T, s=70, facecolor="none", edgecolor="black", label="outliers")
    ax.set(title=title, xlabel="length of the petal, cm")
axes[0].set_ylabel("width, cm")
axes[0].legend(loc="lower right")
plt.show()

# %%
# The true move is known, and the error shows what the outliers have done:

truth = x[:75] * [0.0, 0.1] + [0.9, 0.3]
for name, result in (("balanced", balanced), ("reach 1", reaching)):
    gap = np.linalg.norm(result.displacement[:75] - truth, axis=1)
    print(f"{name:9} flowers are off by {gap.mean():.2f} cm on average")

# %%
# Who was left behind
# -------------------
#
# The row sums of the plan, over the weights, are the share of each point that was transported. No threshold has to be
# guessed: between the two groups is a gap.

plan = epsot.sinkhorn(x, y, blur=0.15, reach=1.0).plan
share = plan.sum(axis=1) * len(x)
found = share < 0.5
print(f"{plan.sum():.0%} of the mass is transported; {found.sum()} points below one half, {(found & clutter).sum()} of them outliers")
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
bins = np.linspace(0, share.max() * 1.05, 30)
ax.hist([share[~clutter], share[clutter]], bins, stacked=True, color=["#56B4E9", "#D55E00"], label=["flowers", "outliers"])
ax.set(xlabel="share of the point that is transported", ylabel="points")
ax.legend()
plt.show()
