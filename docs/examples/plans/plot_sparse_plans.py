"""
A plan without its matrix
=========================

The plan of two clouds of some 6000 points has 30 million entries. It is never stored: it multiplies vectors, names the
best partner of each point, draws samples, and gives its large entries as a sparse matrix.
"""

# %%
# A spiral and a ring
# -------------------

import matplotlib.pyplot as plt
import numpy as np

import epsot

N, M = 6_000, 5_000
rng = np.random.default_rng(0)


def spiral(n):
    """(n, 2)"""
    along = rng.random(n) ** 0.6
    angle = 4 * np.pi * along
    return along[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.03 * rng.normal(size=(n, 2))


def ring(n):
    """(n, 2)"""
    angle, radius = 2 * np.pi * rng.random(n), 0.8 + 0.04 * rng.normal(size=n)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + [2.4, 0.0]


x, y = spiral(N), ring(M)
plan = epsot.sinkhorn(x, y, blur=0.03, tol=1e-2).plan
print(plan)

# %%
# Like a matrix
# -------------
#
# Products run over the pairs and keep nothing of them. The mean target of each point is one of them, here of the angle
# on the ring; ``argmax`` is the target with the largest share.

height = plan.barycentric_map(y[:, 1])  # (N,)
partner = plan.argmax(axis=1)  # (N,)
print(f"(P 1)[0] = {(plan @ np.ones(M))[0] * N:.3f} / N, P[0, {partner[0]}] = {plan[0, partner[0]] * N:.4f} / N")

# %%
# Its large entries
# -----------------
#
# ``to_sparse`` keeps the fewest entries of each row that carry a share of its mass, and at most so many a row: a SciPy
# array in CSR format, built in blocks of rows. Values are those of the plan, not rescaled.

for mass, most in ((0.9, None), (0.99, None), (0.99, 50)):
    some = plan.to_sparse(mass=mass, max_per_row=most)
    share = some.nnz / (N * M)
    print(f"mass={mass}, max_per_row={most}: {share:.2%} of the entries, {some.sum() / plan.sum():.1%} of the mass")

# %%
# Samples of it
# -------------
#
# Pairs drawn with the probabilities of the plan. Independent ones may take a point twice; stratified ones take each
# point as often as its weight says, here each of the first cloud exactly once.

i, j = plan.sample(N, rng=rng)
k, m = plan.sample(N, rng=rng, mode="stratified")
print(f"independent: {len(np.unique(i))} of {N} points come up, stratified: {len(np.unique(k))}")

# %%
# In the picture a few of the stratified pairs, and all points in the colour of their mean height on the ring.

shown = rng.choice(N, size=150, replace=False)
figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
few = slice(None, None, 2)
ax.scatter(*x[few].T, s=2, c=height[few], cmap="viridis", linewidths=0)
ax.scatter(*y[few].T, s=2, c=y[few, 1], cmap="viridis", linewidths=0)
ends = np.stack([x[k[shown]], y[m[shown]]])  # (2, 150, 2)
ax.plot(ends[..., 0], ends[..., 1], color="0.3", lw=0.4, alpha=0.6)
ax.set(aspect="equal", title="150 pairs drawn from the plan")
ax.set_axis_off()
plt.show()
