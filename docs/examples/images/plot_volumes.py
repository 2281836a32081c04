"""
Two volumes, registered
=======================

A body with two cavities is bent, stretched and moved. Both are volumes of 64 x 64 x 64 voxels, given only as densities;
the displacement field between them says where every voxel goes, and is compared with the deformation that made them.
"""

# %%
# The volumes
# -----------
#
# By formula, so that the truth is known. The deformation is the gradient of a convex function, and so the cheapest of
# all that lead from the one density to the other (Brenier's theorem): there is one answer to find. The density of the
# deformed body at z is that of the body at the preimage, over the volume that the deformation gives it.

import matplotlib.pyplot as plt
import numpy as np

import epsot

SIDE, BEND, MOVE = 64, 0.4, np.array([0.1, -0.08, -0.05])
grid = epsot.Grid((SIDE,) * 3, spacing=2 / SIDE, origin=-1 + 1 / SIDE)
z = grid.points.reshape(*grid.shape, 3)


def body(z):
    """Denser towards one end, with two cavities; a smooth edge, and zero outside."""
    x, y, w = np.moveaxis(z, -1, 0)
    depth = 1 - (x / 0.62) ** 2 - (y / 0.4) ** 2 - (w / 0.45) ** 2
    holes = sum(np.exp(-0.5 * ((x - s * 0.25) ** 2 + y**2 + w**2) / 0.07**2) for s in (-1, 1))
    return np.clip(6 * depth, 0, 1) * (1 + 0.8 * x) * (1 - 0.8 * holes)


def deform(z):
    """The gradient of |z|^2 / 2 + BEND x^2 w / 2 + <MOVE, z>."""
    x, w = z[..., 0], z[..., 2]
    return z + BEND * np.stack([x * w, np.zeros_like(x), x**2 / 2], axis=-1) + MOVE


def undo(z):
    """The preimage, by iteration of a contraction."""
    found = z
    for _ in range(60):
        found = np.clip(found + (z - deform(found)), -1.2, 1.2)
    return found


before = undo(z)
a = body(z)
b = body(before) / ((1 + BEND * before[..., 2]) - (BEND * before[..., 0]) ** 2)
a, b = (w.astype(np.float32) / w.sum() for w in (a, b))
print(f"{(a > 0).mean():.0%} of the voxels have mass")

# %%
# The solve
# ---------
#
# At a blur of one voxel, from coarse to fine: 262 144 voxels a side.

result = epsot.sinkhorn_divergence(grid, grid, a, b, blur=2 / SIDE)
print(result)
field = result.displacement  # (64, 64, 64, 3)

# %%
# How far from the truth it is, in voxels:

truth = deform(z) - z
way, gap = (np.linalg.norm(v, axis=-1) * SIDE / 2 for v in (truth, field - truth))
print(f"moved by {way[a > 0].mean():.1f} voxels; off by {np.median(gap[a > 0]):.2f}, 95 % by less than "
      f"{np.quantile(gap[a > 0], 0.95):.2f}")  # fmt: skip

# %%
# A slice through the middle: the source with the field in it, the target, and the target fetched back, which is its
# density where the voxels of the source go, times the change of their volume.

middle = SIDE // 2
x, w = (z[:, middle, :, k] for k in (0, 2))
slopes = np.stack(np.gradient(z + field, 2 / SIDE, axis=(0, 1, 2)), axis=-1)[:, middle]
goal = (z + field)[:, middle]
index = np.clip(np.rint((goal - grid.origin) / grid.spacing).astype(int), 0, SIDE - 1)
fetched = b[tuple(np.moveaxis(index, -1, 0))] * np.linalg.det(slopes) * (a[:, middle] > 0)
fig, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
shown = {"origin": "lower", "extent": (-1, 1, -1, 1), "cmap": "Greys", "vmin": 0, "vmax": float(a.max())}
for ax, density, title in zip(
    axes, (a[:, middle], b[:, middle], fetched), ("source", "target", "target, fetched back"), strict=True
):
    ax.imshow(density.T, **shown)
    ax.set(title=title, xlim=(-0.9, 0.9), ylim=(-0.65, 0.65))
some = (slice(None, None, 4),) * 2
mass = a[:, middle][some] > 0
axes[0].quiver(
    x[some][mass], w[some][mass], field[:, middle, :, 0][some][mass], field[:, middle, :, 2][some][mass],
    color="#3F9A22", angles="xy", scale_units="xy", scale=1, width=0.006,
)  # fmt: skip
plt.show()
