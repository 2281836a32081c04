"""
A part, found in the whole
==========================

Only the front of a horse is seen, at another place. All of what is seen must come from the horse, but not all of the
horse is seen: a ``reach`` for the one side, and none for the other.
"""

# %%
# The whole and the part
# ----------------------
#
# Points of scikit-image's silhouette, and other points of its front half, moved. The weights are one for each point, so
# that a point stands for the same area in both: the masses differ.

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import horse

import epsot

rng = np.random.default_rng(0)
rows, columns = np.nonzero(~horse())
pixels = np.stack([columns, -rows], axis=1).astype(float)
x = pixels[rng.choice(len(pixels), 1500, replace=False)]
y = pixels[rng.choice(len(pixels), 1500, replace=False)]
MOVE = np.array([25.0, -15.0])
y = y[y[:, 0] > 230] + MOVE
a, b = np.full(len(x), 1.0), np.full(len(y), 1.0)
print(f"mass {a.sum():.0f} and {b.sum():.0f}")

# %%
# Two sides, two rules
# --------------------
#
# ``reach=(40, None)``: the source may leave mass behind, at the price of a way of about 40 pixels; the target has to be
# covered exactly. The third is balanced, both of mass one, and has to squeeze all of the horse into its front.

plans = {
    "reach = (40, None)": epsot.sinkhorn(x, y, a, b, blur=4.0, reach=(40.0, None)),
    "reach = 40": epsot.sinkhorn(x, y, a, b, blur=4.0, reach=40.0),
    "balanced": epsot.sinkhorn(x, y, blur=4.0),
}
seen = x[:, 0] > 230
figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", sharex=True, sharey=True)
for ax, (name, result) in zip(axes, plans.items(), strict=True):
    scale = 1.0 if name != "balanced" else len(x)
    share, arrived = result.plan.sum(axis=1) * scale, result.plan.sum(axis=0) * (1.0 if scale == 1 else len(y))
    move = result.plan.barycentric_map() - x
    off = np.linalg.norm(move - MOVE, axis=1)[seen]
    print(f"{name:18} front {share[seen].mean():.0%} transported, back {share[~seen].mean():.0%}; "
          f"target covered {arrived.mean():.0%}; front off by {np.median(off):.0f} pixels")  # fmt: skip
    ax.scatter(*y.T, s=2, color="0.75", linewidths=0, antialiased=False)
    drawn = ax.scatter(*x.T, s=3, c=share, cmap="viridis", vmin=0, vmax=1, linewidths=0, antialiased=False)
    some = np.flatnonzero(share > 0.5)[::25]
    ax.quiver(*x[some].T, *move[some].T, angles="xy", scale_units="xy", scale=1, width=0.004, color="#D55E00")
    ax.set(title=name, aspect="equal", xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes, label="share transported", shrink=0.8)
plt.show()
