"""
A picture is a measure
======================

A picture becomes a measure in two ways: as a lattice of weights, an :class:`epsot.Grid`, or as a cloud of its dark
pixels. Here a horse turns round, both ways.
"""

# %%
# The horse
# ---------
#
# scikit-image's silhouette, made smaller: each block of 4 x 4 pixels has the share that is dark. Weights are
# non-negative and both pictures have the same mass; that is all there is to prepare.

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import horse

import epsot

dark = 1.0 - horse()[:328, :400]
a = dark.reshape(82, 4, 100, 4).mean(axis=(1, 3))
a /= a.sum()
b = a[:, ::-1]
print(f"{a.shape[0]} x {a.shape[1]} pixels, {(a > 0).sum()} of them with mass")

# %%
# As a lattice
# ------------
#
# Weights have the shape of the picture, and so have potentials; axis 0 is that of the rows. Sums go along rows and
# columns in turn, so that a million pixels are no problem, and empty ones are exact.

grid = epsot.Grid(a.shape)  # a pixel is the unit of length
result = epsot.sinkhorn_divergence(grid, grid, a, b, blur=1.0)
print(f"S = {float(result.value):.3f}, potentials {result.f.shape}, displacement {result.displacement.shape}")

# %%
# As a cloud
# ----------
#
# Only the dark pixels, as points with weights. This is the same problem, with the same value; a cloud is what you take
# where few pixels have mass, or where lengths are not those of a lattice.

some_a, some_b = a > 0, b > 0
x, y = np.argwhere(some_a).astype(float), np.argwhere(some_b).astype(float)
cloud = epsot.sinkhorn_divergence(x, y, a[some_a], b[some_b], blur=1.0)
print(f"S = {float(cloud.value):.3f}, potentials {cloud.f.shape}, displacement {cloud.displacement.shape}")

# %%
# Half way
# --------
#
# The displacement moves each pixel on a line, here in the colour of the column that it comes from. The horse does not
# turn: where its tail is a head grows, of mass that was near. That is cheaper than to mirror the picture, which would
# move head and tail across all of it.

v = cloud.displacement
figure, axes = plt.subplots(1, 4, figsize=(10, 2.4), layout="constrained", sharex=True, sharey=True)
for ax, t in zip(axes, (0, 0.35, 0.65, 1), strict=True):
    row, column = (x + t * v).T
    ax.scatter(column, row, s=5 * a[some_a] / a.max(), c=x[:, 1], cmap="viridis", linewidths=0, antialiased=False)
    ax.set(title=f"t = {t}", xlim=(0, 99), ylim=(81, 0), aspect="equal", xticks=[], yticks=[])
plt.show()
farthest, mirrored = np.linalg.norm(v, axis=1).max(), np.abs(99 - 2 * x[:, 1]).max()
print(f"moved by {farthest:.0f} pixels at most; to mirror the picture takes {mirrored:.0f}")

# %%
# What goes wrong most often
# --------------------------
#
# A picture given for *points* is a table of rows: 82 points in 100 dimensions. Points come as (n, 2), pictures as
# weights. And pictures of different mass need to be normalised, or a ``reach``:

try:
    epsot.sinkhorn_divergence(grid, grid, a, 1.1 * b, blur=1.0)
except ValueError as error:
    print(error)
