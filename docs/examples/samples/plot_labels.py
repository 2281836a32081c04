"""
Labels that travel with the plan
================================

Digits of one origin are labelled, those of another are not, and look different. The plan between the two clouds of
pictures carries the labels over: each new digit gets the mean label of its partners.
"""

# %%
# Digits, and a worse scanner
# ---------------------------
#
# Half of scikit-learn's 8 x 8 digits, with their labels, and the other half as a worse scanner would see them: out of
# focus, with less contrast, and with noise.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import epsot

# sphinx_gallery_thumbnail_number = 2
rng = np.random.default_rng(0)
pictures, kinds = load_digits(return_X_y=True)
pictures = pictures / 16
order = rng.permutation(len(pictures))
here, there = order[:900], order[900:]
x, labels = pictures[here], kinds[here]


def scanned(pictures):
    """The same digits by the other scanner.  (n, 64) -> (n, 64)"""
    seen = 0.25 + 0.7 * gaussian_filter(pictures.reshape(-1, 8, 8), (0, 1.1, 1.1))
    return (seen + rng.normal(0, 0.03, seen.shape)).reshape(-1, 64)


y, truth = scanned(pictures[there]), kinds[there]
figure, axes = plt.subplots(2, 10, figsize=(8, 1.9), layout="constrained")
for row, shown, name in ((axes[0], x, "labelled"), (axes[1], y, "not labelled")):
    for ax, picture in zip(row, shown[:10], strict=True):
        ax.imshow(picture.reshape(8, 8), cmap="Greys", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %%
# The plan
# --------
#
# A classifier that was trained here goes wrong there. Transport compares the clouds as wholes: every labelled digit has
# to be the partner of some, and none can be that of too many. Each cloud is centred and scaled before, which takes the
# contrast away, and not the focus.


def standard(z):
    """Centred, and of mean square one.  (n, d) -> (n, d)"""
    z = z - z.mean(axis=0)
    return z / np.sqrt(np.mean(np.sum(z**2, axis=1)))


u, v = standard(x), standard(y)
blurs = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
right = []
for blur in blurs:
    plan = epsot.sinkhorn(u, v, blur=blur, tol=1e-2).plan
    belief = plan.T.barycentric_map(np.eye(10)[labels])  # (897, 10), rows sum to 1
    right.append(np.mean(belief.argmax(axis=1) == truth))
neighbours = {
    "neighbours": KNeighborsClassifier(3).fit(x, labels).score(y, truth),
    "neighbours, standardised": KNeighborsClassifier(3).fit(u, labels).score(v, truth),
}
for name, score in neighbours.items():
    print(f"{name}: {score:.1%} right")
print(f"the plan: {max(right):.1%} right at a blur of {blurs[np.argmax(right)]}")

# %%
# The blur is in units of the spread of a cloud. A fine one lets each digit have about one partner; a coarser one takes
# the vote of several.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
axes[0].semilogx(blurs, right, "o-", color="#0072B2", label="the plan")
for (name, score), style in zip(neighbours.items(), (":", "--"), strict=True):
    axes[0].axhline(score, color="#D55E00", ls=style, label=name)
axes[0].set(xlabel="blur", ylabel="share that is right")
axes[0].set_xticks(blurs, blurs)
axes[0].minorticks_off()
axes[0].legend()

plan = epsot.sinkhorn(u, v, blur=0.2, tol=1e-2).plan
groups = np.eye(10)[labels].T @ (plan @ np.eye(10)[truth])  # mass from each kind to each kind
image = axes[1].imshow(groups / groups.sum(axis=1, keepdims=True), cmap="cividis", vmin=0, vmax=1)
axes[1].set(xlabel="kind there, which the plan does not know", ylabel="kind here", xticks=range(10), yticks=range(10))
figure.colorbar(image, ax=axes[1], label="share of the mass")
plt.show()
