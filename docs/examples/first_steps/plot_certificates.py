r"""
Convergence, and how far a result can be trusted
================================================

Every result says how it ended, and bounds its own error: ``dual`` is a lower bound of the optimal value, and ``primal``
the cost of a plan with exactly the marginals asked for. The optimum is between the two, whatever the solver did.
"""

# %%
# A hard problem
# --------------
#
# The petals and sepals of scikit-learn's irises, two of the three species: points in four dimensions, in centimetres,
# many of them equal. At a blur far below their distances the plan is nearly a matching, which takes many iterations.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

import epsot

measured, species = load_iris(return_X_y=True)
x, y = measured[species == 1], measured[species == 2]
print(f"{len(x)} and {len(y)} flowers, diameter {epsot.extent(x, y):.1f} cm")

# %%
# The course of a solve
# ---------------------
#
# ``history`` has a line for each measurement of the marginal error; a dot marks where the solve enters a temperature. A
# fine blur costs iterations at the last temperature.

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for blur, color in ((0.5, "#009E73"), (0.2, "#0072B2"), (0.08, "#D55E00")):
    solved = epsot.sinkhorn(x, y, blur=blur, tol=1e-9)
    epsot.plot.convergence(solved, ax=ax, label=f"blur {blur}", color=color)
ax.axhline(1e-3, color="0.5", lw=0.8, ls="--")
ax.text(ax.get_xlim()[1], 1.3e-3, "the default tol ", ha="right", color="0.4")
ax.legend()
plt.show()

# %%
# Bounds
# ------
#
# The optimum is between ``dual`` and ``primal``, and their difference is the ``gap``. It closes with the tolerance. The
# bounds are not estimates: they hold for a solve that was stopped early as well.

blur = 0.08
optimum = float(epsot.sinkhorn(x, y, blur=blur, tol=1e-10).value)
tolerances = 10.0 ** -np.arange(1, 8)
solved = [epsot.sinkhorn(x, y, blur=blur, tol=tol) for tol in tolerances]
print("    tol        dual       value      primal      gap")
for tol, r in zip(tolerances, solved, strict=True):
    print(f"{tol:7.0e}  {float(r.dual):.8f}  {float(r.value):.8f}  {float(r.primal):.8f}  {float(r.gap):.1e}")

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
above = [float(r.primal) - optimum for r in solved]
below = [optimum - float(r.dual) for r in solved]
ax.loglog(tolerances, above, "v-", color="#D55E00", label="primal above the optimum")
ax.loglog(tolerances, below, "^-", color="#0072B2", label="dual below it")
gaps = [float(r.gap) for r in solved]
ax.loglog(tolerances, gaps, "o:", color="0.2", ms=11, mfc="none", label="gap, which needs no optimum")
ax.invert_xaxis()
ax.set(xlabel="tol", ylabel="in units of the cost, cm$^2$", title="what is certain at a tolerance")
ax.legend()
plt.show()

# %%
# When it does not converge
# -------------------------
#
# That is no exception: what comes back is the best that was found, with a status, a message that names the cure, and
# bounds. A warning says the same, unless it is caught as here.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    early = epsot.sinkhorn(x, y, blur=blur, tol=1e-6, max_iter=30)
print(caught[0].category.__name__, "-", caught[0].message)
print(early.success, early.status.name, f"but the optimum is in [{float(early.dual):.4f}, {float(early.primal):.4f}]")

# %%
# The solve can go on where it ended. What it converges to does not depend on where it started.

later = epsot.sinkhorn(x, y, blur=blur, tol=1e-6, init=early)
print(later.status.name, f"after {early.nit} + {later.nit} iterations, error {later.marginal_error:.0e}")

# %%
# Precision has an end, too. The same points in float32 are rounded, and so are what the kernels sum: where the error no
# longer falls the status is ``STALLED``, and the advice is float64.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    single = epsot.sinkhorn(x.astype(np.float32), y.astype(np.float32), blur=blur, tol=1e-9)
print(single.message)
print(single.status.name, f"at {single.marginal_error:.0e}: {float(single.value):.6f}, in float64 {optimum:.6f}")
