"""
Registering two shapes of 200 000 points
========================================

A starfish lifts and stretches its arms, and is sampled anew; we look for the way from one surface to the other, given
only the two clouds. At this size the solve goes from coarse to fine: at high temperatures on a few cells, at the last
on all points, where pairs too far apart to matter are never visited.
"""

# %%
# The shapes
# ----------
#
# Points of a surface that is a radius over the directions of the sphere, each with the area around it for a weight. The
# deformation is the gradient of a convex function, and carries the weights with it: so it is the cheapest of all that
# lead from the one measure to the other (Brenier's theorem), and the answer is known. (A turn is no gradient. Of a
# deformation with a turn, or with arms that bend far, transport finds another one, which is cheaper.)

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


STRETCH = np.array([[1.2, 0.1, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.3]])
LIFT, MOVE = 1.0, np.array([0.1, -0.05, 0.1])


def deform(points):
    """The gradient of <z, STRETCH z> / 2 + LIFT (x^2 + y^2) z / 2 + <MOVE, z>, convex where the shape is."""
    x, y, z = points.T
    return points @ STRETCH + LIFT * np.stack([x * z, y * z, (x**2 + y**2) / 2], axis=1) + MOVE


rng = np.random.default_rng(0)
x, a = starfish(N, rng)
y, b = starfish(M, rng)
truth, y = deform(x), deform(y)
x, y = x.astype(np.float32), y.astype(np.float32)

# %%
# The solve
# ---------
#
# The blur is three times the spacing of the points. ``callback=epsot.ProgressBar()`` would show how far it has come,
# and :doc:`/saving` has more on long solves.

start = time.perf_counter()
result = epsot.sinkhorn_divergence(x, y, a, b, blur=0.01, tol=1e-2)
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
# where the points have gone, without a tear.

colour = (x - x.min(axis=0)) / np.ptp(x, axis=0)
figure, axes = plt.subplots(2, 2, figsize=(8, 4.8), subplot_kw={"projection": "3d"}, layout="constrained")
some = rng.permutation(N)[:40_000]  # of the points: enough to fill the picture


def draw(axis, title, points, colours):
    axis.scatter(*points.T, s=1.6, c=colours, linewidths=0, antialiased=False)
    axis.set(title=title, xlim=(-0.62, 0.78), ylim=(-0.62, 0.58), zlim=(-0.3, 0.5))
    axis.set_box_aspect((1.4, 1.2, 0.8), zoom=1.3)
    axis.view_init(elev=50, azim=-70)
    axis.set_axis_off()


both = np.repeat([[0.85, 0.3, 0.25], [0.25, 0.4, 0.85]], len(some), axis=0)
for axis, title, points in ((axes[0, 0], "before", x), (axes[0, 1], "after", moved)):
    draw(axis, title, np.concatenate([points[some], y[some]]), both)
draw(axes[1, 0], "the source", x[some], colour[some])
draw(axes[1, 1], "the source, moved", moved[some], colour[some])
plt.show()
