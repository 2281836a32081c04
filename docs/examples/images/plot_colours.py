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
# Drawn by formula: hills under a blue sky, and a sea at sunset.

import matplotlib.pyplot as plt
import numpy as np

import epsot

BINS = 32
rng = np.random.default_rng(0)
v, u = np.mgrid[1:0:160j, 0:1:240j]


def blend(t, *colours):
    """Colours along a ramp, (h, w) -> (h, w, 3)."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(t, stops, channel) for channel in np.array(colours).T], axis=-1)


def grained(picture):
    """With a little noise, as pictures have."""
    return np.clip(picture + rng.normal(0, 0.03, picture.shape), 0, 1)


ridge = 0.45 + 0.12 * np.sin(5 * u) + 0.05 * np.sin(17 * u + 1)
near = 0.22 + 0.08 * np.sin(4 * u + 2)
day = blend(v, (0.85, 0.92, 1.0), (0.25, 0.5, 0.9))
day = np.where((v < ridge)[..., None], blend(v / ridge, (0.35, 0.55, 0.3), (0.5, 0.65, 0.55)), day)
day = grained(np.where((v < near)[..., None], blend(v / near, (0.1, 0.3, 0.08), (0.35, 0.6, 0.2)), day))

sun = np.exp(-((u - 0.6) ** 2 + (v - 0.5) ** 2) / 0.02)[..., None]
evening = blend(v, (0.95, 0.55, 0.25), (0.9, 0.35, 0.3), (0.3, 0.15, 0.4)) + 0.6 * sun * np.array([0.4, 0.5, 0.3])
waves = 0.5 + 0.5 * np.sin(90 * v * (1 + 0.2 * np.sin(6 * u)))
evening = grained(
    np.where((v < 0.42)[..., None], blend(0.7 * v + 0.4 * waves, (0.1, 0.05, 0.2), (0.9, 0.5, 0.35)), evening)
)

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
