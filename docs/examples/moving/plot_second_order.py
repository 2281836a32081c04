r"""
Registering shapes in a few Newton steps
========================================

Second derivatives of the divergence are as explicit as its gradient: ``result.hessian("x")`` is a linear operator, a
product with it costs about a solve. :class:`epsot.Objective` hands both to `scipy.optimize.minimize`, whose methods of
second order then need a handful of steps where L-BFGS, which has to learn the curvature, needs several times as many.

The task is a classic one: a shape was turned, stretched and sheared, and sampled anew. Which affine map leads back? It
has six parameters, and the loss is the divergence between the mapped points and those of the other shape.
"""

# %%
# Two samples of one outline. No point has a partner, and the second sample has more of them.

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import epsot

rng = np.random.default_rng(0)


def sample(n):
    """Points inside a lopsided star."""
    turn, size = 2 * np.pi * rng.random(n), np.sqrt(rng.random(n))
    outline = 0.5 + 0.18 * np.cos(5 * turn) + 0.1 * np.cos(2 * turn + 1)
    return (size * outline)[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)


x0 = sample(400)
y = sample(500) @ np.asarray([[1.2, -0.3], [0.45, 0.8]]) + [1.0, 0.3]

# %%
# The mapped points are :math:`J \theta`, linear in the six parameters :math:`\theta`. So the gradient in these is
# :math:`J^\top \nabla S`, and a product with their Hessian :math:`J^\top \nabla^2 S \, J p`. ``hessian_tol`` says how
# well the linear system behind a product is solved.

J = np.kron(np.concatenate([x0, np.ones((400, 1))], axis=1), np.eye(2))
start = np.asarray([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])  # nothing is moved


class Registration:
    """The loss of an affine map, and its values step by step."""

    def __init__(self):
        self.objective = epsot.Objective(y, blur=0.1, tol=1e-7, hessian_tol=1e-4)
        self.values = []

    def __call__(self, theta):
        value, gradient = self.objective(J @ theta)
        return value, J.T @ gradient

    def hessp(self, theta, p):
        return J.T @ self.objective.hessp(J @ theta, J @ p)

    def minimize(self, method, **options):
        self.values = [self(start)[0]]
        return minimize(
            self,
            start,
            jac=True,
            hessp=None if method == "L-BFGS-B" else self.hessp,
            method=method,
            callback=lambda theta: self.values.append(self(theta)[0]),
            options=options,
        )


second, first = Registration(), Registration()
newton = second.minimize("trust-ncg", gtol=1e-7, maxiter=15)
quasi = first.minimize("L-BFGS-B", gtol=1e-7, ftol=0.0, maxiter=100)
for name, found in (("second order", newton), ("first order", quasi)):
    print(f"{name}: {found.nit} steps, loss {found.fun:.9f}, largest slope {np.abs(found.jac).max():.0e}")

# %%
# Both find the map. The loss that is left is that of two samples of one shape.

moved = second.objective.variable(J @ newton.x)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.1), layout="constrained")
for ax, points, title in zip(axes, (x0, moved), ("before", f"after {newton.nit} steps"), strict=False):
    epsot.plot.samples(y, ax=ax, color=epsot.plot.TARGET, area=2000)
    epsot.plot.samples(points, ax=ax, color=epsot.plot.SOURCE, area=2000)
    ax.set(title=title, xlim=(-1.0, 2.1), ylim=(-1.1, 1.4), xticks=[], yticks=[])
plt.show()

# %%
# Near the minimum every step of second order squares the error: the number of right digits doubles. The first-order
# method gains about as many digits in every step.

best = min(second.values + first.values)
floor = 1e-15  # of rounding
figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
for values, label, color in (
    (first.values, "first order, L-BFGS", epsot.plot.TARGET),
    (second.values, "second order, trust-ncg", epsot.plot.SOURCE),
):
    ax.semilogy(np.maximum(np.asarray(values) - best, floor), "o-", ms=4, label=label, color=color)
ax.set(title="convergence", xlabel="step", ylabel="loss above the smallest", xticks=range(0, quasi.nit + 1, 3))
ax.legend()
plt.show()

# %%
# What a step costs: a product takes as long as a solve or less, at a rough ``hessian_tol``, and the solve of a place is
# used by all products there.

print(f"second order: {newton.nfev} solves and {newton.nhev} products; first order: {quasi.nfev} solves")

# %%
# The six second derivatives along the parameters are cheap as well, and say how sure the map is: columns of a matrix
# share their sweeps over the points.

hessian = J.T @ (second.objective.last.hessian("x", tol=1e-6) @ J)
print("curvatures", np.linalg.eigvalsh(hessian).round(3))
