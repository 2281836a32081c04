"""
The same lines on NumPy, PyTorch, JAX and CuPy
==============================================

The functions take the arrays of any library that follows the array API, and return arrays of the same library, dtype
and device. Nothing has to be converted, and nothing is moved between devices.
"""

# %%
# One function
# ------------
#
# Written once. It never asks where its arrays come from.

import importlib

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine

import epsot


def compare(x, y):
    """The divergence of two clouds, and x where it moves to."""
    result = epsot.sinkhorn_divergence(x, y, blur=0.3, tol=1e-6)
    return result.value, x + result.displacement


# %%
# scikit-learn's wines, two of the three growers: alcohol and colour, each in units of its standard deviation.

table, grower = load_wine(return_X_y=True)
table = table[:, [0, 9]]
table = (table - table.mean(axis=0)) / table.std(axis=0)
clouds = table[grower == 0], table[grower == 1]

# %%
# On each library that is here
# ----------------------------
#
# PyTorch and JAX on the CPU share the memory of NumPy's kernels; CuPy arrays, and tensors on a GPU, run on CUDA
# kernels where they are. JAX computes in float32 unless it is told otherwise.

libraries = {
    "numpy": lambda z: z,
    "torch": lambda z: importlib.import_module("torch").asarray(z),
    "jax": lambda z: importlib.import_module("jax.numpy").asarray(z, dtype="float32"),
    "cupy": lambda z: importlib.import_module("cupy").asarray(z),
}
moved = {}
for name, convert in libraries.items():
    try:
        x, y = map(convert, clouds)
    except Exception as error:  # not installed, or no device
        print(f"{name:6} is not here: {type(error).__name__}")
        continue
    value, moved[name] = compare(x, y)
    kind = type(moved[name])
    print(f"{name:6} {float(value):.7f}  {kind.__module__.split('.')[0]}.{kind.__name__}, {moved[name].dtype}")

# %%
# They agree up to the digits of the dtype.


def host(points):
    """NumPy's view of an array, which CuPy gives only if asked for."""
    return np.asarray(points.get() if hasattr(points, "get") else points)


for name, points in moved.items():
    print(f"{name:6} differs from NumPy by {np.abs(host(points) - moved['numpy']).max():.0e}")
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
epsot.plot.samples(clouds[0], ax=ax)
epsot.plot.samples(clouds[1], ax=ax, color=epsot.plot.TARGET)
styles = (("+", "black"), ("x", "#D55E00"), ("1", "#009E73"), ("2", "#CC79A7"))
for (name, points), (marker, color) in zip(moved.items(), styles, strict=False):
    ax.scatter(*host(points).T, marker=marker, s=45, lw=0.9, color=color, label=f"moved, by {name}")
ax.set(xlabel="alcohol", ylabel="colour", title="wines of one grower, moved onto those of another")
ax.legend()
plt.show()

# %%
# Frameworks that differentiate want more than arrays: :mod:`!epsot.torch` and :mod:`!epsot.jax` hand them the
# gradients, see :doc:`/frameworks`.
