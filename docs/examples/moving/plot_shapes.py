"""
Registering two shapes of 200 000 points
========================================

A starfish is turned, bent, and sampled anew; we look for the way back from one surface to the other, given only the two
clouds. At this size the solve goes from coarse to fine: at high temperatures on a few cells, at the last on all points,
where pairs too far apart to matter are never visited.
"""

# %%
# The shapes
# ----------
#
# Points of a surface that is a radius over the directions of the sphere, each with the area around it for a weight. The
# deformation is known, so that the result can be compared with the truth.

import logging
import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import epsot

N, M = 200_000, 220_000


def directions(n, rng):
    """About uniform on the sphere: a spiral, shaken so that no two clouds have points in common."""
    z = 1 - 2 * (np.arange(n) + rng.random(n)) / n
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(n) + rng.random() * 2 * np.pi
    return np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)


def radius(u):
    """Five arms in the plane, flat above and below."""
    x, y, z = np.moveaxis(u, -1, 0)
    flat = np.exp(-6 * z**2)
    return 0.25 + flat * (0.3 + 0.35 * np.cos(5 * np.arctan2(y, x))) / 2


def starfish(n, rng):
    """Points of the surface, (n, 3), and the areas around them, (n,), as weights of sum 1."""
    u = directions(n, rng)
    r = radius(u)
    steps = 1e-5 * np.eye(3)
    slope = np.stack([radius(u + step) - radius(u - step) for step in steps], axis=1) / 2e-5
    slope -= np.sum(slope * u, axis=1, keepdims=True) * u  # along the sphere
    area = r * np.sqrt(r**2 + np.sum(slope**2, axis=1))
    return r[:, None] * u, area / area.sum()


def deform(points):
    """Turn by 15 degrees, bend upwards, and move."""
    angle = np.pi / 12
    turned = points @ np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    bend = np.array([0, 0, 1]) * (turned[:, :1] ** 2 + 0.5 * turned[:, 1:2])
    return 1.1 * turned + 0.6 * bend + [0.1, -0.05, 0.1]


rng = np.random.default_rng(0)
x, a = starfish(N, rng)
y, b = starfish(M, rng)
truth, y = deform(x), deform(y)
x, y = x.astype(np.float32), y.astype(np.float32)

# %%
# The solve
# ---------
#
# The logger of the package tells what is going on, a line for each temperature; ``callback`` would tell more.

logger = logging.getLogger("epsot")
logger.setLevel(logging.INFO)
logger.addHandler(logging.StreamHandler(sys.stdout))

start = time.perf_counter()
result = epsot.sinkhorn_divergence(x, y, a, b, blur=0.01)
moved = x + result.displacement
print(result)
print(f"{time.perf_counter() - start:.1f} s")

# %%
# How far are the points from where the deformation took them?


def distances(points):
    """Mean and 99 % of the distances to the truth, as parts of the size of the shape."""
    gap = np.linalg.norm(points - truth, axis=1) / np.ptp(truth, axis=0).max()
    return f"{gap @ a:.2%} on average, 99 % within {np.quantile(gap, 0.99):.2%}"


print("before:", distances(x))
print("after: ", distances(moved))

# %%
# Before and after
# ----------------
#
# Above, the two clouds in one picture, before and after. Below, the source in colours of its own, and the same colours
# where the points have gone: the arms went to the arms.

colour = (x - x.min(axis=0)) / np.ptp(x, axis=0)
figure, axes = plt.subplots(2, 2, figsize=(9, 7), subplot_kw={"projection": "3d"}, layout="constrained")
some = slice(None, None, 4)  # of the points: enough to fill the picture


def draw(axis, title, *clouds):
    for points, colours in clouds:
        points = points[some]
        axis.scatter(*points.T, s=0.6, c=colours[some] if len(colours) > 4 else [colours], linewidths=0)
    axis.set(title=title, xlim=(-0.6, 0.7), ylim=(-0.6, 0.7), zlim=(-0.3, 0.5))
    axis.set_box_aspect((1.3, 1.3, 0.8), zoom=1.25)
    axis.view_init(elev=45, azim=-70)
    axis.set_axis_off()


red, blue = (0.85, 0.3, 0.3), (0.3, 0.4, 0.85)
draw(axes[0, 0], "before", (x, red), (y, blue))
draw(axes[0, 1], "after", (moved, red), (y, blue))
draw(axes[1, 0], "the source", (x, colour))
draw(axes[1, 1], "the source, moved", (moved, colour))
plt.show()
