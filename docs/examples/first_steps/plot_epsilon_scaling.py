r"""
Blur and annealing
==================

What the ``blur`` does to a transport problem, what the ``scaling`` of the annealing schedule does to its solution, and
why one usually wants the unbiased divergence. The example follows the one with which `GeomLoss
<https://www.kernel-operations.io/geomloss/>`_ introduces the subject.

**The problem.** Two measures :math:`\alpha = \sum_i a_i \delta_{x_i}` and :math:`\beta = \sum_j b_j \delta_{y_j}` of
equal mass are coupled by a plan that is cheap for :math:`C(x, y) = \tfrac12 |x - y|^2` and not too concentrated:

.. math::

    \mathrm{OT}_\varepsilon(\alpha, \beta) = \min_{P \ge 0} \; \langle P, C \rangle
    + \varepsilon \, \mathrm{KL}(P \,|\, a b^\top)
    \quad \text{with} \quad P 1 = a, \; P^\top 1 = b.

The temperature is the square of a length, :math:`\varepsilon = \mathrm{blur}^2`: a unit of mass at :math:`x` is sent
to a cloud of about that radius. Each constraint has a price, and the prices :math:`f` and :math:`g`, the dual
potentials, maximise

.. math::

    \langle a, f \rangle + \langle b, g \rangle - \varepsilon \sum_{ij} a_i b_j
    \Big( e^{(f_i + g_j - C_{ij}) / \varepsilon} - 1 \Big).

For a given :math:`g` the best :math:`f` is explicit, a soft minimum over the targets,

.. math::

    f_i = -\varepsilon \log \sum_j b_j \, e^{(g_j - C_{ij}) / \varepsilon},

and the same holds the other way round. Taking turns is the Sinkhorn iteration. It needs of the order of
:math:`(\mathrm{diameter} / \mathrm{blur})^2` turns: quick for a coarse blur, hopeless for a fine one.

**Annealing.** So one starts coarse and lets the scale fall by a constant factor, the ``scaling`` :math:`q`, from the
``diameter`` down to the blur,

.. math::

    \sigma_k = \mathrm{diameter} \cdot q^k \quad \text{while it exceeds the blur, then} \quad \mathrm{blur},
    \qquad \varepsilon_k = \sigma_k^2,

which are :math:`\lceil \log(\mathrm{diameter} / \mathrm{blur}) / \log(1 / q) \rceil + 1` temperatures. The prices
settle from the large scale to the small one, one update at each.
"""

# %%
# Two densities on the pixels of the unit square. Most weights are exactly zero; that is no special case.

import matplotlib.pyplot as plt
import numpy as np

import epsot
from epsot.demo import densities

x, a, b = densities(1600)
print(f"{len(x)} pixels; {np.count_nonzero(a)} of them in the source, {np.count_nonzero(b)} in the target")

ax = epsot.plot.samples(x, a, color=epsot.plot.SOURCE)
epsot.plot.samples(x, b, color=epsot.plot.TARGET, ax=ax)
ax.set(xlim=(0, 1), ylim=(0, 1), title="source (red) and target (blue)")

# %%
# The entropic bias
# -----------------
#
# With ``tol=None`` the schedule runs once, an update a temperature, and that is all. Blurs that halve, with a schedule
# that halves: the first solve makes one update, the last nine.
#
# In the pictures below the pale lines are levels of the potentials, blue for :math:`f` and red for :math:`g`. At a
# large blur they are circles: the potential is then :math:`C` averaged over the other measure, less a constant. At a
# small one they are the prices of the unregularised problem. The arrows show the displacement
#
# .. math::
#
#     v(x_i) = -\frac{1}{a_i} \, \partial_{x_i} \mathrm{OT}_\varepsilon = -\nabla f(x_i),
#
# which leads every point to the *mean* of its targets. If the plan is blurred, that is somewhere inside of the target
# and not on it: for a blur of the size of the frame all points are sent to the centre of mass, where there is no mass
# at all. Descending this gradient, a cloud shrinks. This is the entropic bias.

levels, frame = np.linspace(-1, 1, 21), (0, 1, 0, 1)
halving = 0.5 ** np.arange(9)

biased = [epsot.sinkhorn(x, x, a, b, blur=blur, diameter=1, scaling=0.5, tol=None) for blur in halving]
epsot.plot.sweep(biased, levels=levels, extent=frame, panel=2.4, arrows=60)

