"""
Between images: barycenters and a table of mixtures
===================================================

Four images at the corners of a table, and what lies between them where mass moves in place of fading in and out: each
cell is the barycenter of the four with the shares of its place.
"""

# %%
# Four shapes
# -----------
#
# Of 96 x 96 pixels, with edges a pixel wide: at a blur of two pixels the debiased barycenters of shapes with hard edges
# are as hard, and finding them is a deconvolution.

import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import epsot

# sphinx_gallery_thumbnail_number = 2

N = 96
grid = epsot.Grid((N, N), spacing=1 / N, origin=0.5 / N)
y, x = np.meshgrid(*grid.axes, indexing="ij")


def filled(distance):
    """One inside, where a distance is negative, zero outside, of mass one."""
    image = 1 / (1 + np.exp(np.clip(distance * N / 0.7, -40, 40)))
    image[image < 1e-3] = 0
    return image / image.sum()


def star(points, inner, outer):
    r, angle = np.hypot(x - 0.5, y - 0.5), np.arctan2(y - 0.5, x - 0.5)
    return r - (inner + (outer - inner) * (0.5 + 0.5 * np.cos(points * angle)) ** 1.5)


disks = [np.hypot(x - cx, y - cy) - r for cx, cy, r in ((0.28, 0.3, 0.15), (0.7, 0.68, 0.19))]
bars = [np.maximum(abs(x - 0.5) - width, abs(y - 0.5) - height) for width, height in ((0.1, 0.4), (0.4, 0.1))]
shapes = np.stack(
    [
        filled(star(5, 0.13, 0.42)),
        filled(abs(np.hypot(x - 0.5, y - 0.5) - 0.3) - 0.07),
        filled(np.minimum(*disks)),
        filled(np.minimum(*bars)),
    ]
)


def show(axis, image, title=""):
    axis.imshow(image, cmap="BuPu", vmin=0, vmax=shapes.max() * 1.1, interpolation="bilinear")
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_color("0.8")


# %%
# Debiased and blurred
# --------------------
#
# The mean of all four, with equal shares. Without debiasing the entropy blurs it; by pixels it is no shape at all.

blur = 2 / N
debiased = epsot.barycenter(grid, shapes, blur=blur, tol=1e-2)
blurred = epsot.barycenter(grid, shapes, blur=blur, tol=1e-2, debias=False)
print(debiased)
print(f"objective {float(debiased.value):.5f}, no weights have less than {float(debiased.dual):.5f}")

figure, axes = plt.subplots(1, 3, figsize=(9, 3.5), layout="constrained")
show(axes[0], shapes.mean(axis=0), "mean of the pixels")
show(axes[1], blurred.weights, "blurred barycenter")
show(axes[2], debiased.weights, "debiased barycenter")

# %%
# A table of mixtures
# -------------------
#
# 25 barycenters, each row started from the one above, each cell from its neighbour. The corners are the shapes.

SIDE = 5
start = time.perf_counter()
figure, axes = plt.subplots(SIDE, SIDE, figsize=(8, 8), layout="constrained")
above = None
for i in range(SIDE):
    u, last = i / (SIDE - 1), above
    for j in range(SIDE):
        v = j / (SIDE - 1)
        t = [(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v]
        last = epsot.barycenter(grid, shapes, t, blur=blur, tol=1e-2, init=last)
        above = last if j == 0 else above
        show(axes[i, j], last.weights)
print(f"the table took {time.perf_counter() - start:.1f} s")

# %%
# Points in place of pixels
# -------------------------
#
# The points of a cloud that moves, between samples of two of the shapes: here the paths from the star to the ring, with
# growing shares.

rng = np.random.default_rng(0)


def sample(image, count):
    """Points drawn from an image, each somewhere within its pixel."""
    where = rng.choice(N * N, size=count, p=image.ravel())
    return grid.points[where][:, ::-1] + rng.uniform(-0.5, 0.5, (count, 2)) / N


clouds = [sample(shapes[0], 800), sample(shapes[1], 1000)]
figure, axes = plt.subplots(1, 5, figsize=(10, 2.5), layout="constrained", sharex=True, sharey=True)
points = sample(shapes[0], 600)
for axis, share in zip(axes, np.linspace(0, 1, 5), strict=True):
    found = epsot.free_barycenter(clouds, t=[1 - share, share], init=points, blur=0.03)
    points = found.points
    axis.scatter(*points.T, s=2, color="C3", linewidths=0)
    axis.set(xlim=(0, 1), ylim=(1, 0), aspect="equal", xticks=[], yticks=[])
    axis.set_title(f"t = {share:g}", fontsize=9)

if "sphinx_gallery" not in sys.modules:
    plt.show()
