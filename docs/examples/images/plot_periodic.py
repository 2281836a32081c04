"""
A field on a torus
==================

Simulations often close their box: what leaves on the right comes in on the left. A grid does so with ``periodic=True``,
and costs are those of the nearest image.
"""

# %%
# Two states of a field
# ---------------------
#
# Blobs of mass in a closed box, and the same after a flow has carried them, some of them around the corner.

import matplotlib.pyplot as plt
import numpy as np

import epsot

SIDE = 128
box = epsot.Grid((SIDE, SIDE), spacing=1 / SIDE, periodic=True)
open_box = epsot.Grid((SIDE, SIDE), spacing=1 / SIDE)
points = box.points


def blobs(centres):
    """A bell around each centre, of whichever image is nearest, zero below a part of the peak."""
    apart = (points[:, None] - centres + 0.5) % 1 - 0.5
    field = np.exp(-0.5 * np.sum(apart**2, axis=2) / 0.03**2).sum(axis=1)
    field[field < 0.01] = 0
    return field.reshape(SIDE, SIDE) / field.sum()


def flow(z):
    """The shear that carries them."""
    return np.array([0.1, 0.07]) + 0.02 * np.stack([np.sin(2 * np.pi * z[:, 1]), np.cos(2 * np.pi * z[:, 0])], axis=1)


centres = np.array([[0.2, 0.55], [0.6, 0.3], [0.96, 0.93]])
a, b = blobs(centres), blobs(centres + flow(centres))

# %%
# In a closed and in an open box
# ------------------------------
#
# Where the box is closed every blob goes on to the place that the flow has taken it to, and the divergence is half the
# mean squared length of the way. The open box has to bring from elsewhere what has come in through its walls.

solved = {"closed": box, "open": open_box}
results = {name: epsot.sinkhorn_divergence(grid, grid, a, b, blur=1.5 / SIDE) for name, grid in solved.items()}
for name, result in results.items():
    print(f"{name}: S = {float(result.value):.4f}, {result.status.name} after {result.nit} iterations")
truth = 0.5 * np.mean(np.sum(flow(centres) ** 2, axis=1))
print(f"half the mean squared length of the flow: {truth:.4f}")

# %%
# The displacements follow the flow through the wall where the box is closed.

fig, axes = plt.subplots(1, 2, figsize=(8, 4.4), layout="constrained")
shown = {"origin": "lower", "extent": (0, 1, 0, 1)}
step = slice(None, None, 5)
x = points.reshape(SIDE, SIDE, 2)[step, step]
for ax, (name, result) in zip(axes, results.items(), strict=True):
    ax.contourf(*box.axes, a.T, levels=np.linspace(a.max() / 20, a.max(), 6), cmap="Reds", alpha=0.7)
    ax.contourf(*box.axes, b.T, levels=np.linspace(b.max() / 20, b.max(), 6), cmap="Blues", alpha=0.7)
    v = result.displacement[step, step]
    mass = a[step, step] > 0
    for turn in np.ndindex(3, 3):  # arrows that leave come in on the other side
        start = x[mass] + np.array(turn) - 1
        ax.quiver(*start.T, *v[mass].T, angles="xy", scale_units="xy", scale=1, color="#3F9A22", width=0.004)
    ax.set(title=f"{name} box", xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=(), yticks=())
plt.show()