# %%
# The unbiased divergence
# -----------------------
#
# The bias is that of a measure with itself, so it can be taken off:
#
# .. math::
#
#     S_\varepsilon(\alpha, \beta) = \mathrm{OT}_\varepsilon(\alpha, \beta)
#     - \tfrac12 \mathrm{OT}_\varepsilon(\alpha, \alpha) - \tfrac12 \mathrm{OT}_\varepsilon(\beta, \beta).
#
# This is positive, zero only for equal measures, and convex in each of them. With :math:`f^{\alpha\alpha}` the
# potential of the first self term and :math:`g^{\beta\beta}` that of the second, its own potentials are
#
# .. math::
#
#     F = f - f^{\alpha\alpha}, \qquad G = g - g^{\beta\beta}, \qquad
#     S_\varepsilon = \langle a, F \rangle + \langle b, G \rangle.
#
# At a large blur the quadratic parts cancel, so that :math:`F` is linear: its level lines are parallel, and the
# displacement :math:`-\nabla F` is one translation, from centre of mass to centre of mass. At a small blur the self
# terms vanish, :math:`S_\varepsilon` tends to half the squared Wasserstein distance, and the displacement to the
# optimal map. In between it is a transport map that ignores details finer than the blur.

# sphinx_gallery_thumbnail_number = 3
unbiased = [epsot.sinkhorn_divergence(x, x, a, b, blur=blur, diameter=1, scaling=0.5, tol=None) for blur in halving]
epsot.plot.sweep(unbiased, levels=levels, extent=frame, panel=2.4, arrows=60)

# %%
# The two values approach each other as the blur falls, the biased one from above:

print("    blur    biased  unbiased")
for one, two in zip(biased, unbiased, strict=True):
    print(f"{two.eps**0.5:8.4f}  {float(one.value):8.5f}  {float(two.value):8.5f}")

# %%
# A slower schedule
# -----------------
#
# A ``scaling`` of 0.7, about the square root of 0.5, has twice the temperatures on the way: twice the work, and prices
# that follow the falling temperature more closely. The arrows end nearer to the target. Every other temperature:

slower = 0.7 ** np.arange(18)
results = [epsot.sinkhorn_divergence(x, x, a, b, blur=blur, diameter=1, scaling=0.7, tol=None) for blur in slower]
epsot.plot.sweep(results[::2], levels=levels, extent=frame, panel=2.4, arrows=60)

# %%
# A tolerance in place of a schedule
# ----------------------------------
#
# How close is close? The ``marginal_error`` compares the marginals of the plan with the weights,
# :math:`\sum_i |(P 1)_i - a_i|` or the same for the columns, whichever is larger, relative to the mass. A schedule
# alone leaves much of it, and cooling more slowly brings it down slowly.

blur = 0.05
schedules = [
    epsot.sinkhorn(x, x, a, b, blur=blur, diameter=1, scaling=scaling, tol=None)
    for scaling in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
]
for r in schedules:
    print(f"{r.nit:4d} iterations, marginal error {r.marginal_error:.1e}")

# %%
# A tolerance, which is the default, goes on at the target temperature until the error is as small as asked, and says
# so. The schedule only decides how fast it gets there.

result = epsot.sinkhorn(x, x, a, b, blur=blur, diameter=1, scaling=0.5, tol=1e-6)
print(result)

# %%
# In the picture each blue dot is the end of a whole solve by a schedule alone; the black line is the course of the one
# solve with a tolerance, and a black dot marks where it enters a temperature.

_, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
epsot.plot.convergence(result, ax=ax, color="black", label="tol=1e-6, scaling 0.5")
ax.plot([r.nit for r in schedules], [r.marginal_error for r in schedules], "o:", label="tol=None, scaling 0.5 to 0.98")
ax.set_title(f"blur = {blur}")
ax.legend()

# %%
# What that changes in the displacement: the coarse schedule, the fine one, and the converged solution.

rough, finer = (
    epsot.sinkhorn_divergence(x, x, a, b, blur=blur, diameter=1, scaling=scaling, tol=None) for scaling in (0.5, 0.9)
)
converged = epsot.sinkhorn_divergence(x, x, a, b, blur=blur, diameter=1, tol=1e-6)
epsot.plot.sweep(
    [rough, finer, converged],
    levels=levels,
    extent=frame,
    panel=3.2,
    arrows=80,
    titles=[
        f"scaling 0.5: {float(rough.value):.4f}",
        f"scaling 0.9: {float(finer.value):.4f}",
        f"tol=1e-6: {float(converged.value):.4f}",
    ],
)
plt.show()
