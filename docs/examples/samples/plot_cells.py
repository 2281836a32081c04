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
    ax.text(j, i, f"{table[i, j]:.1f}", ha="center", va="center", color="black" if table[i, j] > 3 else "white")
ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names])
ax.set_yticks(range(len(names)), names)
figure.colorbar(image, label="length")
plt.show()
