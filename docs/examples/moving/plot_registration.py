r"""
Moving a point cloud onto another
=================================

The divergence as a loss: `scipy.optimize.minimize` moves the points of one cloud until their distribution is that of
another. No point knows its partner, and the two clouds need not have the same number of points.

The loss is the unbiased :math:`S_\varepsilon` between the moving cloud and a fixed target. Its gradient in the points
is explicit, so that :class:`epsot.Objective` needs no automatic differentiation: it maps a flat vector to the value and
the flat gradient, as SciPy wants them, and starts every solve from the potentials of the one before.
"""

# %%
# A disc, and a ring with an arc inside it. The target has more points, and they are noisy.

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import epsot

rng = np.random.default_rng(0)
n = 300
radius, angle = np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
x0 = 0.5 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

turn = np.concatenate([np.linspace(0, 2, 320), np.linspace(1.1, 1.9, 80)]) * np.pi
size = np.concatenate([np.full(320, 1.0), np.full(80, 0.55)])
y = np.stack([size * np.cos(turn), size * np.sin(turn)], axis=1) + 0.02 * rng.normal(size=(400, 2))

# %%
# The blur is the detail that matters: the noise of the target is finer, the gap between arc and ring is not.

objective = epsot.Objective(y, blur=0.05)
path = [x0]
found = minimize(
    objective,
    x0.ravel(),
    jac=True,
    method="L-BFGS-B",
    callback=lambda z: path.append(z.reshape(-1, 2).copy()),
    options={"maxiter": 30},
)
print(f"loss {objective(x0.ravel())[0]:.4f} -> {found.fun:.2e}, {found.nit} iterations, {found.nfev} solves")

# %%
# The first step leads most of the way, because the displacement :math:`-\nabla_{x_i} S_\varepsilon / a_i` is itself a
# transport map; the others settle the details.

steps = [0, 1, 3, len(path) - 1]
figure, axes = plt.subplots(1, len(steps), figsize=(12, 3.4), layout="constrained")
for step, ax in zip(steps, axes, strict=True):
    epsot.plot.samples(y, ax=ax, color=epsot.plot.TARGET, area=2000)
    epsot.plot.samples(path[step], ax=ax, color=epsot.plot.SOURCE, area=2000)
    ax.set(title=f"iteration {step}", xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), xticks=[], yticks=[])

# %%
# ``objective.last`` is the full result of the last evaluation: what is left to move, the plan, and whether the solve
# converged.

x = objective.variable(found.x)
objective(found.x)
print(objective.last)
print(f"largest displacement left: {np.abs(objective.last.displacement).max():.3f}")

# %%
# Every point in its final place, coloured by where it came from: the motion keeps neighbours together.

figure, axes = plt.subplots(1, 2, figsize=(7, 3.6), layout="constrained")
for ax, points, title in zip(axes, (x0, x), ("before", "after"), strict=True):
    ax.scatter(points[:, 0], points[:, 1], s=12, c=x0[:, 0], cmap="viridis")
    ax.set(title=title, xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=[], yticks=[])
plt.show()
