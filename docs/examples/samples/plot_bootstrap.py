"""
How sure is a distance?
=======================

A divergence of two samples is a number with an error: other samples would give another one. The bootstrap draws from
the samples themselves, with replacement. That only changes the *weights* of the points, so that all replicates are one
call over one support.
"""

# %%
# Three kinds of iris
# -------------------
#
# Is versicolor nearer to setosa or to virginica? All four measurements of scikit-learn's irises, in centimetres, fifty
# flowers of each.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

import epsot

rng = np.random.default_rng(0)
data = load_iris()
flowers = {str(name): data.data[data.target == k] for k, name in enumerate(data.target_names)}
setosa, versicolor, virginica = flowers.values()

# %%
# Replicates are weights
# ----------------------
#
# A replicate draws fifty flowers of fifty with replacement: a point that is drawn three times has the weight 3 / 50,
# and one that is not drawn has none, which is exact. The weights are (500, 50), the points (50, 4), and all replicates
# are solved at once.

REPLICATES, BLUR = 500, 0.5


def replicates(n):
    """Weights of bootstrap samples of n points.  -> (REPLICATES, n)"""
    return rng.multinomial(n, np.full(n, 1 / n), size=REPLICATES) / n


def lengths(x, y):
    """The length between two samples, and those of their replicates."""
    once = epsot.sinkhorn_divergence(x, y, blur=BLUR).value
    many = epsot.sinkhorn_divergence(x, y, replicates(len(x)), replicates(len(y)), blur=BLUR).value
    return np.sqrt(2 * float(once)), np.sqrt(2 * many)


pairs = {
    "setosa to versicolor": lengths(setosa, versicolor),
    "versicolor to virginica": lengths(versicolor, virginica),
    "setosa to virginica": lengths(setosa, virginica),
}
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (name, (length, many)), color in zip(pairs.items(), ("#0072B2", "#D55E00", "#009E73"), strict=True):
    low, high = np.quantile(many, [0.025, 0.975])
    print(f"{name}: {length:.2f} cm, 95 % of the replicates in [{low:.2f}, {high:.2f}], their mean {many.mean():.2f}")
    ax.hist(many, bins=25, color=color, alpha=0.7, label=name)
    ax.axvline(length, color=color, ls="--")
ax.set(xlabel="length, cm", ylabel="replicates", ylim=(0, 82))
ax.legend(loc="upper center", ncols=3)
plt.show()

# %%
# The intervals are far apart: the answer does not hang on the flowers that were picked. Whether two samples differ at
# all is another question, which has a test of its own: :ref:`sphx_glr_auto_examples_samples_plot_two_samples.py`.
