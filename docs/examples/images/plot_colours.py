"""
Colours of one picture in the shades of another
===============================================

The colours of a picture are a density in the cube of red, green and blue. Its histogram is a volume, an
:class:`epsot.Grid` has its bins, and the map from one histogram to another moves every pixel to a colour of its own.
"""

# %%
# Two pictures
# ------------
#
# Photographs that scikit-learn brings: a palace in Beijing, and a dahlia.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import epsot

BINS = 32
day, evening = (load_sample_image(name)[::2, ::2] / 255 for name in ("china.jpg", "flower.jpg"))

# %%
# Histograms are volumes
# ----------------------
#
# Counts of 32 x 32 x 32 bins. Most of them are empty, which costs nothing: weights of zero are exact.

grid = epsot.Grid((BINS,) * 3, spacing=1 / BINS, origin=0.5 / BINS)


def histogram(picture):
    """The share of the pixels in each bin, of the shape of the grid."""
    counts, _ = np.histogramdd(picture.reshape(-1, 3), bins=BINS, range=[(0, 1)] * 3)
    return counts / counts.sum()


a, b = histogram(day), histogram(evening)
print(f"{(a > 0).sum()} and {(b > 0).sum()} of {grid.size} bins have pixels")
result = epsot.sinkhorn_divergence(grid, grid, a, b, blur=1.5 / BINS)
print(result)

# %%
# The map of the pixels
# ---------------------
#
# :meth:`~epsot.DivergenceResult.transport` extends the map of the bins to any colour, so that no steps of the bins are
# seen.

recoloured = np.clip(result.transport(day.reshape(-1, 3)), 0, 1).reshape(day.shape)

fig, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
for ax, picture, title in zip(
    axes, (day, recoloured, evening), ("source", "in the colours of the target", "target"), strict=True
):
    ax.imshow(picture)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# How much of it arrived
# ----------------------
#
# The marginals along each of the three axes, of the target and of the picture that was made.

fig, axes = plt.subplots(1, 3, figsize=(10, 2.4), layout="constrained", sharey=True)
for channel, (ax, name) in enumerate(zip(axes, ("red", "green", "blue"), strict=True)):
    for picture, style, label in ((day, ":", "source"), (evening, "-", "target"), (recoloured, "--", "recoloured")):
        share, edges = np.histogram(picture[..., channel], bins=BINS, range=(0, 1), density=True)
        ax.plot((edges[1:] + edges[:-1]) / 2, share, style, color=name if style == "-" else "black", label=label)
    ax.set_xlabel(name)
axes[0].set_ylabel("density of pixels")
axes[0].legend()
plt.show()
