r"""
Cells that move and multiply
============================

A sample of cells now, another one later. Which became what, and which have multiplied? Cells are destroyed by being
measured, so that no cell is in both; an unbalanced plan couples the two populations, and its marginals are the growth.
The data lives in an AnnData object, as in scanpy and moscot.
"""

# %%
# Nuclei
# ------
#
# scikit-learn's table of breast cancer: 569 nuclei of cells, 30 measurements each, some of benign and some of malignant
# tissue. Half of them are the early sample. The late one has the other half of the malignant ones, but only a third of
# the other benign ones, so that we know by how much the share of each has grown. AnnData is not needed to build this
# page: any object with ``obsm`` and ``obs`` will do.

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import epsot

# sphinx_gallery_thumbnail_number = 3
rng = np.random.default_rng(0)
measured, benign = load_breast_cancer(return_X_y=True)
group = np.where(benign == 1, "benign", "malignant")
time = np.where(rng.random(len(group)) < 0.5, "early", "late")
kept = (time == "early") | (benign == 0) | (rng.random(len(group)) < 1 / 3)
measured, group, time = measured[kept], group[kept], time[kept]
coordinates = PCA(10, random_state=0).fit_transform(StandardScaler().fit_transform(measured))

try:
    from anndata import AnnData

    adata = AnnData(np.asarray(measured, dtype=np.float32), obs={"group": group, "time": time})
except ImportError:
    adata = SimpleNamespace(obs={"group": group, "time": time}, obsm={}, uns={})
adata.obsm["X_pca"] = coordinates
for when in ("early", "late"):
    print(when, {str(name): int(np.sum((group == name) & (time == when))) for name in np.unique(group)})

# %%
# A distance matrix of groups
# ---------------------------
#
# Each group is a cloud; all pairs are one call, and the root of twice a value is a length in the space of the principal
# components. With scanpy's ``pbmc68k_reduced()`` and its ``bulk_labels`` these lines make a table of ten types of blood
# cells.


def distances(adata, keys, blur):
    """Between all groups of cells that agree in the columns `keys`: their names, and the lengths (K, K)."""
    labels = np.array([", ".join(row) for row in zip(*(np.asarray(adata.obs[key]) for key in keys), strict=True)])
    names = np.unique(labels)
    clouds = [np.asarray(adata.obsm["X_pca"])[labels == name] for name in names]
    return names, np.sqrt(2 * np.maximum(epsot.pairwise(clouds, blur=blur).value, 0))


blur = 1.5  # of the cells of one group, the nearest is about two away
names, table = distances(adata, ("group", "time"), blur)
figure, ax = plt.subplots(figsize=(5.6, 4), layout="constrained")
image = ax.imshow(table, cmap="cividis")
for i, j in np.ndindex(table.shape):
    ax.text(j, i, f"{table[i, j]:.1f}", ha="center", va="center", color="black" if table[i, j] > 3.5 else "white")
ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names])
ax.set_yticks(range(len(names)), names)
figure.colorbar(image, label="length")
plt.show()

# %%
# Growth
# ------
#
# The source side gets a ``reach``, the target side none: each late cell comes from somewhere, and an early one may have
# many descendants, or few. The row sums of the plan, over the weights, are the growth. A balanced plan gives each early
# cell the same share of the late ones, and has to make malignant cells of benign ones.

early, late = (np.flatnonzero(np.asarray(adata.obs["time"]) == when) for when in ("early", "late"))
x, y = adata.obsm["X_pca"][early], adata.obsm["X_pca"][late]
kinds, kind = np.unique(np.asarray(adata.obs["group"]), return_inverse=True)
here, there = np.eye(len(kinds))[kind[early]], np.eye(len(kinds))[kind[late]]

plans = {
    "balanced": epsot.sinkhorn(x, y, blur=1.0).plan,
    "with growth": epsot.sinkhorn(x, y, blur=1.0, reach=(1.0, None)).plan,
}
figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
for ax, (name, plan) in zip(axes, plans.items(), strict=True):
    transition = here.T @ (plan @ there)  # mass from each kind to each kind
    shares = transition / transition.sum(axis=1, keepdims=True)
    ax.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    for i, j in np.ndindex(shares.shape):
        ax.text(j, i, f"{shares[i, j]:.0%}", ha="center", va="center", color="black" if shares[i, j] > 0.5 else "white")
    ax.set(title=name, xlabel="late")
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set_yticks(range(len(kinds)), kinds)
axes[0].set_ylabel("early")
plt.show()

growth = plans["with growth"].sum(axis=1) * len(x)  # of each early cell
truth = there.mean(axis=0) / here.mean(axis=0)
for k, name in enumerate(kinds):
    print(f"{name:9}: share grown by a factor of {growth[kind[early] == k].mean():.2f}, in truth {truth[k]:.2f}")

# %%
# Both are too near to one, because benign cells near the border have late malignant ones for neighbours; the direction
# is right, and no rate was given. Where rates are known they are the weights, ``a`` in proportion to them, and the
# plan is balanced.

# %%
# Back into AnnData, beside moscot
# --------------------------------
#
# The transitions as a sparse matrix, for CellRank and others, and the growth as a column. moscot's ``TemporalProblem``
# has other words for the same things. Its cost is the squared distance over its mean, s:
#
# =============================================  ==================================================
# moscot                                         epsot
# =============================================  ==================================================
# ``epsilon=e``                                  ``blur``, with blur\ :sup:`2` = e s / 2
# ``tau_a=t``, ``tau_b=1``                       ``reach=(r, None)``, r\ :sup:`2` = t blur\ :sup:`2` / (1 - t)
# ``push(v)``, ``pull(v)``                       ``plan.T @ v``, ``plan @ v``
# ``cell_transition(...)``                       ``here.T @ (plan @ there)``, as above
# ``sparsify("mass", value=0.9, max_k=30)``      ``plan.to_sparse(mass=0.9, max_per_row=30)``
# =============================================  ==================================================

plan = plans["with growth"]
transitions = plan.to_sparse(mass=0.9, max_per_row=30)
adata.uns["transitions"] = {"early": early, "late": late, "plan": transitions}
column = np.full(len(coordinates), np.nan)
column[early] = growth
adata.obs["growth"] = column
print(f"{transitions.nnz / len(x):.1f} entries a row carry {transitions.sum() / plan.sum():.0%} of the mass")

# %%
# All cells on the first two components, the early ones by their growth:

figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.scatter(*y[:, :2].T, s=10, color="0.8", label="late")
drawn = ax.scatter(*x[:, :2].T, s=14, c=growth, cmap="viridis", vmin=0, vmax=2, label="early")
ax.set(xlabel="first component", ylabel="second component")
ax.legend()
figure.colorbar(drawn, label="growth", extend="max")
plt.show()
