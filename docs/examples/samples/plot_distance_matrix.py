r"""
A map of 200 digits
===================

Digits are drawn as clouds of ink, each of a size of its own, and :func:`epsot.pairwise` compares every one with every
other: 19 900 divergences in one call. The matrix then goes as it is to methods that know nothing of transport: the
nearest neighbour, a tree of clusters, and a map.
"""

# %%
# The digits
# ----------
#
# Twenty of each kind, from eight fonts, turned, slanted and stretched at random. A digit is the points of a raster that
# lie within its outline, about its centre: a list of arrays of different lengths.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

import epsot

KINDS, EACH = 10, 20
RASTER = 0.06  # of the height of a digit
FAMILIES = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
FONTS = [FontProperties(family=family, weight=weight) for family in FAMILIES for weight in ("normal", "bold")]
rng = np.random.default_rng(0)


def digit(kind):
    """Points of a digit of height 1, about its centre.  -> (n, 2)"""
    outline = TextPath((0, 0), str(kind), size=1, prop=FONTS[rng.integers(len(FONTS))])
    low, high = outline.vertices.min(axis=0), outline.vertices.max(axis=0)
    steps = np.arange(0, 1, RASTER)
    raster = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) + RASTER * rng.random(2)
    ink = raster[outline.contains_points(low + (high - low)[1] * raster)]
    turn, slant, width = rng.normal(0, [0.05, 0.08, 0.05])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = ink @ [[1 + width, 0.0], [slant, 1.0]] @ rotation
    return points - points.mean(axis=0)


kinds = np.repeat(np.arange(KINDS), EACH)
digits = [digit(kind) for kind in kinds]
print(f"{len(digits)} clouds of {min(map(len, digits))} to {max(map(len, digits))} points")

# %%
# All pairs
# ---------
#
# The blur is about the width of a stroke. ``value`` is symmetric with a zero diagonal; each entry is near half of a
# squared distance, so that the root of twice the entry is a length: how far ink moves, when one digit becomes the
# other.

found = epsot.pairwise(digits, blur=0.1)
print(found)
distances = np.sqrt(2 * found.value)
print(f"ink moves by {np.median(squareform(distances)):.2f} between two digits, in units of their height")

# %%
# How much of the kind does the distance know? For each digit we ask its nearest neighbour among the others.

others = distances + np.diag(np.full(len(digits), np.inf))
right = kinds[others.argmin(axis=1)] == kinds
print(f"{right.mean():.1%} of the nearest neighbours are of the same kind")

# %%
# Clusters
# --------
#
# SciPy's trees take the condensed form of the matrix. Most clusters hold one kind; kinds whose ink lies in the same
# places are together, 0 and 8, 3 and 5. The rows in the order of the leaves show the blocks.

tree = linkage(squareform(distances), method="ward", optimal_ordering=True)
clusters = fcluster(tree, KINDS, criterion="maxclust")
for cluster in range(1, clusters.max() + 1):
    members = np.bincount(kinds[clusters == cluster], minlength=KINDS)
    print(f"cluster {cluster}:", ", ".join(f"{n} x '{kind}'" for kind, n in enumerate(members) if n))

order = leaves_list(tree)
figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
image = ax.imshow(distances[np.ix_(order, order)], cmap="magma")
starts = np.flatnonzero(np.diff(kinds[order], prepend=-1))  # of runs of one kind
long = [k for k, n in zip(starts, np.diff(starts, append=len(order)), strict=True) if n >= 4]
middle = [k + (np.argmax(kinds[order][k:] != kinds[order][k]) or len(order) - k) / 2 for k in long]
ax.set_yticks(middle, [str(kinds[order][k]) for k in long])
ax.set(xticks=[], title="distances, in the order of the tree")
figure.colorbar(image, ax=ax, label="height of a digit")
plt.show()

# %%
# A map
# -----
#
# Classical scaling: the squares, centred, are products of vectors, of which the two longest axes make a map. Each
# digit is drawn by its own points, where it came to lie.

centring = np.eye(len(digits)) - 1 / len(digits)
strengths, axes = np.linalg.eigh(-centring @ found.value @ centring)
embedded = axes[:, :-3:-1] * np.sqrt(strengths[:-3:-1])  # (200, 2)

figure, ax = plt.subplots(figsize=(9, 9), layout="constrained")
size = 0.045 * np.ptp(embedded)
for place, points, kind in zip(embedded, digits, kinds, strict=True):
    ax.scatter(*(place + size * points).T, s=0.5, color=plt.cm.tab10(kind), linewidths=0)
ax.set(aspect="equal", xticks=[], yticks=[], title="200 digits by their Sinkhorn divergences")
plt.show()
