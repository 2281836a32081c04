r"""
Blur, reach, tol and scaling, by pictures
=========================================

Four numbers, and what each of them changes. ``blur`` is the one to choose; the others have defaults that suit most
problems.
"""

# %%
# A flower and a visitor
# ----------------------
#
# A flower of five leaves, and another one, turned a little. A small cluster, far away, has no partner.

import matplotlib.pyplot as plt
import numpy as np

import epsot

rng = np.random.default_rng(0)


def flower(n, turn, depth):
    """(n, 2)"""
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = (1 + depth * np.cos(5 * (angle - turn))) * (1 - 0.2 * rng.random(n))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


x = np.concatenate([flower(450, 0.0, 0.4), 0.1 * rng.normal(size=(50, 2)) + [-2.6, 0.9]])
y = flower(500, 0.35, 0.3) + [0.3, -0.2]


def panels(results, titles):
    """A picture for each result: the source where it was, its arrows, and the target."""
    _, axes = plt.subplots(1, len(results), figsize=(10, 2.7), layout="constrained", sharex=True, sharey=True)
    for ax, result, title in zip(axes, results, titles, strict=True):
        epsot.plot.samples(y, ax=ax, color=epsot.plot.TARGET, area=3500)
        epsot.plot.samples(x, ax=ax, area=3500, displacement=result.displacement, arrows=110)
        ax.set(title=title, xticks=[], yticks=[])


# %%
# blur: the detail to resolve
# ---------------------------
#
# At a blur beyond the diameter the arrows are one translation, from mean to mean. At one of the width of a leaf, leaves
# find leaves. Near the spacing of the points, each point finds some of its own, and work grows.

blurs = (4.0, 0.4, 0.04)
results = [epsot.sinkhorn_divergence(x, y, blur=blur) for blur in blurs]
for blur, r in zip(blurs, results, strict=True):
    print(f"blur {blur:4}: S = {float(r.value):.4f}, {r.nit} iterations")
panels(results, [f"blur = {blur}" for blur in blurs])
plt.show()

# %%
# The value settles as the blur falls: here it has three digits at a tenth of the diameter. Many blurs of one pair are
# one call.

fine = np.geomspace(0.04, 8, 30)
values = epsot.sinkhorn_divergence(x, y, blur=fine).value
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.semilogx(fine, values, "o-", ms=3, color="#0072B2")
ax.axvline(epsot.extent(x, y), color="0.5", ls="--", lw=0.8)
ax.text(epsot.extent(x, y) * 0.93, values.max(), "diameter", ha="right", va="top", color="0.4")
ax.set(xlabel="blur", ylabel="divergence", title="one pair of clouds at 30 blurs")
plt.show()

# %%
# reach: how far mass may travel
# ------------------------------
#
# By default all mass has to arrive, that of the far cluster as well. With a ``reach`` that is a length beyond which it
# is cheaper to lose mass here and to make it there. Somewhat more than the longest move that makes sense is right: the
# cluster hardly moves, and drags no leaf along. With too short a reach nothing moves far.

reaches = (None, 1.0, 0.1)
results = [epsot.sinkhorn_divergence(x, y, blur=0.05, reach=reach) for reach in reaches]
panels(results, ["reach = None: all of it", "reach = 1", "reach = 0.1"])
for reach, r in zip(reaches, results, strict=True):
    length = np.linalg.norm(r.displacement, axis=1)
    print(f"reach {reach}: leaves move by {length[:450].mean():.2f}, the cluster by {length[450:].mean():.2f}")
plt.show()

# %%
# tol: when to stop
# -----------------
#
# The marginal error to reach: the share of the mass that the plan still has in the wrong place. Errors of the value are
# of second order in it, so that a rough tolerance is enough for values; ``1e-6`` is for quasi-Newton methods and finite
# differences.

exact = float(epsot.sinkhorn(x, y, blur=0.1, tol=1e-11).value)
print("   tol  iterations  error of the value")
for tol in (1e-1, 1e-2, 1e-3, 1e-4, 1e-6):
    r = epsot.sinkhorn(x, y, blur=0.1, tol=tol)
    print(f"{tol:6.0e}  {r.nit:10}  {abs(float(r.value) / exact - 1):.0e}")

# %%
# scaling: how fast to cool
# -------------------------
#
# The solve goes from the diameter down to the blur, by this factor a step. With a tolerance it changes the time a
# little and the result not at all. With ``tol=None``, the classical algorithm, it decides how far from done the
# result is.

print("scaling        tol=1e-3              tol=None")
for scaling in (0.3, 0.5, 0.7, 0.9):
    until, once = (epsot.sinkhorn(x, y, blur=0.1, scaling=scaling, tol=tol) for tol in (1e-3, None))
    print(
        f"{scaling:7}  {until.nit:4} steps, error {until.marginal_error:.0e}"
        f"  {once.nit:4} steps, error {once.marginal_error:.0e}"
    )
