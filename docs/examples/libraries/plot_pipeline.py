"""
A step of a scikit-learn pipeline
=================================

A classifier was trained on the samples of one source, and those of another have moved.
:class:`epsot.sklearn.SinkhornTransport` moves them onto the old ones first. It is a transformer like any other: its
target is a parameter, and a grid search can choose its blur.
"""

# %%
# Where they were, and where they are
# -----------------------------------
#
# Two moons, and the same turned by 30 degrees, stretched, and moved. The labels of the second are used only to see how
# many are right.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from epsot.sklearn import SinkhornTransport

old, labels = make_moons(300, noise=0.1, random_state=0)
new, truth = make_moons(400, noise=0.1, random_state=1)
turn = np.deg2rad(30)
new = new @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] * [1.3, 1.1] + [0.8, -0.6]
train, test = new[:200], new[200:]

classifier = SVC().fit(old, labels)
print(f"as they are: {classifier.score(test, truth[200:]):.1%} right")
scaled = make_pipeline(StandardScaler(), SVC()).fit(old, labels)[-1]
print(
    f"standardised, each source by itself: {scaled.score(StandardScaler().fit(train).transform(test), truth[200:]):.1%}"
)

# %%
# Moved, with a blur from a search
# --------------------------------
#
# ``fit`` finds the map from the new samples to the target, and ``transform`` applies it to others. The score that the
# search goes by is how near the target samples come that were not used: no label is needed.

search = GridSearchCV(SinkhornTransport(old), {"blur": [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]}, cv=4).fit(train)
mover = search.best_estimator_
moved = mover.transform(test)
print(f"moved, with a blur of {mover.blur}: {classifier.score(moved, truth[200:]):.1%}")

# %%
# With the classifier behind it, it is one pipeline; the classifier is the one that was trained before. What is still
# wrong is at the ends of the moons: a turn is not the cheapest way from the one to the other, and transport takes the
# cheapest.

chain = make_pipeline(mover, classifier)
print(f"the pipeline: {chain.score(test, truth[200:]):.1%}")

figure, axes = plt.subplots(1, 3, figsize=(11, 2.7), layout="constrained", sharex=True, sharey=True)
u, v = np.meshgrid(np.linspace(-1.8, 3.9, 200), np.linspace(-1.5, 1.9, 150))
side = classifier.predict(np.stack([u, v], axis=-1).reshape(-1, 2)).reshape(u.shape)
for ax, points, kinds, title in (
    (axes[0], old, labels, "trained on"),
    (axes[1], test, truth[200:], "new samples"),
    (axes[2], moved, truth[200:], "new samples, moved"),
):
    ax.contourf(u, v, side, levels=[-0.5, 0.5, 1.5], colors=["#FBE3D6", "#D9E8F5"])
    for kind, color, marker in ((0, "#D55E00", "o"), (1, "#0072B2", "^")):
        ax.scatter(*points[kinds == kind].T, s=10, color=color, marker=marker, linewidths=0)
    ax.set(title=title, aspect="equal", xticks=[], yticks=[])
plt.show()
