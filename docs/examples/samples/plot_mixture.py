r"""
What a blend is made of
=======================

A sample is a mixture of known kinds: in which shares? Those for which the mixture of the kinds is nearest to it. The
divergence is convex in the weights, and its gradient in them is explicit, :math:`\partial S / \partial a_i = F_i`.
"""

# %%
# Wines, and a blend of them
# --------------------------
#
# scikit-learn's wines of three growers, 13 measurements each, in units of their standard deviations. Half of them are
# known; the other half went into a blend, in shares that we shall pretend not to know.

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.datasets import load_wine

import epsot

rng = np.random.default_rng(0)
table, grower = load_wine(return_X_y=True)
table = (table - table.mean(axis=0)) / table.std(axis=0)
known = rng.random(len(table)) < 0.5
x, kind = table[known], grower[known]
shares = np.array([0.6, 0.3, 0.1])
blend = np.concatenate([rng.choice(table[~known & (grower == k)], int(200 * share)) for k, share in enumerate(shares)])
members = np.eye(3)[kind] / np.bincount(kind)  # (n, 3): column k has the weights of kind k alone
print(f"{np.bincount(kind)} known wines, and {len(blend)} of the blend")

# %%
# The loss and its gradient
# -------------------------
#
# The weights are ``members @ t``, and t is the softmax of three numbers, so that shares are positive and their sum is
# one. The chain rule is two lines.


def loss(z, blur):
    """The divergence at the shares softmax(z), and its gradient in z."""
    t = softmax(z)
    result = epsot.sinkhorn_divergence(x, blend, members @ t, blur=blur, tol=1e-5)
    slope = members.T @ result.grad_a  # in the shares
    return float(result.value), t * (slope - t @ slope)


z, step = np.array([0.2, -0.1, 0.4]), 1e-4
difference = (loss(z + [step, 0, 0], 1.0)[0] - loss(z - [step, 0, 0], 1.0)[0]) / (2 * step)
print(f"by differences {difference:.6f}, by the formula {loss(z, 1.0)[1][0]:.6f}")

# %%
# The shares
# ----------
#
# A few steps of a quasi-Newton method. The shares come out right within a few hundredths, whatever the blur: as many as
# 27, 33 and 21 known wines can tell.

blurs = (0.3, 1.0, 2.0, 4.0, 8.0)
found = []
for blur in blurs:
    best = minimize(loss, np.zeros(3), args=(blur,), jac=True, method="BFGS", options={"gtol": 1e-4})
    found.append(softmax(best.x))
    print(f"blur {blur:3}: {found[-1].round(3)} after {best.nfev} solves")
found = np.array(found)

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
colors = ("#0072B2", "#D55E00", "#009E73")
for k, color in enumerate(colors):
    axes[0].scatter(*x[kind == k][:, [0, 9]].T, s=14, color=color, label=f"grower {k + 1}")
    axes[1].semilogx(blurs, found[:, k], "o-", color=color)
    axes[1].axhline(shares[k], color=color, ls=":")
axes[0].scatter(*blend[:, [0, 9]].T, s=14, facecolor="none", edgecolor="0.4", lw=0.6, label="blend")
axes[0].set(xlabel="alcohol", ylabel="colour", title="two of the 13 measurements")
axes[0].legend()
axes[1].set(xlabel="blur", ylabel="share", title="found, and the truth (dotted)", ylim=(0, 0.8))
axes[1].set_xticks(blurs, blurs)
axes[1].minorticks_off()
plt.show()
